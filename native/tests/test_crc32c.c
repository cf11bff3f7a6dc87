/* Both ways to compute CRC-32C against the published vectors, against each other, and in pieces. */
#include "../crc32c.h"

#include <string.h>

#include "check.h"

typedef uint32_t crc32c_fn(uint32_t crc, const void *data, size_t size);

/* RFC 3720, B.4, and the check value of the CRC catalogue. */
static void test_vectors(crc32c_fn *compute)
{
    static const uint8_t iscsi_read[48] = {
        0x01, 0xC0, 0x00, 0x00, 0x00, 0x00, 0x00, 0x00, 0x00, 0x00, 0x00, 0x00, 0x00, 0x00, 0x00, 0x00,
        0x14, 0x00, 0x00, 0x00, 0x00, 0x00, 0x04, 0x00, 0x00, 0x00, 0x00, 0x14, 0x00, 0x00, 0x00, 0x18,
        0x28, 0x00, 0x00, 0x00, 0x00, 0x00, 0x00, 0x00, 0x02, 0x00, 0x00, 0x00, 0x00, 0x00, 0x00, 0x00,
    };
    uint8_t bytes[32];

    CHECK(compute(0, "", 0) == 0);
    CHECK(compute(0, "a", 1) == 0xC1D04330);
    CHECK(compute(0, "123456789", 9) == 0xE3069283);
    memset(bytes, 0x00, sizeof bytes);
    CHECK(compute(0, bytes, sizeof bytes) == 0x8A9136AA);
    memset(bytes, 0xFF, sizeof bytes);
    CHECK(compute(0, bytes, sizeof bytes) == 0x62A8AB43);
    for (size_t i = 0; i < sizeof bytes; i++)
        bytes[i] = (uint8_t)i;
    CHECK(compute(0, bytes, sizeof bytes) == 0x46DD794E);
    for (size_t i = 0; i < sizeof bytes; i++)
        bytes[i] = (uint8_t)(31 - i);
    CHECK(compute(0, bytes, sizeof bytes) == 0x113FDB5C);
    CHECK(compute(0, iscsi_read, sizeof iscsi_read) == 0xD9963A56);
}

/* Every cut of a text, at every alignment: the pieces give what the whole gives. */
static void test_pieces(crc32c_fn *compute)
{
    uint8_t bytes[64 + 8];

    for (size_t i = 0; i < sizeof bytes; i++)
        bytes[i] = (uint8_t)(i * 167 + 13);
    for (size_t start = 0; start < 8; start++) {
        uint32_t whole = compute(0, bytes + start, 64);

        for (size_t cut = 0; cut <= 64; cut++)
            CHECK(compute(compute(0, bytes + start, cut), bytes + start + cut, 64 - cut) == whole);
    }
}

static void test_same_result(void)
{
    uint8_t bytes[256];
    uint32_t crc = 0;

    for (size_t i = 0; i < sizeof bytes; i++)
        bytes[i] = (uint8_t)(i * 31 + 7);
    for (size_t size = 0; size <= sizeof bytes; size++) {
        CHECK(crc32c_hardware(crc, bytes, size) == crc32c_table(crc, bytes, size));
        crc = crc32c(crc, bytes, size);
    }
}

/* Large data is summed in parts side by side: around every size at which another way begins. */
static void test_large(void)
{
    static uint8_t bytes[(3u << 16) + 64];
    uint32_t noise = 1;

    for (size_t i = 0; i < sizeof bytes; i++) {
        noise = noise * 1664525u + 1013904223u;
        bytes[i] = (uint8_t)(noise >> 24);
    }
    for (size_t size = 6144; size <= 3u << 16; size *= 2) {
        for (size_t start = 0; start < 3; start++) {
            for (size_t more = 0; more < 2; more++) {
                size_t exact = size - 1 + more;

                CHECK(crc32c_hardware(7, bytes + start, exact) == crc32c_table(7, bytes + start, exact));
            }
        }
    }
}

int main(void)
{
    test_vectors(crc32c);
    test_vectors(crc32c_table);
    test_pieces(crc32c);
    test_pieces(crc32c_table);
    if (!crc32c_has_hardware()) {
        fprintf(stderr, "no CRC-32C instruction here: only the table was tested\n");
        return EXIT_SUCCESS;
    }
    test_vectors(crc32c_hardware);
    test_pieces(crc32c_hardware);
    test_same_result();
    test_large();
    return EXIT_SUCCESS;
}
