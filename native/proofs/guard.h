/* Maps with nothing around them, and bodies that must lie in their ring. SPDX-License-Identifier: MIT */
#ifndef AGENTD_GUARD_H
#define AGENTD_GUARD_H

#include "../mailbox.h"
#include "../record.h"

/*
 * In a program linked with -Wl,--wrap of mmap, mmap64 and munmap, guard.c leaves nothing readable on both sides of each
 * map, so that a step out of the pair is a fault. Inside of it, these look where a body is, and read all of it.
 */

/* A copy of its own, of just that many bytes for AddressSanitizer: what the reader found is within its ring. */
uint8_t *guard_read(const struct ring_reader *reader, const uint8_t *body, uint32_t size);
/* The room that the writer was given is within its ring: written full. */
void guard_write(const struct ring_writer *writer, uint8_t *body, uint32_t size, uint8_t value);
/* All parts of a record, if it is one, are within those bytes; how many bytes were looked at. */
uint64_t guard_parse(const uint8_t *bytes, uint32_t size);

#endif
