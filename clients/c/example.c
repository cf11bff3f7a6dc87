/*
 * Two agents in C: one takes what it is sent on the critical lane, the other sends. SPDX-License-Identifier: MIT
 *
 *     cc -O2 -pthread -o agentd-example clients/c/[a-z]*.c native/mailbox.c native/pair.c native/ring.c
 *
 *     ./agentd-example receive builder              # until Ctrl-C, or for so many messages: receive builder 10
 *     ./agentd-example send planner builder stop    # each further word is a message; waits for what becomes of it
 *     ./agentd-example ask planner builder "how many?"
 *     ./agentd-example burst planner builder 100000 # without waiting
 *
 * The other end may as well be Python: client.send("builder", "stop", priority="critical"). A receiver acks all but the
 * word "bad", and replies to questions.
 */
#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "agentd.h"

enum { PATIENCE_MS = 10000, RETRY_MS = 200 };

static int complain(void)
{
    fprintf(stderr, "%s\n", agentd_why());
    return EXIT_FAILURE;
}

/* Show it and settle it. */
static void handle(struct agentd *agent, const struct agentd_message *message)
{
    char reply[64];
    int error;

    printf("%s: %.*s\n", message->sender, (int)message->size, (const char *)message->body);
    fflush(stdout);
    if (message->wants_reply) {
        snprintf(reply, sizeof reply, "%zu bytes", message->size);
        error = agentd_reply(agent, message, AGENTD_TEXT, reply, strlen(reply));
    } else if (message->size == 3 && memcmp(message->body, "bad", 3) == 0) {
        error = agentd_reject(agent, message, "this can't be done");
    } else {
        error = agentd_ack(agent, message);
    }
    if (error)
        complain(); /* its sender is gone; the next one may not be */
}

static int receive(struct agentd *agent, unsigned long n)
{
    struct agentd_message message;

    while (n > 0) {
        /* While agentd is away open channels go on; who is new has to wait until it is back. */
        int found = agentd_receive(agent, agentd_is_connected(agent) ? -1 : RETRY_MS, &message);

        if (found > 0) {
            handle(agent, &message);
            n--;
        } else if (found == 0) {
            if (agentd_rejoin(agent, PATIENCE_MS) == 0)
                fprintf(stderr, "agentd is back\n");
        } else if (found == -EPIPE) {
            complain();
        } else if (found == -ECANCELED) {
            complain();
            return EXIT_SUCCESS;
        } else if (found < 0) {
            return complain();
        }
    }
    return EXIT_SUCCESS;
}

static int send_words(struct agentd_channel *channel, char **words, int n_words, bool request)
{
    static const char *const states[] = {"nothing", "acked", "expired", "dead", "replied", "unknown"};
    struct agentd_asking how = {.content = AGENTD_TEXT, .request = request};
    struct agentd_verdict verdict;
    int done = 0;

    for (int i = 0; i < n_words; i++) {
        if (agentd_ask(channel, &how, words[i], strlen(words[i]), NULL))
            return complain();
        if (agentd_verdict(channel, PATIENCE_MS, &verdict) != 1) {
            fprintf(stderr, "no verdict in time\n");
            return EXIT_FAILURE;
        }
        printf("%s: %s", words[i], states[verdict.state]);
        printf(verdict.size ? " (%.*s)\n" : "\n", (int)verdict.size, (const char *)verdict.body);
        done += verdict.state == AGENTD_ACKED || verdict.state == AGENTD_REPLIED;
    }
    return done == n_words ? EXIT_SUCCESS : EXIT_FAILURE;
}

/* As fast as the receiver takes them; a full ring is no error, but a reason to look again. */
static int burst(struct agentd *agent, struct agentd_channel *channel, unsigned long n)
{
    uint64_t position = 0;
    char body[32];

    for (unsigned long i = 0; i < n;) {
        int error = agentd_send(channel, AGENTD_TEXT, body, (size_t)snprintf(body, sizeof body, "%lu", i), &position);

        if (error == 0)
            i++;
        else if (error != -EAGAIN || agentd_process(agent))
            return complain();
    }
    while (n > 0 && !agentd_is_delivered(channel, position))
        if (agentd_process(agent))
            return complain();
    printf("%lu delivered\n", n);
    return EXIT_SUCCESS;
}

int main(int argc, char **argv)
{
    const char *verb = argc > 2 ? argv[1] : "", *name = argc > 2 ? argv[2] : "";
    bool receives = strcmp(verb, "receive") == 0;
    struct agentd_channel *channel;
    struct agentd *agent;
    int status;

    if (!(receives ? argc <= 4 : argc >= 5)) {
        bool asked = argc == 2 && strcmp(argv[1], "--help") == 0;

        fprintf(
            asked ? stdout : stderr, "usage: %s receive NAME [N] | send|ask NAME TO WORD... | burst NAME TO N\n",
            argv[0]);
        return asked ? EXIT_SUCCESS : 2;
    }
    if (agentd_join(NULL, name, receives, PATIENCE_MS, &agent))
        return complain();
    if (receives && printf("%s: ready\n", name) > 0 && fflush(stdout) == 0)
        status = receive(agent, argc > 3 ? strtoul(argv[3], NULL, 10) : (unsigned long)-1);
    else if (agentd_open(agent, argv[3], PATIENCE_MS, &channel))
        status = complain();
    else if (strcmp(verb, "burst") == 0)
        status = burst(agent, channel, strtoul(argv[4], NULL, 10));
    else
        status = send_words(channel, argv + 4, argc - 4, strcmp(verb, "ask") == 0);
    agentd_leave(agent);
    return status;
}
