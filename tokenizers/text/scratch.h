/* scratch.h - memory of one encode or decode call. Zero is the start state; tt_scratch_free() at
 * the end. Parts grow on demand and are reused from piece to piece. */
#ifndef TT_TEXT_SCRATCH_H
#define TT_TEXT_SCRATCH_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "kernels/base/buf.h"
#include "kernels/base/err.h"
#include "tokenizers/text/regex.h"

enum { TT_MAX_STEPS = 24 }; /* of a normaliser or pre-tokeniser; real ones have up to 6 */

typedef struct {
    void *data;
    size_t bytes;
} tt_block;

typedef struct {
    tt_matcher *matcher;
    tt_buf repaired;            /* the text without ill-formed parts */
    tt_buf normal[2];           /* normaliser steps, to and fro */
    bool front_cut;             /* the normaliser dropped what the text began with */
    tt_buf split[TT_MAX_STEPS]; /* pre-tokeniser steps that change the text */
    tt_buf key;                 /* a vocabulary key being put together */
    tt_buf raw;                 /* a piece read back from the byte alphabet */
    tt_block symbols, heap, lattice, marks;
} tt_scratch;

void tt_scratch_free(tt_scratch *s);

/* Room for n objects of size bytes, content undefined; NULL when memory is out. */
void *tt_block_need(tt_block *b, size_t n, size_t size);

#endif
