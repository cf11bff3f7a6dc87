/* The machine's clocks. SPDX-License-Identifier: MIT */
#ifndef AGENTD_CLOCK_H
#define AGENTD_CLOCK_H

#include <stdint.h>

/* Nanoseconds since boot, time asleep included (CLOCK_BOOTTIME): deadlines. Never negative but for −errno. */
int64_t clock_boottime_ns(void);

/* Nanoseconds on CLOCK_MONOTONIC, which stands still while the machine sleeps: durations. Or −errno. */
int64_t clock_monotonic_ns(void);

#endif
