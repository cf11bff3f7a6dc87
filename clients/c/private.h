/* What the files of the C client share. SPDX-License-Identifier: MIT */
#ifndef AGENTD_PRIVATE_H
#define AGENTD_PRIVATE_H

#include "../../native/looking.h"
#include "../../native/mailbox.h"
#include "../../native/pool.h"
#include "../../native/record.h"
#include "agentd.h"
#include "lines.h"
#include "packets.h"

#include <sys/types.h>

#define WHY_BYTES 512u
/* Each return of the daemon brings fresh doorbells; who opened a channel before still rings the old ones. */
#define MAX_BELLS 8

/* What an event is about; beside it in epoll's data stands the descriptor. */
enum watched { WATCHED_MAIN, WATCHED_GRANTS, WATCHED_BELL, WATCHED_SENDER, WATCHED_RECEIVER };

/* What is the same at both ends. */
struct link {
    int memory_fd; /* kept to be presented when the daemon comes back */
    int bell_fd;   /* of the other end */
    int process_fd;
    bool ended;         /* the other end is gone, by other evidence than its gate */
    bool process_ended; /* by this one, which leaves no doubt */
};

struct incoming {
    struct mailbox_entry entry; /* first: a mailbox knows no more */
    struct incoming *next;
    struct link link;
    bool relays;
    char *sender;
    char *provenance;
};

struct asked {
    uint64_t position;
};

struct agentd_channel {
    struct pair pair;
    struct agentd_channel *next;
    struct agentd *agent;
    struct link link;
    char *to;
    struct asked *asked; /* those that there is no verdict on yet */
    uint32_t n_asked;
    uint32_t max_asked;
    bool doubted;  /* whether its receiver has really left */
    uint8_t *copy; /* of the verdict that was read last */
};

struct agentd {
    char *socket_path;
    char *name;
    bool reads;
    pid_t pid; /* of the process that joined */
    int epoll_fd;
    int main_fd;
    int grants_fd;
    int bells[2 * MAX_BELLS]; /* for mail and for verdicts; the latest last */
    uint32_t n_bells;
    int64_t spin_ns;
    struct looking looking;
    struct lines lines;

    /* What is waited for, and the answer. */
    uint64_t last_cid;
    bool attached;
    int refused; /* -errno */
    struct agentd_channel *opened;

    struct mailbox mailbox;
    struct incoming *incoming;
    struct agentd_channel *channels;
    unsigned since_processed; /* messages */
    uint8_t *copy;            /* of the message that was received last */
    size_t copy_bytes;
    char named[2][1024]; /* sender and provenance of one that was relayed */

    bool asked_to_stop;
    bool lost;
    char stop_why[WHY_BYTES];
    char lost_why[WHY_BYTES];
};

/* Keep that as agentd_why(): the error itself. */
__attribute__((format(printf, 2, 3))) int failed(int error, const char *format, ...);
/* What a code of the daemon is as an errno. */
int errno_of(const char *code);

/* The end of a timeout, by CLOCK_MONOTONIC; INT64_MAX: none. */
int64_t until_ns(int timeout_ms);
int64_t clock_ns(int clock);
/* How long it is until then, for epoll. */
int left_ms(int64_t until);

/* Do what there is to do, and wait for it so long if there is nothing: 0 or -errno. */
int process(struct agentd *agent, int timeout_ms);
int watch(struct agentd *agent, enum watched what, int fd);
/* No daemon any more, and why; the session is over with it. */
void lose_main(struct agentd *agent, const char *reason);
void ask_for_token(struct agentd *agent);

/* introductions.c */

int say(struct agentd *agent, const struct packet *packet, int fd);
void read_grants(struct agentd *agent);
void lose_grants(struct agentd *agent);
void ring_bell(const struct link *link);
/* This end leaves. */
void let_go_of_channel(struct agentd_channel *channel, const char *why);
void let_go_of_incoming(struct incoming *incoming, struct agentd *agent, const char *why);
void sweep(struct agentd *agent);

#endif
