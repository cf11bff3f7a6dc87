/* Out of rings: waiting for messages, and saying what became of them. */
#define _GNU_SOURCE
#include "private.h"

#include <stdio.h>
#include <stdlib.h>
#include <time.h>

enum {
    SCANS_A_LOOK = 64,     /* between two looks at the clock */
    MESSAGES_A_LOOK = 256, /* between two looks at what else there is, while mail never ends */
};

static void relax(void)
{
#if defined(__x86_64__) || defined(__i386__)
    __builtin_ia32_pause();
#elif defined(__aarch64__)
    __asm__ volatile("yield");
#endif
}

static struct incoming *incoming_of(struct mailbox_entry *entry)
{
    return (struct incoming *)(void *)entry; /* it begins with it */
}

/* What it takes of a verdict ring that the other end reads: 0, or as ring_claim(). */
static int settle(
    struct incoming *incoming, uint64_t position, enum record_state state, uint8_t content, const void *payload,
    size_t size)
{
    struct record_verdict verdict = {.position = position, .state = (uint8_t)state, .content = content};
    struct ring_writer *ring = &incoming->entry.pair.receiver.verdicts;
    uint32_t whole = (uint32_t)(sizeof verdict + size);
    uint8_t *room;
    int error = 0;

    if (incoming->link.ended)
        return -ESHUTDOWN;
    if (size > ring_max_size(ring->mask) - sizeof verdict)
        return -EMSGSIZE;
    if (state == RECORD_REPLIED) /* half of it is kept for the verdicts on all that may be asked about */
        error = ring_find_room(ring, ring->position + 2 * ring_record_bytes(whole) + (ring->mask + 1) / 2);
    if (!error)
        error = ring_claim(ring, whole, &room);
    if (error)
        return error;
    memcpy(room, &verdict, sizeof verdict);
    if (size)
        memcpy(room + sizeof verdict, payload, size);
    ring_commit(ring, whole);
    if (pair_publish(&incoming->entry.pair))
        ring_bell(&incoming->link);
    return 0;
}

/* A text that came over the wire, as one of ours. */
static const char *named(char room[1024], struct packet_text text)
{
    size_t size = text.size < 1023 ? text.size : 1023;

    memcpy(room, text.at, size);
    room[size] = '\0';
    return room;
}

/* One record becomes a message of our own memory: 0 or -ENOMEM. From then on it is delivered. */
static int copy_out(
    struct agentd *agent, const struct incoming *incoming, const struct record *record, uint64_t position,
    struct agentd_message *message)
{
    size_t details_bytes = record->header.details_bytes, size = record->body_bytes;
    struct packet_text sender, provenance;

    if (size + details_bytes + 1 > agent->copy_bytes) {
        uint8_t *larger = realloc(agent->copy, size + details_bytes + 1);

        if (!larger)
            return failed(-ENOMEM, "no memory for a message of %zu bytes", size);
        agent->copy = larger;
        agent->copy_bytes = size + details_bytes + 1;
    }
    memcpy(agent->copy, record->body, size);
    agent->copy[size] = '\0';
    *message = (struct agentd_message){
        .id = record_id(incoming->entry.pair.shape.number, position),
        .sender = incoming->sender,
        .provenance = incoming->provenance,
        .content = (enum agentd_content)record->header.content,
        .wants_reply = record->header.flags & RECORD_REQUEST,
        .sent_ns = record->header.sent_ns,
        .body = agent->copy,
        .size = size,
        .pair = incoming->entry.pair.shape.number,
        .position = position,
        .asked = record->header.flags & RECORD_ASKED,
    };
    if (!incoming->relays || details_bytes == 0)
        return 0;
    /* agentd wrote it, for somebody whom it names. Of another sender such a claim counts nothing. */
    memcpy(agent->copy + size + 1, record->details, details_bytes);
    if (packet_read_details(agent->copy + size + 1, details_bytes, &sender, &provenance)) {
        message->sender = named(agent->named[0], sender);
        message->provenance = named(agent->named[1], provenance);
    }
    return 0;
}

static void heed_stop(struct agentd *agent, const struct agentd_message *message)
{
    agent->asked_to_stop = true;
    snprintf(
        agent->stop_why, sizeof agent->stop_why, "%.200s asks to stop: %.200s", message->sender,
        (const char *)message->body);
}

/* The next message for the application: 1, 0, or -errno. */
static int take(struct agentd *agent, struct agentd_message *message)
{
    struct mailbox_entry *entry = NULL;
    const uint8_t *bytes;
    struct record record = {0};
    uint32_t size;
    int found, error;

    while ((found = mailbox_peek(&agent->mailbox, &entry, &bytes, &size)) != 0) {
        struct incoming *incoming = incoming_of(entry);
        uint64_t position = entry->pair.receiver.ring.position;

        if (found < 0 || !record_parse(bytes, size, &record) ||
            (record.header.flags & RECORD_POOLED && !pool_find(&entry->pair, &record))) {
            let_go_of_incoming(incoming, agent, "it wrote what is no record");
            continue;
        }
        error = copy_out(agent, incoming, &record, position, message);
        if (error)
            return error; /* it comes again */
        if (record.header.flags & RECORD_POOLED)
            pool_return(&entry->pair, &record.reference);
        mailbox_next(&agent->mailbox, entry, size);
        mailbox_take(entry);
        if (record.deadline_ns && (uint64_t)clock_ns(CLOCK_BOOTTIME) >= record.deadline_ns) {
            if (message->asked)
                settle(incoming, position, RECORD_EXPIRED, 0, NULL, 0);
        } else if (record.header.flags & RECORD_STOP) {
            heed_stop(agent, message);
            return 0;
        } else {
            return 1;
        }
    }
    return 0;
}

static bool something_there(struct agentd *agent)
{
    struct mailbox_entry *entry;
    const uint8_t *bytes;
    uint32_t size;

    return mailbox_peek(&agent->mailbox, &entry, &bytes, &size) != 0;
}

static bool look(struct agentd *agent, int64_t until)
{
    do {
        for (int i = 0; i < SCANS_A_LOOK; i++) {
            if (something_there(agent))
                return true;
            relax();
        }
    } while (clock_ns(CLOCK_MONOTONIC) < until);
    return false;
}

/* Look for as long as the daemon said that it pays, and while it does. */
static bool look_before_sleep(struct agentd *agent, int64_t until)
{
    int64_t enough;
    bool found;

    if (agent->spin_ns == 0 || !looking_pays(&agent->looking))
        return false;
    enough = clock_ns(CLOCK_MONOTONIC) + agent->spin_ns;
    found = look(agent, enough < until ? enough : until);
    if (found || enough <= until) /* else it was too short to say anything */
        looking_ended(&agent->looking, found);
    return found;
}

bool agentd_may_sleep(struct agentd *agent)
{
    sweep(agent);
    mailbox_arm(&agent->mailbox);
    for (struct agentd_channel *channel = agent->channels; channel; channel = channel->next)
        pair_set_armed(&channel->pair);
    pair_armed();
    for (struct agentd_channel *channel = agent->channels; channel; channel = channel->next) {
        const uint8_t *bytes;
        uint32_t size;

        if (ring_peek(&channel->pair.sender.verdicts, &bytes, &size) != 0)
            return false;
    }
    return !something_there(agent) && !agent->asked_to_stop && !agent->lost;
}

/* Sleep until a doorbell rings. Verdicts are no reason to wake up here. */
static int sleep_for_mail(struct agentd *agent, int64_t until)
{
    int error = 0;

    sweep(agent);
    mailbox_arm(&agent->mailbox);
    if (!something_there(agent))
        error = process(agent, left_ms(until));
    mailbox_disarm(&agent->mailbox);
    return error;
}

/* What is told once, before mail is waited for. */
static int news(struct agentd *agent)
{
    if (agent->asked_to_stop) {
        agent->asked_to_stop = false;
        return failed(-ECANCELED, "%s", agent->stop_why);
    }
    if (agent->lost) {
        agent->lost = false;
        return failed(-EPIPE, "%s", agent->lost_why);
    }
    return 0;
}

int agentd_receive(struct agentd *agent, int timeout_ms, struct agentd_message *message)
{
    int64_t until = INT64_MAX;
    bool begun = false;

    for (;;) {
        int found = take(agent, message);

        if (found > 0 && ++agent->since_processed < MESSAGES_A_LOOK)
            return 1;
        agent->since_processed = 0;
        if (found > 0) { /* whoever came meanwhile waits for an answer */
            process(agent, 0);
            return 1;
        }
        if (found == 0)
            found = news(agent);
        if (found < 0)
            return found;
        if (!begun) {
            begun = true;
            until = until_ns(timeout_ms);
            if (timeout_ms != 0 && look_before_sleep(agent, until))
                continue;
        } else if (clock_ns(CLOCK_MONOTONIC) >= until) {
            return 0;
        }
        found = sleep_for_mail(agent, until);
        if (found < 0)
            return found;
    }
}

/* Answers. */

static int answer(
    struct agentd *agent, const struct agentd_message *message, enum record_state state, uint8_t content,
    const void *payload, size_t size)
{
    for (struct incoming *incoming = agent->incoming; incoming; incoming = incoming->next) {
        int error;

        if (incoming->entry.pair.shape.number != message->pair)
            continue;
        if (!pair_is_own(&incoming->entry.pair))
            return failed(-ESTALE, "a child process can't answer its parent's messages");
        error = settle(incoming, message->position, state, content, payload, size);
        if (error == -EMSGSIZE)
            return failed(error, "%zu bytes are over what a verdict takes", size);
        if (error == -EAGAIN)
            return failed(error, "%s does not read its verdicts", message->sender);
        return error ? failed(error, "%s is gone", message->sender) : 0;
    }
    return failed(-ESHUTDOWN, "%s is gone", message->sender);
}

int agentd_ack(struct agentd *agent, const struct agentd_message *message)
{
    return message->asked ? answer(agent, message, RECORD_ACKED, 0, NULL, 0) : 0;
}

int agentd_reject(struct agentd *agent, const struct agentd_message *message, const char *reason)
{
    return message->asked ? answer(agent, message, RECORD_DEAD, 0, reason, strnlen(reason, RECORD_MAX_REASON)) : 0;
}

int agentd_reply(
    struct agentd *agent, const struct agentd_message *message, enum agentd_content content, const void *body,
    size_t size)
{
    if (!message->wants_reply)
        return failed(-EINVAL, "nobody waits for a reply to this message");
    if ((unsigned)content >= RECORD_N_CONTENTS)
        return failed(-EINVAL, "no such content");
    return answer(agent, message, RECORD_REPLIED, (uint8_t)content, body, size);
}
