/*
 * What the kernel says io_uring is, as far as the engine uses it. The headers to build with may be older than the
 * kernel to run on (Debian 12: 6.1), so what they may lack is named here. SPDX-License-Identifier: MIT
 */
#ifndef AGENTD_URING_ABI_H
#define AGENTD_URING_ABI_H

#include <linux/io_uring.h>
#include <stddef.h>

#ifndef IORING_SETUP_SUBMIT_ALL
#define IORING_SETUP_SUBMIT_ALL (1U << 7) /* Linux 5.18 */
#endif
#ifndef IORING_SETUP_COOP_TASKRUN
#define IORING_SETUP_COOP_TASKRUN (1U << 8) /* Linux 5.19 */
#endif
#ifndef IORING_SETUP_TASKRUN_FLAG
#define IORING_SETUP_TASKRUN_FLAG (1U << 9) /* Linux 5.19 */
#endif
#ifndef IORING_SETUP_SINGLE_ISSUER
#define IORING_SETUP_SINGLE_ISSUER (1U << 12) /* Linux 6.0 */
#endif
#ifndef IORING_SETUP_DEFER_TASKRUN
#define IORING_SETUP_DEFER_TASKRUN (1U << 13) /* Linux 6.1 */
#endif
#ifndef IORING_SETUP_NO_SQARRAY
#define IORING_SETUP_NO_SQARRAY (1U << 16) /* Linux 6.6 */
#endif
#ifndef IOSQE_CQE_SKIP_SUCCESS
#define IOSQE_CQE_SKIP_SUCCESS (1U << 6) /* Linux 5.17 */
#endif
#ifndef IORING_FEAT_CQE_SKIP
#define IORING_FEAT_CQE_SKIP (1U << 11) /* Linux 5.17 */
#endif
#ifndef IORING_ENTER_REGISTERED_RING
#define IORING_ENTER_REGISTERED_RING (1U << 4) /* Linux 5.18 */
#endif
#ifndef IORING_SQ_CQ_OVERFLOW
#define IORING_SQ_CQ_OVERFLOW (1U << 1) /* Linux 5.8 */
#endif
#ifndef IORING_SQ_TASKRUN
#define IORING_SQ_TASKRUN (1U << 2) /* Linux 5.19 */
#endif

/* Those of Linux 5.18, which the headers name by an enum that can't be asked for. */
enum { REGISTER_RING_FDS = 20, UNREGISTER_RING_FDS = 21 };

_Static_assert(sizeof(struct io_uring_sqe) == 64, "the kernel reads it");
_Static_assert(offsetof(struct io_uring_sqe, off) == 8, "the kernel reads it");
_Static_assert(offsetof(struct io_uring_sqe, addr) == 16, "the kernel reads it");
_Static_assert(offsetof(struct io_uring_sqe, user_data) == 32, "the kernel reads it");
_Static_assert(sizeof(struct io_uring_cqe) == 16, "the kernel writes it");
_Static_assert(sizeof(struct io_uring_params) == 120, "the kernel writes it");
_Static_assert(sizeof(struct io_uring_restriction) == 16, "the kernel reads it");

#endif
