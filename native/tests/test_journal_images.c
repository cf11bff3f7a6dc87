/*
 * What the disk may hold when the power goes: of all blocks written since the last barrier, any subset, each as it was
 * at any time since; of all names changed, as many as one likes of the first. Each such image is recovered.
 */
#include "journal_recorder.h"

/* Which version of each block an image has: 0 the durable one, else the nth that was seen since. */
struct choice {
    unsigned file;
    uint32_t block;
    unsigned n_versions, chosen;
    unsigned versions[32];
};

static bool is_segment(const char *name)
{
    return strstr(name, ".segment") != NULL;
}

/* The blocks that matter: of files that are segments in these names. */
static unsigned
list_choices(const struct recorder *recorder, const struct names *names, struct choice *choices, unsigned max)
{
    unsigned n = 0;

    for (unsigned i = 0; i < names->n; i++) {
        const struct file *file = &recorder->files[names->names[i].file];
        unsigned first = n;

        if (!is_segment(names->names[i].name))
            continue;
        for (unsigned v = 0; v < file->n_versions; v++) {
            unsigned c = first;

            while (c < n && choices[c].block != file->versions[v].block)
                c++;
            if (c == n) {
                CHECK(n < max);
                choices[n++] = (struct choice){.file = names->names[i].file, .block = file->versions[v].block};
            }
            CHECK(choices[c].n_versions < 32);
            choices[c].versions[choices[c].n_versions++] = v;
        }
    }
    return n;
}

static void
recover_image(struct recorder *recorder, const struct names *names, const struct choice *choices, unsigned n)
{
    empty_directory(&recorder->image);
    for (unsigned i = 0; i < names->n; i++) {
        const struct file *file = &recorder->files[names->names[i].file];
        int fd = openat(recorder->image.fd, names->names[i].name, O_RDWR | O_CREAT | O_EXCL | O_CLOEXEC, 0600);

        CHECK(fd >= 0);
        if (is_segment(names->names[i].name) || strncmp(names->names[i].name, "spare", 5) == 0)
            CHECK(pwrite(fd, file->durable, file->size, 0) == (ssize_t)file->size);
        for (unsigned c = 0; c < n; c++)
            if (choices[c].file == names->names[i].file && choices[c].chosen && is_segment(names->names[i].name))
                CHECK(
                    pwrite(
                        fd, file->versions[choices[c].versions[choices[c].chosen - 1]].bytes, BLOCK,
                        (off_t)choices[c].block * BLOCK) == BLOCK);
        close(fd);
    }
    check_promises(&recorder->image, &recorder->promises, recorder->promises.synced);
    recorder->n_images++;
}

/* All of them, at each barrier: what may be on disk earlier may be there still. */
static void look_at_all(struct recorder *recorder, bool barrier)
{
    struct choice choices[64];

    if (!barrier)
        return;
    for (unsigned change = 0; change <= recorder->n_changes; change++) {
        const struct names *names = change ? &recorder->changes[change - 1] : &recorder->durable;
        unsigned n = list_choices(recorder, names, choices, 64), i;

        do {
            recover_image(recorder, names, choices, n);
            for (i = 0; i < n; i++) { /* count on, the first block fastest */
                choices[i].chosen = (choices[i].chosen + 1) % (choices[i].n_versions + 1);
                if (choices[i].chosen)
                    break;
            }
        } while (i < n);
    }
}

/* Some, at some moments: all blocks by chance, or all but a few, or only a few. */
static void look_at_some(struct recorder *recorder, bool barrier)
{
    static struct choice choices[1024];

    if (roll_dice(recorder, barrier ? recorder->every / 8 + 1 : recorder->every) != 0)
        return;
    for (unsigned i = 0; i < 4; i++) {
        uint64_t change = roll_dice(recorder, recorder->n_changes + 1), kind = roll_dice(recorder, 3);
        const struct names *names = change ? &recorder->changes[change - 1] : &recorder->durable;
        unsigned n = list_choices(recorder, names, choices, 1024);

        for (unsigned c = 0; c < n; c++) {
            struct choice *choice = &choices[c];
            bool rare = roll_dice(recorder, 8) == 0;

            if (kind == 0 || (kind == 1) == rare)
                choice->chosen = (unsigned)roll_dice(recorder, choice->n_versions + 1);
            else
                choice->chosen = kind == 1 ? choice->n_versions : 0;
        }
        recover_image(recorder, names, choices, n);
    }
}

static struct recorder start(void (*look)(struct recorder *recorder, bool barrier))
{
    struct recorder recorder = {
        .directory = make_directory(),
        .image = make_directory(),
        .files = malloc(MAX_FILES * sizeof *recorder.files),
        .look = look,
        .random = 1,
        .every = 12,
    };

    CHECK(recorder.files != NULL);
    return recorder;
}

static void stop(struct recorder *recorder)
{
    for (unsigned i = 0; i < recorder->n_files; i++)
        close(recorder->files[i].fd);
    free(recorder->files);
    remove_directory(&recorder->directory);
    remove_directory(&recorder->image);
}

/* A segment with room for two records, all of it on disk; opened anew, and from now on it is recorded. */
static struct user open_nearly_full(struct recorder *recorder, const struct journal_files *files, bool prepare)
{
    struct user user = {.directory = &recorder->directory, .files = files, .promises = &recorder->promises};
    struct journal journal = open_journal(&recorder->directory, NULL);
    uint64_t position;

    while (journal.limit == journal.tail || journal.limit - journal.tail > 3500)
        CHECK(append_sized(&journal, 600, &position) == 0);
    CHECK(append_sized(&journal, (uint32_t)(journal.limit - journal.tail) - 2540, &position) == 0);
    recorder->promises.synced = recorder->promises.flushed = recorder->promises.appended = journal.sequence;
    if (prepare)
        CHECK(segment_prepare(&KERNEL, recorder->directory.fd, journal.id, 2, SMALL_SEGMENT, 0) == 0);
    CHECK(journal_close(&journal) == 0);
    observe(recorder);
    for (unsigned i = 0; i < recorder->n_files; i++) {
        memcpy(recorder->files[i].durable, recorder->files[i].seen, SMALL_SEGMENT);
        recorder->files[i].n_versions = 0;
    }
    recorder->durable = recorder->changes[recorder->n_changes - 1];
    recorder->n_changes = 0;
    user_open(&user);
    return user;
}

/* Three records over the end of a segment, in all ways. The next segment is there, or is made on the way. */
static void test_every_image_of_three_records(bool prepare, bool beside)
{
    struct recorder recorder = start(look_at_all);
    struct journal_files files = recording(&recorder);
    struct user user = open_nearly_full(&recorder, &files, prepare);
    struct journal_sync sync;
    uint64_t position;

    for (unsigned i = 0; i < 3; i++) {
        recorder.promises.appended = user.journal.sequence + 1;
        CHECK(append_sized(&user.journal, 1000, &position) == 0);
        if (beside && i == 0) { /* the other two gather, and are written before the sync is done */
            CHECK(journal_sync_begin(&user.journal, &sync) == 0 && sync.n_fds == 1);
        }
    }
    CHECK(position >> 32 == 2 && user.journal.segments[0].last_sequence == user.journal.sequence - 1);
    if (beside) {
        user_flush(&user);
        CHECK(journal_sync_end(&user.journal, &sync, files.fdatasync(&recorder, sync.fds[0])) == 0);
        recorder.promises.synced = recorder.promises.appended - 2;
        moment(&recorder, true);
    }
    user_sync(&user);
    user_close(&user);
    moment(&recorder, true);
    printf("every image of three records: %u\n", recorder.n_images);
    CHECK(recorder.n_images > 200);
    stop(&recorder);
}

/*
 * The disk takes nothing of one sync, and the kernel forgets that it should have: the records can still be read, until
 * the power goes. Recovery finds them, and sees that they are there to stay.
 */
static void test_sync_that_failed(void)
{
    struct recorder recorder = start(look_at_some);
    struct journal_files files = recording(&recorder);
    struct user user = open_nearly_full(&recorder, &files, true);
    uint64_t position;

    recorder.every = 1;
    for (unsigned i = 0; i < 3; i++) {
        recorder.promises.appended = user.journal.sequence + 1;
        CHECK(append_sized(&user.journal, 1000, &position) == 0);
    }
    recorder.sync_fails = true;
    CHECK(journal_sync(&user.journal) == -EIO);
    CHECK(journal_close(&user.journal) == -EIO);
    user_open(&user);
    CHECK(user.journal.sequence == recorder.promises.appended && user.journal.synced == user.journal.tail);
    recorder.promises.synced = user.journal.sequence;
    moment(&recorder, true);
    CHECK(journal_close(&user.journal) == 0);
    stop(&recorder);
}

/* A retired segment is used again before the disk knows that it is retired. */
static void test_spare_is_taken_at_once(void)
{
    struct recorder recorder = start(look_at_all);
    struct journal_files files = recording(&recorder);
    struct user user = open_nearly_full(&recorder, &files, true);
    uint64_t position;

    recorder.quiet = true;
    for (unsigned i = 0; i < 3; i++)
        CHECK(append_sized(&user.journal, 1000, &position) == 0);
    recorder.quiet = false;
    recorder.promises.appended = user.journal.sequence;
    user_sync(&user);
    recorder.promises.retired = user.journal.sequence - 1;
    CHECK(segment_retire(&files, recorder.directory.fd, 1, SEGMENT_SPARES) == 0);
    CHECK(segment_prepare(&files, recorder.directory.fd, user.journal.id, 3, SMALL_SEGMENT, 0) == 0);
    moment(&recorder, true);
    user_close(&user);
    stop(&recorder);
}

static void test_images_of_a_long_use(unsigned seed)
{
    struct recorder recorder = start(look_at_some);
    struct journal_files files = recording(&recorder);
    struct user user = {.directory = &recorder.directory, .files = &files, .promises = &recorder.promises};

    recorder.random = seed;
    use_journal(&user);
    printf("images of a long use: %u\n", recorder.n_images);
    stop(&recorder);
}

int main(int argc, char **argv)
{
    unsigned n_seeds = argc > 1 ? (unsigned)atoi(argv[1]) : 2;

    for (unsigned way = 0; way < 4; way++)
        test_every_image_of_three_records(way & 1, way & 2);
    test_sync_that_failed();
    test_spare_is_taken_at_once();
    for (unsigned seed = 1; seed <= n_seeds; seed++)
        test_images_of_a_long_use(seed);
    return 0;
}
