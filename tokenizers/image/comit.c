/* comit.c - see comit.h. */
#include "tokenizers/image/comit.h"

#include <math.h>
#include <stdlib.h>
#include <string.h>

#include "kernels/base/rng.h"

enum { CROP = 96, GRID = 3, LOCALS = GRID * GRID };

/* --- opening --- */

static tt_status open_quantizer(tt_comit_codec *c, tt_config *q, tt_err *e)
{
    int32_t level[TT_FSQ_DIMS + 1], n = 0;
    while (n <= TT_FSQ_DIMS) {
        int64_t l = tt_config_int_at(q, "levels", n, 0, 0, 1 << 16);
        if (!l)
            break;
        level[n++] = (int32_t)l;
    }
    tt_status s = tt_config_status(q, e);
    if (!s)
        s = tt_fsq_open(&c->fsq, level, n, e);
    return s ? tt_context(e, s, "config key 'quantizer.levels'") : TT_OK;
}

/* The autoencoder's sizes: given, or those of Stable Diffusion. */
static tt_status open_vae(tt_comit_codec *c, tt_config *v, tt_weights_mode mode, tt_err *e)
{
    static const char usual[] = "{\"block_out_channels\":[128,256,512,512]}";
    tt_config *own = NULL;
    tt_status s = tt_config_has(v, "tutti_local_autoencoder_config")
                      ? tt_config_member(&own, v, "tutti_local_autoencoder_config", e)
                      : tt_config_open_text(&own, usual, sizeof usual - 1, e);
    if (!s)
        s = tt_vae_open(&c->vae, c->stream, c->weights, own, "vae.vae.", mode, e);
    tt_config_close(own);
    return s;
}

static tt_status open_parts(tt_comit_codec *c, tt_config *all, tt_weights_mode mode, bool strict,
                            tt_err *e)
{
    tt_config *inner = NULL, *part[3] = {NULL};
    static const char *const key[] = {"predictor", "quantizer", "vae"};
    tt_status s = tt_config_has(all, "config") ? tt_config_member(&inner, all, "config", e) : TT_OK;
    for (int i = 0; i < 3 && !s; i++)
        s = tt_config_member(&part[i], inner ? inner : all, key[i], e);
    if (!s)
        s = open_quantizer(c, part[1], e);
    if (!s)
        s = tt_comit_open(&c->net, c->stream, c->weights, part[0], mode, strict, e);
    if (!s)
        s = open_vae(c, part[2], mode, e);
    for (int i = 0; i < 3; i++)
        tt_config_close(part[i]);
    tt_config_close(inner);
    if (s)
        return s;
    const tt_comit_info *net = tt_comit_about(c->net);
    const tt_vae_info *vae = tt_vae_about(c->vae);
    c->tokens = net->tokens;
    c->dims = net->dims;
    c->side = net->side * vae->factor;
    if (c->dims != c->fsq.dims || net->channels != vae->channels)
        return tt_fail(e, TT_EFORMAT, "messages of %d numbers for %d levels, latents of %d and %d "
                       "channels", c->dims, c->fsq.dims, net->channels, vae->channels);
    if (c->side != 256 || CROP % vae->factor)
        return tt_fail(e, TT_EUNSUP, "pictures of %d pixels: crops are defined for 256", c->side);
    return TT_OK;
}

tt_status tt_comit_codec_open(tt_comit_codec **out, tt_stream *s, const char *folder,
                              tt_weights_mode mode, bool strict, tt_err *e)
{
    *out = NULL;
    tt_comit_codec *c = calloc(1, sizeof *c);
    tt_config *config = NULL;
    if (!c)
        return tt_fail(e, TT_ENOMEM, "no memory for a codec");
    c->stream = s;
    tt_status st = tt_config_open(&config, folder, e);
    if (!st)
        st = tt_weights_open(&c->weights, folder, e);
    if (!st)
        st = open_parts(c, config, mode, strict, e);
    tt_config_close(config);
    if (!st && !(c->prior = malloc((size_t)c->tokens * sizeof *c->prior)))
        st = tt_fail(e, TT_ENOMEM, "no memory for a message");
    for (int32_t i = 0; i < c->tokens && !st; i++)
        c->prior[i] = c->fsq.codes / 2;
    if (st) {
        tt_comit_codec_close(c);
        return tt_context(e, st, "COMiT codec in '%.100s'", folder);
    }
    *out = c;
    return TT_OK;
}

void tt_comit_codec_close(tt_comit_codec *c)
{
    if (!c)
        return;
    tt_comit_close(c->net);
    tt_vae_close(c->vae);
    tt_weights_close(c->weights);
    free(c->prior);
    free(c);
}

/* --- small things --- */

static int64_t cells_of(const tt_comit_codec *c)
{
    return c->side / tt_vae_about(c->vae)->factor;
}

static int64_t latent_numbers(const tt_comit_codec *c)
{
    return tt_vae_about(c->vae)->channels * cells_of(c) * cells_of(c);
}

static void message_of(const tt_comit_codec *c, float *out, const int32_t *id)
{
    for (int32_t i = 0; i < c->tokens; i++)
        tt_fsq_lookup(&c->fsq, out + i * c->dims, id[i]);
}

/* Two uniform numbers to two normal ones (Box and Muller), on the host whatever the device. */
void tt_comit_noise(const tt_comit_codec *c, float *noise, uint64_t seed, uint32_t sample)
{
    tt_rng_address at = {.seed = seed, .sample = sample};
    int64_t n = latent_numbers(c);
    for (int64_t i = 0; i < n; i += 4) {
        tt_rng_block b = tt_rng_at(at, (uint32_t)(i / 4));
        for (int k = 0; k < 4 && i + k < n; k += 2) {
            double r = sqrt(-2 * log((b.v[k] + 0.5) * 0x1p-32));
            double angle = 6.283185307179586 * (b.v[k + 1] + 0.5) * 0x1p-32;
            noise[i + k] = (float)(r * cos(angle));
            if (i + k + 1 < n)
                noise[i + k + 1] = (float)(r * sin(angle));
        }
    }
}

/* --- crops --- */

/* A picture on its way. */
typedef struct {
    int32_t chosen[TT_MAX_CROPS], crops; /* so far, and in all */
    float last[2];                       /* where the last crop lies */
    bool used[LOCALS + 1];
    float score[LOCALS];
    bool scored;
} looked;

static bool is_whole(const tt_crop_policy *p, int32_t crop)
{
    return p->whole && crop == 0;
}

/* Left upper corner of a crop of the grid. */
static void corner_of(const tt_comit_codec *c, const tt_crop_policy *p, int32_t crop, int32_t at[2])
{
    int32_t local = crop - p->whole, step = (c->side - CROP) / 2;
    at[0] = local % GRID * step;
    at[1] = local / GRID * step;
}

static void location_of(const tt_comit_codec *c, const tt_crop_policy *p, int32_t crop, float at[2])
{
    int32_t corner[2];
    at[0] = at[1] = 0;
    if (is_whole(p, crop))
        return;
    corner_of(c, p, crop, corner);
    for (int i = 0; i < 2; i++)
        at[i] = (float)(corner[i] + CROP / 2) / 128.0f - 1;
}

/* A permutation by sorting random numbers; the whole picture stays in front. */
static void shuffle(const tt_crop_policy *p, looked *l, int32_t all)
{
    uint32_t key[LOCALS + 1];
    for (int32_t i = 0; i < all; i++) {
        tt_rng_address at = {.seed = p->seed, .position = (uint32_t)i};
        key[i] = is_whole(p, i) ? 0 : tt_rng_at(at, 0).v[0] | 1;
        int32_t k = i;
        for (; k > 0 && key[l->chosen[k - 1]] > key[i]; k--)
            l->chosen[k] = l->chosen[k - 1];
        l->chosen[k] = i;
    }
}

static tt_status plan(looked *l, const tt_crop_policy *p, int64_t image, tt_err *e)
{
    int32_t all = LOCALS + p->whole;
    *l = (looked){.crops = p->order == TT_CROPS_LIST ? p->listed : all};
    if (p->crops < 0 || (p->crops == 0 && p->order == TT_CROPS_ADAPTIVE))
        return tt_fail(e, TT_EINVAL, "picture %lld: %d crops; an adaptive order needs to be told "
                       "how many", (long long)image, p->crops);
    if (p->order == TT_CROPS_LIST && (p->listed < 1 || p->listed > TT_MAX_CROPS))
        return tt_fail(e, TT_EINVAL, "picture %lld: a list of %d crops; 1 to %d are possible",
                       (long long)image, p->listed, TT_MAX_CROPS);
    if (p->crops && p->crops < l->crops)
        l->crops = p->crops;
    for (int32_t i = 0; i < all && p->order != TT_CROPS_LIST; i++)
        l->chosen[i] = i;
    if (p->order == TT_CROPS_RANDOM)
        shuffle(p, l, all);
    if (p->order == TT_CROPS_ADAPTIVE)
        l->chosen[0] = p->whole ? 0 : LOCALS / 2;
    for (int32_t i = 0; i < l->crops && p->order == TT_CROPS_LIST; i++) {
        if (p->list[i] < 0 || p->list[i] >= all)
            return tt_fail(e, TT_EINVAL, "picture %lld: crop %d; there are %d", (long long)image,
                           p->list[i], all);
        l->chosen[i] = p->list[i];
    }
    return TT_OK;
}

/* Latents of one crop, scaled. cells: of its side. */
static tt_status latent_of(tt_comit_codec *c, float *latent, int32_t *cells, const float *planes,
                           const tt_crop_policy *p, int32_t crop, tt_err *e)
{
    const tt_vae_info *vae = tt_vae_about(c->vae);
    int32_t at[2] = {0, 0}, side = is_whole(p, crop) ? c->side : CROP;
    if (!is_whole(p, crop))
        corner_of(c, p, crop, at);
    float *cut = malloc((size_t)side * (size_t)side * 3 * sizeof *cut);
    if (!cut)
        return tt_fail(e, TT_ENOMEM, "no memory for a crop");
    for (int32_t ch = 0; ch < 3; ch++)
        for (int32_t y = 0; y < side; y++)
            memcpy(cut + ((int64_t)ch * side + y) * side,
                   planes + ((int64_t)ch * c->side + at[1] + y) * c->side + at[0],
                   (size_t)side * sizeof *cut);
    *cells = side / vae->factor;
    tt_status s = tt_vae_encode(c->vae, latent, NULL, cut, 1, side, side, e);
    for (int64_t i = 0; i < (int64_t)vae->channels * *cells * *cells; i++)
        latent[i] *= vae->scale;
    free(cut);
    return s;
}

/* Sums over the windows of the crops of the squared distance to the picture. */
static void score_crops(const tt_comit_codec *c, float score[LOCALS], const float *painted,
                        const float *planes)
{
    int64_t side = c->side, step = (side - CROP) / 2;
    for (int64_t k = 0; k < LOCALS; k++) {
        double sum = 0;
        for (int64_t ch = 0; ch < 3; ch++)
            for (int64_t y = 0; y < CROP; y++)
                for (int64_t x = 0; x < CROP; x++) {
                    int64_t i = (ch * side + k / GRID * step + y) * side + k % GRID * step + x;
                    double d = (double)painted[i] - planes[i];
                    sum += d * d;
                }
        score[k] = (float)(sum / (CROP * CROP));
    }
}

/* The crop that a painting from the message so far gets most wrong. */
static tt_status choose(tt_comit_codec *c, looked *l, const float *planes, const int32_t *id,
                        const tt_crop_policy *p, int32_t step, int64_t image, tt_err *e)
{
    const tt_comit_painting quick = {.steps = 1};
    int64_t n = latent_numbers(c), pixels = 3 * (int64_t)c->side * c->side;
    float offset[2] = {-l->last[0], -l->last[1]};
    float *latent = malloc((size_t)n * sizeof *latent);
    float *painted = malloc((size_t)pixels * sizeof *painted);
    tt_status s = latent && painted ? TT_OK : tt_fail(e, TT_ENOMEM, "no memory for a painting");
    if (!s && p->noise)
        memcpy(latent, p->noise, (size_t)n * sizeof *latent);
    else if (!s)
        tt_comit_noise(c, latent, p->seed, (uint32_t)image);
    if (!s)
        s = tt_comit_paint(c, latent, id, offset, &quick, 1, NULL, NULL, e);
    if (!s)
        s = tt_comit_show(c, painted, latent, 1, e);
    if (!s)
        score_crops(c, l->score, painted, planes);
    int32_t best = -1;
    for (int32_t k = 0; k < LOCALS && !s; k++)
        if (!l->used[k + p->whole] && (best < 0 || l->score[k] > l->score[best]))
            best = k;
    if (!s && best >= 0)
        l->chosen[step] = best + p->whole;
    l->scored = !s;
    free(latent);
    free(painted);
    return s;
}

/* --- encoding --- */

/* Room for one crop of every picture. */
typedef struct {
    looked *look;
    float *latent, *message, *renewed;
    tt_comit_call *call;
    int64_t *image; /* of each call */
    int64_t calls;
} room;

static void room_close(room *r)
{
    free(r->look);
    free(r->latent);
    free(r->message);
    free(r->renewed);
    free(r->call);
    free(r->image);
}

static tt_status room_open(room *r, const tt_comit_codec *c, int64_t images, tt_err *e)
{
    size_t n = (size_t)images, message = (size_t)(c->tokens * c->dims);
    *r = (room){.look = calloc(n, sizeof *r->look),
                .latent = malloc(n * (size_t)latent_numbers(c) * sizeof(float)),
                .message = malloc(n * message * sizeof(float)),
                .renewed = malloc(n * message * sizeof(float)),
                .call = calloc(n, sizeof *r->call),
                .image = malloc(n * sizeof *r->image)};
    if (r->look && r->latent && r->message && r->renewed && r->call && r->image)
        return TT_OK;
    room_close(r);
    return tt_fail(e, TT_ENOMEM, "no memory for %lld pictures", (long long)images);
}

/* The pictures that look at a crop in this step. */
static tt_status gather(tt_comit_codec *c, room *r, const int32_t *id, const float *planes,
                        const tt_crop_policy *policy, int64_t images, int32_t step, tt_err *e)
{
    int64_t n = latent_numbers(c), message = (int64_t)c->tokens * c->dims;
    int64_t pixels = 3 * (int64_t)c->side * c->side;
    r->calls = 0;
    for (int64_t i = 0; i < images; i++) {
        looked *l = &r->look[i];
        const tt_crop_policy *p = &policy[i];
        int64_t k = r->calls;
        if (step >= l->crops)
            continue;
        tt_status s = TT_OK;
        l->scored = false;
        if (step && p->order == TT_CROPS_ADAPTIVE)
            s = choose(c, l, planes + i * pixels, id + i * c->tokens, p, step, i, e);
        int32_t crop = l->chosen[step], cells = 0;
        if (!s)
            s = latent_of(c, r->latent + k * n, &cells, planes + i * pixels, p, crop, e);
        if (s)
            return s;
        float at[2];
        location_of(c, p, crop, at);
        message_of(c, r->message + k * message, id + i * c->tokens);
        r->call[k] = (tt_comit_call){.latent = r->latent + k * n,
                                     .h = cells,
                                     .w = cells,
                                     .message = r->message + k * message,
                                     .t = 1,
                                     .renewed = r->renewed + k * message};
        for (int a = 0; a < 2; a++) {
            r->call[k].offset[a] = step ? at[a] - l->last[a] : 0;
            l->last[a] = at[a];
        }
        l->used[crop] = true;
        r->image[r->calls++] = i;
    }
    return TT_OK;
}

tt_status tt_comit_encode(tt_comit_codec *c, int32_t *id, float *offset, const float *planes,
                          const tt_crop_policy *policy, int64_t images,
                          void (*event)(void *arg, const tt_crop_event *what), void *arg,
                          tt_err *e)
{
    room r;
    int32_t most = 0;
    tt_status s = room_open(&r, c, images, e);
    if (s)
        return s;
    for (int64_t i = 0; i < images && !s; i++) {
        s = plan(&r.look[i], &policy[i], i, e);
        most = r.look[i].crops > most ? r.look[i].crops : most;
        memcpy(id + i * c->tokens, c->prior, (size_t)c->tokens * sizeof *id);
    }
    for (int32_t step = 0; step < most && !s; step++) {
        s = gather(c, &r, id, planes, policy, images, step, e);
        if (!s)
            s = tt_comit_run(c->net, r.call, r.calls, e);
        for (int64_t k = 0; k < r.calls && !s; k++) {
            int64_t i = r.image[k];
            const tt_comit_call *call = &r.call[k];
            for (int32_t t = 0; t < c->tokens; t++)
                id[i * c->tokens + t] = tt_fsq_code(&c->fsq, call->renewed + t * c->dims);
            tt_crop_event what = {i, step, r.look[i].chosen[step], call->latent, call->h,
                                  {call->offset[0], call->offset[1]}, call->renewed,
                                  id + i * c->tokens, r.look[i].scored ? r.look[i].score : NULL};
            if (event)
                event(arg, &what);
        }
    }
    for (int64_t i = 0; i < images && !s; i++)
        for (int a = 0; a < 2; a++)
            offset[2 * i + a] = -r.look[i].last[a];
    room_close(&r);
    return s;
}

/* --- painting --- */

/* Room for one call of every picture, both branches. */
typedef struct {
    float *x, *v, *u, *message, *prior, *running;
    tt_comit_call *call;
} easel;

static void easel_close(easel *p)
{
    free(p->x);
    free(p->v);
    free(p->u);
    free(p->message);
    free(p->prior);
    free(p->running);
    free(p->call);
}

static tt_status easel_open(easel *p, const tt_comit_codec *c, int64_t images, tt_err *e)
{
    size_t all = (size_t)(images * latent_numbers(c)) * sizeof(float);
    size_t message = (size_t)(c->tokens * c->dims) * sizeof(float);
    *p = (easel){.x = malloc(all),
                 .v = malloc(all),
                 .u = malloc(all),
                 .message = malloc((size_t)images * message),
                 .prior = malloc(message),
                 .running = calloc(1, all),
                 .call = calloc((size_t)images * 2, sizeof *p->call)};
    if (p->x && p->v && p->u && p->message && p->prior && p->running && p->call)
        return TT_OK;
    easel_close(p);
    return tt_fail(e, TT_ENOMEM, "no memory to paint %lld pictures", (long long)images);
}

static tt_status paint_call(tt_comit_codec *c, easel *p, float *latent, const float *offset,
                            const tt_comit_painting *how, int64_t images, int32_t at, tt_err *e)
{
    int64_t n = latent_numbers(c), message = (int64_t)c->tokens * c->dims;
    bool guided = how->guidance != 0 && how->guidance != 1;
    int32_t cells = (int32_t)cells_of(c);
    float t = (float)tt_flow_time(how->solver, how->steps, at);
    for (int64_t i = 0; i < images; i++) {
        tt_flow_probe(how->solver, how->steps, at, p->x + i * n, latent + i * n, p->v + i * n, n);
        p->call[i] = (tt_comit_call){.latent = p->x + i * n,
                                     .h = cells,
                                     .w = cells,
                                     .message = p->message + i * message,
                                     .t = t,
                                     .offset = {offset[2 * i], offset[2 * i + 1]},
                                     .velocity = p->v + i * n};
        p->call[images + i] = p->call[i];
        p->call[images + i].message = p->prior;
        p->call[images + i].velocity = p->u + i * n;
    }
    return tt_comit_run(c->net, p->call, guided ? 2 * images : images, e);
}

tt_status tt_comit_paint(tt_comit_codec *c, float *latent, const int32_t *id, const float *offset,
                         const tt_comit_painting *how, int64_t images,
                         void (*call)(void *arg, int64_t image, int32_t call, bool guided,
                                      const float *x, const float *velocity),
                         void *arg, tt_err *e)
{
    easel p;
    int64_t n = latent_numbers(c), message = (int64_t)c->tokens * c->dims;
    bool guided = how->guidance != 0 && how->guidance != 1;
    if (how->steps < 1 || how->steps > 1 << 16)
        return tt_fail(e, TT_EINVAL, "steps: %d is not in 1..65536", how->steps);
    for (int64_t i = 0; i < images * c->tokens; i++)
        if (id[i] < 0 || id[i] >= c->fsq.codes)
            return tt_fail(e, TT_EINVAL, "token %d is outside the %d codes", id[i], c->fsq.codes);
    tt_status s = easel_open(&p, c, images, e);
    if (s)
        return s;
    message_of(c, p.prior, c->prior);
    for (int64_t i = 0; i < images; i++)
        message_of(c, p.message + i * message, id + i * c->tokens);
    for (int32_t at = 0; at < tt_flow_calls(how->solver, how->steps) && !s; at++) {
        s = paint_call(c, &p, latent, offset, how, images, at, e);
        for (int64_t i = 0; i < images && !s; i++) {
            float *v = p.v + i * n;
            tt_apg apg = {p.running + i * n, how->guidance, how->momentum, 2.5};
            if (call)
                call(arg, i, at, false, p.x + i * n, v);
            if (call && guided)
                call(arg, i, at, true, p.x + i * n, p.u + i * n);
            if (guided)
                tt_apg_guide(&apg, v, p.u + i * n, n);
            tt_flow_move(how->solver, how->steps, at, latent + i * n, v, n);
        }
    }
    easel_close(&p);
    return s;
}

tt_status tt_comit_show(tt_comit_codec *c, float *planes, const float *latent, int64_t images,
                        tt_err *e)
{
    const tt_vae_info *vae = tt_vae_about(c->vae);
    int64_t n = images * latent_numbers(c);
    int32_t cells = (int32_t)cells_of(c);
    float *scaled = malloc((size_t)n * sizeof *scaled);
    if (!scaled)
        return tt_fail(e, TT_ENOMEM, "no memory for %lld pictures", (long long)images);
    for (int64_t i = 0; i < n; i++)
        scaled[i] = latent[i] / vae->scale;
    tt_status s = tt_vae_decode(c->vae, planes, scaled, images, cells, cells, e);
    free(scaled);
    return s;
}
