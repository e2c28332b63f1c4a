/* clip.h - CLIP (arXiv 2103.00020): pictures and texts as vectors of one space, compared by angle.
 *
 * Opened from a Hugging Face CLIPModel folder. Calls belong to the stream's thread and return when
 * the result is there; what a picture or text gets does not depend on those beside it. */
#ifndef TT_CLIP_H
#define TT_CLIP_H

#include "models/model.h"

typedef struct tt_clip tt_clip;

typedef struct {
    int32_t side;       /* pixels of the square pictures it sees */
    float mean[3], deviation[3]; /* of the normalisation of pixels */
    int32_t context;    /* ids of a text at most */
    int32_t vocab, end_id;
    int64_t projection; /* numbers of a vector */
    float logit_scale;  /* scores of the training: exp of the stored number, times the cosine */
    int64_t parameters;
} tt_clip_info;

/* folder: config.json, preprocessor_config.json (OpenAI's numbers without it), model.safetensors.
 * TT_EFORMAT/TT_EUNSUP naming tensor, key or operation. */
tt_status tt_clip_open(tt_clip **out, tt_stream *s, const char *folder, tt_weights_mode mode,
                       tt_err *e);
void tt_clip_close(tt_clip *c); /* NULL is fine */
const tt_clip_info *tt_clip_about(const tt_clip *c);

/* The residual stream after each layer, for tests: layers x rows x width; or NULL. */

/* vector: images x projection, not normalised. planes: images x 3 x side x side, normalised. */
tt_status tt_clip_images(tt_clip *c, float *vector, const float *planes, int64_t images,
                         float *hidden, tt_err *e);
/* vector: texts x projection. id: texts one after the other, length[i] ids each, of which the first
 * end id (the largest id there) is read; nothing behind it matters. TT_EINVAL for an id outside
 * the vocabulary, or a text longer than the context or without end. */
tt_status tt_clip_texts(tt_clip *c, float *vector, const int32_t *id, const int32_t *length,
                        int64_t texts, float *hidden, tt_err *e);

/* The ids of a text as the towers were trained: cut off at the context, then ending in the end id.
 * Returns how many are left of the n. */
int32_t tt_clip_cut(const tt_clip_info *about, int32_t *id, int64_t n);

/* 2.5 max(cos, 0), as CLIPScore (arXiv 2104.08718) scales it. */
float tt_clip_score(const float *image, const float *text, int64_t n);

#endif
