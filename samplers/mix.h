/* mix.h - scores of several verifiers made one, and scores of where things stand in a picture.
 *
 * Pure arithmetic on numbers that verifiers gave: higher is better everywhere. */
#ifndef TT_VERIFY_MIX_H
#define TT_VERIFY_MIX_H

#include <stdbool.h>
#include <stdint.h>

#include "kernels/base/err.h"

typedef enum {
    TT_MIX_RANK,     /* 1 - (sum of weight * rank) / (sum of weights * (n - 1)), best rank 0 */
    TT_MIX_WEIGHTED, /* sum of weight * (s - min) / (max - min); 0 where max - min <= 1e-8 */
} tt_mix_rule;

/* One verifier's part. */
typedef struct {
    const float *score; /* of n candidates; NULL: the verifier failed, and has no say */
    double weight;      /* 0: no say either */
} tt_mix_part;

/* out: n scores. Equal scores rank by index. A part without a say takes its weight with it: the
 * others keep theirs. TT_EINVAL when no part has a say, a weight is negative or not finite. */
tt_status tt_mix(float *out, const tt_mix_part *part, int parts, int32_t n, tt_mix_rule rule,
                 tt_err *e);

/* --- where things stand --- */

typedef enum { TT_LEFT_OF, TT_RIGHT_OF, TT_ABOVE, TT_BELOW } tt_relation;

/* "left of", "to the left of", "right of", "to the right of", "above", "below"; false for another.
 */
bool tt_relation_find(const char *name, tt_relation *out);

/* How far a holds this relation to b, in [0, 1]: masks (not 0: inside) of height x width are
 * projected on the axis, made to sum to 1; with the one that should come first as p, the other as
 * q: max(0, sum_i q_i P_i - sum_i p_i Q_i), P and Q the running sums. An empty mask scores 0. */
float tt_relation_score(const uint8_t *a, const uint8_t *b, int32_t width, int32_t height,
                        tt_relation r);

/* Corners of a box: left, top, right, bottom. */
typedef struct {
    float x0, y0, x1, y1;
} tt_box;

/* Whether the middle of a lies on that side of the middle of b. */
bool tt_relation_holds(const tt_box *a, const tt_box *b, tt_relation r);

/* Of boxes of one kind, of each two that overlap by more than `most` of the area of either, the
 * smaller is kept. keep: n, set. */
void tt_prune_boxes(bool *keep, const tt_box *box, int32_t n, float most);

#endif
