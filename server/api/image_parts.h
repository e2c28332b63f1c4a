/* image_parts.h - the inside of a request about images, shared by the files that read, run and
 * write it. */
#ifndef TT_API_IMAGE_PARTS_H
#define TT_API_IMAGE_PARTS_H

#include <pthread.h>

#include "server/api/form.h"
#include "server/api/images.h"
#include "server/api/search.h"
#include "server/json_write.h"
#include "server/png.h"

typedef struct tt_imaging tt_imaging;

struct tt_image_endpoint {
    unsigned on; /* TT_ON_ */
    const char *id_prefix;
    const char *event; /* "image_generation"; NULL: has no stream */
    /* Reads what only this endpoint has, and sets up g->unit. */
    tt_status (*read)(tt_imaging *g, const tt_form *f, tt_err *e);
};

/* An image of the answer: one sample of one unit. */
typedef struct {
    int unit;
    int32_t sample;
    tt_view view;
    bool closed; /* streams: its last event was sent */
    int32_t told_pictures;
    int32_t told_step;
    int32_t told_looks;
} tt_shot;

/* One job. */
typedef struct {
    tt_picture_spec picture;
    int32_t samples;
    int32_t *id; /* tokens; not read where open */
    uint8_t *open;
    float *pixels; /* picture.pixels */
    tt_job *job;   /* NULL until submitted */
} tt_image_unit;

typedef enum { TT_MASK_ANY, TT_MASK_MAJORITY, TT_MASK_ALL } tt_mask_rule;

struct tt_imaging {
    tt_work work; /* first: a tt_work is cast back */
    tt_api *api;
    const tt_image_endpoint *endpoint;
    const tt_served *model;
    char id[48];
    int64_t created, arrived_ns, read_ns;

    /* request */
    tt_params params;
    int32_t n;
    int64_t seed;
    tt_condition condition;
    tt_prompt text; /* the prompt, for models that read texts */
    int32_t previews;
    bool stream, delta, return_tokens, tokens_only, paste;
    bool by_crops, show; /* how pictures are read, and whether messages are shown on the way */
    tt_crop_policy crops;
    tt_painting painting; /* steps 0: nothing to choose */
    double strength;
    int64_t deadline_ms;
    int32_t priority;
    char quality[12];

    /* the image a request begins with, and which of its tokens are made anew */
    tt_image_unit source; /* its encoding; no pixels: there is none */
    uint8_t *source_rgb;
    uint8_t *remade; /* a byte per token */
    int32_t remade_tokens;

    /* a search; jurors 0: none */
    tt_picture_search_spec search;
    int32_t counts[TT_MAX_SEARCH_STEPS];
    char *prompt;
    tt_search_report report;
    size_t told_stages;

    tt_image_unit *unit;
    int units, submitted;
    tt_shot *shot;
    int shots;
    void (*wake)(void *arg);
    void *wake_arg;
    pthread_mutex_t lock; /* of the jobs' pointers and cancelled */
    bool cancelled;
    tt_err failure; /* status TT_OK while all is well */
    double first_draft;
    int64_t ended_ns;
};

/* --- image_read.c --- */

tt_status tt_imaging_read_generations(tt_imaging *g, const tt_form *f, tt_err *e);
tt_status tt_imaging_read_edits(tt_imaging *g, const tt_form *f, tt_err *e);
tt_status tt_imaging_read_variations(tt_imaging *g, const tt_form *f, tt_err *e);
tt_status tt_imaging_read_tokenize(tt_imaging *g, const tt_form *f, tt_err *e);
tt_status tt_imaging_read_detokenize(tt_imaging *g, const tt_form *f, tt_err *e);

/* Room for so many units with their tokens; TT_ENOMEM. */
tt_status tt_imaging_units(tt_imaging *g, int units, tt_err *e);
tt_status tt_unit_open(const tt_imaging *g, tt_image_unit *u, tt_err *e);
void tt_unit_free(tt_image_unit *u);

/* --- image_source.c: pictures that requests bring --- */

/* The i-th picture a body holds under `name` (or, where that is "image", `images`), decoded.
 * *there: there is one. */
tt_status tt_source_picture(const tt_form *f, const char *name, int i, tt_picture *out, bool *there,
                            tt_err *e);
/* Pixels of the model's size for g->source and g->source_rgb; what is transparent becomes grey. */
tt_status tt_source_fit(tt_imaging *g, const tt_picture *p, tt_err *e);
/* Which tokens are made anew: where `mask` (or the picture itself, mask NULL) is transparent. */
tt_status tt_source_mask(tt_imaging *g, const tt_form *f, const tt_picture *p,
                         const tt_picture *mask, tt_err *e);
/* Scales a picture into the middle part of a larger one that is otherwise transparent. */
tt_status tt_source_outpaint(const tt_form *f, tt_picture *p, tt_err *e);

/* Whether the images come of a search. */
static inline bool tt_imaging_searches(const tt_imaging *g)
{
    return g->search.jurors > 0;
}

/* --- image_codec.c: how pictures are read and painted, and what can be done to tokens --- */

/* `tutti.crops`, and `tutti.paint`. */
tt_status tt_imaging_read_crops(tt_imaging *g, const tt_form *f, tt_err *e);
tt_status tt_imaging_read_paint(tt_imaging *g, const tt_form *f, tt_err *e);
/* tokens, decode_offset and what `tutti` says shall be done to them: all of g->unit. */
tt_status tt_imaging_read_tokens(tt_imaging *g, const tt_form *f, tt_err *e);

enum { TT_MAX_TOKEN_IMAGES = 64 };

/* --- image_write.c: whole answers, and the members that events have too --- */

void tt_imaging_answer(tt_imaging *g, tt_reply *r);
/* A picture as PNG; text: a comment in it, or NULL. */
void tt_imaging_put_pixels(const tt_imaging *g, const uint8_t *rgb, const char *text, tt_json *w);
/* The shot's, with how it came to be. */
void tt_imaging_put_picture(const tt_imaging *g, const tt_shot *s, tt_json *w);
/* What a picture became, and what else is needed to see it again. */
void tt_imaging_put_message(const tt_imaging *g, const tt_shot *s, tt_json *w);
void tt_imaging_put_tokens(const tt_shot *s, tt_json *w);
void tt_imaging_put_ids(const char *name, const int32_t *id, int32_t n, tt_json *w);
void tt_imaging_put_offset(const float offset[2], tt_json *w);
void tt_imaging_put_layout(const tt_imaging *g, tt_json *w);
void tt_imaging_put_size(const tt_imaging *g, tt_json *w);
/* Of the whole request. */
void tt_imaging_put_usage(const tt_imaging *g, tt_json *w);
void tt_imaging_put_extras(const tt_imaging *g, tt_json *w);

/* --- image_stream.c --- */

bool tt_imaging_frames(tt_imaging *g, int64_t now_ms, tt_buf *out, int64_t *again_ms);

/* --- images.c --- */

void tt_imaging_fail(tt_imaging *g, const tt_err *e);
/* Brings a shot up to date; true when it has finished well. */
bool tt_shot_update(tt_imaging *g, tt_shot *s);
/* Does what became possible since the last call: jobs that follow others. */
void tt_imaging_advance(tt_imaging *g);

#endif
