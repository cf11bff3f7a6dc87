/* Packets as bytes and back. The little msgpack that they need is here. */
#include "packets.h"

#include <string.h>

enum kind { NUMBER, TRUTH, TEXT, SECONDS, LIST };

struct field {
    uint16_t kind;
    uint16_t offset;
};

/* What an array of that tag has, in its order. The first `needed` must be there. */
struct form {
    uint8_t tag;
    uint8_t needed;
    uint8_t n_fields;
    struct field fields[8];
};

#define FIELD(kind, member) {kind, offsetof(struct packet, member)}

static const struct form forms[] = {
    {PACKET_OPEN, 3, 3, {FIELD(NUMBER, cid), FIELD(TEXT, name), FIELD(NUMBER, lane)}},
    {PACKET_MAPPED, 1, 2, {FIELD(NUMBER, number), FIELD(TEXT, text)}},
    {PACKET_CLOSED, 1, 2, {FIELD(NUMBER, number), FIELD(TEXT, text)}},
    {PACKET_PRESENT,
     6,
     7,
     {FIELD(NUMBER, number), FIELD(NUMBER, lane), FIELD(TRUTH, truth), FIELD(TEXT, name), FIELD(NUMBER, ring_bytes),
      FIELD(NUMBER, verdict_bytes), FIELD(NUMBER, pool_bytes)}},
    {PACKET_PINNED, 2, 3, {FIELD(NUMBER, lane), FIELD(TEXT, text), FIELD(TEXT, hint)}},
    {PACKET_IDLE, 2, 2, {FIELD(NUMBER, lane), FIELD(TRUTH, truth)}},
    {PACKET_MEASURED, 3, 3, {FIELD(NUMBER, lane), FIELD(NUMBER, taken), FIELD(LIST, list)}},
    {PACKET_SUBMITTED, 2, 2, {FIELD(NUMBER, lane), FIELD(LIST, list)}},
    {PACKET_LEASE, 2, 4, {FIELD(NUMBER, lane), FIELD(TRUTH, truth), FIELD(TEXT, hint), FIELD(LIST, list)}},
    {PACKET_KEPT, 3, 3, {FIELD(NUMBER, number), FIELD(NUMBER, taken), FIELD(SECONDS, seconds)}},
    {PACKET_LEASED, 2, 2, {FIELD(NUMBER, lane), FIELD(LIST, list)}},
    {PACKET_ATTACHED,
     2,
     5,
     {FIELD(LIST, list), FIELD(SECONDS, seconds), FIELD(TEXT, text), FIELD(NUMBER, async_bytes), FIELD(TRUTH, truth)}},
    {PACKET_GRANTED,
     7,
     8,
     {FIELD(NUMBER, cid), FIELD(NUMBER, number), FIELD(NUMBER, lane), FIELD(NUMBER, ring_bytes),
      FIELD(NUMBER, verdict_bytes), FIELD(TEXT, name), FIELD(TEXT, text), FIELD(NUMBER, pool_bytes)}},
    {PACKET_OFFERED,
     6,
     8,
     {FIELD(NUMBER, number), FIELD(NUMBER, lane), FIELD(NUMBER, ring_bytes), FIELD(NUMBER, verdict_bytes),
      FIELD(TEXT, name), FIELD(TEXT, text), FIELD(TRUTH, truth), FIELD(NUMBER, pool_bytes)}},
    {PACKET_REFUSED,
     3,
     5,
     {FIELD(NUMBER, cid), FIELD(TEXT, name), FIELD(TEXT, text), FIELD(TEXT, hint), FIELD(SECONDS, seconds)}},
    {PACKET_PAUSED, 2, 2, {FIELD(NUMBER, number), FIELD(TRUTH, truth)}},
};

static const struct form *form_of(uint64_t tag)
{
    for (size_t i = 0; i < sizeof forms / sizeof *forms; i++)
        if (forms[i].tag == tag)
            return &forms[i];
    return NULL;
}

/* Writing: `left` too small makes `failed`, and nothing more is written. */

struct out {
    uint8_t *at;
    size_t left;
    bool failed;
};

static void put(struct out *out, const void *bytes, size_t size)
{
    if (out->failed || size > out->left) {
        out->failed = true;
        return;
    }
    if (size)
        memcpy(out->at, bytes, size);
    out->at += size;
    out->left -= size;
}

/* A byte that says what follows, and a number of `size` bytes with the highest first. */
static void put_head(struct out *out, uint8_t head, uint64_t value, unsigned size)
{
    uint8_t bytes[9] = {head};

    for (unsigned i = 0; i < size; i++)
        bytes[1 + i] = (uint8_t)(value >> 8 * (size - 1 - i));
    put(out, bytes, 1 + size);
}

static void put_number(struct out *out, uint64_t value)
{
    if (value < 0x80)
        put_head(out, (uint8_t)value, 0, 0);
    else if (value <= UINT8_MAX)
        put_head(out, 0xcc, value, 1);
    else if (value <= UINT16_MAX)
        put_head(out, 0xcd, value, 2);
    else if (value <= UINT32_MAX)
        put_head(out, 0xce, value, 4);
    else
        put_head(out, 0xcf, value, 8);
}

static void put_text(struct out *out, const struct packet_text *text)
{
    if (text->size < 32)
        put_head(out, (uint8_t)(0xa0 | text->size), 0, 0);
    else if (text->size <= UINT8_MAX)
        put_head(out, 0xd9, text->size, 1);
    else
        put_head(out, 0xda, text->size, 2);
    out->failed = out->failed || text->size > UINT16_MAX;
    put(out, text->at, text->size);
}

static void put_seconds(struct out *out, double seconds)
{
    uint64_t bits;

    memcpy(&bits, &seconds, sizeof bits);
    if (seconds < 0)
        put_head(out, 0xc0, 0, 0);
    else
        put_head(out, 0xcb, bits, 8);
}

static void put_list(struct out *out, const struct packet *packet)
{
    if (packet->n_list < 16)
        put_head(out, (uint8_t)(0x90 | packet->n_list), 0, 0);
    else
        put_head(out, 0xdc, packet->n_list, 2);
    out->failed = out->failed || packet->n_list > PACKET_MAX_LIST;
    for (uint32_t i = 0; i < packet->n_list && !out->failed; i++)
        put_number(out, packet->list[i]);
}

static void put_field(struct out *out, const struct packet *packet, const struct field *field)
{
    const void *member = (const char *)packet + field->offset;

    switch ((enum kind)field->kind) {
    case NUMBER:
        put_number(out, *(const uint64_t *)member);
        break;
    case TRUTH:
        put_head(out, *(const bool *)member ? 0xc3 : 0xc2, 0, 0);
        break;
    case TEXT:
        put_text(out, member);
        break;
    case SECONDS:
        put_seconds(out, *(const double *)member);
        break;
    case LIST:
        put_list(out, packet);
        break;
    }
}

size_t packet_write(const struct packet *packet, uint8_t *bytes, size_t room)
{
    const struct form *form = form_of(packet->tag);
    struct out out = {.at = bytes, .left = room, .failed = !form};

    if (!form)
        return 0;
    put_head(&out, (uint8_t)(0x90 | (1 + form->n_fields)), 0, 0);
    put_number(&out, packet->tag);
    for (unsigned i = 0; i < form->n_fields; i++)
        put_field(&out, packet, &form->fields[i]);
    return out.failed ? 0 : room - out.left;
}

/* Reading: what is not there, or not of its kind, makes `failed`; then nothing that was read counts. */

struct in {
    const uint8_t *at;
    size_t left;
    bool failed;
};

static const uint8_t *take(struct in *in, uint64_t size)
{
    const uint8_t *found = in->at;

    if (in->failed || size > in->left) {
        in->failed = true;
        return NULL;
    }
    in->at += size;
    in->left -= (size_t)size;
    return found;
}

static uint64_t take_big_endian(struct in *in, unsigned size)
{
    const uint8_t *bytes = take(in, size);
    uint64_t value = 0;

    for (unsigned i = 0; bytes && i < size; i++)
        value = value << 8 | bytes[i];
    return value;
}

static uint8_t take_head(struct in *in)
{
    return (uint8_t)take_big_endian(in, 1);
}

static uint8_t head_of(const struct in *in)
{
    return in->left ? *in->at : 0xc1; /* msgpack has no such byte */
}

/* Not below 0, whatever width it was written in; nothing here is beyond 2^63 - 1. */
static uint64_t take_number(struct in *in)
{
    uint8_t head = take_head(in);
    uint64_t value = head;

    if (head >= 0xcc && head <= 0xcf)
        value = take_big_endian(in, 1u << (head - 0xcc));
    else if (head >= 0x80)
        in->failed = true;
    in->failed = in->failed || value > INT64_MAX;
    return value;
}

static struct packet_text take_text(struct in *in)
{
    uint8_t head = take_head(in);
    struct packet_text text = {.size = head & 31};

    if (head >= 0xd9 && head <= 0xdb)
        text.size = (uint32_t)take_big_endian(in, 1u << (head - 0xd9));
    else if ((head & 0xe0) != 0xa0)
        in->failed = true;
    text.at = (const char *)take(in, text.size);
    return text;
}

static uint32_t take_array(struct in *in)
{
    uint8_t head = take_head(in);

    if (head == 0xdc || head == 0xdd)
        return (uint32_t)take_big_endian(in, head == 0xdc ? 2 : 4);
    in->failed = in->failed || (head & 0xf0) != 0x90;
    return head & 15;
}

/* How long what follows one of the heads from 0xc0 to 0xdf is: so many bytes of a length, then so many more. */
static const struct {
    uint8_t length_bytes, more;
} heads[32] = {
    [0x04] = {1, 0}, [0x05] = {2, 0}, [0x06] = {4, 0},                                    /* bytes */
    [0x07] = {1, 1}, [0x08] = {2, 1}, [0x09] = {4, 1},                                    /* extensions */
    [0x0a] = {0, 4}, [0x0b] = {0, 8},                                                     /* floats */
    [0x0c] = {0, 1}, [0x0d] = {0, 2}, [0x0e] = {0, 4}, [0x0f] = {0, 8},                   /* numbers */
    [0x10] = {0, 1}, [0x11] = {0, 2}, [0x12] = {0, 4}, [0x13] = {0, 8},                   /* signed ones */
    [0x14] = {0, 2}, [0x15] = {0, 3}, [0x16] = {0, 5}, [0x17] = {0, 9}, [0x18] = {0, 17}, /* short extensions */
    [0x19] = {1, 0}, [0x1a] = {2, 0}, [0x1b] = {4, 0},                                    /* texts */
};

/* Go on behind `n` values of any kind. Each needs a byte at least, so this ends. */
static void skip(struct in *in, uint64_t n)
{
    while (n-- > 0 && !in->failed) {
        uint8_t head = take_head(in);

        if (head >= 0x80 && head < 0x90)
            n += 2u * (head & 15u);
        else if (head >= 0x90 && head < 0xa0)
            n += head & 15u;
        else if (head >= 0xa0 && head < 0xc0)
            take(in, head & 31u);
        else if (head == 0xc1)
            in->failed = true;
        else if (head >= 0xdc && head <= 0xdf)
            n += take_big_endian(in, head & 1 ? 4 : 2) * (head >= 0xde ? 2u : 1u);
        else if (head >= 0xc0 && head < 0xe0)
            take(in, take_big_endian(in, heads[head & 31].length_bytes) + heads[head & 31].more);
    }
}

static double take_seconds(struct in *in)
{
    uint8_t head = head_of(in);
    uint64_t bits;
    uint32_t short_bits;
    double seconds;
    float short_seconds;

    if (head == 0xcb) {
        take_head(in);
        bits = take_big_endian(in, 8);
        memcpy(&seconds, &bits, sizeof seconds);
        return seconds;
    }
    if (head == 0xca) {
        take_head(in);
        short_bits = (uint32_t)take_big_endian(in, 4);
        memcpy(&short_seconds, &short_bits, sizeof short_seconds);
        return (double)short_seconds;
    }
    if (head == 0xc0) {
        take_head(in);
        return -1;
    }
    return (double)take_number(in);
}

static void take_list(struct in *in, struct packet *packet)
{
    uint32_t n = take_array(in);

    for (uint32_t i = 0; i < n && !in->failed; i++) {
        uint64_t one = take_number(in);

        if (packet->n_list < PACKET_MAX_LIST)
            packet->list[packet->n_list++] = one;
    }
}

static bool take_truth(struct in *in)
{
    uint8_t head = take_head(in);

    in->failed = in->failed || (head != 0xc2 && head != 0xc3);
    return head == 0xc3;
}

static void take_field(struct in *in, struct packet *packet, const struct field *field)
{
    void *member = (char *)packet + field->offset;

    switch ((enum kind)field->kind) {
    case NUMBER:
        *(uint64_t *)member = take_number(in);
        break;
    case TRUTH:
        *(bool *)member = take_truth(in);
        break;
    case TEXT:
        *(struct packet_text *)member = take_text(in);
        break;
    case SECONDS:
        *(double *)member = take_seconds(in);
        break;
    case LIST:
        take_list(in, packet);
        break;
    }
}

bool packet_read(struct packet *packet, const uint8_t *bytes, size_t size)
{
    struct in in = {.at = bytes, .left = size};
    uint32_t n = take_array(&in);
    const struct form *form;

    *packet = (struct packet){.seconds = -1, .name.at = "", .text.at = "", .hint.at = ""};
    packet->tag = take_number(&in);
    form = form_of(packet->tag);
    if (in.failed || !form || n == 0 || --n < form->needed)
        return false;
    for (uint32_t i = 0; i < n && i < form->n_fields; i++)
        take_field(&in, packet, &form->fields[i]);
    if (n > form->n_fields) /* a later version's */
        skip(&in, n - form->n_fields);
    return !in.failed && in.left == 0;
}

bool packet_read_details(const uint8_t *bytes, size_t size, struct packet_text *sender, struct packet_text *provenance)
{
    struct in in = {.at = bytes, .left = size};
    uint32_t n = take_array(&in);

    *sender = *provenance = (struct packet_text){.at = "", .size = 0};
    if (n < 2)
        return false;
    skip(&in, 1);
    if (head_of(&in) == 0xc0)
        return false;
    *sender = take_text(&in);
    if (n > 2)
        *provenance = take_text(&in);
    if (in.failed)
        *sender = *provenance = (struct packet_text){.at = "", .size = 0};
    return !in.failed;
}
