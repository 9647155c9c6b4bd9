#ifndef ZEPHYR_KERNEL_H
#define ZEPHYR_KERNEL_H
#include <stdint.h>

#include "record.h"
static inline void k_busy_wait(uint32_t us) { printf("hold %u\n", (unsigned)us); }
static inline int32_t k_msleep(int32_t ms) { return record_pause(), ms - ms; }
#endif
