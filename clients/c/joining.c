/* Coming in, going, coming back; and asking the daemon for a channel. */
#define _GNU_SOURCE
#include "private.h"

#include <stdio.h>
#include <stdlib.h>
#include <sys/epoll.h>
#include <sys/socket.h>
#include <time.h>
#include <unistd.h>

/* A name is written into JSON as it is. */
static bool is_name(const char *name)
{
    size_t length = strspn(name, "ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789._-");

    return length > 0 && length <= 255 && name[length] == '\0';
}

static int wait_until_attached(struct agentd *agent, int64_t until)
{
    while (!agent->attached && !agent->refused) {
        int error = process(agent, left_ms(until));

        if (error)
            return error;
        if (agent->main_fd < 0)
            return failed(-EPIPE, "%s", agent->lost_why);
        if (!agent->attached && !agent->refused && clock_ns(CLOCK_MONOTONIC) >= until)
            return failed(-ETIMEDOUT, "agentd did not answer in time");
    }
    return agent->refused;
}

/* Hello, join and attach are said in one go. */
static int come_in(struct agentd *agent, int64_t until)
{
    const char *reads = agent->reads ? "true" : "false";
    char lines[512];
    int fd = line_connect(agent->socket_path, SOCK_STREAM), error;

    if (fd < 0)
        return failed(fd, "no agentd at %s: %s", agent->socket_path, strerror(-fd));
    agent->main_fd = fd;
    agent->lost = false;
    agent->refused = 0;
    agent->lines.used = agent->lines.taken = 0;
    agent->lines.passing_over = false;
    error = watch(agent, WATCHED_MAIN, fd);
    snprintf(
        lines, sizeof lines,
        "{\"verb\":\"hello\",\"version\":1,\"client\":\"agentd.h\"}\n"
        "{\"verb\":\"join\",\"cid\":%llu,\"name\":\"%s\",\"take\":%s,\"direct\":%s}\n",
        (unsigned long long)++agent->last_cid, agent->name, reads, reads);
    if (!error)
        error = line_say(fd, lines);
    if (error)
        return failed(error, "%s: %s", agent->socket_path, strerror(-error));
    ask_for_token(agent);
    return wait_until_attached(agent, until);
}

int agentd_rejoin(struct agentd *agent, int timeout_ms)
{
    int error;

    lose_main(agent, "left to come back");
    error = come_in(agent, until_ns(timeout_ms));
    if (error)
        lose_main(agent, "agentd does not let this agent in");
    agent->lost = false; /* the caller knows */
    return error;
}

int agentd_join(const char *socket_path, const char *name, bool reads, int timeout_ms, struct agentd **made)
{
    struct agentd *agent = calloc(1, sizeof *agent);
    char path[128];
    int error;

    if (!agent)
        return failed(-ENOMEM, "no memory");
    agent->main_fd = agent->grants_fd = -1;
    agent->reads = reads;
    agent->pid = getpid();
    mailbox_init(&agent->mailbox);
    agent->epoll_fd = epoll_create1(EPOLL_CLOEXEC);
    if (agent->epoll_fd < 0)
        error = failed(-errno, "epoll_create1: %s", strerror(errno));
    else if (!is_name(name))
        error = failed(-EINVAL, "bad_name: an agent's name has letters, digits, '.', '_' and '-', at most 255");
    else if (!socket_path && !line_default_socket(path, sizeof path))
        error = failed(-ENAMETOOLONG, "the path of agentd's socket is too long");
    else {
        agent->name = strdup(name);
        agent->socket_path = strdup(socket_path ? socket_path : path);
        error = agent->name && agent->socket_path ? come_in(agent, until_ns(timeout_ms)) : -ENOMEM;
    }
    if (error) {
        agentd_leave(agent);
        return error;
    }
    *made = agent;
    return 0;
}

bool agentd_is_connected(const struct agentd *agent)
{
    return agent->main_fd >= 0;
}

void agentd_leave(struct agentd *agent)
{
    char line[64];

    while (agent->channels)
        let_go_of_channel(agent->channels, "the sender has left");
    while (agent->incoming)
        let_go_of_incoming(agent->incoming, agent, "the receiver has left");
    if (agent->main_fd >= 0 && agent->pid == getpid()) { /* a child's leaving is none */
        snprintf(line, sizeof line, "{\"verb\":\"leave\",\"cid\":%llu}\n", (unsigned long long)++agent->last_cid);
        line_say(agent->main_fd, line);
    }
    lose_main(agent, "left");
    for (uint32_t i = 0; i < agent->n_bells; i++)
        close(agent->bells[i]);
    if (agent->epoll_fd >= 0)
        close(agent->epoll_fd);
    mailbox_deinit(&agent->mailbox);
    free(agent->copy);
    free(agent->name);
    free(agent->socket_path);
    free(agent);
}

/* Opening: the daemon has the receiver map the pair before it grants it here. */

static int reattach(struct agentd *agent, int64_t until)
{
    if (agent->main_fd < 0)
        return failed(-EPIPE, "no agentd: %s", agent->lost_why);
    agent->refused = 0;
    if (agent->attached)
        return 0;
    ask_for_token(agent);
    return wait_until_attached(agent, until);
}

int agentd_open(struct agentd *agent, const char *to, int timeout_ms, struct agentd_channel **channel)
{
    int64_t until = until_ns(timeout_ms);
    struct packet packet = {.tag = PACKET_OPEN, .lane = PAIR_CRITICAL};
    int error = reattach(agent, until);

    if (error)
        return error;
    packet.cid = ++agent->last_cid;
    packet.name = (struct packet_text){.at = to, .size = (uint32_t)strnlen(to, 256)};
    error = say(agent, &packet, -1);
    if (error)
        return failed(error, "agentd does not listen: %s", strerror(-error));
    while (!error && !agent->opened && !agent->refused) {
        error = process(agent, left_ms(until));
        if (!error && !agent->attached && !agent->opened)
            error = failed(-EPIPE, "agentd has closed the grants socket");
        else if (!error && !agent->opened && !agent->refused && clock_ns(CLOCK_MONOTONIC) >= until)
            error = failed(-ETIMEDOUT, "no channel to %s in time", to);
    }
    *channel = agent->opened;
    agent->opened = NULL;
    if (*channel)
        return 0;
    agent->last_cid++; /* what is granted from now on comes too late */
    return error ? error : agent->refused;
}
