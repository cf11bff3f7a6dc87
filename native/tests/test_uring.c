/* The engine on the kernel's own io_uring: every kind of request, and how each may end. */
#define _GNU_SOURCE
#include "uring_tests.h"

#include <fcntl.h>
#include <string.h>
#include <sys/eventfd.h>
#include <sys/mman.h>
#include <unistd.h>

static void test_every_kind(const struct uring_shape *shape)
{
    struct uring uring = open_one(shape);
    int file = memfd_create("engine", MFD_CLOEXEC), bell = eventfd(0, EFD_CLOEXEC | EFD_NONBLOCK);
    char text[] = "0123456789", back[16];
    uint64_t one = 1;

    CHECK(fcntl(uring.fd, F_GETFD) & FD_CLOEXEC);
    CHECK(run(&uring, (struct uring_request){.kind = URING_NOP}) == 0);
    CHECK(run(&uring, transfer(URING_WRITE, file, text, 10, 5)) == 10);
    CHECK(run(&uring, transfer(URING_READ, file, back, 16, 10)) == 5);
    CHECK(memcmp(back, "56789", 5) == 0);
    CHECK(lseek(file, 14, SEEK_SET) == 14);
    CHECK(
        run(&uring,
            (struct uring_request){
                .kind = URING_READ, .fd = file, .buffer = back, .length = 16, .offset = -1, .punt = true}) == 1);
    CHECK(back[0] == '9' && lseek(file, 0, SEEK_CUR) == 15);
    CHECK(run(&uring, (struct uring_request){.kind = URING_FSYNC, .fd = file}) == 0);
    CHECK(run(&uring, (struct uring_request){.kind = URING_FSYNC, .fd = file, .data_only = true}) == 0);
    CHECK(run(&uring, transfer(URING_WRITE, bell, &one, 8, -1)) == 8);
    CHECK(run(&uring, (struct uring_request){.kind = URING_POLL, .fd = bell, .events = POLLIN | POLLERR}) == POLLIN);
    CHECK(run(&uring, transfer(URING_READ, bell, &one, 8, -1)) == 8 && one == 1);
    CHECK(run(&uring, (struct uring_request){.kind = URING_CANCEL, .target = 12345}) == -ENOENT);
    CHECK(run(&uring, transfer(URING_READ, 1 << 20, back, 16, 0)) == -EBADF);
    CHECK(run(&uring, transfer(URING_WRITE, file, (void *)(uintptr_t)8, 16, 0)) == -EFAULT);
    CHECK(uring.counts.submitted[URING_READ] == 4 && uring.counts.completed[URING_READ] == 4);
    CHECK(uring.counts.failed[URING_READ] == 1 && uring.counts.failed[URING_WRITE] == 1);
    CHECK(uring.counts.completed[URING_FSYNC] == 2 && uring.counts.failed[URING_CANCEL] == 1);
    close_idle(&uring);
    close(file);
    close(bell);
}

static void test_no_request(void)
{
    struct uring_request wrong[] = {
        {.kind = URING_N_KINDS},
        {.kind = URING_READ, .fd = -1},
        {.kind = URING_READ, .length = (size_t)1 << 31},
        {.kind = URING_WRITE, .offset = -2},
        {.kind = URING_FSYNC, .fd = -1},
        {.kind = URING_POLL, .events = 1 << 16},
    };
    struct uring_shape shapes[] = {
        {.entries = 0, .sqpoll_cpu = -1},
        {.entries = URING_MAX_ENTRIES + 1, .sqpoll_cpu = -1},
        {.entries = 8, .completions = 1 << 20, .sqpoll_cpu = -1},
        {.entries = 8, .completions = 4, .sqpoll_cpu = -1}, /* fewer than entries */
        {.entries = 8, .sqpoll_cpu = 1 << 20},              /* no such core */
    };
    struct uring uring = open_one(&usual);
    uint64_t token;

    for (size_t i = 0; i < sizeof wrong / sizeof *wrong; i++)
        CHECK(uring_queue(&uring, &wrong[i], &token) == -EINVAL);
    CHECK(uring_submit(&uring) == 0);
    close_idle(&uring);
    CHECK(uring_submit(&uring) == -EBADF && uring_queue(&uring, wrong, &token) == -EBADF);
    for (size_t i = 0; i < sizeof shapes / sizeof *shapes; i++)
        CHECK(uring_open(&uring, &shapes[i]) == -EINVAL && uring.fd == -1);
}

/* Whatever a chain's middle comes to, what is linked behind it does not start. */
static void test_broken_links(void)
{
    struct uring uring = open_one(&usual);
    struct uring_completion completions[4];
    int file = memfd_create("engine", MFD_CLOEXEC), other = memfd_create("other", MFD_CLOEXEC);
    char text[] = "abcd", back[8];
    uint64_t tokens[4];

    CHECK(write(file, "xy", 2) == 2);
    tokens[0] = queue(
        &uring, (struct uring_request){
                    .kind = URING_WRITE, .fd = file, .buffer = text, .length = 4, .offset = 0, .link = true});
    /* Fewer bytes than it asked for. */
    tokens[1] = queue(
        &uring,
        (struct uring_request){.kind = URING_READ, .fd = file, .buffer = back, .length = 8, .offset = 0, .link = true});
    tokens[2] = queue(&uring, transfer(URING_WRITE, file, text, 4, 4));
    tokens[3] = queue(&uring, transfer(URING_WRITE, other, text, 4, 0));
    CHECK(uring_submit(&uring) == 4);
    reap_all(&uring, completions, 4);
    for (int i = 0; i < 4; i++) {
        int32_t result = completions[i].result;

        CHECK(
            completions[i].token == tokens[0] || completions[i].token == tokens[3]
                ? result == 4
                : result == (completions[i].token == tokens[1] ? 4 : -ECANCELED));
    }
    CHECK(lseek(file, 0, SEEK_END) == 4 && lseek(other, 0, SEEK_END) == 4);
    close_idle(&uring);
    close(file);
    close(other);
}

/* Many more completions than the ring holds: each is told, once. */
static void test_overflow(void)
{
    struct uring_shape tiny = {.entries = 4, .completions = 4, .in_flight = MANY, .sqpoll_cpu = -1};
    struct uring uring = open_one(&tiny);
    struct uring_completion completions[MANY];
    uint64_t tokens[MANY], extra;
    struct uring_request nop = {.kind = URING_NOP};

    for (int i = 0; i < MANY; i++) {
        CHECK(uring_room(&uring) == (uint32_t)(4 - i % 4));
        tokens[i] = queue_nop(&uring);
        if (i % 4 != 3)
            continue;
        CHECK(uring_room(&uring) == 0 && uring_queued(&uring) == 4);
        CHECK(uring_queue(&uring, &nop, &extra) == -EAGAIN); /* no place in the queue */
        CHECK(uring_submit(&uring) == 4);
    }
    CHECK(uring_queue(&uring, &nop, &extra) == -EAGAIN); /* no slot */
    CHECK(atomic_load(uring.memory.sq_flags) & IORING_SQ_CQ_OVERFLOW);
    reap_all(&uring, completions, MANY);
    for (int i = 0; i < MANY; i++)
        CHECK(completions[i].token == tokens[i] && completions[i].result == 0);
    CHECK(uring_room(&uring) == 4);
    close_idle(&uring);
}

static void test_generations(void)
{
    struct uring_shape one = {.entries = 1, .completions = 2, .in_flight = 1, .sqpoll_cpu = -1};
    struct uring uring = open_one(&one);
    struct uring_completion completion;
    uint64_t last = 0;

    for (int i = 0; i < 1000; i++) {
        uint64_t token = queue_nop(&uring);

        CHECK((token > last || i == 500) && uring_slot_of(token) == 0);
        CHECK(uring_submit(&uring) == 1 && uring_reap(&uring, &completion, 1) == 1 && completion.token == token);
        last = token;
        if (i == 498) /* its last one */
            uring.slots[0].generation = UINT32_MAX;
    }
    close_idle(&uring);
}

static void test_cancel(void)
{
    struct uring uring = open_one(&usual);
    struct uring_completion completions[2];
    int pipes[2];
    char back[8];
    uint64_t reading, cancelling;

    CHECK(pipe(pipes) == 0);
    reading = queue(&uring, transfer(URING_READ, pipes[0], back, 8, -1));
    CHECK(uring_submit(&uring) == 1 && uring_reap(&uring, completions, 2) == 0 && uring.n_in_flight == 1);
    CHECK(uring_holds(&uring, uring_slot_of(reading)));
    cancelling = queue(&uring, (struct uring_request){.kind = URING_CANCEL, .target = reading});
    CHECK(uring_submit(&uring) == 1);
    reap_all(&uring, completions, 2);
    for (int i = 0; i < 2; i++)
        CHECK(completions[i].result == (completions[i].token == cancelling ? 0 : -ECANCELED));
    CHECK(!uring_holds(&uring, uring_slot_of(reading)));
    CHECK(run(&uring, (struct uring_request){.kind = URING_CANCEL, .target = reading}) == -ENOENT);
    /* Completions that nothing but the descriptor tells of. */
    reading = queue(&uring, transfer(URING_READ, pipes[0], back, 8, -1));
    CHECK(uring_submit(&uring) == 1 && uring_reap(&uring, completions, 2) == 0);
    CHECK(write(pipes[1], "late", 4) == 4);
    reap_all(&uring, completions, 1);
    CHECK(completions[0].token == reading && completions[0].result == 4 && memcmp(back, "late", 4) == 0);
    close_idle(&uring);
    close(pipes[0]);
    close(pipes[1]);
}

/* As many as there may be, on a pipe where nothing ever comes; some with others linked behind; some never submitted. */
static void test_stop(const struct uring_shape *shape)
{
    struct uring uring = open_one(shape);
    struct uring_completion completions[2 * MANY];
    char back[MANY][8];
    int pipes[2];
    uint32_t n;

    CHECK(pipe(pipes) == 0);
    for (int i = 0; i < MANY; i++)
        queue(
            &uring,
            (struct uring_request){
                .kind = URING_READ, .fd = pipes[0], .buffer = back[i], .length = 8, .offset = -1, .link = i % 3 == 0});
    CHECK(uring_submit(&uring) == MANY);
    while (uring_room(&uring) < 2) /* the kernel's thread takes its time */
        ;
    queue_nop(&uring);
    queue_nop(&uring);
    CHECK(uring_stop(&uring, 20000, completions, &n) == 0);
    CHECK(n == MANY + 2 && uring.n_in_flight == 0 && uring.counts.unexpected == 0);
    CHECK(completions[0].kind == URING_NOP && uring.counts.submitted[URING_NOP] == 0);
    for (uint32_t i = 0; i < n; i++) {
        CHECK(completions[i].result == -ECANCELED || completions[i].result == -EINTR);
        CHECK(!uring_holds(&uring, uring_slot_of(completions[i].token)));
    }
    uring_close(&uring);
    close(pipes[0]);
    close(pipes[1]);
}

static void test_thread_of_the_kernel(void)
{
    struct uring_shape shape = {.entries = MANY, .sqpoll_cpu = 0};
    struct uring uring;
    int error = uring_open(&uring, &shape);

    if (error == -EPERM || error == -EINVAL) /* before Linux 5.13 not for everybody; core 0 may not be ours */
        return;
    CHECK(error == 0 && uring.setup_flags & IORING_SETUP_SQPOLL);
    for (int i = 0; i < 3; i++) {
        struct pollfd none = {.fd = -1};

        for (int j = 0; j < 100; j++)
            CHECK(run(&uring, (struct uring_request){.kind = URING_NOP}) == 0);
        poll(&none, 1, 60); /* it falls asleep */
    }
    close_idle(&uring);
    test_every_kind(&shape);
    test_stop(&shape);
}

int main(void)
{
    need_one();
    test_every_kind(&usual);
    test_every_kind(&deferring);
    test_no_request();
    test_broken_links();
    test_overflow();
    test_generations();
    test_cancel();
    test_stop(&usual);
    test_stop(&deferring);
    test_thread_of_the_kernel();
    return EXIT_SUCCESS;
}
