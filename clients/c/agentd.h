/*
 * An agent in C on agentd's critical lane: messages from its memory to another agent's, without a system call while
 * both are busy. SPDX-License-Identifier: MIT
 *
 *     struct agentd *agent;
 *     struct agentd_channel *channel;
 *
 *     if (agentd_join(NULL, "planner", true, 5000, &agent) || agentd_open(agent, "builder", 5000, &channel))
 *         errx(1, "%s", agentd_why());
 *     agentd_send(channel, AGENTD_TEXT, "stop", 4, NULL);
 *
 * What the bytes are, and what an end must check, stands in clients/PROTOCOL.md, chapter "The direct lanes". Link with
 * the other .c files here and native/{mailbox,pair,ring}.c; it needs Linux 5.14 and nothing else.
 *
 * One thread at a time uses an agent and its channels. The library has no thread of its own: agents are introduced to
 * this one while it is in agentd_receive(), agentd_verdict(), agentd_open() or agentd_process(): be there every second.
 *
 * Functions that return int give 0 or more, or -errno, and agentd_why() says it in words. After a fork the agent is the
 * parent's alone.
 */
#ifndef AGENTD_H
#define AGENTD_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

struct agentd;
struct agentd_channel;

enum agentd_content { AGENTD_BYTES = 0, AGENTD_TEXT = 1, AGENTD_JSON = 2 };

enum agentd_state {
    AGENTD_ACKED = 1,
    AGENTD_EXPIRED = 2, /* it was read after its time, and not seen by the application */
    AGENTD_DEAD = 3,    /* rejected, or never taken */
    AGENTD_REPLIED = 4,
    AGENTD_UNKNOWN = 5, /* the receiver had taken it and is gone, or is cut off and may still take it */
};

/* What failed last in this thread; begins with the daemon's code where it was the daemon that refused. */
const char *agentd_why(void);

/* Joining. A timeout is in milliseconds; negative: without end. */

/*
 * Become an agent: the daemon's socket (NULL: where it usually is), a name. With `reads` others can send to it.
 * -ECONNREFUSED, -ENOENT: no daemon there; -EADDRINUSE: another takes this name's mail; -EOPNOTSUPP: no shared memory.
 */
int agentd_join(const char *socket_path, const char *name, bool reads, int timeout_ms, struct agentd **agent);
void agentd_leave(struct agentd *agent);

/* Whether the daemon is still there. If not: open pairs go on without it, and nobody new can be introduced. */
bool agentd_is_connected(const struct agentd *agent);
/* After it came back: join again under the same name, and keep the pairs. */
int agentd_rejoin(struct agentd *agent, int timeout_ms);

/* Sending. */

/*
 * A channel to a live agent. -ENOENT: nobody has that name; -ENOTCONN: it is absent; -EOPNOTSUPP: it reads no shared
 * memory; -ETIMEDOUT.
 */
int agentd_open(struct agentd *agent, const char *to, int timeout_ms, struct agentd_channel **channel);
void agentd_close(struct agentd_channel *channel);
uint32_t agentd_max_body(const struct agentd_channel *channel);

/*
 * Write one message into the receiver's ring, and want to hear nothing of it. `position`, if it is not NULL, is the
 * message's. -EAGAIN: the ring is full, nothing was sent; -EBUSY: the receiver is paused; -EMSGSIZE; -ESHUTDOWN: it is
 * gone; -EPROTO: it has broken the ring; -ESTALE: this is a child of the process that opened it.
 */
int agentd_send(
    struct agentd_channel *channel, enum agentd_content content, const void *body, size_t size, uint64_t *position);

/* The same, and agentd_verdict() will say what became of it. -EAGAIN also while too many wait to be told about. */
struct agentd_asking {
    enum agentd_content content;
    bool request;   /* wait for a reply */
    int64_t ttl_ns; /* of no use so long from now on; 0: always of use */
};
int agentd_ask(
    struct agentd_channel *channel, const struct agentd_asking *how, const void *body, size_t size, uint64_t *position);

struct agentd_verdict {
    uint64_t position;
    enum agentd_state state;
    enum agentd_content content; /* of a reply */
    const void *body;            /* the reply, or the reason as text; terminated; good until the next call */
    size_t size;
};

/* The next one: 1; 0: none in that time; -ESHUTDOWN: there will be none, the receiver is gone and all is told. */
int agentd_verdict(struct agentd_channel *channel, int timeout_ms, struct agentd_verdict *verdict);

/* Whether the receiver has taken the message at that position. */
bool agentd_is_delivered(const struct agentd_channel *channel, uint64_t position);
/* The message's id, by which its receiver knows it, as 13 letters. */
void agentd_id_text(const struct agentd_channel *channel, uint64_t position, char text[14]);

/* Receiving. */

struct agentd_message {
    uint64_t id;
    const char *sender;
    const char *provenance; /* what the kernel says of the sender */
    enum agentd_content content;
    bool wants_reply;
    uint64_t sent_ns; /* CLOCK_REALTIME */
    const void *body; /* terminated */
    size_t size;
    /* What the answers below need; no business of the application's. */
    uint64_t pair;
    uint64_t position;
    bool asked;
};

/*
 * The next message: 1, and it is delivered; it is good until the next call of this, agentd_process() or
 * agentd_may_sleep(). 0: none in that time. Looks for a moment before it sleeps. -ECANCELED,
 * once: this agent is asked to stop, by whom and why says agentd_why(). -EPIPE, once: the daemon is gone, see
 * agentd_rejoin().
 */
int agentd_receive(struct agentd *agent, int timeout_ms, struct agentd_message *message);

/*
 * What became of it, once a message: its sender hears it if it asked. -ESHUTDOWN: it is gone; -EMSGSIZE: a reply is
 * larger than a verdict may be; -EAGAIN: it does not read its verdicts.
 */
int agentd_ack(struct agentd *agent, const struct agentd_message *message);
int agentd_reject(struct agentd *agent, const struct agentd_message *message, const char *reason);
int agentd_reply(
    struct agentd *agent, const struct agentd_message *message, enum agentd_content content, const void *body,
    size_t size);

/* In an event loop of your own. */

/* Readable when there is something to do, provided that agentd_may_sleep() was true before. */
int agentd_fileno(const struct agentd *agent);
/* Whether nothing is there now, and the descriptor will tell when there is. */
bool agentd_may_sleep(struct agentd *agent);
/* Do what there is to do but take no message: 0 or -errno. */
int agentd_process(struct agentd *agent);

#endif
