/* Doorbells through the engine on the kernel's own io_uring: they ring, and say nothing of it. */
#define _GNU_SOURCE
#include "uring_tests.h"

#include <fcntl.h>
#include <pthread.h>
#include <string.h>
#include <sys/eventfd.h>
#include <sys/mman.h>
#include <unistd.h>

enum { BELLS = 32 };

static void make(int *bells)
{
    for (int i = 0; i < BELLS; i++)
        CHECK((bells[i] = eventfd(0, EFD_CLOEXEC | EFD_NONBLOCK)) >= 0);
}

static uint64_t rung(int bell)
{
    uint64_t count = 0;

    return read(bell, &count, sizeof count) == sizeof count ? count : 0;
}

static bool is_readable(const struct uring *uring)
{
    struct pollfd ready = {.fd = uring->fd, .events = POLLIN};

    return poll(&ready, 1, 0) == 1;
}

static void test_many(const struct uring_shape *shape)
{
    struct uring uring = open_one(shape);
    struct uring_completion completions[4];
    int bells[BELLS];

    make(bells);
    CHECK(uring_ring(&uring, bells, 0) == 0 && uring.counts.enters == 0);
    CHECK(uring_ring(&uring, bells, 1) == 1 && rung(bells[0]) == 1);
    CHECK(uring_ring(&uring, bells, BELLS) == BELLS && uring.counts.enters == 2);
    for (int i = 0; i < BELLS; i++)
        CHECK(rung(bells[i]) == 1);
    CHECK(uring.n_in_flight == 0 && uring_queued(&uring) == 0 && uring_room(&uring) == MANY);
    CHECK(!is_readable(&uring) && uring_reap(&uring, completions, 4) == 0);
    CHECK(uring.counts.submitted[URING_DOORBELL] == BELLS + 1 && uring.counts.completed[URING_DOORBELL] == 0);
    close_idle(&uring);
    for (int i = 0; i < BELLS; i++)
        close(bells[i]);
}

/* Together with what else is queued, and never as a part of its chain. */
static void test_beside_others(void)
{
    struct uring uring = open_one(&usual);
    struct uring_completion completions[MANY];
    int bells[BELLS];
    uint64_t token = queue_nop(&uring);

    make(bells);
    CHECK(uring_ring(&uring, bells, 2) == 2 && uring.counts.enters == 1);
    reap_all(&uring, completions, 1);
    CHECK(completions[0].token == token && rung(bells[0]) == 1 && rung(bells[1]) == 1);
    queue(&uring, (struct uring_request){.kind = URING_NOP, .link = true});
    CHECK(uring_ring(&uring, bells, 2) == 0 && uring_queued(&uring) == 1);
    queue_nop(&uring);
    CHECK(uring_ring(&uring, bells, 2) == 2);
    reap_all(&uring, completions, 2);
    /* The queue holds what it holds. */
    for (int i = 0; i < MANY - 1; i++)
        queue_nop(&uring);
    CHECK(uring_ring(&uring, bells, 3) == 1);
    reap_all(&uring, completions, MANY - 1);
    CHECK(rung(bells[0]) == 2 && rung(bells[1]) == 1 && rung(bells[2]) == 0);
    close_idle(&uring);
    for (int i = 0; i < BELLS; i++)
        close(bells[i]);
}

/* The end of a chain rings when all before it has succeeded; else that it did not is counted, and nothing told. */
static void test_chain(const struct uring_shape *shape)
{
    struct uring uring = open_one(shape);
    struct uring_completion completions[2];
    int bells[BELLS], file = memfd_create("body", MFD_CLOEXEC);
    char text[] = "a body", back[8] = "";

    make(bells);
    queue(&uring, (struct uring_request){.kind = URING_WRITE, .fd = file, .buffer = text, .length = 6, .link = true});
    CHECK(uring_queue_doorbell(&uring, bells[0]) == 0 && uring_queued(&uring) == 2);
    CHECK(uring_submit(&uring) == 2);
    reap_all(&uring, completions, 1);
    while (rung(bells[0]) == 0)
        ;
    CHECK(completions[0].result == 6 && pread(file, back, 8, 0) == 6 && memcmp(back, text, 6) == 0);
    queue(
        &uring,
        (struct uring_request){.kind = URING_WRITE, .fd = file, .buffer = (void *)8, .length = 6, .link = true});
    CHECK(uring_queue_doorbell(&uring, bells[0]) == 0 && uring_submit(&uring) == 2);
    reap_all(&uring, completions, 1);
    CHECK(completions[0].result == -EFAULT);
    while (uring.counts.failed[URING_DOORBELL] == 0)
        CHECK(uring_reap(&uring, completions, 1) == 0);
    CHECK(rung(bells[0]) == 0 && uring.counts.submitted[URING_DOORBELL] == 2);
    /* What never left rings nothing. */
    CHECK(uring_queue_doorbell(&uring, bells[0]) == 0);
    close_idle(&uring);
    CHECK(rung(bells[0]) == 0 && uring.counts.submitted[URING_DOORBELL] == 2);
    for (int i = 0; i < BELLS; i++)
        close(bells[i]);
    close(file);
}

/* Of several, one that is closed: the others ring, and that one is counted. */
static void test_failures(void)
{
    struct uring uring = open_one(&usual);
    struct uring_completion completion;
    uint64_t most = UINT64_MAX - 1;
    int bells[BELLS];

    make(bells);
    close(bells[1]);
    CHECK(uring_ring(&uring, bells, 3) == 3 && rung(bells[0]) == 1 && rung(bells[2]) == 1);
    CHECK(uring_reap(&uring, &completion, 1) == 0);
    CHECK(uring.counts.failed[URING_DOORBELL] == 1 && uring.counts.completed[URING_DOORBELL] == 1);
    /* It counts no further: it is rung. */
    CHECK(write(bells[0], &most, sizeof most) == sizeof most);
    CHECK(uring_ring(&uring, bells, 1) == 1 && uring_reap(&uring, &completion, 1) == 0);
    CHECK(uring.counts.failed[URING_DOORBELL] == 1 && rung(bells[0]) == most);
    CHECK(uring_queue_doorbell(&uring, -1) == -EINVAL);
    /* A kernel that tells of each success is spared that. */
    uring.skips = false;
    CHECK(uring_ring(&uring, bells, 1) == 0 && uring_queue_doorbell(&uring, bells[0]) == -EOPNOTSUPP);
    close_idle(&uring);
    for (int i = 0; i < BELLS; i++)
        close(bells[i]);
}

static void *ring_from_another_thread(void *argument)
{
    int bell = eventfd(0, EFD_CLOEXEC | EFD_NONBLOCK);

    CHECK(uring_ring(argument, &bell, 1) == 0 && uring_queue_doorbell(argument, bell) == -EEXIST);
    close(bell);
    return NULL;
}

static void test_another_thread(void)
{
    struct uring uring = open_one(&usual);
    pthread_t thread;

    CHECK(pthread_create(&thread, NULL, ring_from_another_thread, &uring) == 0 && pthread_join(thread, NULL) == 0);
    close_idle(&uring);
    thread = pthread_self();
    CHECK(uring_ring(&uring, &(int){0}, 1) == 0 && uring_await_taken(&uring)); /* it is closed */
}

/* More engines than a thread can register, one after the other and at once. */
static void test_many_engines(void)
{
    struct uring urings[20];
    int bell = eventfd(0, EFD_CLOEXEC | EFD_NONBLOCK);
    int n_registered = 0;

    for (int i = 0; i < 100; i++) {
        struct uring uring = open_one(&usual);

        CHECK(uring_ring(&uring, &bell, 1) == 1);
        n_registered += uring.enter_flags != 0;
        close_idle(&uring);
    }
    CHECK(n_registered == 0 || n_registered == 100);
    for (int i = 0; i < 20; i++)
        urings[i] = open_one(&usual);
    for (int i = 0; i < 20; i++) {
        CHECK(uring_ring(&urings[i], &bell, 1) == 1);
        close_idle(&urings[i]);
    }
    CHECK(rung(bell) == 120);
    close(bell);
}

static void test_thread_of_the_kernel(void)
{
    struct uring_shape shape = {.entries = MANY, .sqpoll_cpu = 0};
    struct uring uring;
    int error = uring_open(&uring, &shape), bells[BELLS];

    if (error == -EPERM || error == -EINVAL)
        return;
    CHECK(error == 0);
    make(bells);
    for (int i = 0; i < 5; i++) {
        struct pollfd none = {.fd = -1};
        uint32_t n = uring_ring(&uring, bells, BELLS);

        CHECK(n == BELLS && uring_await_taken(&uring));
        for (int j = 0; j < BELLS; j++)
            while (rung(bells[j]) == 0)
                ;
        while (i == 2 && !uring_sleeps(&uring))
            poll(&none, 1, 5);
    }
    CHECK(uring_ring(&uring, bells, BELLS) == BELLS);
    close_idle(&uring);
    test_chain(&shape);
    for (int j = 0; j < BELLS; j++)
        close(bells[j]);
}

int main(void)
{
    need_one();
    test_many(&usual);
    test_many(&deferring);
    test_beside_others();
    test_chain(&usual);
    test_failures();
    test_another_thread();
    test_many_engines();
    test_thread_of_the_kernel();
    return EXIT_SUCCESS;
}
