/* arena.c - see arena.h. */
#include "kernels/base/arena.h"

#include <assert.h>
#include <stdint.h>
#include <stdlib.h>
#include <string.h>

tt_status tt_arena_open(tt_arena *a, size_t bytes, tt_err *e)
{
    *a = (tt_arena){0};
    if (bytes > SIZE_MAX - 63)
        return tt_fail(e, TT_ENOMEM, "arena of %zu bytes", bytes);
    size_t size = (bytes + 63) & ~(size_t)63;
    if (size == 0)
        return TT_OK;
    a->base = aligned_alloc(64, size);
    if (!a->base)
        return tt_fail(e, TT_ENOMEM, "no memory for an arena of %zu bytes", size);
    a->size = size;
    return TT_OK;
}

void tt_arena_close(tt_arena *a)
{
    if (!a)
        return;
    free(a->base);
    *a = (tt_arena){0};
}

void *tt_arena_take(tt_arena *a, size_t n, size_t size)
{
    assert(((uintptr_t)a->base & 63) == 0);
    size_t start = (a->used + 63) & ~(size_t)63;
    if (start > a->size || (n && size > (a->size - start) / n))
        return NULL;
    if (!a->base)
        return NULL;
    a->used = start + n * size;
    if (a->used > a->peak)
        a->peak = a->used;
    return memset(a->base + start, 0, n * size);
}
