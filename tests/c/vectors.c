/*
 * What the C client and the core make of clients/vectors: a question a line on stdin, an answer a line on stdout.
 * SPDX-License-Identifier: MIT
 */
#include <inttypes.h>
#include <stdio.h>
#include <stdlib.h>
#include <unistd.h>

#include "../../clients/c/lines.h"
#include "../../clients/c/packets.h"
#include "../../native/pair.h"
#include "../../native/record.h"

static char words[8][32768];
static int n_words;

static struct ring_writer writer;
static struct ring_reader reader;
static _Alignas(64) uint8_t data[1 << 16];
static _Atomic uint64_t reader_position;

static uint64_t number(int i)
{
    return strtoull(words[i], NULL, 10);
}

/* The bytes of a word that begins with x; in memory of just that size, so that a stray read is seen. */
static uint8_t *bytes_of(int i, size_t *size)
{
    const char *hex = words[i] + 1;
    uint8_t *bytes;

    *size = strlen(hex) / 2;
    bytes = malloc(*size ? *size : 1);
    for (size_t at = 0; at < *size; at++) {
        char pair[3] = {hex[2 * at], hex[2 * at + 1]};

        bytes[at] = (uint8_t)strtoul(pair, NULL, 16);
    }
    return bytes;
}

static void show(const void *bytes, size_t size)
{
    putchar('x');
    for (size_t i = 0; i < size; i++)
        printf("%02x", ((const uint8_t *)bytes)[i]);
}

static void read_record(void)
{
    struct record record;
    size_t size;
    uint8_t *bytes = bytes_of(1, &size);

    if (record_parse(bytes, (uint32_t)size, &record)) {
        printf(
            "%u %u %" PRIu64 " %" PRIu64 " ", record.header.content, record.header.flags, record.header.sent_ns,
            record.deadline_ns);
        show(record.details, record.header.details_bytes);
        putchar(' ');
        show(record.body, record.body_bytes);
        if (record.header.flags & RECORD_POOLED)
            printf(
                " %" PRIu32 " %" PRIu64 " %" PRIu64 " %" PRIu64, record.reference.slot, record.reference.generation,
                record.reference.offset, record.reference.size);
    } else {
        printf("refused");
    }
    free(bytes);
}

static void write_record(void)
{
    size_t details_bytes, body_bytes;
    uint8_t *details = bytes_of(5, &details_bytes), *body = bytes_of(6, &body_bytes), room[4096], *end;
    struct record_header header = {
        .content = (uint8_t)number(1),
        .flags = (uint8_t)number(2),
        .details_bytes = (uint16_t)details_bytes,
        .sent_ns = number(3),
    };

    end = record_write(room, &header, number(4), details);
    memcpy(end, body, body_bytes);
    show(room, record_overhead(header.flags, header.details_bytes) + body_bytes);
    free(details);
    free(body);
}

static void read_verdict(void)
{
    struct record_verdict verdict;
    size_t size;
    uint8_t *bytes = bytes_of(1, &size);

    memcpy(&verdict, bytes, sizeof verdict);
    printf("%" PRIu64 " %u %u ", verdict.position, verdict.state, verdict.content);
    show(bytes + sizeof verdict, size - sizeof verdict);
    free(bytes);
}

static void read_packet(void)
{
    struct packet packet;
    uint8_t written[PACKET_MAX_BYTES];
    size_t size;
    uint8_t *bytes = bytes_of(1, &size);

    if (packet_read(&packet, bytes, size)) {
        printf(
            "%" PRIu64 " %" PRIu64 " %" PRIu64 " %" PRIu64 " %" PRIu64 " %" PRIu64 " %" PRIu64 " %d %.6f ", packet.tag,
            packet.cid, packet.number, packet.lane, packet.ring_bytes, packet.verdict_bytes, packet.taken, packet.truth,
            packet.seconds);
        show(packet.name.at, packet.name.size);
        putchar(' ');
        show(packet.text.at, packet.text.size);
        putchar(' ');
        show(packet.hint.at, packet.hint.size);
        putchar(' ');
        for (uint32_t i = 0; i < packet.n_list; i++)
            printf("%s%" PRIu64, i ? "," : "", packet.list[i]);
        printf(" %" PRIu64 " %" PRIu64 "; ", packet.pool_bytes, packet.async_bytes);
        show(written, packet_write(&packet, written, sizeof written));
    } else {
        printf("refused");
    }
    free(bytes);
}

static void read_details(void)
{
    struct packet_text sender, provenance;
    size_t size;
    uint8_t *bytes = bytes_of(1, &size);
    bool named = packet_read_details(bytes, size, &sender, &provenance);

    printf("%d ", named);
    show(sender.at, sender.size);
    putchar(' ');
    show(provenance.at, provenance.size);
    free(bytes);
}

static void make_header(void)
{
    struct pair_shape shape = {
        .lane = (enum pair_lane)number(1),
        .number = number(2),
        .ring_capacity = number(3),
        .verdict_capacity = number(4),
        .pool_capacity = number(5),
    };
    struct pair_header header;
    int fd, error = pair_create(&shape, false, &fd);

    if (error) {
        printf("error %d", error);
        return;
    }
    if (pread(fd, &header, sizeof header, 0) != sizeof header)
        exit(EXIT_FAILURE);
    printf("%" PRIu64 " ", pair_total_bytes(&shape));
    show(&header, header.header_bytes);
    close(fd);
}

static void ring_new(void)
{
    uint64_t position = n_words > 2 ? number(2) : 0;

    memset(data, 0, sizeof data);
    atomic_store(&reader_position, position);
    printf(
        "%d %d", ring_open_writer(&writer, data, number(1), &reader_position, position),
        ring_open_reader(&reader, data, number(1), &reader_position, position));
}

static void ring_put(void)
{
    uint8_t body[4096];
    uint64_t position = 0;
    int error;

    memset(body, 0xa5, sizeof body); /* nothing that a word could be taken from */
    error = ring_write(&writer, body, (uint32_t)number(1), &position);
    if (error == 0)
        printf("%" PRIu64, position);
    else
        printf("%s", error == -EAGAIN ? "full" : error == -EMSGSIZE ? "too_large" : "broken");
}

static void ring_take(void)
{
    const uint8_t *body;
    uint32_t size;
    uint64_t taken = 0;

    for (; taken < number(1) && ring_peek(&reader, &body, &size) == 1; taken++)
        ring_next(&reader, size);
    ring_release(&reader);
    printf("%" PRIu64, taken);
}

static void ring_look(void)
{
    const uint8_t *body;
    uint32_t found_bytes;
    size_t size;
    uint8_t *bytes = bytes_of(1, &size);
    int found;

    memcpy(data + (reader.position & reader.mask), bytes, size);
    found = ring_peek(&reader, &body, &found_bytes);
    printf("%d", found < 0 ? -1 : found);
    free(bytes);
}

/* The rest of the line is JSON, which has blanks. */
static void find_text(const char *json)
{
    char text[4096];

    if (line_text(json, words[1], text, sizeof text))
        show(text, strlen(text));
    else
        printf("none");
}

static void answer(const char *json)
{
    const char *question = words[0];

    if (strcmp(question, "record") == 0)
        read_record();
    else if (strcmp(question, "write-record") == 0)
        write_record();
    else if (strcmp(question, "verdict") == 0)
        read_verdict();
    else if (strcmp(question, "id") == 0)
        printf("%" PRIu64, record_id(number(1), number(2)));
    else if (strcmp(question, "packet") == 0)
        read_packet();
    else if (strcmp(question, "details") == 0)
        read_details();
    else if (strcmp(question, "header") == 0)
        make_header();
    else if (strcmp(question, "ring") == 0)
        ring_new();
    else if (strcmp(question, "write") == 0)
        ring_put();
    else if (strcmp(question, "take") == 0)
        ring_take();
    else if (strcmp(question, "look") == 0)
        ring_look();
    else if (strcmp(question, "word") == 0)
        show(data + number(1), 8);
    else if (strcmp(question, "text") == 0)
        find_text(json);
    else
        printf("no such question");
}

int main(void)
{
    static char line[65536];

    while (fgets(line, sizeof line, stdin)) {
        char *at = line, *json = line;

        line[strcspn(line, "\n")] = '\0';
        for (n_words = 0; n_words < 8 && *at; n_words++) {
            size_t length = strcspn(at, " ");

            snprintf(words[n_words], sizeof words[0], "%.*s", (int)length, at);
            at += length;
            at += *at == ' ';
            if (n_words == 1)
                json = at;
        }
        answer(json);
        putchar('\n');
        fflush(stdout);
    }
    return EXIT_SUCCESS;
}
