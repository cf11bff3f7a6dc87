/* The mailbox: every sender has its turn, what is taken is delivered, and arming reaches every pair. */
#define _GNU_SOURCE
#include "../mailbox.h"
#include "../record.h"

#include <unistd.h>

#include "check.h"

enum { SENDERS = 65 };

static struct pair_shape shape(uint64_t number)
{
    return (struct pair_shape){
        .lane = PAIR_CRITICAL, .number = number, .ring_capacity = 4096, .verdict_capacity = 1024};
}

static void open_both(uint64_t number, struct pair *sender, struct mailbox_entry *entry)
{
    struct pair_shape expected = shape(number);
    int fd;

    CHECK(pair_create(&expected, false, &fd) == 0);
    CHECK(pair_attach(sender, fd, &expected, PAIR_SENDER) == 0);
    CHECK(pair_attach(&entry->pair, fd, &expected, PAIR_RECEIVER) == 0);
    close(fd);
}

static void send_number(struct pair *sender, uint64_t number)
{
    uint64_t position;

    CHECK(ring_write(&sender->sender.ring, &number, sizeof number, &position) == 0);
}

static uint64_t receive_number(struct mailbox *mailbox, struct mailbox_entry **entry)
{
    const uint8_t *body;
    uint64_t number;
    uint32_t size;

    CHECK(mailbox_peek(mailbox, entry, &body, &size) == 1 && size == sizeof number);
    memcpy(&number, body, sizeof number);
    mailbox_next(mailbox, *entry, size);
    mailbox_take(*entry);
    return number;
}

/* However much the first has to say, each of the others comes after at most a burst a pair. */
static void test_nobody_starves(void)
{
    static struct pair senders[SENDERS];
    static struct mailbox_entry entries[SENDERS];
    struct mailbox mailbox;
    struct mailbox_entry *entry;
    bool heard[SENDERS] = {false};
    const uint8_t *body;
    uint32_t size, n_heard = 0;

    mailbox_init(&mailbox);
    for (uint64_t i = 0; i < SENDERS; i++) {
        open_both(i, &senders[i], &entries[i]);
        CHECK(mailbox_add(&mailbox, &entries[i]) == 0);
    }
    CHECK(mailbox_peek(&mailbox, &entry, &body, &size) == 0);
    for (uint64_t i = 1; i < SENDERS; i++)
        send_number(&senders[i], i);
    for (uint32_t round = 0; round < MAILBOX_BURST + 2 * SENDERS; round++) {
        send_number(&senders[0], 0);
        uint64_t number = receive_number(&mailbox, &entry);

        CHECK(entry == &entries[number]);
        n_heard += !heard[number];
        heard[number] = true;
    }
    CHECK(n_heard == SENDERS);
    while (mailbox_peek(&mailbox, &entry, &body, &size) == 1)
        receive_number(&mailbox, &entry);
    for (uint64_t i = 0; i < SENDERS; i++) {
        CHECK(mailbox_remove(&mailbox, &entries[i]));
        CHECK(!mailbox_remove(&mailbox, &entries[i]));
        pair_detach(&senders[i]);
        pair_detach(&entries[i].pair);
    }
    CHECK(mailbox_peek(&mailbox, &entry, &body, &size) == 0);
    mailbox_deinit(&mailbox);
}

static void test_taken_is_delivered(void)
{
    struct pair sender;
    struct mailbox_entry entry = {0}, *found;
    struct mailbox mailbox;
    const uint8_t *body;
    uint64_t position;
    uint32_t size;

    mailbox_init(&mailbox);
    open_both(1, &sender, &entry);
    CHECK(mailbox_add(&mailbox, &entry) == 0);
    CHECK(ring_write(&sender.sender.ring, "a", 1, &position) == 0);
    CHECK(mailbox_peek(&mailbox, &found, &body, &size) == 1);
    mailbox_next(&mailbox, found, size);
    CHECK(!pair_is_delivered(&sender, position)); /* not before its bytes are the receiver's */
    mailbox_take(found);
    CHECK(pair_is_delivered(&sender, position));
    CHECK(atomic_load(&sender.receiver_page->taken) == 1);
    CHECK(ring_write(&sender.sender.ring, "b", 1, &position) == 0);
    CHECK(!pair_is_delivered(&sender, position));
    CHECK(!pair_publish(&sender));
    mailbox_arm(&mailbox);
    CHECK(pair_publish(&sender) && !pair_publish(&sender));
    mailbox_arm(&mailbox);
    mailbox_disarm(&mailbox);
    CHECK(!pair_publish(&sender));
    pair_detach(&sender);
    pair_detach(&entry.pair);
    mailbox_deinit(&mailbox);
}

/* Whatever a hostile sender writes as a record, its parts lie within its bytes, or it is none. */
static void test_records(void)
{
    struct record_header header = {.content = RECORD_TEXT, .flags = RECORD_ASKED | RECORD_DEADLINE, .details_bytes = 3};
    uint8_t bytes[64] = {0};
    struct record record;
    uint8_t *body = record_write(bytes, &header, 77, "abc");

    CHECK(body == bytes + record_overhead(header.flags, 3) && body == bytes + 27);
    memcpy(body, "body", 4);
    CHECK(record_parse(bytes, 31, &record));
    CHECK(record.deadline_ns == 77 && record.body_bytes == 4 && memcmp(record.body, "body", 4) == 0);
    CHECK(memcmp(record.details, "abc", 3) == 0);
    CHECK(record_parse(bytes, 27, &record) && record.body_bytes == 0);
    for (uint32_t size = 0; size < 27; size++)
        CHECK(!record_parse(bytes, size, &record));
    bytes[0] = RECORD_N_CONTENTS;
    CHECK(!record_parse(bytes, 31, &record));
    bytes[0] = RECORD_BYTES;
    bytes[1] = RECORD_FLAGS + 1;
    CHECK(!record_parse(bytes, 31, &record));
    CHECK(record_id(0, 80) == (UINT64_C(1) << 63 | 10));
    CHECK(record_id(1, 0) >> 40 == ((UINT64_C(1) << 23) | 1));
    CHECK(record_id(1, 8) == record_id(1, 0) + 1);
}

int main(void)
{
    test_nobody_starves();
    test_taken_is_delivered();
    test_records();
    return EXIT_SUCCESS;
}
