/* scratch.c - see scratch.h. */
#include "tokenizers/text/scratch.h"

#include <stdlib.h>

void tt_scratch_free(tt_scratch *s)
{
    tt_matcher_close(s->matcher);
    tt_buf_free(&s->repaired);
    tt_buf_free(&s->normal[0]);
    tt_buf_free(&s->normal[1]);
    for (int i = 0; i < TT_MAX_STEPS; i++)
        tt_buf_free(&s->split[i]);
    tt_buf_free(&s->key);
    tt_buf_free(&s->raw);
    free(s->symbols.data);
    free(s->heap.data);
    free(s->lattice.data);
    free(s->marks.data);
    *s = (tt_scratch){0};
}

void *tt_block_need(tt_block *b, size_t n, size_t size)
{
    if (n > SIZE_MAX / 2 / size)
        return NULL;
    if (n * size <= b->bytes)
        return b->data;
    size_t bytes = n * size + n * size / 2 + 64;
    free(b->data);
    b->data = malloc(bytes);
    b->bytes = b->data ? bytes : 0;
    return b->data;
}
