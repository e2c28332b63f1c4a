/* clip.c - CLIPScore (arXiv 2104.08718) and the aesthetic score (the LAION predictor) as verifiers:
 * both look at CLIP's vector of a picture. */
#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "models/chain.h"
#include "models/clip.h"
#include "samplers/verify/pictures.h"
#include "tokenizers/text.h"

typedef struct {
    tt_verifier base; /* first: cast back */
    tt_clip *clip;
    double *taste, bias; /* aesthetic: of the picture's vector; else NULL */
} seer;

static void clip_close(tt_verifier *v)
{
    seer *s = (seer *)v;
    tt_clip_close(s->clip);
    free(s->taste);
    free(s);
}

static tt_status clip_open(tt_verifier **out, tt_stream *stream, const char *folder,
                           tt_weights_mode mode, tt_err *e)
{
    seer *s = calloc(1, sizeof *s);
    if (!s)
        return tt_fail(e, TT_ENOMEM, "no memory for a verifier");
    tt_status st = tt_clip_open(&s->clip, stream, folder, mode, e);
    if (st) {
        free(s);
        return st;
    }
    const tt_clip_info *about = tt_clip_about(s->clip);
    s->base = (tt_verifier){.stream = stream,
                            .info = {.parameters = about->parameters, .side = about->side}};
    *out = &s->base;
    return TT_OK;
}

/* The prompt's vector. */
static tt_status clip_prepare(tt_verifier *v, void **out, const char *text, tt_err *e)
{
    seer *s = (seer *)v;
    const tt_clip_info *about = tt_clip_about(s->clip);
    tt_ids ids = {0};
    float *vector = malloc((size_t)about->projection * sizeof *vector);
    tt_status st = vector ? TT_OK : tt_fail(e, TT_ENOMEM, "no memory for a prompt");
    if (!st)
        st = tt_tok_encode(v->tok, text, strlen(text), TT_TOK_ADD_SPECIAL, &ids, e);
    int32_t n = st ? 0 : tt_clip_cut(about, ids.id, (int64_t)ids.count);
    if (!st)
        st = tt_clip_texts(s->clip, vector, ids.id, &n, 1, NULL, e);
    tt_ids_free(&ids);
    if (st)
        free(vector);
    else
        *out = vector;
    return st;
}

/* n x projection, to be freed; NULL with the reason in *e. */
static float *vectors_of(seer *s, const tt_exhibit *x, int32_t n, tt_err *e)
{
    const tt_clip_info *about = tt_clip_about(s->clip);
    float *planes = tt_verify_planes(x, n, about->side, about->mean, about->deviation, e);
    float *vector = calloc((size_t)n, (size_t)about->projection * sizeof *vector);
    if (planes && !vector)
        tt_fail(e, TT_ENOMEM, "no memory for %d pictures", n);
    bool ok = planes && vector && !tt_clip_images(s->clip, vector, planes, n, NULL, e);
    free(planes);
    if (ok)
        return vector;
    free(vector);
    return NULL;
}

static tt_status clip_score(tt_verifier *v, const void *prompt, const tt_exhibit *x, int32_t n,
                            float *score, tt_err *e)
{
    seer *s = (seer *)v;
    int64_t p = tt_clip_about(s->clip)->projection;
    tt_err local = {0};
    e = e ? e : &local;
    float *vector = vectors_of(s, x, n, e);
    if (!vector)
        return e->status;
    for (int32_t i = 0; i < n; i++)
        score[i] = tt_clip_score(vector + i * p, prompt, p);
    free(vector);
    return TT_OK;
}

/* --- aesthetic --- */

static tt_status aesthetic_open(tt_verifier **out, tt_stream *stream, const char *folder,
                                tt_weights_mode mode, tt_err *e)
{
    static const int layers[] = {0, 2, 4, 6, 7};
    char path[4096];
    tt_weights *w = NULL;
    tt_status st = clip_open(out, stream, folder, mode, e);
    if (st)
        return st;
    seer *s = (seer *)*out;
    int64_t width = tt_clip_about(s->clip)->projection;
    s->taste = malloc((size_t)width * sizeof *s->taste);
    snprintf(path, sizeof path, "%s/aesthetic.safetensors", folder);
    st = s->taste ? tt_weights_open_file(&w, path, e)
                  : tt_fail(e, TT_ENOMEM, "no memory for a head");
    if (!st)
        st = tt_chain_fold(s->taste, &s->bias, width, w, "layers.", layers, 5, e);
    tt_weights_close(w);
    if (st) {
        clip_close(*out);
        *out = NULL;
    }
    return st;
}

static tt_status aesthetic_score(tt_verifier *v, const void *prompt, const tt_exhibit *x, int32_t n,
                                 float *score, tt_err *e)
{
    seer *s = (seer *)v;
    int64_t p = tt_clip_about(s->clip)->projection;
    tt_err local = {0};
    (void)prompt;
    e = e ? e : &local;
    float *vector = vectors_of(s, x, n, e);
    if (!vector)
        return e->status;
    for (int32_t i = 0; i < n; i++) {
        double sum = 0, square = 0;
        for (int64_t k = 0; k < p; k++) {
            double a = vector[i * p + k];
            square += a * a;
            sum += a * s->taste[k];
        }
        score[i] = (float)((square > 0 ? sum / sqrt(square) : 0) + s->bias);
    }
    free(vector);
    return TT_OK;
}

static const char *const clips[] = {"CLIPModel", "clip", NULL};
static const char *const tastes[] = {"AestheticPredictor", "aesthetic", NULL};

const tt_verifier_def tt_verifier_clip = {
    .name = "clip",
    .summary = "how well a picture suits the prompt: 2.5 max(cos, 0)",
    .source = "CLIP, arXiv 2103.00020; CLIPScore, arXiv 2104.08718",
    .architectures = clips,
    .reads_prompt = true,
    .open = clip_open,
    .close = clip_close,
    .prepare = clip_prepare,
    .score = clip_score,
};

const tt_verifier_def tt_verifier_aesthetic = {
    .name = "aesthetic",
    .summary = "how much people like a picture, whatever the prompt, about 1 to 10",
    .source = "LAION aesthetic predictor",
    .architectures = tastes,
    .open = aesthetic_open,
    .close = clip_close,
    .score = aesthetic_score,
};
