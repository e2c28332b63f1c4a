/* copy.h - a block of memory again. */
#ifndef TT_COPY_H
#define TT_COPY_H

#include <stdlib.h>
#include <string.h>

/* To be freed by the caller. NULL means that there is no memory: an empty block is one too. */
static inline void *tt_copy_of(const void *from, size_t bytes)
{
    void *p = malloc(bytes ? bytes : 1);
    return p && bytes ? memcpy(p, from, bytes) : p;
}

#endif
