/* guidance.h - how strongly each call of an image is guided: schedules of the scale over the calls.
 *
 * logits = uncond + g (cond - uncond); g = 1 is the conditional branch alone. (Schedules of the
 * ResTok code, arXiv 2601.03955.) */
#ifndef TT_IMAGE_GUIDANCE_H
#define TT_IMAGE_GUIDANCE_H

typedef enum {
    TT_GUIDE_CONSTANT,        /* g */
    TT_GUIDE_LINEAR,          /* 1 to g */
    TT_GUIDE_LINEAR_DOWN,     /* g to 1 */
    TT_GUIDE_LINEAR_CONSTANT, /* 1 to g until `peak`, then g */
    TT_GUIDE_TRIANGULAR,      /* 1 to g at `peak`, and back */
    TT_GUIDE_RECTANGULAR,     /* g from `begin` to `end`, else `least` */
    TT_GUIDE_STEP,            /* g from `begin` on, else `least` */
    TT_GUIDE_COSINE,          /* 1 to g along half a cosine */
    TT_GUIDE_COSINE_DOWN,
} tt_guidance_kind;

typedef struct {
    tt_guidance_kind kind;
    double peak;       /* in (0, 1) */
    double begin, end; /* in [0, 1] */
    double least;
} tt_guidance;

/* g of the call at `ratio` of the way, in [0, 1]: call i of n is at i / (n - 1). */
double tt_guidance_at(const tt_guidance *schedule, double g, double ratio);

#endif
