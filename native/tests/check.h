/* What every C test needs: a check that holds in release builds too. SPDX-License-Identifier: MIT */
#ifndef AGENTD_CHECK_H
#define AGENTD_CHECK_H

#include <stdio.h>
#include <stdlib.h>

/* A test is a program: exit 0 passed, 1 failed, 77 can't be run here. */
#define EXIT_SKIPPED 77

#define CHECK(condition)                                                                                               \
    do {                                                                                                               \
        if (!(condition)) {                                                                                            \
            fprintf(stderr, "%s:%d: %s: failed: %s\n", __FILE__, __LINE__, __func__, #condition);                      \
            exit(EXIT_FAILURE);                                                                                        \
        }                                                                                                              \
    } while (0)

#endif
