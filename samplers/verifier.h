/* verifier.h - networks that tell how good a picture is, for searches and best of n.
 *
 * A family is a const tt_verifier_def in samplers/verify/table.c, found by config.json's
 * "architectures" or "model_type". Higher scores are better everywhere. Calls that score belong to
 * the stream's thread; what a candidate gets does not depend on those beside it. */
#ifndef TT_VERIFIER_H
#define TT_VERIFIER_H

#include "models/model.h"
#include "samplers/mix.h"

typedef struct tt_tok tt_tok; /* tokenizers/text.h */
typedef struct tt_verifier tt_verifier;

/* What a verifier sees of a candidate. */
typedef struct {
    const uint8_t *rgb; /* height x width x 3 */
    int32_t width, height;
} tt_exhibit;

typedef struct {
    const char *name;    /* "clip" */
    const char *summary; /* one line for GET /v1/models */
    const char *source;
    const char *const *architectures; /* NULL-terminated; "model_type" values too */
    bool reads_prompt;                /* its scores depend on the prompt */

    /* The folder's weights and tokenizer. TT_EFORMAT/TT_EUNSUP naming what is wrong. */
    tt_status (*open)(tt_verifier **out, tt_stream *s, const char *folder, tt_weights_mode mode,
                      tt_err *e);
    void (*close)(tt_verifier *v);
    /* What `score` needs of a text, made once a request: *out, to be freed with free(). */
    tt_status (*prepare)(tt_verifier *v, void **out, const char *text, tt_err *e);
    tt_status (*score)(tt_verifier *v, const void *prompt, const tt_exhibit *x, int32_t n,
                       float *score, tt_err *e);
} tt_verifier_def;

typedef struct {
    int64_t parameters;
    int32_t side; /* pixels of the square pictures its network sees */
} tt_verifier_info;

struct tt_verifier {
    const tt_verifier_def *def;
    tt_stream *stream;
    tt_tok *tok; /* NULL where no prompt is read */
    tt_verifier_info info;
};

/* Every family, NULL-terminated; and by "architectures" or "model_type" (NULL when unknown). */
const tt_verifier_def *const *tt_verifier_all(void);
const tt_verifier_def *tt_verifier_find(const char *name);
/* True when the folder's config.json names a verifier. */
bool tt_verifier_in(const char *folder);

tt_status tt_verifier_open(tt_verifier **out, tt_stream *s, const char *folder,
                           tt_weights_mode mode, tt_err *e);
void tt_verifier_close(tt_verifier *v); /* NULL is fine */
tt_status tt_verifier_prepare(tt_verifier *v, void **out, const char *text, tt_err *e);
tt_status tt_verifier_score(tt_verifier *v, const void *prompt, const tt_exhibit *x, int32_t n,
                            float *score, tt_err *e);

#endif
