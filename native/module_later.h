/* Records that are committed later, as a channel has them. SPDX-License-Identifier: MIT */
#ifndef AGENTD_MODULE_LATER_H
#define AGENTD_MODULE_LATER_H

#include "module.h"

PyObject *channel_claim_later(struct channel *channel, PyObject *args);
PyObject *channel_commit_now(struct channel *channel, PyObject *position);
PyObject *channel_get_later(struct channel *channel, void *unused);

#endif
