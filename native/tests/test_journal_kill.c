/*
 * Whoever uses the journal is killed at each step that it names, the first three times it comes there: everything that
 * was flushed is kept, and nothing is half there.
 */
#include "journal_workload.h"

#include <signal.h>
#include <sys/mman.h>
#include <sys/wait.h>

enum { MAX_POINTS = 64, HITS = 3 };

/* In memory that parent and child share. */
struct scene {
    struct promises promises;
    unsigned n_points;
    const char *points[MAX_POINTS]; /* text of the program, which both have at the same place */
    unsigned n_hits[MAX_POINTS];
    const char *deadly;
    unsigned deadly_hit;
};

static void at_point(void *context, const char *name)
{
    struct scene *scene = context;
    unsigned i = 0;

    while (i < scene->n_points && strcmp(scene->points[i], name) != 0)
        i++;
    if (i == scene->n_points) {
        CHECK(i < MAX_POINTS);
        scene->points[scene->n_points++] = name;
    }
    scene->n_hits[i]++;
    if (scene->deadly && strcmp(name, scene->deadly) == 0 && scene->n_hits[i] == scene->deadly_hit)
        kill(getpid(), SIGKILL);
}

static void use(const struct directory *directory, struct scene *scene)
{
    struct journal_files files = journal_files_kernel;
    struct user user = {.directory = directory, .files = &files, .promises = &scene->promises};

    files.context = scene;
    files.point = at_point;
    use_journal(&user);
    CHECK(user.n_errors == 0);
}

/* Whether the child came to that step so often. */
static bool kill_at(struct scene *scene, const char *name, unsigned hit)
{
    struct directory directory = make_directory();
    int status;
    pid_t child;

    *scene = (struct scene){.deadly = name, .deadly_hit = hit};
    child = fork();
    CHECK(child >= 0);
    if (child == 0) {
        use(&directory, scene);
        _exit(0);
    }
    CHECK(waitpid(child, &status, 0) == child);
    CHECK(WIFSIGNALED(status) ? WTERMSIG(status) == SIGKILL : WEXITSTATUS(status) == 0);
    check_promises(&directory, &scene->promises, scene->promises.flushed);
    remove_directory(&directory);
    return WIFSIGNALED(status);
}

int main(void)
{
    static const char *const expected[] = {
        "append.body",
        "append.header",
        "append.done",
        "flush.write",
        "flush.done",
        "roll",
        "sync.begun",
        "sync.end",
        "prepare.created",
        "prepare.zeros",
        "prepare.header",
        "prepare.sync",
        "prepare.link",
        "prepare.sync_directory",
        "prepare.unlink",
        "prepare.done",
        "prepare.spare_taken",
        "retire.unlink",
        "retire.sync_directory",
        "retire.done",
        "cut.copy",
        "cut.name_copy",
        "cut.unlink",
        "cut.rewrite",
        "cut.sync"};
    struct directory directory = make_directory();
    struct scene *scene = mmap(NULL, sizeof *scene, PROT_READ | PROT_WRITE, MAP_SHARED | MAP_ANONYMOUS, -1, 0);
    const char *points[MAX_POINTS];
    unsigned n_points, n_kills = 0;

    CHECK(scene != MAP_FAILED);
    use(&directory, scene);
    check_promises(&directory, &scene->promises, scene->promises.appended);
    remove_directory(&directory);
    n_points = scene->n_points;
    memcpy(points, scene->points, sizeof points);
    for (unsigned i = 0; i < sizeof expected / sizeof *expected; i++) {
        unsigned found = 0;

        while (found < n_points && strcmp(points[found], expected[i]) != 0)
            found++;
        if (found == n_points)
            fprintf(stderr, "nothing comes to %s\n", expected[i]);
        CHECK(found < n_points);
    }
    for (unsigned i = 0; i < n_points; i++)
        for (unsigned hit = 1; hit <= HITS; hit++)
            n_kills += kill_at(scene, points[i], hit);
    CHECK(n_kills >= 2 * n_points);
    printf("killed %u times at %u steps\n", n_kills, n_points);
    return 0;
}
