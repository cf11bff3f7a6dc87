/* The pair: what it refuses to map, what a child may do with it, and that no wake-up is lost between two processes. */
#define _GNU_SOURCE
#include "../pair.h"

#include <fcntl.h>
#include <poll.h>
#include <sys/eventfd.h>
#include <sys/mman.h>
#include <sys/wait.h>
#include <unistd.h>

#include "check.h"

static const struct pair_shape shape = {
    .lane = PAIR_CRITICAL, .number = 7, .ring_capacity = 4096, .verdict_capacity = 1024};

static int create(void)
{
    int fd;

    CHECK(pair_create(&shape, false, &fd) == 0);
    return fd;
}

static struct pair attach(int fd, enum pair_end end)
{
    struct pair pair;

    CHECK(pair_attach(&pair, fd, &shape, end) == 0);
    return pair;
}

static void check_refused(int fd, const struct pair_shape *expected, int error)
{
    struct pair pair;

    CHECK(pair_attach(&pair, fd, expected, PAIR_RECEIVER) == error);
    CHECK(pair_attach(&pair, fd, expected, PAIR_SENDER) == error);
}

static void test_shapes(void)
{
    struct pair_shape wrong = shape;
    struct pair pair;
    int fd = create();

    CHECK(pair_total_bytes(&shape) == 3 * 4096 + 4096 + 4096);
    wrong.ring_capacity = 4095;
    CHECK(pair_total_bytes(&wrong) == 0);
    CHECK(pair_create(&wrong, false, &fd) == -EINVAL);
    check_refused(fd, &wrong, -EINVAL);
    wrong = shape;
    wrong.lane = 3;
    CHECK(pair_create(&wrong, false, &fd) == -EINVAL);
    CHECK(pair_attach(&pair, fd, &shape, 3) == -EINVAL);
    close(fd);
}

static void test_created_is_sealed(void)
{
    int fd = create();

    CHECK(fcntl(fd, F_GETFD) & FD_CLOEXEC);
    CHECK(ftruncate(fd, 4096) < 0 && errno == EPERM);
    CHECK(ftruncate(fd, 1 << 20) < 0 && errno == EPERM);
    CHECK(fcntl(fd, F_ADD_SEALS, F_SEAL_WRITE) < 0 && errno == EPERM);
    close(fd);
}

/* Each field of the header, changed: it is not the pair that was announced. */
static void test_header_is_checked(void)
{
    for (off_t place = 0; place < (off_t)sizeof(struct pair_header); place += 4) {
        uint32_t word;
        int fd = create();

        CHECK(pread(fd, &word, sizeof word, place) == sizeof word);
        word ^= 1;
        CHECK(pwrite(fd, &word, sizeof word, place) == sizeof word);
        check_refused(fd, &shape, -EPROTO);
        close(fd);
    }
}

static void test_forged_memory_is_refused(void)
{
    int real = create();
    off_t size = (off_t)pair_total_bytes(&shape);
    struct pair_shape other = shape;
    int pipes[2];
    int fd;

    other.ring_capacity *= 2;
    check_refused(real, &other, -EPROTO); /* too small for that */
    other = shape;
    other.number++;
    check_refused(real, &other, -EPROTO);
    check_refused(-1, &shape, -EBADF);
    CHECK(pipe(pipes) == 0);
    check_refused(pipes[0], &shape, -EPROTO);
    fd = memfd_create("forged", MFD_ALLOW_SEALING);
    CHECK(ftruncate(fd, size) == 0);
    check_refused(fd, &shape, -EPERM); /* it could be truncated under us */
    CHECK(fcntl(fd, F_ADD_SEALS, F_SEAL_SHRINK | F_SEAL_GROW) == 0);
    check_refused(fd, &shape, -EPERM); /* it could be sealed against our writes */
    CHECK(fcntl(fd, F_ADD_SEALS, F_SEAL_SEAL) == 0);
    check_refused(fd, &shape, -EPROTO); /* all zeros */
    close(fd);
    close(pipes[0]);
    close(pipes[1]);
    close(real);
}

/* A memfd with a pair's header, and that many bytes. */
static int like_a_pair(off_t bytes, int seals)
{
    int real = create(), fd = memfd_create("like-a-pair", MFD_ALLOW_SEALING);
    struct pair_header header;

    CHECK(pread(real, &header, sizeof header, 0) == sizeof header);
    close(real);
    CHECK(pwrite(fd, &header, sizeof header, 0) == sizeof header);
    CHECK(ftruncate(fd, bytes) == 0);
    CHECK(fcntl(fd, F_ADD_SEALS, seals) == 0);
    return fd;
}

/* Whose header is right, and whose memory is not. */
static void test_memory_is_checked(void)
{
    int sealed = F_SEAL_SHRINK | F_SEAL_GROW | F_SEAL_SEAL;
    off_t bytes = (off_t)pair_total_bytes(&shape);
    off_t wrong[] = {0, 1, sizeof(struct pair_header), 4096, bytes - 4096, bytes - 1, bytes + 1, bytes + 4096, 1 << 30};
    int incomplete[] = {
        0, F_SEAL_SHRINK, F_SEAL_GROW, F_SEAL_SEAL, F_SEAL_SHRINK | F_SEAL_SEAL, F_SEAL_GROW | F_SEAL_SEAL};
    char path[32];
    int fd, other;

    for (size_t i = 0; i < sizeof wrong / sizeof *wrong; i++) {
        fd = like_a_pair(wrong[i], sealed);
        check_refused(fd, &shape, -EPROTO);
        close(fd);
    }
    for (size_t i = 0; i < sizeof incomplete / sizeof *incomplete; i++) {
        fd = like_a_pair(bytes, incomplete[i]);
        check_refused(fd, &shape, -EPERM);
        close(fd);
    }
    fd = like_a_pair(bytes, sealed | F_SEAL_WRITE);
    check_refused(fd, &shape, -EPERM); /* by mmap(2) */
    close(fd);
    fd = like_a_pair(bytes, sealed); /* all holes behind the header: they are filled when it is attached */
    for (int end = PAIR_SENDER; end <= PAIR_RECEIVER; end++) {
        struct pair pair = attach(fd, end);

        pair_detach(&pair);
    }
    snprintf(path, sizeof path, "/proc/self/fd/%d", fd);
    other = open(path, O_RDONLY);
    CHECK(other >= 0);
    check_refused(other, &shape, -EACCES);
    close(other);
    close(fd);
    fd = open("/proc/self/exe", O_RDONLY);
    check_refused(fd, &shape, -EPROTO); /* no memfd */
    close(fd);
}

static void test_gate(void)
{
    int fd = create();
    struct pair sender = attach(fd, PAIR_SENDER), receiver = attach(fd, PAIR_RECEIVER);

    CHECK(pair_peer(&sender) == 0);
    pair_set_gate(&receiver, PAIR_PAUSED, true);
    CHECK(pair_peer(&sender) == -EBUSY);
    CHECK(!pair_publish(&sender)); /* nobody sleeps */
    pair_arm(&receiver);
    CHECK(pair_publish(&sender));
    CHECK(!pair_publish(&sender)); /* it was rung already */
    CHECK(pair_peer(&sender) == -EBUSY);
    pair_arm(&receiver);
    pair_disarm(&receiver);
    CHECK(!pair_publish(&sender));
    pair_set_gate(&receiver, PAIR_PAUSED, false);
    CHECK(pair_peer(&sender) == 0);
    pair_set_gate(&receiver, PAIR_CLOSED, true);
    CHECK(pair_peer(&sender) == -ESHUTDOWN);
    pair_detach(&sender);
    pair_detach(&receiver);
    pair_detach(&receiver); /* once is enough, twice does no harm */
    close(fd);
}

static void test_verdicts_go_back(void)
{
    int fd = create();
    struct pair sender = attach(fd, PAIR_SENDER), receiver = attach(fd, PAIR_RECEIVER);
    const uint8_t *body;
    uint64_t position;
    uint32_t size;

    CHECK(ring_write(&sender.sender.ring, "work", 4, &position) == 0);
    CHECK(ring_peek(&receiver.receiver.ring, &body, &size) == 1 && size == 4 && memcmp(body, "work", 4) == 0);
    CHECK(ring_write(&receiver.receiver.verdicts, "done", 4, &position) == 0);
    CHECK(ring_peek(&sender.sender.verdicts, &body, &size) == 1 && size == 4 && memcmp(body, "done", 4) == 0);
    pair_detach(&sender);
    pair_detach(&receiver);
    close(fd);
}

/* A child knows that the pair is not its own, and has no memory of it that it could spoil. */
static void test_fork(void)
{
    int fd = create();
    struct pair sender = attach(fd, PAIR_SENDER);
    int status;
    pid_t child;

    CHECK(pair_is_own(&sender));
    child = fork();
    CHECK(child >= 0);
    if (child == 0) {
        unsigned char resident;

        if (pair_is_own(&sender))
            _exit(1);
        if (mincore(sender.memory, 4096, &resident) == 0)
            _exit(2);
        pair_detach(&sender);
        _exit(0);
    }
    CHECK(waitpid(child, &status, 0) == child && WIFEXITED(status) && WEXITSTATUS(status) == 0);
    CHECK(pair_is_own(&sender));
    pair_detach(&sender);
    close(fd);
}

enum { WAKES = 20000 };

static void ring_doorbell(int doorbell)
{
    uint64_t one = 1;

    CHECK(write(doorbell, &one, sizeof one) == sizeof one);
}

/* The receiver's end of a ping-pong: sleeps before every record, as one that never spins does. */
static void receive_all(struct pair *pair, int doorbell, uint64_t count)
{
    struct ring_reader *ring = &pair->receiver.ring;
    uint64_t expected = 0;

    while (expected < count) {
        struct pollfd wait = {.fd = doorbell, .events = POLLIN};
        const uint8_t *body;
        uint32_t size;
        uint64_t rung;
        int found = ring_peek(ring, &body, &size);

        CHECK(found >= 0);
        if (found == 0) {
            pair_arm(pair);
            if (ring_peek(ring, &body, &size) == 0) {
                CHECK(poll(&wait, 1, 20000) == 1); /* a lost wake-up */
                CHECK(read(doorbell, &rung, sizeof rung) == sizeof rung);
            }
            pair_disarm(pair);
            continue;
        }
        CHECK(size == sizeof expected && memcmp(body, &expected, sizeof expected) == 0);
        expected++;
        ring_next(ring, size);
        ring_release(ring);
    }
}

static void send_all(struct pair *pair, int doorbell, uint64_t count)
{
    for (uint64_t number = 0; number < count; number++) {
        uint64_t position;
        int error;

        while ((error = ring_write(&pair->sender.ring, &number, sizeof number, &position)) == -EAGAIN)
            ;
        CHECK(error == 0);
        if (pair_publish(pair))
            ring_doorbell(doorbell);
        for (volatile unsigned pause = (unsigned)(number * 7919 % 4001); pause > 0; pause--)
            ;
    }
}

static void test_no_wake_is_lost(void)
{
    int fd = create(), doorbell = eventfd(0, EFD_CLOEXEC), status;
    pid_t child = fork();

    CHECK(child >= 0);
    if (child == 0) {
        struct pair pair = attach(fd, PAIR_SENDER);

        send_all(&pair, doorbell, WAKES);
        _exit(0);
    }
    struct pair pair = attach(fd, PAIR_RECEIVER);

    receive_all(&pair, doorbell, WAKES);
    CHECK(waitpid(child, &status, 0) == child && WIFEXITED(status) && WEXITSTATUS(status) == 0);
    pair_detach(&pair);
    close(fd);
    close(doorbell);
}

int main(void)
{
    test_shapes();
    test_created_is_sealed();
    test_header_is_checked();
    test_forged_memory_is_refused();
    test_memory_is_checked();
    test_gate();
    test_verdicts_go_back();
    test_fork();
    test_no_wake_is_lost();
    return EXIT_SUCCESS;
}
