/* map.h - bytes -> int32, built once, then read-only: vocabularies, merges, tensors by name.
 *
 * Open addressing over one block; keys are copied into it, so callers may free theirs. Keys may
 * hold any bytes, NUL included. Reading is thread-safe once building is over. */
#ifndef TT_MAP_H
#define TT_MAP_H

#include <stddef.h>
#include <stdint.h>

#include "kernels/base/err.h"

typedef struct tt_map tt_map;

/* expect: how many keys are foreseen (a hint; the map grows). */
tt_status tt_map_open(tt_map **out, size_t expect, tt_err *e);
void tt_map_close(tt_map *m); /* NULL is fine */

/* Adds the key, or replaces its value when it is there already; *old (may be NULL) becomes the
 * former value or -1. value must not be negative. Fails with TT_ENOMEM. */
tt_status tt_map_put(tt_map *m, const void *key, size_t bytes, int32_t value, int32_t *old,
                     tt_err *e);
/* The value, or -1. */
int32_t tt_map_get(const tt_map *m, const void *key, size_t bytes);
size_t tt_map_count(const tt_map *m);

#endif
