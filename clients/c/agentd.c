/* What happens beside the rings: the main connection, doorbells, the ends of processes. */
#define _GNU_SOURCE
#include "private.h"

#include <stdarg.h>
#include <stdio.h>
#include <sys/epoll.h>
#include <sys/socket.h>
#include <time.h>
#include <unistd.h>

static _Thread_local char why[WHY_BYTES];

const char *agentd_why(void)
{
    return why;
}

int failed(int error, const char *format, ...)
{
    va_list arguments;

    va_start(arguments, format);
    vsnprintf(why, sizeof why, format, arguments);
    va_end(arguments);
    return error;
}

int errno_of(const char *code)
{
    static const struct {
        const char *code;
        int error;
    } known[] = {
        {"absent", ENOTCONN},
        {"bad_name", EINVAL},
        {"bad_request", EINVAL},
        {"busy", EBUSY},
        {"lane_unavailable", EOPNOTSUPP},
        {"limit_reached", EBUSY},
        {"name_in_use", EADDRINUSE},
        {"no_such_agent", ENOENT},
        {"not_permitted", EPERM},
        {"shutting_down", EBUSY},
        {"timeout", ETIMEDOUT},
        {"version_mismatch", EPROTONOSUPPORT},
    };

    for (size_t i = 0; i < sizeof known / sizeof *known; i++)
        if (strcmp(known[i].code, code) == 0)
            return -known[i].error;
    return -EREMOTEIO;
}

int64_t clock_ns(int clock)
{
    struct timespec now;

    clock_gettime(clock, &now);
    return (int64_t)now.tv_sec * 1000000000 + now.tv_nsec;
}

int64_t until_ns(int timeout_ms)
{
    return timeout_ms < 0 ? INT64_MAX : clock_ns(CLOCK_MONOTONIC) + (int64_t)timeout_ms * 1000000;
}

int left_ms(int64_t until)
{
    int64_t left = until == INT64_MAX ? -1 : until - clock_ns(CLOCK_MONOTONIC);

    if (until == INT64_MAX)
        return -1;
    if (left <= 0)
        return 0;
    return left > (int64_t)3600 * 1000000000 ? 3600 * 1000 : (int)((left + 999999) / 1000000);
}

/* Events. */

int watch(struct agentd *agent, enum watched what, int fd)
{
    struct epoll_event event = {.events = EPOLLIN, .data.u64 = (uint64_t)what << 32 | (uint32_t)fd};

    return epoll_ctl(agent->epoll_fd, EPOLL_CTL_ADD, fd, &event) < 0 ? -errno : 0;
}

void lose_main(struct agentd *agent, const char *reason)
{
    if (agent->main_fd >= 0) {
        close(agent->main_fd);
        agent->lost = true;
        snprintf(agent->lost_why, sizeof agent->lost_why, "%s", reason);
    }
    agent->main_fd = -1;
    lose_grants(agent);
}

void ask_for_token(struct agentd *agent)
{
    char line[64];

    snprintf(line, sizeof line, "{\"verb\":\"attach\",\"cid\":%llu}\n", (unsigned long long)++agent->last_cid);
    line_say(agent->main_fd, line);
}

/* The token is the first packet there; the answer comes as an event. */
static void attach(struct agentd *agent, const char *line)
{
    uint8_t token[PACKET_TOKEN_BYTES];
    char path[128], base64[64];
    int fd;

    if (!line_text(line, "socket", path, sizeof path) || !line_text(line, "token", base64, sizeof base64) ||
        line_bytes(base64, token, sizeof token) != sizeof token) {
        agent->refused = failed(-EPROTO, "agentd gave no token");
        return;
    }
    fd = line_connect(path, SOCK_SEQPACKET);
    if (fd < 0) {
        agent->refused = failed(fd, "%s: %s", path, strerror(-fd));
        return;
    }
    lose_grants(agent);
    agent->grants_fd = fd;
    watch(agent, WATCHED_GRANTS, fd);
    if (send(fd, token, sizeof token, MSG_NOSIGNAL) < 0)
        lose_grants(agent);
}

static void hear_error(struct agentd *agent, const char *line)
{
    char code[64], message[WHY_BYTES - 80];
    uint64_t cid = 0;

    if (!line_text(line, "code", code, sizeof code))
        strcpy(code, "error");
    if (!line_text(line, "message", message, sizeof message))
        message[0] = '\0';
    line_number(line, "cid", &cid);
    if (cid && !agent->refused) /* what was asked for behind it fails too, and says less */
        agent->refused = failed(errno_of(code), "%s: %s", code, message);
    else if (cid == 0 && strcmp(code, "name_in_use") == 0) /* another session took the name over */
        lose_main(agent, message);
}

static void hear_line(struct agentd *agent, const char *line)
{
    char by[256], reason[192];

    if (line_is(line, "attachment")) {
        attach(agent, line);
    } else if (line_is(line, "error")) {
        hear_error(agent, line);
    } else if (line_is(line, "invitation")) {
        if (agent->grants_fd < 0)
            ask_for_token(agent);
    } else if (line_is(line, "stop")) {
        if (!line_text(line, "by", by, sizeof by))
            by[0] = '\0';
        if (!line_text(line, "reason", reason, sizeof reason))
            reason[0] = '\0';
        agent->asked_to_stop = true;
        snprintf(agent->stop_why, sizeof agent->stop_why, "%s asks to stop: %s", by, reason);
    }
}

static void read_main(struct agentd *agent)
{
    char *line;
    int got;

    while (agent->main_fd >= 0 && (got = line_read(&agent->lines, agent->main_fd, &line)) != 0) {
        if (got < 0) {
            lose_main(agent, "agentd has closed the connection");
            return;
        }
        hear_line(agent, line);
    }
}

/* The other end's process has ended. */
static void end_link(struct agentd *agent, struct link *link)
{
    link->ended = link->process_ended = true;
    epoll_ctl(agent->epoll_fd, EPOLL_CTL_DEL, link->process_fd, NULL);
}

static void end_process(struct agentd *agent, int process_fd)
{
    for (struct incoming *incoming = agent->incoming; incoming; incoming = incoming->next)
        if (incoming->link.process_fd == process_fd)
            end_link(agent, &incoming->link);
    for (struct agentd_channel *channel = agent->channels; channel; channel = channel->next)
        if (channel->link.process_fd == process_fd)
            end_link(agent, &channel->link);
}

int process(struct agentd *agent, int timeout_ms)
{
    struct epoll_event events[16];
    int n = epoll_wait(agent->epoll_fd, events, 16, timeout_ms);
    uint64_t rung;

    if (n < 0)
        return errno == EINTR ? 0 : failed(-errno, "epoll_wait: %s", strerror(errno));
    for (int i = 0; i < n; i++) {
        int fd = (int)(uint32_t)events[i].data.u64;

        switch ((enum watched)(events[i].data.u64 >> 32)) {
        case WATCHED_MAIN:
            if (fd == agent->main_fd)
                read_main(agent);
            break;
        case WATCHED_GRANTS:
            if (fd == agent->grants_fd)
                read_grants(agent);
            break;
        case WATCHED_BELL:
            (void)!read(fd, &rung, sizeof rung);
            break;
        case WATCHED_SENDER:
        case WATCHED_RECEIVER:
            end_process(agent, fd);
            break;
        }
    }
    return 0;
}

int agentd_process(struct agentd *agent)
{
    int error = process(agent, 0);

    sweep(agent);
    return error;
}

int agentd_fileno(const struct agentd *agent)
{
    return agent->epoll_fd;
}
