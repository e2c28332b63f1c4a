/* image.h - samplers of images: planners say which tokens the next call asks for and what stands
 * afterwards; orders say which of the drawn tokens stand first.
 *
 * As text samplers, they never call a model: plan() fills a call of tt_generator_step (the
 * scheduler runs many images' calls as one), apply() reads its statistics and commits tokens. What
 * an image gets depends on its own tokens, parameters and noise alone. Selection (which slots
 * stand) is apart from choice (which token a slot gets). */
#ifndef TT_SAMPLE_IMAGE_H
#define TT_SAMPLE_IMAGE_H

#include "kernels/base/arena.h"
#include "models/generator.h"
#include "samplers/params.h"

struct tt_planner;

/* One image being generated. Who runs it fills in the first part, then calls
 * tt_image_begin(). */
typedef struct tt_image_seq {
    const struct tt_planner *planner;
    const tt_params *params; /* steps 0: 8 */
    tt_layout layout;
    int32_t mask_id;
    uint64_t seed;
    uint32_t sample; /* which of the request's images */
    tt_arena *arena; /* memory of the image's life: tt_image_seq_bytes() */
    const float *order_noise; /* replay of reference traces: the present step's Gumbel noise per
                                 slot; NULL: drawn from the seed */

    int32_t *id;          /* mask_id where hidden */
    uint8_t *fixed;       /* 1: given, never changed */
    int32_t *guess;       /* hidden slots: the most likely token of the last call they were in, or
                             -1; previews decode these */
    int32_t *step_of;     /* step of the commit, from 1; 0: given or hidden */
    float *logprob;       /* of committed tokens, under the guided distribution */
    int32_t *commit;      /* slots committed by the last apply(), ascending: for
                             tt_generator_commit */
    int32_t commits;
    int32_t hidden, free; /* slots hidden now; and at the beginning */
    int32_t step, steps;  /* done, and in all */
    void *state;          /* the planner's */
} tt_image_seq;

/* What the next call needs; lists live in the step arena. */
typedef struct {
    tt_arena *arena; /* tt_image_step_bytes() */
    float cfg_scale;
    bool guided, reuse; /* as in tt_generator_call */
    int32_t *slot;
    tt_draw *draw;
    int32_t wants;
} tt_image_plan;

typedef struct tt_planner {
    const char *name; /* "masked", "levels", "next" */
    const char *summary;
    const char *source;
    tt_generator_kind kind; /* of the generators it is for */
    const char *const *params; /* names of the parameters it reads, NULL-terminated */
    size_t state_size, slot_size; /* bytes of zeroed state, in all and per token */
    tt_status (*open)(tt_image_seq *q, void *state, tt_err *e);
    tt_status (*plan)(tt_image_seq *q, void *state, tt_image_plan *plan, tt_err *e);
    tt_status (*apply)(tt_image_seq *q, void *state, const tt_image_plan *plan,
                       const tt_row_stats *stats, tt_err *e);
    /* The state of `from` for another image that was opened alike; NULL: a plain copy. */
    void (*fork)(const tt_image_seq *q, void *state, const void *from);
} tt_planner;

/* Every planner, NULL-terminated; by name; and the one for a generator. NULL when unknown. */
const tt_planner *const *tt_planner_all(void);
const tt_planner *tt_planner_find(const char *name);
const tt_planner *tt_planner_for(tt_generator_kind kind);
bool tt_planner_reads(const tt_planner *p, const tt_param *param);

/* Bytes of arena of an image, and of step arena of one plan. */
size_t tt_image_seq_bytes(const tt_planner *p, int32_t tokens);
size_t tt_image_step_bytes(int32_t tokens);

/* Different images may be planned and applied by several threads at once, with an arena each: some
 * 100 nanoseconds per hidden token, which shows beside a GPU's step. */

/* Takes the lists from the arena and checks the parameters. id: tokens to start from, mask_id where
 * hidden; NULL: all hidden. TT_EINVAL naming the parameter ("steps", ...). An image without hidden
 * tokens is done at once. */
tt_status tt_image_begin(tt_image_seq *q, const int32_t *id, tt_err *e);
static inline bool tt_image_done(const tt_image_seq *q) { return q->hidden == 0; }
tt_status tt_image_plan_step(tt_image_seq *q, tt_image_plan *plan, tt_err *e);
/* stats: one per want of the plan. */
tt_status tt_image_apply(tt_image_seq *q, const tt_image_plan *plan, const tt_row_stats *stats,
                         tt_err *e);
/* Takes over how far `from` is, whose planner, layout and given tokens are the same. The random
 * numbers to come are those of `to`. */
void tt_image_fork(tt_image_seq *to, const tt_image_seq *from);
/* For searches: of a plan that wants a single token, puts into stats[0] the one that is drawn as
 * the way-th without replacement, counted from 0. logit: layout.codes, before the temperature.
 * TT_ENOMEM. */
tt_status tt_image_take_way(const tt_image_seq *q, const tt_image_plan *plan, tt_row_stats *stats,
                            const float *logit, int32_t way, tt_err *e);
/* Tokens for a preview: those that stand, elsewhere the guesses (0 where there is none yet).
 * out: layout.tokens. */
void tt_image_preview(const tt_image_seq *q, int32_t *out);
/* The tokens to begin an image-to-image run from: `strength` in (0, 1] of the slots, drawn without
 * replacement from (seed, sample), become mask_id. mask: only slots that are not 0 may; NULL: any.
 * At least one of them becomes hidden. TT_EINVAL naming "strength"; TT_ENOMEM. */
tt_status tt_image_hide(int32_t *id, const tt_layout *layout, int32_t mask_id, const uint8_t *mask,
                        double strength, uint64_t seed, uint32_t sample, tt_err *e);

/* --- orders: in what order a masked image's tokens come to stand (parameter `order`) --- */

typedef struct tt_order {
    const char *name; /* "enat", "maskgit", "halton" */
    const char *summary;
    const char *source;
    /* Hidden slots that remain after step q->step, not the last one; q->free of them at first. */
    int32_t (*remain)(const tt_image_seq *q);
    /* Temperature of the step's draws, given the parameter. */
    double (*temperature)(const tt_image_seq *q, double given);
    /* Fills in the rank of every slot; then slots are chosen before the call, lowest rank first,
     * and it asks for no others. NULL: the surest drawn tokens stand, by log-probability and
     * noise. */
    void (*arrange)(const tt_image_seq *q, int32_t *rank);
} tt_order;

extern const tt_order *const tt_orders[]; /* in the order of the parameter's choices */

#endif
