/* CRC-32C (Castagnoli), the checksum of everything that agentd keeps. SPDX-License-Identifier: MIT */
#ifndef AGENTD_CRC32C_H
#define AGENTD_CRC32C_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

/*
 * The checksum of `size` bytes after those that `crc` already covers; 0 begins. So
 * crc32c(crc32c(0, a), b) is the checksum of a and b joined. Never fails; reads `data` once.
 */
uint32_t crc32c(uint32_t crc, const void *data, size_t size);

/* The two ways to compute it, for tests and measurements. crc32c_hardware() needs crc32c_has_hardware(). */
uint32_t crc32c_table(uint32_t crc, const void *data, size_t size);
uint32_t crc32c_hardware(uint32_t crc, const void *data, size_t size);
bool crc32c_has_hardware(void);

#endif
