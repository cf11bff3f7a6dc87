/* Into rings, and what becomes of it. */
#define _GNU_SOURCE
#include "private.h"

#include <time.h>

_Static_assert((int)AGENTD_JSON == (int)RECORD_JSON, "the same numbers as in a record");
_Static_assert((int)AGENTD_REPLIED == (int)RECORD_REPLIED, "the same numbers as in a verdict");

/* How long a receiver that is said to be gone may take to show it, and how often that is looked at. */
enum { DOUBT_MS = 1000, LOOK_MS = 5 };

static int refusal(const struct agentd_channel *channel, int error, size_t size)
{
    switch (error) {
    case -EAGAIN:
        return failed(error, "%s's ring is full", channel->to);
    case -EBUSY:
        return failed(error, "%s is paused", channel->to);
    case -EMSGSIZE:
        return failed(error, "%zu bytes are over the %u that a ring's record takes", size, agentd_max_body(channel));
    case -ESTALE:
        return failed(error, "a child process can't use its parent's channels");
    case -EPROTO:
        return failed(error, "%s has broken its end of the channel", channel->to);
    default:
        return failed(error, "%s is gone", channel->to);
    }
}

static int may_send(const struct agentd_channel *channel)
{
    if (!pair_is_own(&channel->pair))
        return -ESTALE;
    return channel->link.ended ? -ESHUTDOWN : pair_peer(&channel->pair);
}

static int write_record(
    struct agentd_channel *channel, struct record_header header, uint64_t deadline_ns, const void *body, size_t size,
    uint64_t *position)
{
    struct ring_writer *ring = &channel->pair.sender.ring;
    uint32_t overhead = record_overhead(header.flags, 0);
    int error = may_send(channel);
    uint8_t *room;
    uint64_t at;

    if (!error && size > RING_MAX_CAPACITY)
        error = -EMSGSIZE;
    if (!error)
        error = ring_claim(ring, overhead + (uint32_t)size, &room);
    if (error)
        return refusal(channel, error, size);
    header.sent_ns = (uint64_t)clock_ns(CLOCK_REALTIME);
    room = record_write(room, &header, deadline_ns, "");
    if (size)
        memcpy(room, body, size);
    at = ring_commit(ring, overhead + (uint32_t)size);
    if (position)
        *position = at;
    if (pair_publish(&channel->pair))
        ring_bell(&channel->link);
    return 0;
}

uint32_t agentd_max_body(const struct agentd_channel *channel)
{
    return ring_max_size(channel->pair.shape.ring_capacity - 1) - (uint32_t)sizeof(struct record_header);
}

int agentd_send(
    struct agentd_channel *channel, enum agentd_content content, const void *body, size_t size, uint64_t *position)
{
    if ((unsigned)content >= RECORD_N_CONTENTS)
        return failed(-EINVAL, "no such content");
    return write_record(channel, (struct record_header){.content = (uint8_t)content}, 0, body, size, position);
}

int agentd_ask(
    struct agentd_channel *channel, const struct agentd_asking *how, const void *body, size_t size, uint64_t *position)
{
    struct record_header header = {.content = (uint8_t)how->content, .flags = RECORD_ASKED};
    uint64_t deadline_ns = 0, at;
    int error;

    if ((unsigned)how->content >= RECORD_N_CONTENTS || how->ttl_ns < 0)
        return failed(-EINVAL, "no such content, or a time that is over");
    if (channel->n_asked >= channel->max_asked)
        return failed(-EAGAIN, "%u messages wait for %s to finish them", channel->n_asked, channel->to);
    if (how->request)
        header.flags |= RECORD_REQUEST;
    if (how->ttl_ns) {
        header.flags |= RECORD_DEADLINE;
        deadline_ns = (uint64_t)(clock_ns(CLOCK_BOOTTIME) + how->ttl_ns);
    }
    error = write_record(channel, header, deadline_ns, body, size, &at);
    if (error)
        return error;
    channel->asked[channel->n_asked++] = (struct asked){.position = at};
    if (position)
        *position = at;
    return 0;
}

bool agentd_is_delivered(const struct agentd_channel *channel, uint64_t position)
{
    return pair_is_own(&channel->pair) && pair_is_delivered(&channel->pair, position);
}

void agentd_id_text(const struct agentd_channel *channel, uint64_t position, char text[14])
{
    uint64_t id = record_id(channel->pair.shape.number, position);

    for (int i = 0; i < 13; i++, id >>= 5)
        text[i] = "abcdefghijklmnopqrstuvwxyz234567"[id & 31];
    text[13] = '\0';
}

void agentd_close(struct agentd_channel *channel)
{
    let_go_of_channel(channel, "the sender has left");
}

/* Verdicts. */

/* Which one that is about; NULL where nothing was asked, whatever the receiver says. */
static struct asked *asked_at(struct agentd_channel *channel, uint64_t position)
{
    for (uint32_t i = 0; i < channel->n_asked; i++)
        if (channel->asked[i].position == position)
            return &channel->asked[i];
    return NULL;
}

static void forget(struct agentd_channel *channel, struct asked *asked)
{
    uint32_t behind = channel->n_asked - (uint32_t)(asked - channel->asked) - 1;

    memmove(asked, asked + 1, behind * sizeof *asked);
    channel->n_asked--;
}

/* The next one in the ring, copied: 1, 0 or -EPROTO. Those that say nothing new are passed over. */
static int hear_verdict(struct agentd_channel *channel, struct agentd_verdict *verdict)
{
    struct ring_reader *ring = &channel->pair.sender.verdicts;
    struct record_verdict head;
    const uint8_t *bytes;
    uint32_t size;
    int found;

    while ((found = ring_peek(ring, &bytes, &size)) == 1) {
        struct asked *asked;

        if (size < sizeof head)
            return -EPROTO;
        memcpy(&head, bytes, sizeof head);
        size -= (uint32_t)sizeof head;
        memcpy(channel->copy, bytes + sizeof head, size);
        channel->copy[size] = '\0';
        ring_next(ring, size + (uint32_t)sizeof head);
        ring_release(ring);
        asked = asked_at(channel, head.position);
        /* Nothing is ended by what is said of a file on its way, and this client sends none. */
        if (!asked || head.state == 0 || head.state > RECORD_REPLIED || head.content >= RECORD_N_CONTENTS)
            continue;
        forget(channel, asked);
        *verdict = (struct agentd_verdict){
            .position = head.position,
            .state = (enum agentd_state)head.state,
            .content = (enum agentd_content)head.content,
            .body = channel->copy,
            .size = size,
        };
        return 1;
    }
    return found;
}

/* Whether nobody reads there any more. That agentd calls a pair over does not say so: a stopped one may read on. */
static bool has_left(const struct agentd_channel *channel)
{
    return channel->link.process_ended || pair_peer(&channel->pair) == -ESHUTDOWN;
}

/* A receiver that is said to be gone closes its end, or its process ends: give it a moment, once. */
static void wait_for_certainty(struct agentd_channel *channel)
{
    int64_t until = clock_ns(CLOCK_MONOTONIC) + (int64_t)DOUBT_MS * 1000000;

    while (!channel->doubted && channel->n_asked && !has_left(channel) && clock_ns(CLOCK_MONOTONIC) < until)
        if (process(channel->agent, LOOK_MS))
            break;
    channel->doubted = true;
}

/* The receiver is gone: what can be known of the oldest that there is no verdict on. */
static int conclude(struct agentd_channel *channel, struct agentd_verdict *verdict)
{
    bool left = has_left(channel), delivered; /* in this order */

    if (channel->n_asked == 0)
        return failed(-ESHUTDOWN, "%s is gone", channel->to);
    *verdict = (struct agentd_verdict){.position = channel->asked[0].position, .content = AGENTD_TEXT};
    delivered = agentd_is_delivered(channel, verdict->position);
    verdict->state = left && !delivered ? AGENTD_DEAD : AGENTD_UNKNOWN;
    verdict->body = delivered ? "it is gone; whether it was done is unknown"
                    : left    ? "it is gone, and it had not taken it"
                              : "it had not taken it, and may still";
    verdict->size = strlen(verdict->body);
    forget(channel, channel->asked);
    return 1;
}

int agentd_verdict(struct agentd_channel *channel, int timeout_ms, struct agentd_verdict *verdict)
{
    int64_t until = until_ns(timeout_ms);
    int found, error;

    if (!pair_is_own(&channel->pair))
        return refusal(channel, -ESTALE, 0);
    for (;;) {
        /* In this order: what the receiver said last is read first. */
        bool over = channel->link.ended || pair_peer(&channel->pair) == -ESHUTDOWN;

        found = hear_verdict(channel, verdict);
        if (found == 0 && !over) {
            pair_arm(&channel->pair);
            found = hear_verdict(channel, verdict);
            error = found || pair_peer(&channel->pair) == -ESHUTDOWN ? 0 : process(channel->agent, left_ms(until));
            pair_disarm(&channel->pair);
            if (error)
                return error;
        }
        if (found < 0)
            channel->link.ended = true; /* who writes such things is no receiver */
        if (found > 0)
            return 1;
        if (over || found < 0) {
            wait_for_certainty(channel);
            return found == 0 && hear_verdict(channel, verdict) > 0 ? 1 : conclude(channel, verdict);
        }
        if (clock_ns(CLOCK_MONOTONIC) >= until)
            return hear_verdict(channel, verdict) > 0;
    }
}
