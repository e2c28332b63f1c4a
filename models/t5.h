/* t5.h - the encoder of T5 1.1 and Flan-T5 (arXiv 1910.10683): text to rows that image generators
 * attend to.
 *
 * Calls belong to the stream's thread and return when the result is there; what a text gets does
 * not depend on those beside it. */
#ifndef TT_T5_H
#define TT_T5_H

#include "models/model.h"

typedef struct tt_t5 tt_t5;

typedef struct {
    int64_t width, layers, heads, parameters;
    int32_t vocab;
    int32_t longest; /* ids of a text at most */
} tt_t5_info;

/* From a checkpoint and its config (keys of a Hugging Face T5EncoderModel). The weights stay mapped
 * for its life. TT_EFORMAT/TT_EUNSUP naming tensor or key. */
tt_status tt_t5_open(tt_t5 **out, tt_stream *s, const tt_weights *w, tt_config *c,
                     tt_weights_mode mode, tt_err *e);
void tt_t5_close(tt_t5 *t); /* NULL is fine */
const tt_t5_info *tt_t5_about(const tt_t5 *t);

/* row: of every id its row, width numbers each. id: texts one after the other, length[i] ids, of
 * which all see the first seen[i] (the rest is padding; NULL: there is none). TT_EINVAL for an id
 * outside the vocabulary, or a text of no ids or too many. */
tt_status tt_t5_encode(tt_t5 *t, float *row, const int32_t *id, const int32_t *length,
                       const int32_t *seen, int64_t texts, tt_err *e);

#endif
