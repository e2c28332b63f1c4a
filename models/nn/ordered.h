/* ordered.h - generators of ordered image tokens over a causal trunk: what HAR, LlamaGen and FlexAR
 * share. Position p of the body predicts token p; position 0 reads the condition. Tokens come one
 * by one, or from `ahead` on in levels that double: a level reads the level before it, then special
 * vectors (har.c). Keys and values are kept per image and branch of guidance. */
#ifndef TT_ORDERED_H
#define TT_ORDERED_H

#include "models/generator.h"
#include "models/nn/trunk_model.h"

/* The body's table holds the tokens, then the special vectors, then the classes, the last of which
 * is "no class"; or, for models of text, the start vector alone. An image with labels of several
 * groups reads the sum of their rows. */
typedef struct tt_ordered {
    tt_generator base;
    tt_model *body; /* a trunk */
    int32_t ahead;  /* tokens that come one by one before the levels; 0: all do */
    int32_t specials, classes;
    float *label_row; /* classes + 1 rows on the host, owned; NULL: an image has one label */
    bool text; /* conditioned on text by cross attention */
    /* Of models of text: rows x body's width from rows x info.text_width; host. */
    tt_status (*project)(struct tt_ordered *g, float *out, const float *text, int64_t rows,
                         tt_err *e);
    void *own; /* the family's */
} tt_ordered;

/* The end of the level that position p belongs to. */
int32_t tt_ordered_level_end(const tt_ordered *g, int32_t p);
/* Fills base.info from the body; layout, kind and groups are set already. */
void tt_ordered_info(tt_ordered *g);

/* One branch of guidance: keys and values of positions [0, fed), and those of its text. */
typedef struct {
    tt_kv *kv;
    int32_t fed;
    tt_trunk_context *text;
} tt_ordered_branch;

typedef struct {
    tt_generator_state base;
    int32_t label[TT_MAX_LABEL_GROUPS]; /* rows of the classes, those that are given first */
    int32_t labels;
    tt_memo *more; /* what labels behind the first add at position 0; NULL: nothing */
    tt_ordered_branch branch[2]; /* conditional, unconditional */
} tt_ordered_state;

void tt_ordered_close(tt_generator *g);
tt_status tt_ordered_begin(tt_generator *g, tt_generator_state *st, const tt_condition *c,
                           tt_err *e);
tt_status tt_ordered_step(tt_generator *g, const tt_generator_call *call, int64_t calls, tt_err *e);
tt_status tt_ordered_fork(tt_generator_state *to, const tt_generator_state *from, tt_err *e);
void tt_ordered_drop(tt_generator_state *st);
tt_status tt_ordered_work(tt_generator *g, const tt_generator_call *call, int64_t calls,
                          tt_generator_work *out, tt_err *e);
size_t tt_ordered_step_bytes(const tt_generator *g, int64_t calls);

#endif
