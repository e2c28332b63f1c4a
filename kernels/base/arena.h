/* arena.h - memory that lives and dies together.
 *
 * An arena is one block that is handed out from front to back and given back all at once. A
 * request owns one for its whole life; a step rewinds to a mark. Nothing inside is freed singly,
 * and no pointer into it may outlive tt_arena_rewind(). Not thread-safe: one owner at a time. */
#ifndef TT_ARENA_H
#define TT_ARENA_H

#include <stddef.h>

#include "kernels/base/err.h"

#ifdef __cplusplus
extern "C" {
#endif

typedef struct {
    unsigned char *base;
    size_t used, size, peak; /* bytes; peak feeds the memory gauge */
} tt_arena;

/* One block of at least bytes; fails with TT_ENOMEM. A zeroed tt_arena is a valid empty one. */
tt_status tt_arena_open(tt_arena *a, size_t bytes, tt_err *e);
void tt_arena_close(tt_arena *a); /* NULL is fine */

/* Zeroed, 64-byte aligned memory for n objects; NULL when n * size overflows or does not fit. */
void *tt_arena_take(tt_arena *a, size_t n, size_t size);

static inline size_t tt_arena_mark(const tt_arena *a) { return a->used; }
static inline void tt_arena_rewind(tt_arena *a, size_t mark) { a->used = mark; }

#define TT_TAKE(arena, n, type) ((type *)tt_arena_take((arena), (size_t)(n), sizeof(type)))

#ifdef __cplusplus
}
#endif

#endif
