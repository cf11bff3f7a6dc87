/* What this kernel lets us do, asked by doing it. SPDX-License-Identifier: MIT */
#ifndef AGENTD_PROBE_H
#define AGENTD_PROBE_H

/* Whether an io_uring can be made here: 0, else -errno: -ENOSYS, not in this kernel; -EPERM, forbidden. */
int probe_io_uring(void);

#endif
