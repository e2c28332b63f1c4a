/* split.h - the pre-tokeniser of a tokenizer.json: cuts a normalised text into pieces.
 *
 * A list of steps; every step cuts each piece that the steps before it left, and may change it
 * (Metaspace, ByteLevel). Pieces are handed on as they are found, so nothing is collected. The
 * usual last step, ByteLevel, is not carried out: byte-level models here work on raw bytes. */
#ifndef TT_TEXT_SPLIT_H
#define TT_TEXT_SPLIT_H

#include <stdbool.h>

#include "tokenizers/text/doc.h"
#include "tokenizers/text/pattern.h"
#include "tokenizers/text/scratch.h"

typedef enum {
    TT_REMOVED,
    TT_ISOLATED,
    TT_MERGED_WITH_PREVIOUS,
    TT_MERGED_WITH_NEXT,
    TT_CONTIGUOUS,
} tt_behavior;

typedef struct {
    const char *text;
    size_t bytes;
    bool first; /* stands at the very beginning of the text given to encode */
} tt_piece;

typedef struct tt_split_step tt_split_step;
struct tt_split_run;

typedef tt_status tt_split_fn(struct tt_split_run *r, int i, tt_piece p);

struct tt_split_step {
    tt_split_fn *run;
    tt_pattern pattern;      /* Split, and the fixed patterns of other types */
    bool (*is)(uint32_t cp); /* or: cut at characters of this kind */
    uint32_t delimiter;      /* or: at this one */
    tt_behavior behavior;
    bool invert;
    bool prefix_always, prefix_first; /* Metaspace; ByteLevel's add_prefix_space is "always" */
    bool cut;                         /* Metaspace: at the sign, too */
    size_t length;                    /* FixedLength, in characters */
};

typedef struct {
    tt_split_step step[TT_MAX_STEPS];
    int steps;
    bool byte_level; /* there is a ByteLevel step: the model is byte-level */
    bool spelled;    /* and pieces arrive spelled in its alphabet */
} tt_split;

/* Takes one piece; never an empty one. */
typedef tt_status tt_piece_fn(void *to, const char *piece, size_t bytes, tt_err *e);

typedef struct tt_split_run {
    const tt_split *split;
    tt_scratch *scratch;
    tt_piece_fn *fn;
    void *to;
    tt_err *e;
} tt_split_run;

/* d->item NULL means none. Fails with TT_EFORMAT or TT_EUNSUP, naming the place. */
tt_status tt_split_open(tt_split *s, const tt_doc *d, tt_err *e);
void tt_split_close(tt_split *s);

/* Hands every piece of p to r->fn, in order. */
tt_status tt_split_text(tt_split_run *r, tt_piece p);

#endif
