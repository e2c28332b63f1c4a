/* text_encoder.h - the part of an image model that reads prompts: a tokenizer and a T5 encoder in a
 * folder within the model's.
 *
 * Opening and encoding belong to the stream's thread; the tokenizer to any. */
#ifndef TT_TEXT_ENCODER_H
#define TT_TEXT_ENCODER_H

#include "models/t5.h"
#include "tokenizers/text.h"

typedef struct {
    tt_tok *tok;
    tt_t5 *t5;
    tt_weights *weights;
    tt_config *config;
    int32_t longest;   /* ids of a prompt at most */
    int64_t width;     /* of a row */
    float *none;       /* rows of the empty prompt, which guidance leads away from */
    int32_t none_rows;
} tt_text_encoder;

/* A prompt of a job: its ids, and once encoded its rows; of the engine's thread. */
typedef struct {
    const tt_text_encoder *by;
    int32_t *id, ids;
    float *row; /* ids x width; NULL: not encoded yet */
} tt_prompt;

/* folder: the encoder's. longest: ids that the image model was trained on. width: of rows it wants,
 * else TT_EFORMAT. random: without weights. */
tt_status tt_text_encoder_open(tt_text_encoder **out, tt_stream *s, const char *folder,
                               int32_t longest, int64_t width, tt_weights_mode mode, bool random,
                               tt_err *e);
void tt_text_encoder_close(tt_text_encoder *t); /* NULL is fine */

/* A prompt's ids, the end included; any thread. TT_EINVAL naming "prompt" for too long a one. */
tt_status tt_prompt_read(tt_prompt *p, const tt_text_encoder *t, const char *text, tt_err *e);
tt_status tt_prompt_copy(tt_prompt *to, const tt_prompt *from); /* TT_ENOMEM */
/* Fills in row if it is not there yet. */
tt_status tt_prompt_encode(tt_prompt *p, tt_err *e);
void tt_prompt_free(tt_prompt *p);

#endif
