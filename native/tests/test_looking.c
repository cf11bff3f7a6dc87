/* Who looks in vain looks less and less; who finds something looks each time. */
#include "../looking.h"

#include "check.h"

/* Looks in vain, until so many waits are over: how many looks that took. */
static unsigned looks_in_vain(struct looking *looking, unsigned waits)
{
    unsigned looks = 0;

    for (unsigned i = 0; i < waits; i++)
        if (looking_pays(looking)) {
            looking_ended(looking, false);
            looks++;
        }
    return looks;
}

static void test_less_and_less(void)
{
    struct looking looking = {0};
    unsigned wait = 0;

    for (unsigned without = 0; without < LOOKING_MOST_WITHOUT; without = 2 * without + 1) {
        CHECK(looking_pays(&looking));
        looking_ended(&looking, false);
        for (wait = 0; wait < without; wait++)
            CHECK(!looking_pays(&looking));
    }
    for (unsigned again = 0; again < 3; again++)
        CHECK(looks_in_vain(&looking, LOOKING_MOST_WITHOUT + 1) == 1);
}

static void test_found(void)
{
    struct looking looking = {0};

    for (unsigned i = 0; i < 1000; i++) {
        CHECK(looking_pays(&looking));
        looking_ended(&looking, true);
    }
    CHECK(looks_in_vain(&looking, 100000) < 1000);
    while (!looking_pays(&looking))
        ;
    looking_ended(&looking, true);
    CHECK(looking_pays(&looking));
    looking_ended(&looking, false);
    CHECK(looking_pays(&looking)); /* one in vain is no reason yet */
}

int main(void)
{
    test_less_and_less();
    test_found();
    return EXIT_SUCCESS;
}
