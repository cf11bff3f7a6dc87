/*
 * CRC-32C: reflected polynomial 0x82F63B78, the register inverted on the way in and out (RFC 3720).
 *
 * Two ways, one result. The CPU's instruction (x86: SSE4.2, ARM: the CRC32 extension) takes 8 bytes at a time and is
 * asked for at run time, since a packaged build must also run where it is missing; the table takes one byte at a
 * time and runs anywhere. The instruction can begin every cycle but takes three, so of large data three parts are
 * summed side by side. Nothing here is written to after the program is loaded.
 */
#define _GNU_SOURCE
#include "crc32c.h"

#include <string.h>

#if defined(__x86_64__)
#include <nmmintrin.h>
#define CRC32C_TARGET __attribute__((target("sse4.2")))
#define CRC32C_BYTE(crc, byte) _mm_crc32_u8((crc), (byte))
#define CRC32C_WORD(crc, word) ((uint32_t)_mm_crc32_u64((crc), (word)))
#elif defined(__aarch64__) && __BYTE_ORDER__ == __ORDER_LITTLE_ENDIAN__
#include <arm_acle.h>
#include <asm/hwcap.h>
#include <sys/auxv.h>
#if defined(__ARM_FEATURE_CRC32)
#define CRC32C_TARGET
#else
#define CRC32C_TARGET __attribute__((target("+crc")))
#endif
#define CRC32C_BYTE(crc, byte) __crc32cb((crc), (byte))
#define CRC32C_WORD(crc, word) __crc32cd((crc), (word))
#endif

/*
 * The table, made by the compiler. A CRC is linear: the entry of a byte is the exclusive or of the entries of its
 * bits, so the eight one-bit entries define all 256.
 */
#define BIT(i, bit, entry) (((i) >> (bit)) & 1u ? (entry) : 0u)
#define ENTRY(i)                                                                                                       \
    (BIT(i, 0, 0xF26B8303u) ^ BIT(i, 1, 0xE13B70F7u) ^ BIT(i, 2, 0xC79A971Fu) ^ BIT(i, 3, 0x8AD958CFu) ^               \
     BIT(i, 4, 0x105EC76Fu) ^ BIT(i, 5, 0x20BD8EDEu) ^ BIT(i, 6, 0x417B1DBCu) ^ BIT(i, 7, 0x82F63B78u))
#define ENTRIES_4(i) ENTRY(i), ENTRY((i) + 1u), ENTRY((i) + 2u), ENTRY((i) + 3u)
#define ENTRIES_16(i) ENTRIES_4(i), ENTRIES_4((i) + 4u), ENTRIES_4((i) + 8u), ENTRIES_4((i) + 12u)
#define ENTRIES_64(i) ENTRIES_16(i), ENTRIES_16((i) + 16u), ENTRIES_16((i) + 32u), ENTRIES_16((i) + 48u)

static const uint32_t table[256] = {ENTRIES_64(0u), ENTRIES_64(64u), ENTRIES_64(128u), ENTRIES_64(192u)};

uint32_t crc32c_table(uint32_t crc, const void *data, size_t size)
{
    const uint8_t *byte = data;

    crc = ~crc;
    for (size_t i = 0; i < size; i++)
        crc = table[(crc ^ byte[i]) & 0xFFu] ^ (crc >> 8);
    return ~crc;
}

#if defined(CRC32C_TARGET)

bool crc32c_has_hardware(void)
{
#if defined(__x86_64__)
    return __builtin_cpu_supports("sse4.2");
#elif defined(__ARM_FEATURE_CRC32)
    return true;
#else
    return (getauxval(AT_HWCAP) & HWCAP_CRC32) != 0;
#endif
}

/* How much of each of the three parts, and what as many bytes of 0 do to a checksum before them: x^(8 * bytes). */
#define LONG_PART 16384u
#define AFTER_LONG_PART 0xBF455269u
#define SHORT_PART 2048u
#define AFTER_SHORT_PART 0x0D65762Au

/* The product of two polynomials modulo that of the CRC, reflected like everything here. */
static uint32_t multiply(uint32_t a, uint32_t b)
{
    uint32_t product = 0;

    for (uint32_t bit = UINT32_C(1) << 31; bit; bit >>= 1) {
        product ^= a & bit ? b : 0;
        b = b >> 1 ^ (b & 1 ? 0x82F63B78u : 0);
    }
    return product;
}

/* Three parts in a row, of so many bytes each: the register after them. */
CRC32C_TARGET static uint32_t three_parts(uint32_t crc, const uint8_t *byte, size_t part, uint32_t after_part)
{
    uint32_t second = 0, third = 0;

    for (size_t i = 0; i < part; i += 8) {
        uint64_t words[3];

        memcpy(&words[0], byte + i, 8);
        memcpy(&words[1], byte + part + i, 8);
        memcpy(&words[2], byte + 2 * part + i, 8);
        crc = CRC32C_WORD(crc, words[0]);
        second = CRC32C_WORD(second, words[1]);
        third = CRC32C_WORD(third, words[2]);
    }
    return multiply(multiply(crc, after_part) ^ second, after_part) ^ third;
}

CRC32C_TARGET uint32_t crc32c_hardware(uint32_t crc, const void *data, size_t size)
{
    const uint8_t *byte = data;
    uint64_t word;

    crc = ~crc;
    for (; size >= 3u * LONG_PART; size -= 3u * LONG_PART, byte += 3u * LONG_PART)
        crc = three_parts(crc, byte, LONG_PART, AFTER_LONG_PART);
    for (; size >= 3u * SHORT_PART; size -= 3u * SHORT_PART, byte += 3u * SHORT_PART)
        crc = three_parts(crc, byte, SHORT_PART, AFTER_SHORT_PART);
    for (; size >= sizeof word; size -= sizeof word, byte += sizeof word) {
        memcpy(&word, byte, sizeof word);
        crc = CRC32C_WORD(crc, word);
    }
    for (; size > 0; size--, byte++)
        crc = CRC32C_BYTE(crc, *byte);
    return ~crc;
}

#else

bool crc32c_has_hardware(void)
{
    return false;
}

uint32_t crc32c_hardware(uint32_t crc, const void *data, size_t size)
{
    return crc32c_table(crc, data, size);
}

#endif

uint32_t crc32c(uint32_t crc, const void *data, size_t size)
{
    return crc32c_has_hardware() ? crc32c_hardware(crc, data, size) : crc32c_table(crc, data, size);
}
