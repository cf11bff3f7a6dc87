/* How pairs come and go: the packets of the grants socket. */
#define _GNU_SOURCE
#include "private.h"

#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <sys/socket.h>
#include <unistd.h>

static struct packet_text text_of(const char *text)
{
    return (struct packet_text){.at = text, .size = (uint32_t)strnlen(text, 500)};
}

static char *kept(struct packet_text text)
{
    return strndup(text.at, text.size);
}

static void close_if(int fd)
{
    if (fd >= 0)
        close(fd);
}

int say(struct agentd *agent, const struct packet *packet, int fd)
{
    uint8_t bytes[PACKET_MAX_BYTES];
    size_t size = packet_write(packet, bytes, sizeof bytes);
    union {
        char room[CMSG_SPACE(sizeof(int))];
        struct cmsghdr align;
    } control = {0};
    struct iovec part = {.iov_base = bytes, .iov_len = size};
    struct msghdr message = {.msg_iov = &part, .msg_iovlen = 1};

    if (agent->grants_fd < 0 || size == 0)
        return -ENOTCONN;
    if (fd >= 0) {
        struct cmsghdr *header = &control.align;

        header->cmsg_level = SOL_SOCKET;
        header->cmsg_type = SCM_RIGHTS;
        header->cmsg_len = CMSG_LEN(sizeof fd);
        memcpy(CMSG_DATA(header), &fd, sizeof fd);
        message.msg_control = &control;
        message.msg_controllen = sizeof control.room;
    }
    return sendmsg(agent->grants_fd, &message, MSG_NOSIGNAL) < 0 ? -errno : 0;
}

static void say_closed(struct agentd *agent, uint64_t number, const char *why)
{
    say(agent, &(struct packet){.tag = PACKET_CLOSED, .number = number, .text = text_of(why)}, -1);
}

void ring_bell(const struct link *link)
{
    static const uint64_t one = 1;

    /* EAGAIN: the count is at its highest, so it is rung. */
    if (write(link->bell_fd, &one, sizeof one) < 0)
        return;
}

/* The gate is closed first: who is woken by the bell, or by the daemon, finds it so. */
static void leave_pair(struct agentd *agent, struct pair *pair, struct link *link, const char *why)
{
    if (pair_is_own(pair)) {
        pair_set_gate(pair, PAIR_CLOSED, true);
        if (pair_publish(pair))
            ring_bell(link);
        say_closed(agent, pair->shape.number, why);
    }
    pair_detach(pair);
    close(link->memory_fd);
    close(link->bell_fd);
    close_if(link->process_fd);
}

void let_go_of_channel(struct agentd_channel *channel, const char *why)
{
    struct agentd_channel **at = &channel->agent->channels;

    while (*at && *at != channel)
        at = &(*at)->next;
    if (*at)
        *at = channel->next;
    leave_pair(channel->agent, &channel->pair, &channel->link, why);
    free(channel->to);
    free(channel->asked);
    free(channel->copy);
    free(channel);
}

void let_go_of_incoming(struct incoming *incoming, struct agentd *agent, const char *why)
{
    struct incoming **at = &agent->incoming;

    mailbox_remove(&agent->mailbox, &incoming->entry);
    while (*at && *at != incoming)
        at = &(*at)->next;
    if (*at)
        *at = incoming->next;
    leave_pair(agent, &incoming->entry.pair, &incoming->link, why);
    free(incoming->sender);
    free(incoming->provenance);
    free(incoming);
}

/* Those whose sender is gone and who are empty. In this order: what it wrote last is read first. */
void sweep(struct agentd *agent)
{
    struct incoming *next;

    for (struct incoming *incoming = agent->incoming; incoming; incoming = next) {
        bool ended = incoming->link.ended || pair_peer(&incoming->entry.pair) == -ESHUTDOWN;
        const uint8_t *body;
        uint32_t size;

        next = incoming->next;
        if (ended && ring_peek(&incoming->entry.pair.receiver.ring, &body, &size) <= 0)
            let_go_of_incoming(incoming, agent, "it was read to its end");
    }
}

/* The descriptors of a pair become the link's, and the process is watched. */
static struct link link_of(struct agentd *agent, int *fds, enum watched what)
{
    struct link link = {.memory_fd = fds[0], .bell_fd = fds[1], .process_fd = fds[2]};

    fds[0] = fds[1] = fds[2] = -1;
    if (link.process_fd >= 0)
        watch(agent, what, link.process_fd);
    return link;
}

static struct pair_shape shape_of(const struct packet *packet)
{
    return (struct pair_shape){
        .lane = (enum pair_lane)packet->lane,
        .number = packet->number,
        .ring_capacity = packet->ring_bytes,
        .verdict_capacity = packet->verdict_bytes,
        .pool_capacity = packet->pool_bytes,
    };
}

static void offered(struct agentd *agent, const struct packet *packet, int *fds)
{
    struct packet answer = {.tag = PACKET_MAPPED, .number = packet->number, .text = text_of("")};
    struct incoming *incoming = calloc(1, sizeof *incoming);
    struct pair_shape shape = shape_of(packet);
    int error = incoming ? pair_attach(&incoming->entry.pair, fds[0], &shape, PAIR_RECEIVER) : -ENOMEM;

    if (!error) {
        incoming->sender = kept(packet->name);
        incoming->provenance = kept(packet->text);
        error = incoming->sender && incoming->provenance ? mailbox_add(&agent->mailbox, &incoming->entry) : -ENOMEM;
        if (error)
            pair_detach(&incoming->entry.pair);
    }
    if (error) {
        if (incoming) {
            free(incoming->sender);
            free(incoming->provenance);
        }
        free(incoming);
        answer.text = text_of(strerror(-error));
    } else {
        incoming->relays = packet->truth;
        incoming->link = link_of(agent, fds, WATCHED_SENDER);
        incoming->next = agent->incoming;
        agent->incoming = incoming;
    }
    say(agent, &answer, -1);
}

static struct agentd_channel *make_channel(struct agentd *agent, const struct packet *packet, int memory_fd, int *error)
{
    struct agentd_channel *channel = calloc(1, sizeof *channel);
    struct pair_shape shape = shape_of(packet);

    *error = channel ? pair_attach(&channel->pair, memory_fd, &shape, PAIR_SENDER) : -ENOMEM;
    if (*error) {
        free(channel);
        return NULL;
    }
    /* Half of the verdict ring is for the verdicts on what was asked about; the other half is for replies. */
    channel->max_asked = (uint32_t)(packet->verdict_bytes / (2 * RECORD_VERDICT_BYTES));
    channel->agent = agent;
    channel->to = kept(packet->name);
    channel->asked = calloc(channel->max_asked + 1u, sizeof *channel->asked);
    channel->copy = malloc(packet->verdict_bytes / RING_LARGEST_PART + 1u);
    if (channel->to && channel->asked && channel->copy)
        return channel;
    *error = -ENOMEM;
    pair_detach(&channel->pair);
    free(channel->to);
    free(channel->asked);
    free(channel->copy);
    free(channel);
    return NULL;
}

static void granted(struct agentd *agent, const struct packet *packet, int *fds)
{
    struct agentd_channel *channel;
    int error;

    if (packet->cid != agent->last_cid || agent->opened || agent->refused) {
        say_closed(agent, packet->number, "it was opened too late");
        return;
    }
    channel = make_channel(agent, packet, fds[0], &error);
    if (!channel) {
        say_closed(agent, packet->number, strerror(-error));
        agent->refused = failed(error, "no channel can be mapped: %s", strerror(-error));
        return;
    }
    channel->link = link_of(agent, fds, WATCHED_RECEIVER);
    channel->next = agent->channels;
    agent->channels = channel;
    agent->opened = channel;
}

static void refused(struct agentd *agent, const struct packet *packet)
{
    char *code = kept(packet->name);

    if (packet->cid == agent->last_cid)
        agent->refused = failed(
            code ? errno_of(code) : -ENOMEM, "%.*s: %.*s", (int)packet->name.size, packet->name.at,
            (int)packet->text.size, packet->text.at);
    free(code);
}

static void
present(struct agentd *agent, const struct pair *pair, const struct link *link, bool sends, const char *peer)
{
    struct packet packet = {
        .tag = PACKET_PRESENT,
        .number = pair->shape.number,
        .lane = (uint64_t)pair->shape.lane,
        .truth = sends,
        .name = text_of(peer),
        .ring_bytes = pair->shape.ring_capacity,
        .verdict_bytes = pair->shape.verdict_capacity,
        .pool_bytes = pair->shape.pool_capacity,
    };

    say(agent, &packet, link->memory_fd);
}

static void welcomed(struct agentd *agent, const struct packet *packet, int *fds)
{
    if (agent->n_bells == 2 * MAX_BELLS) { /* of the oldest no sender is left */
        close(agent->bells[0]);
        close(agent->bells[1]);
        memmove(agent->bells, agent->bells + 2, (2 * MAX_BELLS - 2) * sizeof *agent->bells);
        agent->n_bells -= 2;
    }
    for (int i = 0; i < 2; i++) {
        watch(agent, WATCHED_BELL, fds[i]);
        agent->bells[agent->n_bells++] = fds[i];
        fds[i] = -1;
    }
    if (packet->seconds >= 0 && packet->seconds < 1e6)
        agent->spin_ns = (int64_t)(packet->seconds * 1e3); /* it is in microseconds */
    say(agent, &(struct packet){.tag = PACKET_IDLE, .lane = PAIR_CRITICAL, .truth = agent->reads}, -1);
    for (const struct agentd_channel *channel = agent->channels; channel; channel = channel->next)
        present(agent, &channel->pair, &channel->link, true, channel->to);
    for (struct incoming *incoming = agent->incoming; incoming; incoming = incoming->next) {
        if (incoming->relays)
            incoming->link.ended = true; /* the daemon that wrote into it is no more */
        else
            present(agent, &incoming->entry.pair, &incoming->link, false, incoming->sender);
    }
    agent->attached = true;
}

/* A pair ended, or is to let nothing in. Of one that is not here any more nothing needs to be known. */
static void changed(struct agentd *agent, const struct packet *packet)
{
    for (struct agentd_channel *channel = agent->channels; channel; channel = channel->next)
        if (channel->pair.shape.number == packet->number && packet->tag == PACKET_CLOSED)
            channel->link.ended = true;
    for (struct incoming *incoming = agent->incoming; incoming; incoming = incoming->next) {
        if (incoming->entry.pair.shape.number != packet->number)
            continue;
        if (packet->tag == PACKET_CLOSED)
            incoming->link.ended = true;
        else
            pair_set_gate(&incoming->entry.pair, PAIR_PAUSED, packet->truth);
    }
}

/* False when the daemon does not speak as it should. */
static bool heard(struct agentd *agent, const struct packet *packet, int *fds, int n_fds)
{
    switch (packet->tag) {
    case PACKET_ATTACHED:
        if (n_fds < 2)
            return false;
        welcomed(agent, packet, fds);
        return true;
    case PACKET_GRANTED:
    case PACKET_OFFERED:
        if (n_fds != 2 && n_fds != 3)
            return false;
        (packet->tag == PACKET_GRANTED ? granted : offered)(agent, packet, fds);
        return true;
    case PACKET_REFUSED:
        refused(agent, packet);
        return true;
    case PACKET_CLOSED:
    case PACKET_PAUSED:
        changed(agent, packet);
        return true;
    default:
        return false;
    }
}

void lose_grants(struct agentd *agent)
{
    close_if(agent->grants_fd);
    agent->grants_fd = -1;
    agent->attached = false;
}

void read_grants(struct agentd *agent)
{
    uint8_t bytes[PACKET_MAX_BYTES];
    union {
        char room[CMSG_SPACE(PACKET_MAX_FDS * sizeof(int))];
        struct cmsghdr align;
    } control;
    struct iovec part = {.iov_base = bytes, .iov_len = sizeof bytes};
    struct msghdr message = {
        .msg_iov = &part, .msg_iovlen = 1, .msg_control = &control, .msg_controllen = sizeof control.room};
    ssize_t size = recvmsg(agent->grants_fd, &message, MSG_DONTWAIT | MSG_CMSG_CLOEXEC);
    int fds[PACKET_MAX_FDS] = {-1, -1, -1, -1}, n_fds = 0;
    struct packet packet;
    bool good;

    if (size < 0 && (errno == EAGAIN || errno == EINTR))
        return;
    if (size <= 0) {
        lose_grants(agent);
        return;
    }
    for (struct cmsghdr *header = CMSG_FIRSTHDR(&message); header; header = CMSG_NXTHDR(&message, header)) {
        size_t room = header->cmsg_len - CMSG_LEN(0);

        if (header->cmsg_level != SOL_SOCKET || header->cmsg_type != SCM_RIGHTS)
            continue;
        for (size_t at = 0; at + sizeof(int) <= room && n_fds < PACKET_MAX_FDS; at += sizeof(int))
            memcpy(&fds[n_fds++], CMSG_DATA(header) + at, sizeof(int));
    }
    good = !(message.msg_flags & (MSG_TRUNC | MSG_CTRUNC)) && packet_read(&packet, bytes, (size_t)size) &&
           heard(agent, &packet, fds, n_fds);
    for (int i = 0; i < PACKET_MAX_FDS; i++)
        close_if(fds[i]); /* whoever keeps one has made it its own */
    if (!good)
        lose_grants(agent);
}
