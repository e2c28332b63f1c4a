/* normal.h - the normaliser of a tokenizer.json: a list of steps from text to text. */
#ifndef TT_TEXT_NORMAL_H
#define TT_TEXT_NORMAL_H

#include <stdbool.h>

#include "tokenizers/text/charsmap.h"
#include "tokenizers/text/doc.h"
#include "tokenizers/text/pattern.h"
#include "tokenizers/text/scratch.h"
#include "tokenizers/text/unicode.h"

typedef struct tt_normal_step tt_normal_step;

typedef tt_status tt_normal_fn(const tt_normal_step *n, tt_scratch *s, const char *text,
                               size_t bytes, tt_buf *out, tt_err *e);

struct tt_normal_step {
    tt_normal_fn *run;
    tt_uni_form form;                /* NFC, NFD, NFKC, NFKD */
    bool left, right;                /* Strip */
    bool clean, cjk, accents, lower; /* BertNormalizer */
    tt_pattern pattern;              /* Replace */
    char *text;                      /* Replace, Prepend */
    size_t bytes;
    tt_charsmap map; /* Precompiled */
};

typedef struct {
    tt_normal_step step[TT_MAX_STEPS];
    int steps;
    bool byte_level; /* the result is spelled in the byte alphabet */
} tt_normal;

/* d->item NULL means none. Fails with TT_EFORMAT or TT_EUNSUP, naming the place. */
tt_status tt_normal_open(tt_normal *n, const tt_doc *d, tt_err *e);
void tt_normal_close(tt_normal *n);

/* The normalised text: text itself when nothing changes, else memory of s. Sets s->front_cut. */
tt_status tt_normal_run(const tt_normal *n, tt_scratch *s, const char *text, size_t bytes,
                        const char **out, size_t *out_bytes, tt_err *e);

#endif
