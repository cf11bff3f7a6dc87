/* What the threads of prove_order.c do: the two ends of a pair, as steps of the model. SPDX-License-Identifier: MIT */
#ifndef AGENTD_ORDER_ENDS_H
#define AGENTD_ORDER_ENDS_H

enum {
    CAPACITY = RING_MIN_CAPACITY,
    LARGEST = CAPACITY / RING_LARGEST_PART - RING_WORD_BYTES,
    SENDERS = 2,
    COPIES = 2
};

/* A pair's memory and both its ends; in the runs with two senders, each has one. */
static struct lane {
    _Alignas(PAIR_PAGE_BYTES) uint8_t memory[5 * PAIR_PAGE_BYTES];
    struct pair sender;
    struct mailbox_entry receiver;
    uint64_t sent, received;
    bool largest; /* all records that are read are of the largest size */
    /* The first so many records speak of what is copied apart from them. */
    uint64_t n_copies, pool[COPIES];
} lanes[SENDERS];

static struct mailbox mailbox;
static struct mailbox_entry *in_mailbox[SENDERS];
static _Atomic uint32_t receiver_bell, sender_bell;
static uint64_t count; /* how many records are sent */

static uint32_t size_of(uint64_t number)
{
    return number % 2 ? 8 : 16;
}

static void fill(uint64_t *body, uint64_t number)
{
    for (unsigned i = 0; i < LARGEST / 8; i++)
        body[i] = ~(number * 1000 + i);
}

static void open_lane(struct lane *lane, uint64_t position)
{
    static const struct pair_shape shape = {
        .lane = PAIR_CRITICAL, .number = 1, .ring_capacity = CAPACITY, .verdict_capacity = CAPACITY};
    struct pair_header header = header_of(&shape);
    struct pair *receiver = &lane->receiver.pair;

    CHECK(header.total_bytes <= sizeof lane->memory);
    memset(lane->memory, 0, sizeof lane->memory);
    lane->sent = lane->received = lane->n_copies = 0;
    memset(lane->pool, 0, sizeof lane->pool);
    lane->largest = false;
    lane->sender = (struct pair){.shape = shape, .end = PAIR_SENDER, .memory = lane->memory};
    lane->receiver = (struct mailbox_entry){.pair = {.shape = shape, .end = PAIR_RECEIVER, .memory = lane->memory}};
    open_ends(&lane->sender, &header);
    open_ends(receiver, &header);
    /* What an earlier lap left there; only the word at the position need be zero. */
    memset(lane->sender.sender.ring.data, 0xFF, CAPACITY);
    memset(lane->sender.sender.ring.data + (position & (CAPACITY - 1)), 0, RING_WORD_BYTES);
    receiver->receiver_page->position = position;
    CHECK(
        ring_open_writer(
            &lane->sender.sender.ring, lane->sender.sender.ring.data, CAPACITY, &receiver->receiver_page->position,
            position) == 0);
    CHECK(
        ring_open_reader(
            &receiver->receiver.ring, receiver->receiver.ring.data, CAPACITY, &receiver->receiver_page->position,
            position) == 0);
}

static void open_all(unsigned n, uint64_t position)
{
    for (unsigned i = 0; i < n; i++) {
        open_lane(&lanes[i], position);
        in_mailbox[i] = &lanes[i].receiver;
    }
    mailbox = (struct mailbox){.entries = in_mailbox, .n_entries = n};
    receiver_bell = sender_bell = 0;
}

static void write_one(struct lane *lane, uint32_t size)
{
    uint64_t body[LARGEST / 8], position;
    int error;

    fill(body, lane->sent);
    while ((error = ring_write(&lane->sender.sender.ring, body, size, &position)) == -EAGAIN)
        model_await_change(lane->sender.sender.ring.reader_position, 8);
    if (error)
        model_fail("the writer finds a broken ring");
    lane->sent++;
}

static void publish(struct lane *lane)
{
    if (pair_publish(&lane->sender))
        model_ring(&receiver_bell);
}

static void send_from(struct lane *lane)
{
    while (lane->sent < count) {
        write_one(lane, size_of(lane->sent));
        publish(lane);
    }
}

static void check_body(struct lane *lane, const uint8_t *body, uint32_t size, uint32_t expected_size)
{
    uint64_t copy[LARGEST / 8], expected[LARGEST / 8];

    if (size != expected_size)
        model_fail("a record of another size");
    memcpy(copy, body, size);
    fill(expected, lane->received++);
    if (memcmp(copy, expected, size) != 0)
        model_fail("a record that was not sent");
}

static uint64_t copied(uint64_t number)
{
    return number * 77 + 5;
}

static void check_copy(struct lane *lane)
{
    uint64_t found;

    if (lane->received >= lane->n_copies)
        return;
    memcpy(&found, &lane->pool[lane->received], sizeof found);
    if (found != copied(lane->received))
        model_fail("a record was seen before what it speaks of");
}

static void take_one(struct mailbox_entry *entry, const uint8_t *body, uint32_t size)
{
    struct lane *lane = entry == &lanes[0].receiver ? &lanes[0] : &lanes[1];

    check_copy(lane);
    check_body(lane, body, size, lane->largest ? LARGEST : size_of(lane->received));
    mailbox_next(&mailbox, entry, size);
    mailbox_take(entry);
}

static bool look(struct mailbox_entry **entry, const uint8_t **body, uint32_t *size)
{
    int found = mailbox_peek(&mailbox, entry, body, size);

    if (found < 0)
        model_fail("the reader finds a broken ring");
    return found;
}

/* As a receiver that never spins: look, arm, look again, sleep. */
static void receive(uint64_t left)
{
    while (left > 0) {
        struct mailbox_entry *entry;
        const uint8_t *body;
        uint32_t size;

        if (!look(&entry, &body, &size)) {
            mailbox_arm(&mailbox);
            if (!look(&entry, &body, &size)) {
                model_wait(&receiver_bell);
                mailbox_disarm(&mailbox);
                continue;
            }
            mailbox_disarm(&mailbox);
        }
        take_one(entry, body, size);
        left--;
    }
}

static const char *check_all(void)
{
    for (unsigned i = 0; i < mailbox.n_entries; i++) {
        const struct pair *receiver = &lanes[i].receiver.pair;

        if (receiver->receiver.ring.position != lanes[i].sender.sender.ring.position)
            return "the ends are not at the same position";
        if (receiver->receiver_page->position != receiver->receiver.ring.position)
            return "what was taken is not delivered";
        if (receiver->receiver_page->taken != lanes[i].received)
            return "another count than were taken";
    }
    return NULL;
}

static void first_sender(void)
{
    send_from(&lanes[0]);
}

static void second_sender(void)
{
    send_from(&lanes[1]);
}

#endif
