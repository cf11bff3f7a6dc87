/*
 * The order of the pair's stores and loads: its own code, in every order that the model allows (model.h).
 *
 *     prove_order [long]
 *
 * No wake-up is lost, no record is torn, none is lost or comes twice, no bit of a gate is undone. And each order that
 * the code asks for is needed: without it, a scenario fails. What may be weakened unnoticed is listed, with the reason.
 */
#define _GNU_SOURCE
#include "model.h"

#include "../ring.c"
#include "../pair.c"
#include "../mailbox.c"
#include "../tests/check.h"

#if defined(__SANITIZE_THREAD__)
int main(void)
{
    return EXIT_SKIPPED; /* ThreadSanitizer does not know these coroutines */
}
#else

#include "order_ends.h"
#include "order_later.h"

/* --- scenarios --- */

static void set_up_fresh(void)
{
    open_all(1, 0);
}

static void set_up_two_senders(void)
{
    open_all(2, 0);
}

/* The first record ends with the ring, to the byte. */
static void set_up_wrap(void)
{
    open_all(1, (UINT64_C(1) << 32) - 24);
}

/* The first record does not fit any more; the positions wrap too. */
static void set_up_padding(void)
{
    open_all(1, UINT64_MAX - 15);
}

/*
 * Eight records lie in it, and the next one takes the place of the first, behind padding, and the one after that the
 * place of the second: as soon as they are given back.
 */
static void set_up_full(void)
{
    struct lane *lane = &lanes[0];

    open_all(1, 5 * CAPACITY);
    lane->largest = true;
    while (lane->sent < RING_LARGEST_PART - 1)
        write_one(lane, LARGEST);
    write_one(lane, LARGEST - 8);
}

static void send_into_full(void)
{
    for (uint64_t i = 0; i < count; i++) {
        write_one(&lanes[0], i ? LARGEST : LARGEST - 8);
        publish(&lanes[0]);
    }
}

/* Seven lie in it, and the next one fits to the byte; the zero behind it has to wait for the first to be given back. */
static void set_up_brim(void)
{
    open_all(1, 7 * CAPACITY);
    lanes[0].largest = true;
    while (lanes[0].sent < RING_LARGEST_PART - 1)
        write_one(&lanes[0], LARGEST);
}

static void send_to_brim(void)
{
    for (uint64_t i = 0; i < count; i++) {
        write_one(&lanes[0], LARGEST);
        publish(&lanes[0]);
    }
}

static const char *check_brim(void)
{
    return lanes[0].received == count && lanes[0].sent == RING_LARGEST_PART - 1 + count ? NULL : "not all were read";
}

static const char *check_full(void)
{
    const struct lane *lane = &lanes[0];

    if (lane->sender.receiver_page->position != 5 * CAPACITY + count * (LARGEST + RING_WORD_BYTES))
        return "what was taken is not delivered";
    return lane->sent == RING_LARGEST_PART + count ? NULL : "what was given back is not used";
}

/* One call of the doorbell for all of them. */
static void send_batch(void)
{
    while (lanes[0].sent < count)
        write_one(&lanes[0], size_of(lanes[0].sent));
    publish(&lanes[0]);
}

/* Each record is answered by a verdict, for which the sender sleeps. */
static void send_and_wait(void)
{
    struct pair *sender = &lanes[0].sender;
    struct ring_reader *verdicts = &sender->sender.verdicts;

    for (uint64_t i = 0; i < count; i++) {
        const uint8_t *body;
        uint32_t size;
        uint64_t position = sender->sender.ring.position, verdict;

        write_one(&lanes[0], size_of(i));
        publish(&lanes[0]);
        while (ring_peek(verdicts, &body, &size) == 0) {
            pair_arm(sender);
            if (ring_peek(verdicts, &body, &size) == 0)
                model_wait(&sender_bell);
            pair_disarm(sender);
        }
        memcpy(&verdict, body, sizeof verdict);
        if (size != sizeof verdict || verdict != i)
            model_fail("a verdict that was not given");
        if (!pair_is_delivered(sender, position))
            model_fail("a verdict on what is not delivered");
        ring_next(verdicts, size);
        ring_release(verdicts);
    }
}

static void answer(uint64_t number, bool is_published)
{
    struct pair *receiver = &lanes[0].receiver.pair;
    uint64_t position;

    if (ring_write(&receiver->receiver.verdicts, &number, sizeof number, &position) != 0)
        model_fail("the writer of verdicts finds a broken ring");
    if (is_published && pair_publish(receiver))
        model_ring(&sender_bell);
}

static void receive_and_answer(void)
{
    for (uint64_t i = 0; i < count; i++) {
        receive(1);
        answer(i, true);
    }
}

/* Who sees that a record is delivered sees that it was counted. */
static void send_and_count(void)
{
    struct pair *sender = &lanes[0].sender;
    uint64_t position = sender->sender.ring.position;

    send_from(&lanes[0]);
    while (!pair_is_delivered(sender, position))
        model_await_change(&sender->receiver_page->position, 8);
    if (atomic_load_explicit(&sender->receiver_page->taken, memory_order_relaxed) == 0)
        model_fail("delivered and not counted");
}

/* The sender leaves; the receiver, who may sleep, hears of it, and not before it has all records. */
static void send_and_leave(void)
{
    struct pair *sender = &lanes[0].sender;

    while (lanes[0].sent < count)
        write_one(&lanes[0], size_of(lanes[0].sent));
    pair_set_gate(sender, PAIR_CLOSED, true);
    publish(&lanes[0]);
}

static void receive_until_left(void)
{
    struct pair *receiver = &lanes[0].receiver.pair;
    bool has_left = false;

    for (;;) {
        struct mailbox_entry *entry;
        const uint8_t *body;
        uint32_t size;

        if (look(&entry, &body, &size)) {
            take_one(entry, body, size);
            continue;
        }
        if (has_left)
            return;
        mailbox_arm(&mailbox);
        has_left = pair_peer(receiver) == -ESHUTDOWN;
        if (!has_left && !look(&entry, &body, &size))
            model_wait(&receiver_bell);
        mailbox_disarm(&mailbox);
    }
}

/* Another thread of the receiver, while it arms and the sender disarms. */
static void pause_and_close(void)
{
    struct pair *receiver = &lanes[0].receiver.pair;

    pair_set_gate(receiver, PAIR_PAUSED, true);
    pair_set_gate(receiver, PAIR_CLOSED, true);
    if (pair_peer(&lanes[0].sender) != -ESHUTDOWN)
        model_fail("closed, and not seen to be");
    pair_set_gate(receiver, PAIR_PAUSED, false);
}

static const char *check_closed(void)
{
    uint32_t gate = lanes[0].receiver.pair.receiver_page->gate;

    return (gate & ~(uint32_t)PAIR_ARMED) == PAIR_CLOSED ? check_all() : "a bit of the gate was undone";
}

/* Who sees that the receiver has left sees all the verdicts it gave. */
static void send_and_see_off(void)
{
    struct pair *sender = &lanes[0].sender;
    struct ring_reader *verdicts = &sender->sender.verdicts;
    const uint8_t *body;
    uint32_t size;

    send_from(&lanes[0]);
    while (pair_peer(sender) != -ESHUTDOWN)
        model_await_change(sender->peer_gate, sizeof *sender->peer_gate);
    for (uint64_t i = 0; i < count; i++) {
        if (ring_peek(verdicts, &body, &size) != 1)
            model_fail("a verdict was given and is not seen");
        ring_next(verdicts, size);
    }
}

static void answer_and_leave(void)
{
    receive(count);
    for (uint64_t i = 0; i < count; i++)
        answer(i, false);
    pair_set_gate(&lanes[0].receiver.pair, PAIR_CLOSED, true);
}

static void receive_all(void)
{
    receive(count * mailbox.n_entries);
}

struct proof {
    struct model_scenario scenario;
    uint64_t counts[2]; /* of records a sender, short and long; 0: not then */
};

/* The short ones first: most mutants need go no further. */
static const struct proof proofs[] = {
    {{"a batch", 2, set_up_fresh, {send_batch, receive_all}, check_all}, {2, 3}},
    {{"padding", 2, set_up_padding, {first_sender, receive_all}, check_all}, {1, 3}},
    {{"a full ring", 2, set_up_full, {send_into_full, receive_all}, check_full}, {2, 3}},
    {{"to the brim", 2, set_up_brim, {send_to_brim, receive_all}, check_brim}, {2, 3}},
    {{"counting", 2, set_up_fresh, {send_and_count, receive_all}, check_all}, {1, 2}},
    {{"leaving", 2, set_up_fresh, {send_and_see_off, answer_and_leave}, check_all}, {1, 2}},
    {{"being left", 2, set_up_fresh, {send_and_leave, receive_until_left}, check_all}, {1, 2}},
    {{"verdicts", 2, set_up_fresh, {send_and_wait, receive_and_answer}, check_all}, {1, 1}},
    {{"closing", 3, set_up_fresh, {first_sender, receive_all, pause_and_close}, check_closed}, {1, 1}},
    {{"one by one", 2, set_up_fresh, {first_sender, receive_all}, check_all}, {2, 3}},
    {{"the end of the ring", 2, set_up_wrap, {first_sender, receive_all}, check_all}, {2, 3}},
    {{"a broken chain", 2, set_up_copy, {send_one_after_all, receive_to_the_end}, check_all}, {2, 3}},
    {{"a late copy", 3, set_up_copy, {send_one_later, receive_to_the_end, copy_one}, check_all}, {1, 2}},
    {{"one behind padding", 3, set_up_copy_behind_padding, {send_one_later, receive_to_the_end, copy_one}, check_all},
     {1, 2}},
    {{"the last copy first", 3, set_up_copies, {send_all_later, receive_to_the_end, copy_last_first}, check_all},
     {0, 2}},
    {{"two senders", 3, set_up_two_senders, {first_sender, receive_all, second_sender}, check_all}, {0, 1}},
};
enum { N_PROOFS = sizeof proofs / sizeof *proofs };

static void prove(bool thorough)
{
    for (unsigned i = 0; i < N_PROOFS; i++) {
        struct model_result result;

        count = proofs[i].counts[thorough];
        if (!count)
            continue;
        result = model_explore(&proofs[i].scenario, (struct model_mutant){0});
        printf(
            "%-20s %llu records: %llu runs, %llu cut short, %llu steps: %s\n", proofs[i].scenario.name,
            (unsigned long long)count, (unsigned long long)result.runs, (unsigned long long)result.cut_short,
            (unsigned long long)result.steps, result.failure ? result.failure : "holds");
        fflush(stdout);
        CHECK(result.runs > 1);
        CHECK(!result.failure);
    }
}

/* --- mutants --- */

static const char *const weaknesses[MODEL_N_WEAKNESSES] = {"sound", "dropped", "relaxed", "split"};

/* What the code asks for and these scenarios do not need. */
static const struct survivor {
    const char *function;
    enum model_kind kind;
    enum model_weakness weakness;
} survivors[] = {
    /* The fence has ordered the records already; what it takes from the gate orders nothing. */
    {"pair_publish", MODEL_CHANGE, MODEL_RELAXED},
    /* Nobody else changes that word; the kernel stores a byte of it. */
    {"ring_commit_now", MODEL_CHANGE, MODEL_SPLIT},
};

static bool may_survive(const struct model_mutant *mutant)
{
    for (unsigned i = 0; i < sizeof survivors / sizeof *survivors; i++)
        if (strcmp(survivors[i].function, mutant->site->function) == 0 && survivors[i].kind == mutant->site->kind &&
            survivors[i].weakness == mutant->weakness)
            return true;
    return false;
}

/* Whether it was tried: that one survives every run takes long. */
static bool prove_mutant(struct model_mutant mutant, bool thorough)
{
    const char *failure = NULL, *name = "every scenario";

    if (may_survive(&mutant) && !thorough)
        return false;
    for (unsigned i = 0; i < N_PROOFS && !failure; i++) {
        count = proofs[i].counts[0];
        if (!count)
            continue;
        failure = model_explore(&proofs[i].scenario, mutant).failure;
        if (failure)
            name = proofs[i].scenario.name;
    }
    printf(
        "  %s:%d %s: %s: %s\n", mutant.site->function, mutant.site->line, weaknesses[mutant.weakness], name,
        failure ? failure : "holds");
    CHECK(failure ? !may_survive(&mutant) : may_survive(&mutant));
    return true;
}

int main(int argc, char **argv)
{
    bool thorough = argc > 1 && strcmp(argv[1], "long") == 0;
    unsigned n_mutants = 0;

    model_watch(lanes, sizeof lanes);
    prove(thorough);
    for (struct model_site *site = model_sites(); site; site = site->next)
        for (enum model_weakness weakness = MODEL_SOUND; weakness < MODEL_N_WEAKNESSES; weakness++)
            if (model_applies(site, weakness))
                n_mutants += prove_mutant((struct model_mutant){site, weakness}, thorough);
    printf("%u mutants\n", n_mutants);
    CHECK(n_mutants > 0);
    return EXIT_SUCCESS;
}

#endif
