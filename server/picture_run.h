/* picture_run.h - an image in flight: the counterpart of tt_run for image models.
 *
 * A task is a chain of passes: encoding and decoding are as many of the codec as it needs (one, or
 * one a crop and one a step of painting); making an image is one of the generator per step, and a
 * decoding for every preview asked for and for the picture at the end. Runs that wait for the same
 * pass of the same model go through it together; what one gets does not depend on the others.
 * Owned by the engine's thread. */
#ifndef TT_PICTURE_RUN_H
#define TT_PICTURE_RUN_H

#include "samplers/image.h"
#include "server/text_encoder.h"
#include "tokenizers/image.h"

typedef enum {
    TT_PICTURE_MAKE,   /* tokens where they are hidden, then pixels */
    TT_PICTURE_ENCODE, /* pixels to tokens */
    TT_PICTURE_DECODE, /* tokens to pixels */
} tt_picture_task;

/* What an image job has beside its tokens (tt_job_spec). */
typedef struct {
    tt_picture_task task;
    tt_condition condition; /* MAKE: labels; its text comes from `prompt` */
    tt_prompt *prompt;      /* MAKE by models of text; encoded when it is first needed */
    int32_t previews;       /* MAKE: pictures of unfinished images wanted, evenly over the steps */
    bool tokens_only;       /* MAKE: no pixels at all */
    const float *pixels;    /* ENCODE: height x width x 3 of the codec, in [0, 1] */
    const uint8_t *mask;    /* MAKE: token slots that `strength` may hide, or NULL: all */
    double strength;        /* MAKE: above 0, hide this share of the slots before beginning */
    int32_t keep;           /* DECODE: of so many leading tokens; 0: all */
    bool by_crops;          /* ENCODE: as `crops` says, not as the codec usually does */
    tt_crop_policy crops;
    bool show;              /* ENCODE: after every crop a quick picture of the message */
    tt_painting painting;   /* MAKE, DECODE, but for seed and sample; steps 0: the codec's usual */
} tt_picture_spec;

typedef enum {
    TT_PICTURE_PASS_ENCODE,
    TT_PICTURE_PASS_STEP,
    TT_PICTURE_PASS_DECODE,
    TT_PICTURE_PASSES
} tt_picture_pass;

typedef struct {
    tt_generator *generator; /* MAKE; its layout is the codec's */
    tt_codec *codec;
    const tt_picture_spec *picture; /* it and what follows must outlive the run */
    const tt_params *params;
    const int32_t *id; /* tokens; -1 where hidden. Not read by ENCODE */
    uint64_t seed;
    uint32_t sample;
    int32_t keep; /* DECODE: so many leading tokens, instead of picture->keep; 0: as there */
    /* MAKE, for searches: */
    const struct tt_picture_run *from; /* goes on from where this one stands, which must not be
                                          closed before the first plan; NULL: from id */
    int32_t steps; /* ends after so many, without a picture; 0: an image is made */
    int32_t way;   /* of a generator of single tokens, with ways above 1: the last step takes the
                      token that is drawn as the way-th without replacement, counted from 0 */
    int32_t ways;
} tt_picture_run_spec;

typedef struct tt_picture_run {
    tt_picture_run_spec spec;
    tt_layout layout;
    tt_image_seq seq;
    tt_generator_state *state; /* opened by the first step */
    tt_arena life, step;
    tt_image_plan plan;
    tt_picture_pass pass; /* the one it waits for */
    tt_codec_work *reading, *painting; /* under way, or NULL */
    bool planned, done;
    int32_t previews;     /* made so far */
    int32_t begun;        /* steps that `from` had made */
    int32_t *shown;       /* tokens to be decoded next, or that were encoded */
    int32_t kept;         /* of those so many are decoded; 0: all */
    uint8_t *picture;     /* height x width x 3, once pictures > 0 */
    int32_t pictures;     /* decoded so far */
    int32_t picture_step; /* after which the last one was taken */
    int32_t nfe;          /* generator's passes taken part in */
    tt_status failed;
    tt_err error;
} tt_picture_run;

/* What a picture's generator begins from; may encode its prompt, so of the device's thread. */
tt_status tt_picture_condition(tt_condition *out, const tt_picture_spec *picture, tt_err *e);

/* Host memory a run takes, and device memory. */
size_t tt_picture_run_bytes(const tt_picture_run_spec *spec);
/* Needs no device. Fails with TT_EINVAL naming the parameter. */
tt_status tt_picture_run_open(tt_picture_run *r, const tt_picture_run_spec *spec, tt_err *e);
void tt_picture_run_close(tt_picture_run *r); /* a zeroed run is fine */
/* Gives up what only running needs: what is left can be gone on from, and closed. */
void tt_picture_run_park(tt_picture_run *r);

/* Plans the next step where that is what comes next; a failure is kept in r->failed. */
void tt_picture_run_plan(tt_picture_run *r);
/* What it runs on next; and rows of a pass it takes. */
const void *tt_picture_run_model(const tt_picture_run *r);
int64_t tt_picture_run_rows(const tt_picture_run *r);

/* One pass of n runs that wait for the same one of the same model. A run's own failure leaves the
 * others untouched; when the status is not TT_OK the pass failed for all. */
tt_status tt_picture_step(tt_picture_run *const *run, int64_t n, tt_err *e);

#endif
