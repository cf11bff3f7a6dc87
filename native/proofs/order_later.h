/*
 * Records that are committed later, as threads of prove_order.c: by a kernel that copies what they speak of and then
 * stores their kind, or by the sender where that failed. SPDX-License-Identifier: MIT
 */
#ifndef AGENTD_ORDER_LATER_H
#define AGENTD_ORDER_LATER_H

static struct ring_later laters[COPIES];
static _Atomic uint32_t handed; /* how many the kernel has been given */

/* The record is there but for its kind, and what it speaks of is not. */
static void write_later(struct lane *lane)
{
    uint64_t body[LARGEST / 8];
    uint32_t size = size_of(lane->sent);
    uint8_t *room;

    fill(body, lane->sent);
    if (ring_claim(&lane->sender.sender.ring, size, &room) != 0)
        model_fail("no room for a record that comes later");
    memcpy(room, body, size);
    ring_commit_later(&lane->sender.sender.ring, size, &laters[lane->sent]);
    lane->sent++;
}

/* Everything before a system call is seen by the kernel. */
static void hand_over(uint32_t n)
{
    atomic_store_explicit(&handed, n, memory_order_release);
}

static void copy_and_commit(struct lane *lane, uint64_t number)
{
    uint64_t word = copied(number);

    memcpy(&lane->pool[number], &word, sizeof word);
    ring_commit_now(&lane->sender.sender.ring, &laters[number]);
}

static void await_handing_over(void)
{
    model_await_change(&handed, sizeof handed);
    if (atomic_load_explicit(&handed, memory_order_acquire) == 0)
        model_fail("the kernel was given nothing");
}

static void open_with_copies(uint64_t position, uint64_t n)
{
    open_all(1, position);
    lanes[0].n_copies = n;
    handed = 0;
}

static void set_up_copy(void)
{
    open_with_copies(0, 1);
}

static void set_up_copy_behind_padding(void)
{
    open_with_copies(UINT64_MAX - 15, 1);
}

static void set_up_copies(void)
{
    open_with_copies(0, COPIES);
}

/* The others are committed at once, and wait behind it. */
static void send_one_later(void)
{
    write_later(&lanes[0]);
    hand_over(1);
    send_from(&lanes[0]);
}

/* The doorbell rings whatever the gate says: it is the end of the chain. */
static void copy_one(void)
{
    await_handing_over();
    copy_and_commit(&lanes[0], 0);
    model_ring(&receiver_bell);
}

static void send_all_later(void)
{
    while (lanes[0].sent < COPIES)
        write_later(&lanes[0]);
    hand_over(COPIES);
    send_from(&lanes[0]);
}

static void copy_last_first(void)
{
    await_handing_over();
    for (uint64_t number = COPIES; number-- > 0;) {
        copy_and_commit(&lanes[0], number);
        model_ring(&receiver_bell);
    }
}

/* Behind the last one is nothing. */
static void receive_to_the_end(void)
{
    struct mailbox_entry *entry;
    const uint8_t *body;
    uint32_t size;

    receive(count);
    if (look(&entry, &body, &size))
        model_fail("a record too many");
}

/* The kernel did nothing of it: the sender copies, and commits as it does its other records. */
static void send_one_after_all(void)
{
    write_later(&lanes[0]);
    send_from(&lanes[0]);
    copy_and_commit(&lanes[0], 0);
    publish(&lanes[0]);
}

#endif
