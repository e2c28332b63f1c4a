/* image_reward.h - ImageReward (arXiv 2304.05977): how well a picture suits a prompt, learned from
 * people's choices. A BLIP: a vision tower, and a BERT that reads the prompt and looks at all of
 * the picture's rows in every layer; its first row gives the reward.
 *
 * Calls belong to the stream's thread and return when the result is there; what a picture gets does
 * not depend on those beside it. */
#ifndef TT_IMAGE_REWARD_H
#define TT_IMAGE_REWARD_H

#include "models/model.h"

typedef struct tt_reward tt_reward;

typedef struct {
    int32_t side;           /* pixels of the square pictures it sees, normalised as CLIP's */
    int32_t context, vocab; /* ids of a prompt at most, with its first and last token */
    int64_t vision_rows, vision_width, text_width; /* of the outputs for tests */
    int64_t parameters;
} tt_reward_info;

/* folder: config.json (vision sizes, "bert" with the text sizes, max_length, mean, std) and
 * model.safetensors under the released names. TT_EFORMAT naming tensor or key. */
tt_status tt_reward_open(tt_reward **out, tt_stream *s, const char *folder, tt_weights_mode mode,
                         tt_err *e);
void tt_reward_close(tt_reward *r); /* NULL is fine */
const tt_reward_info *tt_reward_about(const tt_reward *r);

/* score: of each of the pictures (images x 3 x side x side, normalised) for one prompt,
 * standardised (about -2 to 2). id: the prompt's `length` ids, padding left out. vision (images x
 * vision_rows x vision_width) and first (images x text_width) are for tests, or NULL. TT_EINVAL
 * for an id outside the vocabulary, or a prompt longer than the context. */
tt_status tt_reward_score(tt_reward *r, float *score, const float *planes, int64_t images,
                          const int32_t *id, int32_t length, float *vision, float *first,
                          tt_err *e);

#endif
