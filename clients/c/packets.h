/*
 * What is said on the grants socket: msgpack arrays, as clients/PROTOCOL.md has them. SPDX-License-Identifier: MIT
 *
 * Reading believes nothing: every byte is looked for within the packet, and texts are pointers into it.
 */
#ifndef AGENTD_PACKETS_H
#define AGENTD_PACKETS_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#define PACKET_MAX_BYTES 8192u
#define PACKET_MAX_FDS 4
#define PACKET_TOKEN_BYTES 16u
#define PACKET_MAX_LIST 256u

enum packet_tag {
    PACKET_OPEN = 1,
    PACKET_MAPPED = 2,
    PACKET_CLOSED = 3,
    PACKET_PRESENT = 4,
    PACKET_PINNED = 5,
    PACKET_IDLE = 6,
    PACKET_MEASURED = 7,
    PACKET_SUBMITTED = 8,
    PACKET_LEASE = 9,
    PACKET_KEPT = 10,
    PACKET_ATTACHED = 20,
    PACKET_GRANTED = 21,
    PACKET_OFFERED = 22,
    PACKET_REFUSED = 23,
    PACKET_PAUSED = 24,
    PACKET_LEASED = 25,
};

/* A text in somebody else's memory; not terminated. */
struct packet_text {
    const char *at;
    uint32_t size;
};

/* One packet of any kind. Which of these it has, under which name of the protocol, stands in packets.c. */
struct packet {
    uint64_t tag; /* enum packet_tag */
    uint64_t cid;
    uint64_t number;
    uint64_t lane;
    uint64_t ring_bytes;
    uint64_t verdict_bytes;
    uint64_t pool_bytes;
    uint64_t async_bytes;
    uint64_t taken;          /* records; blocks */
    struct packet_text name; /* of the other agent; the code of a refusal */
    struct packet_text text; /* provenance, reason, message, cores */
    struct packet_text hint;
    double seconds; /* spin_us, retry_after, kept_s; negative: none */
    bool truth;     /* sends, reads, relays, on, wants, without_io_uring */
    uint32_t n_list;
    uint64_t list[PACKET_MAX_LIST]; /* cores, latencies, counts; what is beyond this is left out */
};

/* As bytes: how many, or 0 when there is no such packet or too little room. */
size_t packet_write(const struct packet *packet, uint8_t *bytes, size_t room);
/* False for what is no packet. */
bool packet_read(struct packet *packet, const uint8_t *bytes, size_t size);

/* A record's details as far as a relayed message needs them: [details, sender, provenance]. False: they say nothing. */
bool packet_read_details(const uint8_t *bytes, size_t size, struct packet_text *sender, struct packet_text *provenance);

#endif
