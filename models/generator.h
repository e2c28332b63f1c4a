/* generator.h - what an image generator provides: a network that predicts an image codec's tokens.
 *
 * A generator knows no pixels, no requests and no samplers. An image being generated is a state:
 * its tokens so far and whatever the network keeps between its calls (features, keys and values),
 * for both branches of guidance. A step runs many states as one pass, ragged, without padding, and
 * reduces the logits of the wanted tokens to statistics and draws, as tt_op_head does. What a
 * state gets does not depend on the states beside it.
 *
 *   begin -> state; then per step: step (logits), commit (tokens that now stand); drop
 *
 * A family is a const tt_generator_def in models/generator.c, found by config.json's
 * "architectures", or "model_type" where there is none. One thread at a time: the stream's. */
#ifndef TT_GENERATOR_H
#define TT_GENERATOR_H

#include "models/model.h"

/* --- how a codec lays an image out in tokens --- */

typedef enum {
    TT_LAYOUT_GRID,     /* a token owns a window of pixels; raster order */
    TT_LAYOUT_SEQUENCE, /* tokens without a place */
    TT_LAYOUT_LEVELS,   /* coarse to fine; any prefix of levels may be an image */
    TT_LAYOUT_SCALES,   /* grids of growing size */
} tt_layout_kind;

enum { TT_MAX_LEVELS = 32 };

typedef struct {
    tt_layout_kind kind;
    int32_t tokens;        /* of an image */
    int32_t rows, columns; /* of a grid; else 0 */
    int32_t levels, level[TT_MAX_LEVELS]; /* tokens of each level or scale; a grid or sequence has
                                             one level */
    int32_t codes; /* a token is in [0, codes) */
} tt_layout;

/* --- generators --- */

typedef struct tt_generator tt_generator;
typedef struct tt_generator_state tt_generator_state;

typedef enum { /* which tokens a call may ask for */
    TT_GENERATES_MASKED, /* any that are hidden, given any that are known */
    TT_GENERATES_LEVELS, /* those of the next level, given all before */
    TT_GENERATES_NEXT,   /* the next one, given all before */
} tt_generator_kind;

enum { TT_MAX_LABEL_GROUPS = 4 };

typedef struct {
    const char *family;       /* "ENAT" */
    const char *architecture; /* as in config.json */
    tt_generator_kind kind;
    tt_layout layout; /* of the codec it was trained on, as far as it knows: kind, sizes, codes */
    int32_t mask_id;  /* stands for a hidden token; layout.codes */
    int32_t groups, group[TT_MAX_LABEL_GROUPS]; /* kinds of labels, and how many labels of each;
                                                   groups 0: unconditional */
    int64_t text_width; /* of encoded text; 0: not a model of text */
    bool reuses;      /* states may keep features between steps (tt_generator_call.reuse) */
    int64_t layers, width, heads, head_dim, parameters;
    size_t weight_bytes; /* as loaded */
    size_t state_bytes;  /* device memory of one state */
    tt_dtype act;
    const char *compute; /* "f32", "bf16", "int8 weights, bf16 products" */
} tt_generator_info;

/* What an image shall show: one label of each kind, -1: none of that kind. The network sees the
 * sum of the labels' rows, or the row of "no class" if there is none at all. */
typedef struct {
    int32_t label[TT_MAX_LABEL_GROUPS];
    /* Models of text: its encoded rows (rows x info.text_width, host, copied), and those of the
     * text that guidance leads away from, NULL where there is no guidance. */
    const float *text, *no_text;
    int32_t text_rows, no_text_rows;
} tt_condition;

/* One state's part of a step. */
typedef struct {
    tt_generator_state *state;
    float cfg_scale; /* s: logits = cond + s (cond - uncond); 0: conditional alone */
    bool guided;     /* some call of this image has a cfg_scale; the second branch is then run
                        even where cfg_scale is 0, unless nothing a later call needs comes of it */
    bool reuse;      /* use the features of the state's last step (info.reuses); else everything
                        known is computed afresh. A state's first step is the same with either */
    int32_t wants;
    const int32_t *slot;  /* hidden tokens whose statistics are wanted, ascending, none twice */
    const tt_draw *draw;  /* one per want; limit must be 0 */
    tt_row_stats *stats;  /* out: one per want */
    float *logits;        /* out: wants x codes, guided, before draw's temperature; or NULL. For
                             searches and replays */
    float *features;      /* out: tokens x width of the conditional branch, or NULL. For tests */
} tt_generator_call;

/* What a step cannot do without. */
typedef struct {
    double macs;         /* multiply-adds */
    double weight_bytes; /* of matrices, each read once */
} tt_generator_work;

typedef struct {
    const char *family;
    const char *summary;
    const char *source;               /* paper or released code followed */
    const char *const *architectures; /* NULL-terminated; "model_type" values too */
    tt_generator_kind kind;

    /* Binds and packs weights. They stay mapped for the generator's life. TT_EFORMAT/TT_EUNSUP
     * naming the tensor or config key, or the operation the device lacks. */
    tt_status (*open)(tt_generator **out, tt_stream *s, const tt_weights *w, tt_config *c,
                      tt_weights_mode mode, tt_err *e);
    void (*close)(tt_generator *g);
    tt_status (*begin)(tt_generator *g, tt_generator_state *st, const tt_condition *c, tt_err *e);
    tt_status (*step)(tt_generator *g, const tt_generator_call *call, int64_t calls, tt_err *e);
    tt_status (*fork)(tt_generator_state *to, const tt_generator_state *from, tt_err *e);
    void (*drop)(tt_generator_state *st);
    size_t (*step_bytes)(const tt_generator *g, int64_t calls);
    tt_status (*work)(tt_generator *g, const tt_generator_call *call, int64_t calls,
                      tt_generator_work *out, tt_err *e);
    size_t state_size; /* of the family's state, which begins with a tt_generator_state; zeroed */
} tt_generator_def;

struct tt_generator {
    const tt_generator_def *def;
    tt_stream *stream;
    tt_generator_info info;
};

struct tt_generator_state {
    tt_generator *generator;
    int32_t *id;   /* the tokens; mask_id where hidden */
    int32_t known; /* how many are not hidden */
};

/* Every family, NULL-terminated; and by "architectures" or "model_type" (NULL when unknown). */
const tt_generator_def *const *tt_generator_all(void);
const tt_generator_def *tt_generator_find(const char *name);
/* True when the folder's config.json names a generator: an image model, not a text model. */
bool tt_generator_in(const char *folder);

/* Opens weights, config and generator of a folder; *weights and *config are closed after it.
 * random: config.json alone, with random weights. */
tt_status tt_generator_open(tt_generator **out, tt_weights **weights, tt_config **config,
                            tt_stream *s, const char *folder, tt_weights_mode mode, bool random,
                            tt_err *e);
void tt_generator_close(tt_generator *g); /* NULL is fine; states must be dropped before */
/* For families: groups of config key label_groups, how many labels of each kind; one of all
 * `classes` when absent. */
tt_status tt_generator_groups(tt_generator_info *info, tt_config *c, int64_t classes, tt_err *e);

/* A new image. id: its tokens, mask_id where hidden; NULL: all hidden. TT_EINVAL naming label or
 * token when out of range; TT_ENOMEM. */
tt_status tt_generator_begin(tt_generator_state **out, tt_generator *g, const tt_condition *c,
                             const int32_t *id, tt_err *e);
/* Runs one step of every call's state, no state twice. Results are there on return. TT_EINVAL for
 * a want that is not hidden; TT_ENOMEM. After a failure the states can only be dropped. */
tt_status tt_generator_step(tt_generator *g, const tt_generator_call *call, int64_t calls,
                            tt_err *e);
/* Tokens that stand from now on. TT_EINVAL for a slot that is not hidden or a token that is none:
 * what a later step reuses must not change. */
tt_status tt_generator_commit(tt_generator_state *st, const int32_t *slot, const int32_t *id,
                              int32_t n, tt_err *e);
/* An independent copy, for search and best of n. */
tt_status tt_generator_fork(tt_generator_state **out, const tt_generator_state *from, tt_err *e);
void tt_generator_drop(tt_generator_state *st); /* NULL is fine */
/* What the step of these calls would take, which then have not been run. */
tt_status tt_generator_work_of(tt_generator *g, const tt_generator_call *call, int64_t calls,
                               tt_generator_work *out, tt_err *e);
/* Device memory beyond the states that a step of so many calls needs at most. */
size_t tt_generator_step_bytes(const tt_generator *g, int64_t calls);

#endif
