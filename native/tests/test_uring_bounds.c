/* Who may not use the engine, or make one: another thread, a child, a sandboxed process; and what it may not do. */
#define _GNU_SOURCE
#include "uring_tests.h"

#include <linux/filter.h>
#include <linux/seccomp.h>
#include <pthread.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/prctl.h>
#include <sys/syscall.h>
#include <sys/wait.h>
#include <unistd.h>

static void *use_from_another_thread(void *argument)
{
    struct uring *uring = argument;
    struct uring_request nop = {.kind = URING_NOP};
    struct uring_completion completion;
    uint64_t token;
    uint32_t n;

    CHECK(uring_queue(uring, &nop, &token) == -EEXIST && uring_submit(uring) == -EEXIST);
    CHECK(uring_reap(uring, &completion, 1) == -EEXIST && uring_stop(uring, 0, &completion, &n) == -EEXIST);
    if (uring->setup_flags & IORING_SETUP_SINGLE_ISSUER) { /* and so says the kernel */
        struct uring by_descriptor = {.enter_fd = uring->fd};

        CHECK(uring->enter(&by_descriptor, 1, 0) == -EEXIST);
    }
    return NULL;
}

static void test_another_thread(void)
{
    struct uring uring = open_one(&usual);
    struct uring_completion completion;
    pthread_t thread;
    uint64_t token = queue_nop(&uring);

    CHECK(pthread_create(&thread, NULL, use_from_another_thread, &uring) == 0 && pthread_join(thread, NULL) == 0);
    CHECK(uring_submit(&uring) == 1);
    reap_all(&uring, &completion, 1);
    CHECK(completion.token == token);
    close_idle(&uring);
}

static void test_fork(void)
{
    struct uring uring = open_one(&usual);
    struct uring_completion completion;
    uint64_t token = queue_nop(&uring);
    pid_t child = fork();
    int status;

    CHECK(child >= 0);
    if (child == 0) {
        struct uring_request nop = {.kind = URING_NOP};
        unsigned char resident;
        uint32_t n;

        if (uring_queue(&uring, &nop, &token) != -ESTALE || uring_submit(&uring) != -ESTALE ||
            uring_reap(&uring, &completion, 1) != -ESTALE || uring_stop(&uring, 0, &completion, &n) != -ESTALE)
            _exit(1);
        if (mincore(uring.maps[0], 4096, &resident) == 0 || mincore(uring.maps[1], 4096, &resident) == 0)
            _exit(2);
        uring_close(&uring);
        _exit(0);
    }
    CHECK(waitpid(child, &status, 0) == child && WIFEXITED(status) && WEXITSTATUS(status) == 0);
    CHECK(uring_submit(&uring) == 1);
    reap_all(&uring, &completion, 1);
    CHECK(completion.token == token);
    close_idle(&uring);
}

/* Whoever got at its memory could still ask for nothing but what the engine does. */
static void test_restriction(void)
{
    struct uring uring = open_one(&usual);
    struct uring_completion completion;

    if (uring.restricted) {
        uint64_t token = queue_nop(&uring);

        uring.memory.sqes[0].opcode = IORING_OP_OPENAT;
        CHECK(uring_submit(&uring) == 1);
        reap_all(&uring, &completion, 1);
        CHECK(completion.token == token && completion.result == -EACCES);
    }
    close_idle(&uring);
}

/* In a child, since a filter can't be taken off again. */
static void test_a_filter(unsigned call, int error)
{
    struct sock_filter steps[] = {
        BPF_STMT(BPF_LD | BPF_W | BPF_ABS, offsetof(struct seccomp_data, nr)),
        BPF_JUMP(BPF_JMP | BPF_JEQ | BPF_K, call, 0, 1),
        BPF_STMT(BPF_RET | BPF_K, SECCOMP_RET_ERRNO | (unsigned)error),
        BPF_STMT(BPF_RET | BPF_K, SECCOMP_RET_ALLOW),
    };
    struct sock_fprog program = {.len = sizeof steps / sizeof *steps, .filter = steps};
    pid_t child = fork();
    int status;

    CHECK(child >= 0);
    if (child == 0) {
        const char *word = error == EPERM ? "forbidden" : "no io_uring";
        struct uring uring;

        if (prctl(PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0) < 0 || prctl(PR_SET_SECCOMP, SECCOMP_MODE_FILTER, &program) < 0)
            _exit(EXIT_SKIPPED);
        if (uring_open(&uring, &usual) != -error || uring.fd != -1 || !strstr(uring_refusal(-error), word))
            _exit(1);
        _exit(0);
    }
    CHECK(waitpid(child, &status, 0) == child && WIFEXITED(status));
    CHECK(WEXITSTATUS(status) == 0 || WEXITSTATUS(status) == EXIT_SKIPPED);
}

int main(void)
{
    test_a_filter(__NR_io_uring_setup, EPERM);
    test_a_filter(__NR_io_uring_setup, ENOSYS);
    need_one();
    test_a_filter(__NR_io_uring_register, EPERM);
    test_another_thread();
    test_fork();
    test_restriction();
    return EXIT_SUCCESS;
}
