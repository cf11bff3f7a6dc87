/* The probe agrees with the kernel's own switch, says EPERM under a filter that forbids it, and leaves nothing open. */
#define _GNU_SOURCE
#include "../probe.h"

#include <errno.h>
#include <fcntl.h>
#include <linux/filter.h>
#include <linux/seccomp.h>
#include <stddef.h>
#include <sys/prctl.h>
#include <sys/syscall.h>
#include <sys/wait.h>
#include <unistd.h>

#include "check.h"

static void test_leaves_nothing_open(void)
{
    int before = open("/dev/null", O_RDONLY | O_CLOEXEC), after;

    close(before);
    probe_io_uring();
    after = open("/dev/null", O_RDONLY | O_CLOEXEC);
    CHECK(before == after);
    close(after);
}

/* In a child, since a filter can't be taken off again. */
static void test_a_filter_is_seen(void)
{
    struct sock_filter steps[] = {
        BPF_STMT(BPF_LD | BPF_W | BPF_ABS, offsetof(struct seccomp_data, nr)),
        BPF_JUMP(BPF_JMP | BPF_JEQ | BPF_K, __NR_io_uring_setup, 0, 1),
        BPF_STMT(BPF_RET | BPF_K, SECCOMP_RET_ERRNO | EPERM),
        BPF_STMT(BPF_RET | BPF_K, SECCOMP_RET_ALLOW),
    };
    struct sock_fprog program = {.len = sizeof steps / sizeof *steps, .filter = steps};
    pid_t child = fork();
    int status;

    CHECK(child >= 0);
    if (child == 0) {
        if (prctl(PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0) < 0 || prctl(PR_SET_SECCOMP, SECCOMP_MODE_FILTER, &program) < 0)
            _exit(EXIT_SKIPPED);
        _exit(probe_io_uring() == -EPERM ? 0 : 1);
    }
    CHECK(waitpid(child, &status, 0) == child && WIFEXITED(status));
    CHECK(WEXITSTATUS(status) == 0 || WEXITSTATUS(status) == EXIT_SKIPPED);
}

int main(void)
{
    int result = probe_io_uring();

    CHECK(result == 0 || result == -ENOSYS || result == -EPERM || result == -ENOMEM);
    test_leaves_nothing_open();
    test_a_filter_is_seen();
    return EXIT_SUCCESS;
}
