/* flextok.c - see flextok.h. Rows of a picture are [ patches | registers ]:
 *
 *   encoder: x += attn(LN x); x += mlp(LN x); patches see patches, register i all patches and the
 *            registers up to itself; numbers = proj(LN register)
 *   decoder: as the encoder, everything seeing everything, with LN x modulated and what is added
 *            gated by the time, patches and registers in ways of their own; registers hold the
 *            tokens, a mask behind the last one that counts, and something else where none does
 *
 * The encoder runs as the decoder does, with modulations that change nothing. */
#include "models/flextok.h"

#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "models/flextok_config.h"
#include "models/nn/bind.h"

enum { MODS = 6, MOST_ROWS = 16384, MOST_CALLS = 64 };
/* Order of the chunks of a modulation. */
enum { GATE_ATTN, GATE_MLP, SHIFT_ATTN, SCALE_ATTN, SHIFT_MLP, SCALE_MLP };

typedef struct {
    tt_matrix *qkv, *out, *up, *down, *mod;
} layer;

typedef struct {
    tt_flextok_side is;
    int64_t patches, ff;
    layer *layer;
    tt_matrix *in, *head, *from; /* patches, the end, tokens */
    tt_matrix *time[2], *last;   /* of the time; of the end's modulation */
    tt_act *place; /* rows x width: of patches, of registers, one of zeros */
    tt_act *own;   /* registers of the encoder; or the mask and what stands for no token */
    float *ones, *zeros; /* width */
} tower;

struct tt_flextok {
    tt_stream *stream;
    tt_flextok_info info;
    tower encoder, decoder;
};

/* --- opening --- */

typedef struct {
    char text[200];
} name;

/* key.module_dict.MODULE.REST */
static name named(const char *key, const char *module, const char *rest)
{
    name n;
    snprintf(n.text, sizeof n.text, "%s.module_dict.%s.%s", key, module, rest);
    return n;
}

/* Stacked matrices NAME.weight, each with NAME.bias where the checkpoint has it. */
static tt_status bind(const tt_bind *b, tt_matrix **out, const name *part, int parts, int64_t n,
                      int64_t k, tt_err *e)
{
    tt_bind_part list[3];
    name weight[3], bias[3];
    for (int i = 0; i < parts; i++) {
        snprintf(weight[i].text, sizeof weight[i].text, "%.190s.weight", part[i].text);
        snprintf(bias[i].text, sizeof bias[i].text, "%.190s.bias", part[i].text);
        list[i] = (tt_bind_part){weight[i].text, n,
                                 tt_weights_has(b->weights, bias[i].text) ? bias[i].text : NULL};
    }
    return tt_bind_matrix(b, out, list, parts, k, TT_MATRIX_LINEAR, e);
}

static tt_status open_layer(tower *t, const tt_bind *b, const char *key, int64_t i, tt_err *e)
{
    static const char *const part[] = {"attn.wq", "attn.wk", "attn.wv", "attn.proj", "mlp.fc1",
                                       "mlp.fc3", "mlp.fc2", "adaLN_modulation.1"};
    int64_t d = t->is.width;
    layer *l = &t->layer[i];
    name n[8];
    for (int k = 0; k < 8; k++) {
        char rest[80];
        snprintf(rest, sizeof rest, "blocks.%lld.%s", (long long)i, part[k]);
        n[k] = named(key, t->is.name.trunk, rest);
    }
    tt_status s = bind(b, &l->qkv, n, 3, d, d, e);
    if (!s)
        s = bind(b, &l->out, n + 3, 1, d, d, e);
    if (!s)
        s = bind(b, &l->up, n + 4, t->is.gated ? 2 : 1, t->ff, d, e);
    if (!s)
        s = bind(b, &l->down, n + 6, 1, d, t->ff, e);
    if (!s && t->is.expansion)
        s = bind(b, &l->mod, n + 7, 1, t->is.expansion * MODS * d, d, e);
    return s;
}

/* posembs [axes, width, ...]: sin-cos tables are stored whole, learned ones axis by axis. */
static tt_status add_places(float *out, const tt_weights *w, const char *called, int64_t high,
                            int64_t wide, int64_t d, tt_err *e)
{
    tt_tensor t;
    tt_status s = tt_weights_get(w, called, 4, (int64_t[]){-1, -1, -1, -1}, &t, e);
    if (s)
        return s;
    bool whole = t.dim[0] == 1 && t.dim[1] == d && t.dim[2] == high && t.dim[3] == wide;
    int64_t axes = wide > 1 ? 2 : 1, length = t.dim[3];
    if (!whole && (t.dim[0] != axes || t.dim[1] != 1 || t.dim[2] != d || length < high ||
                   (axes == 2 && length < wide)))
        return tt_fail(e, TT_EFORMAT, "tensor '%.100s' has another shape than %lld x %lld places",
                       called, (long long)high, (long long)wide);
    int64_t n = tt_tensor_count(&t);
    float *all = malloc((size_t)n * sizeof *all);
    s = all ? tt_bind_host(w, all, called, n, e) : tt_fail(e, TT_ENOMEM, "no memory for places");
    for (int64_t i = 0; i < high * wide * d && !s; i++) {
        int64_t c = i % d, x = i / d % wide, y = i / d / wide;
        out[i] = whole ? all[(c * high + y) * wide + x]
                       : all[c * length + y] + (axes == 2 ? all[(d + c) * length + x] : 0);
    }
    free(all);
    return s;
}

/* A tensor of so many numbers; zeros for an empty name. */
static tt_status add_rows(float *out, const tt_weights *w, const char *key, const char *module,
                          const char *rest, int64_t n, tt_err *e)
{
    memset(out, 0, (size_t)n * sizeof *out);
    return *module ? tt_bind_host(w, out, named(key, module, rest).text, n, e) : TT_OK;
}

static tt_status open_rows(tower *t, const tt_bind *b, const char *key, tt_err *e)
{
    const tt_flextok_names *n = &t->is.name;
    int64_t d = t->is.width, p = t->patches, r = t->is.tokens, own = *n->registers ? r : 2;
    const tt_weights *w = b->weights;
    float *place = calloc((size_t)((p + r + 1) * d), sizeof *place);
    float *rows = calloc((size_t)(own * d), sizeof *rows);
    float *plain = calloc((size_t)(2 * d), sizeof *plain);
    tt_status s = place && rows && plain ? TT_OK : tt_fail(e, TT_ENOMEM, "no memory for places");
    for (int64_t i = 0; i < d && !s; i++)
        plain[i] = 1;
    if (!s)
        s = add_places(place, w, named(key, n->patch_places, "posembs").text, t->is.grid[0],
                       t->is.grid[1], d, e);
    if (!s && *n->register_places)
        s = add_places(place + p * d, w, named(key, n->register_places, "posembs").text, r, 1, d,
                       e);
    if (!s && *n->registers)
        s = add_rows(rows, w, key, n->registers, "registers", r * d, e);
    if (!s && !*n->registers)
        s = add_rows(rows, w, key, n->dropout, "dropout_mask_token", d, e);
    if (!s && !*n->registers)
        s = add_rows(rows + d, w, key, t->is.learned_null ? n->null : "", "nullcond", d, e);
    float *out[4] = {NULL};
    const struct {
        const float *from;
        int64_t n;
    } part[] = {{place, (p + r + 1) * d}, {rows, own * d}, {plain, d}, {plain + d, d}};
    for (int i = 0; i < 4 && !s; i++)
        s = tt_bind_floats(b->stream, &out[i], part[i].from, part[i].n, e);
    t->place = out[0];
    t->own = out[1];
    t->ones = out[2];
    t->zeros = out[3];
    free(place);
    free(rows);
    free(plain);
    return s;
}

static tt_status open_tower(tower *t, const tt_bind *b, tt_config *c, const char *key, tt_err *e)
{
    tt_tensor fc1;
    const tt_flextok_names *n = &t->is.name;
    tt_status s = tt_flextok_read(&t->is, c, key, e);
    if (s)
        return s;
    int64_t d = t->is.width, in = (int64_t)t->is.channels * t->is.patch[0] * t->is.patch[1];
    bool decoder = t->is.expansion > 0;
    t->patches = (int64_t)t->is.grid[0] * t->is.grid[1];
    if (!(t->layer = calloc((size_t)t->is.layers, sizeof *t->layer)))
        return tt_fail(e, TT_ENOMEM, "no memory for %lld layers", (long long)t->is.layers);
    s = tt_weights_get(b->weights, named(key, n->trunk, "blocks.0.mlp.fc1.weight").text, 2,
                       (int64_t[]){-1, d}, &fc1, e);
    if (s)
        return s;
    t->ff = fc1.dim[0];
    if (in > 3 * d || t->is.dims > 3 * d)
        return tt_fail(e, TT_EUNSUP, "config key '%s': %lld numbers of a patch in a width of %lld",
                       key, (long long)in, (long long)d);
    name patch = named(key, n->patches, "patch_proj"), head = named(key, n->head, "proj");
    name from = named(key, n->from, "proj"), last = named(key, n->head, "adaLN_modulation.1");
    name time[] = {named(key, n->time, "mlp.0"), named(key, n->time, "mlp.2")};
    s = bind(b, &t->in, &patch, 1, d, in, e);
    if (!s)
        s = bind(b, &t->head, &head, 1, decoder ? in : t->is.dims, d, e);
    if (!s && decoder)
        s = bind(b, &t->from, &from, 1, d, t->is.dims, e);
    if (!s && decoder)
        s = bind(b, &t->last, &last, 1, 2 * d, d, e);
    if (!s && decoder)
        s = bind(b, &t->time[0], &time[0], 1, d, t->is.waves, e);
    if (!s && decoder)
        s = bind(b, &t->time[1], &time[1], 1, d, d, e);
    if (!s)
        s = open_rows(t, b, key, e);
    for (int64_t i = 0; i < t->is.layers && !s; i++)
        s = open_layer(t, b, key, i, e);
    return s;
}

static tt_status check_pair(const tt_flextok *f, tt_err *e)
{
    const tt_flextok_side *a = &f->encoder.is, *b = &f->decoder.is;
    if (a->grid[0] != a->grid[1] || a->patch[0] != a->patch[1])
        return tt_fail(e, TT_EUNSUP, "pictures that are not square");
    if (a->tokens != b->tokens || a->dims != b->dims || a->channels != b->channels ||
        memcmp(a->grid, b->grid, sizeof a->grid) || memcmp(a->patch, b->patch, sizeof a->patch))
        return tt_fail(e, TT_EFORMAT, "encoder and decoder differ: %d and %d tokens of %d and %d "
                       "numbers, %d and %d channels", a->tokens, b->tokens, a->dims, b->dims,
                       a->channels, b->channels);
    return TT_OK;
}

static tt_status need_ops(tt_stream *s, tt_err *e)
{
    tt_status st = TT_BIND_NEED(s, layernorm, e);
    if (!st)
        st = TT_BIND_NEED(s, adaln, e);
    if (!st)
        st = TT_BIND_NEED(s, gate_add, e);
    return st ? st : TT_BIND_NEED(s, unit, e);
}

tt_status tt_flextok_open(tt_flextok **out, tt_stream *s, const tt_weights *w, tt_config *c,
                          tt_err *e)
{
    tt_bind b = {.stream = s, .weights = w, .compute = TT_COMPUTE_F32};
    *out = NULL;
    tt_flextok *f = calloc(1, sizeof *f);
    if (!f)
        return tt_fail(e, TT_ENOMEM, "no memory for a FlexTok network");
    f->stream = s;
    tt_status st = need_ops(s, e);
    if (!st)
        st = open_tower(&f->encoder, &b, c, "encoder", e);
    if (!st)
        st = open_tower(&f->decoder, &b, c, "decoder", e);
    if (!st)
        st = check_pair(f, e);
    if (st) {
        tt_flextok_close(f);
        return tt_context(e, st, "FlexTok network");
    }
    const tt_flextok_side *is = &f->encoder.is;
    f->info = (tt_flextok_info){.side = is->grid[0] * is->patch[0],
                                .channels = is->channels,
                                .tokens = is->tokens,
                                .dims = is->dims,
                                .parameters = tt_weights_elements(w),
                                .weight_bytes = (size_t)tt_weights_bytes(w),
                                .compute = "f32"};
    *out = f;
    return TT_OK;
}

static void close_tower(tower *t, tt_stream *s)
{
    for (int64_t i = 0; t->layer && i < t->is.layers; i++) {
        tt_matrix *m[] = {t->layer[i].qkv, t->layer[i].out, t->layer[i].up, t->layer[i].down,
                          t->layer[i].mod};
        for (int k = 0; k < 5; k++)
            s->op.matrix_close(s, m[k]);
    }
    tt_matrix *m[] = {t->in, t->head, t->from, t->time[0], t->time[1], t->last};
    void *p[] = {t->place, t->own, t->ones, t->zeros};
    for (int k = 0; k < 6; k++)
        s->op.matrix_close(s, m[k]);
    for (int k = 0; k < 4; k++)
        s->op.release(s, p[k]);
    free(t->layer);
}

void tt_flextok_close(tt_flextok *f)
{
    if (!f)
        return;
    close_tower(&f->encoder, f->stream);
    close_tower(&f->decoder, f->stream);
    free(f);
}

const tt_flextok_info *tt_flextok_about(const tt_flextok *f)
{
    return &f->info;
}

/* --- a run --- */

/* Some pictures on their way through a tower, all float32. Parts are: patches of all pictures,
 * codes of all pictures (decoder), the tower's own rows. */
typedef struct {
    const tower *t;
    tt_stream *s;
    int64_t calls, one, rows, times; /* one: rows of a picture */
    float time[MOST_CALLS];
    /* host */
    float *wave, *unfolded, *result;
    int32_t *index;
    /* device */
    void *memory[9];
    float *x, *h, *wide, *att, *parts, *mods, *temb, *last;
    int32_t *ints, *part, *place, *mod, *out_row, *out_time;
} job;

static int64_t own_rows(const tower *t)
{
    return *t->is.name.registers ? t->is.tokens : 2;
}

static int64_t wide_of(const tower *t)
{
    int64_t d = t->is.width, ff = t->is.gated ? 2 * t->ff : t->ff;
    return ff > 3 * d ? ff : 3 * d;
}

static void job_close(job *j)
{
    for (int i = 0; i < 9; i++)
        j->s->op.release(j->s, j->memory[i]);
    free(j->wave);
    free(j->unfolded);
    free(j->result);
    free(j->index);
}

static int64_t patch_numbers(const tower *t)
{
    return (int64_t)t->is.channels * t->is.patch[0] * t->is.patch[1];
}

static tt_status job_open(job *j, const tower *t, tt_stream *s, int64_t calls, tt_err *e)
{
    int64_t d = t->is.width, r = t->is.tokens, in = patch_numbers(t), sets = t->is.expansion;
    *j = (job){.t = t, .s = s, .calls = calls, .one = t->patches + r};
    j->rows = calls * j->one;
    sets = sets ? sets : 1;
    int64_t parts = j->rows + own_rows(t), input = calls * (t->patches * in + r * t->is.dims);
    int64_t waves = MOST_CALLS * (t->is.waves > sets * MODS * d ? t->is.waves : sets * MODS * d);
    int64_t outs = calls * (t->patches > r ? t->patches : r);
    int64_t ints = 3 * j->rows + 2 * outs;
    j->wave = calloc((size_t)waves, sizeof *j->wave);
    j->unfolded = malloc((size_t)input * sizeof *j->unfolded);
    j->result = malloc((size_t)(outs * (in + t->is.dims)) * sizeof *j->result);
    j->index = calloc((size_t)ints, sizeof *j->index);
    if (!j->wave || !j->unfolded || !j->result || !j->index)
        return tt_fail(e, TT_ENOMEM, "no memory for %lld rows", (long long)j->rows);
    float **const part[] = {&j->x, &j->h, &j->wide, &j->att, &j->parts, &j->mods, &j->temb,
                            &j->last};
    const int64_t n[] = {j->rows * d, parts * d, j->rows * wide_of(t), j->rows * d,
                         parts * d + input, waves, MOST_CALLS * d + waves, MOST_CALLS * 2 * d};
    tt_status st = TT_OK;
    for (int i = 0; i < 8 && !st; i++) {
        st = s->op.alloc(s, &j->memory[i], (size_t)n[i] * sizeof(float), e);
        *part[i] = j->memory[i];
    }
    if (!st)
        st = s->op.alloc(s, &j->memory[8], (size_t)ints * sizeof(int32_t), e);
    j->ints = j->memory[8];
    j->part = j->ints;
    j->place = j->part + j->rows;
    j->mod = j->place + j->rows;
    j->out_row = j->mod + j->rows;
    j->out_time = j->out_row + outs;
    s->act = TT_F32;
    return st;
}

static tt_status put(const job *j, void *to, const void *host, int64_t n, size_t size, tt_err *e)
{
    tt_status st = j->s->op.upload(j->s, to, host, (size_t)n * size, e);
    return st ? st : j->s->op.sync(j->s, e);
}

/* Patches in raster order, in each: row, column, channel. */
static void unfold(const tower *t, float *out, const float *latent)
{
    int32_t p = t->is.patch[0], side = t->is.grid[0] * p, c = t->is.channels;
    for (int32_t y = 0; y < side; y += p)
        for (int32_t x = 0; x < side; x += p)
            for (int32_t k = 0; k < p * p * c; k++)
                *out++ = latent[((int64_t)(k % c) * side + y + k / c / p) * side + x + k / c % p];
}

static void fold(const tower *t, float *latent, const float *in)
{
    int32_t p = t->is.patch[0], side = t->is.grid[0] * p, c = t->is.channels;
    for (int32_t y = 0; y < side; y += p)
        for (int32_t x = 0; x < side; x += p)
            for (int32_t k = 0; k < p * p * c; k++)
                latent[((int64_t)(k % c) * side + y + k / c / p) * side + x + k / c % p] = *in++;
}

/* x = parts + places, from the lists. codes: rows of tokens among the parts. */
static tt_status begin_rows(job *j, bool codes, tt_err *e)
{
    const tower *t = j->t;
    tt_stream *s = j->s;
    int64_t d = t->is.width, in = patch_numbers(t), r = t->is.tokens;
    int64_t patches = j->calls * t->patches, tokens = codes ? j->calls * r : 0;
    float *input = j->parts + (j->rows + own_rows(t)) * d;
    tt_status st = put(j, input, j->unfolded, patches * in + tokens * t->is.dims, sizeof(float), e);
    if (!st)
        st = put(j, j->ints, j->index, j->out_time + (j->out_time - j->out_row) - j->ints,
                 sizeof(int32_t), e);
    if (!st)
        st = s->op.linear(s, j->parts, d, input, in, patches, t->in, false, e);
    if (!st && codes)
        st = s->op.linear(s, j->parts + patches * d, d, input + patches * in, t->is.dims, tokens,
                          t->from, false, e);
    int32_t *own = malloc((size_t)own_rows(t) * sizeof *own);
    if (!own)
        return tt_fail(e, TT_ENOMEM, "no memory for rows");
    for (int64_t i = 0; i < own_rows(t); i++)
        own[i] = (int32_t)i;
    /* Behind the others, so that one gather takes all. */
    void *list = NULL;
    if (!st)
        st = s->op.alloc(s, &list, (size_t)own_rows(t) * sizeof *own, e);
    if (!st)
        st = put(j, list, own, own_rows(t), sizeof *own, e);
    if (!st)
        st = s->op.gather(s, j->parts + (patches + tokens) * d, d, t->own, d, list, own_rows(t), d,
                          e);
    if (!st)
        st = s->op.gather(s, j->x, d, j->parts, d, j->part, j->rows, d, e);
    if (!st)
        st = s->op.gather(s, j->h, d, t->place, d, j->place, j->rows, d, e);
    if (!st)
        st = s->op.add(s, j->x, d, j->h, d, j->rows, d, e);
    s->op.release(s, list);
    free(own);
    return st;
}

/* cos and sin of t at falling frequencies; through two layers; silu. */
static tt_status begin_times(job *j, tt_err *e)
{
    const tower *t = j->t;
    tt_stream *s = j->s;
    int64_t d = t->is.width, half = t->is.waves / 2;
    float *wave = j->temb + MOST_CALLS * d;
    for (int64_t i = 0; i < j->times; i++)
        for (int64_t k = 0; k < half; k++) {
            double f = 1000 / t->is.longest * exp(-log(256.0) * (double)k / (double)half);
            j->wave[i * 2 * half + k] = (float)cos((double)j->time[i] * f);
            j->wave[i * 2 * half + half + k] = (float)sin((double)j->time[i] * f);
        }
    tt_status st = put(j, wave, j->wave, j->times * 2 * half, sizeof(float), e);
    if (!st)
        st = s->op.linear(s, j->mods, d, wave, 2 * half, j->times, t->time[0], false, e);
    if (!st)
        st = s->op.unit(s, j->mods, d, j->mods, d, j->times, d, TT_UNIT_SILU, e);
    if (!st)
        st = s->op.linear(s, j->temb, d, j->mods, d, j->times, t->time[1], false, e);
    if (!st)
        st = s->op.unit(s, j->temb, d, j->temb, d, j->times, d, TT_UNIT_SILU, e);
    return st ? st : s->op.linear(s, j->last, 2 * d, j->temb, d, j->times, t->last, false, e);
}

/* One set that changes nothing and opens the gates. */
static tt_status begin_without_times(job *j, tt_err *e)
{
    int64_t d = j->t->is.width;
    for (int64_t k = 0; k < d; k++)
        j->wave[GATE_ATTN * d + k] = j->wave[GATE_MLP * d + k] = 1;
    return put(j, j->mods, j->wave, MODS * d, sizeof(float), e);
}

static tt_status attend(const job *j, tt_err *e)
{
    const tower *t = j->t;
    tt_stream *s = j->s;
    int64_t d = t->is.width, hd = t->is.head_dim, heads = d / hd, n = 0;
    bool causal = !t->is.expansion;
    tt_span list[2 * MOST_CALLS];
    tt_status st = TT_OK;
    for (int64_t i = 0; i < 2 * heads && !st && t->is.head_norms; i++)
        st = s->op.layernorm(s, j->wide + i * hd, 3 * d, j->wide + i * hd, 3 * d, t->ones, t->zeros,
                             j->rows, hd, 1e-5f, e);
    for (int64_t i = 0; i < j->calls; i++) {
        int64_t row = i * j->one;
        const float *k = j->wide + row * 3 * d + d;
        tt_span all = {.query_row = row, .query_rows = j->one, .k = k, .v = k + d, .ld_kv = 3 * d,
                       .keys = j->one, .see = TT_SEE_ALL};
        if (causal)
            all.query_rows = all.keys = t->patches;
        list[n++] = all;
        if (causal)
            list[n++] = (tt_span){.query_row = row + t->patches, .query_rows = t->is.tokens,
                                  .query_column = t->patches, .k = k, .v = k + d, .ld_kv = 3 * d,
                                  .keys = j->one, .see = TT_SEE_CAUSAL};
    }
    return st ? st
              : s->op.attention(s, j->att, d, j->wide, 3 * d, list, n, heads, heads, hd,
                                8.0f / (float)hd, TT_COMPUTE_F32, e);
}

static tt_status modulate(const job *j, int shift, int scale, tt_err *e)
{
    int64_t d = j->t->is.width;
    return j->s->op.adaln(j->s, j->h, d, j->x, d, j->t->ones, j->mods + shift * d,
                          j->mods + scale * d, MODS * d, j->mod, j->rows, d, 1e-5f, e);
}

static tt_status add_gated(const job *j, const float *in, int64_t ld, const tt_matrix *m, int gate,
                           tt_err *e)
{
    int64_t d = j->t->is.width;
    tt_status st = j->s->op.linear(j->s, j->h, d, in, ld, j->rows, m, false, e);
    return st ? st
              : j->s->op.gate_add(j->s, j->x, d, j->h, d, j->mods + gate * d, MODS * d, j->mod,
                                  j->rows, d, e);
}

static tt_status run_mlp(const job *j, const layer *l, tt_err *e)
{
    const tower *t = j->t;
    tt_stream *s = j->s;
    int64_t d = t->is.width, ff = t->ff, ld = t->is.gated ? 2 * ff : ff;
    tt_status st = s->op.linear(s, j->wide, ld, j->h, d, j->rows, l->up, false, e);
    if (!st)
        st = t->is.gated ? s->op.swiglu(s, j->wide, ld, j->wide, j->wide + ff, ld, j->rows, ff, e)
                         : s->op.unit(s, j->wide, ff, j->wide, ff, j->rows, ff, TT_UNIT_SILU, e);
    return st ? st : add_gated(j, j->wide, ld, l->down, GATE_MLP, e);
}

static tt_status run_layers(const job *j, tt_err *e)
{
    const tower *t = j->t;
    tt_stream *s = j->s;
    int64_t d = t->is.width, sets = t->is.expansion * MODS * d;
    tt_status st = TT_OK;
    for (int64_t i = 0; i < t->is.layers && !st; i++) {
        const layer *l = &t->layer[i];
        if (l->mod)
            st = s->op.linear(s, j->mods, sets, j->temb, d, j->times, l->mod, false, e);
        if (!st)
            st = modulate(j, SHIFT_ATTN, SCALE_ATTN, e);
        if (!st)
            st = s->op.linear(s, j->wide, 3 * d, j->h, d, j->rows, l->qkv, false, e);
        if (!st)
            st = attend(j, e);
        if (!st)
            st = add_gated(j, j->att, d, l->out, GATE_ATTN, e);
        if (!st)
            st = modulate(j, SHIFT_MLP, SCALE_MLP, e);
        if (!st)
            st = run_mlp(j, l, e);
    }
    return st;
}

/* result = the head of the rows listed in out_row, n numbers each, normalised and modulated. */
static tt_status finish(const job *j, int64_t rows, int64_t n, tt_err *e)
{
    const tower *t = j->t;
    tt_stream *s = j->s;
    int64_t d = t->is.width;
    tt_status st = s->op.gather(s, j->h, d, j->x, d, j->out_row, rows, d, e);
    if (!st && t->last)
        st = s->op.adaln(s, j->h, d, j->h, d, t->ones, j->last, j->last + d, 2 * d, j->out_time,
                         rows, d, 1e-5f, e);
    else if (!st)
        st = s->op.layernorm(s, j->h, d, j->h, d, t->ones, t->zeros, rows, d, 1e-5f, e);
    if (!st)
        st = s->op.linear(s, j->wide, n, j->h, d, rows, t->head, false, e);
    if (!st)
        st = s->op.download(s, j->result, j->wide, (size_t)(rows * n) * sizeof(float), e);
    return st ? st : s->op.sync(s, e);
}

static int64_t at_once(const tower *t)
{
    int64_t n = MOST_ROWS / (t->patches + t->is.tokens);
    return n < 1 ? 1 : n < MOST_CALLS ? n : MOST_CALLS;
}

/* --- encoding --- */

static tt_status encode_some(tt_flextok *f, float *number, const float *latent, int64_t images,
                             tt_err *e)
{
    job j;
    const tower *t = &f->encoder;
    int64_t p = t->patches, r = t->is.tokens;
    tt_status s = job_open(&j, t, f->stream, images, e);
    for (int64_t i = 0; i < images && !s; i++) {
        int32_t *part = j.index + i * j.one, *place = part + j.rows;
        int32_t *out = j.index + (j.out_row - j.ints) + i * r;
        unfold(t, j.unfolded + i * p * patch_numbers(t),
               latent + i * (int64_t)f->info.channels * f->info.side * f->info.side);
        for (int64_t k = 0; k < j.one; k++) {
            bool is_patch = k < p;
            part[k] = (int32_t)(is_patch ? i * p + k : images * p + k - p);
            place[k] = (int32_t)(is_patch ? k : p + r); /* registers are their own places */
        }
        for (int64_t k = 0; k < r; k++)
            out[k] = (int32_t)(i * j.one + p + k);
    }
    if (!s)
        s = begin_rows(&j, false, e);
    if (!s)
        s = begin_without_times(&j, e);
    if (!s)
        s = run_layers(&j, e);
    if (!s)
        s = finish(&j, images * r, t->is.dims, e);
    if (!s)
        memcpy(number, j.result, (size_t)(images * r * t->is.dims) * sizeof *number);
    job_close(&j);
    return s;
}

tt_status tt_flextok_encode(tt_flextok *f, float *number, const float *latent, int64_t images,
                            tt_err *e)
{
    int64_t most = at_once(&f->encoder);
    int64_t n = (int64_t)f->info.channels * f->info.side * f->info.side;
    tt_status s = TT_OK;
    for (int64_t i = 0; i < images && !s; i += most)
        s = encode_some(f, number + i * (int64_t)f->info.tokens * f->info.dims, latent + i * n,
                        images - i < most ? images - i : most, e);
    return s;
}

/* --- decoding --- */

static int64_t time_of(job *j, float t)
{
    for (int64_t i = 0; i < j->times; i++)
        if (j->time[i] == t)
            return i;
    j->time[j->times] = t;
    return j->times++;
}

static void list_call(job *j, const tt_flextok_call *c, int64_t i)
{
    const tower *t = j->t;
    int64_t p = t->patches, r = t->is.tokens, in = patch_numbers(t), sets = t->is.expansion;
    int64_t codes = j->calls * p, own = codes + j->calls * r, time = time_of(j, c->t);
    int32_t *part = j->index + i * j->one, *place = part + j->rows, *mod = place + j->rows;
    int32_t *out = j->index + (j->out_row - j->ints) + i * p;
    int32_t *out_time = j->index + (j->out_time - j->ints) + i * p;
    unfold(t, j->unfolded + i * p * in, c->x);
    memcpy(j->unfolded + codes * in + i * r * t->is.dims, c->code,
           (size_t)(r * t->is.dims) * sizeof *c->code);
    for (int64_t k = 0; k < j->one; k++) {
        int64_t token = k - p;
        bool counts = !c->unguided && token < c->keep;
        part[k] = (int32_t)(k < p ? i * p + k
                            : counts ? codes + i * r + token : own + c->unguided);
        place[k] = (int32_t)(k < p || counts ? k : p + r);
        mod[k] = (int32_t)(time * sets + (k >= p ? sets - 1 : 0));
    }
    for (int64_t k = 0; k < p; k++) {
        out[k] = (int32_t)(i * j->one + k);
        out_time[k] = (int32_t)time;
    }
}

static tt_status run_some(tt_flextok *f, const tt_flextok_call *call, int64_t calls, tt_err *e)
{
    job j;
    const tower *t = &f->decoder;
    int64_t in = patch_numbers(t);
    tt_status s = job_open(&j, t, f->stream, calls, e);
    for (int64_t i = 0; i < calls && !s; i++)
        list_call(&j, &call[i], i);
    if (!s)
        s = begin_rows(&j, true, e);
    if (!s)
        s = begin_times(&j, e);
    if (!s)
        s = run_layers(&j, e);
    if (!s)
        s = finish(&j, calls * t->patches, in, e);
    for (int64_t i = 0; i < calls && !s; i++)
        fold(t, call[i].velocity, j.result + i * t->patches * in);
    job_close(&j);
    return s;
}

tt_status tt_flextok_run(tt_flextok *f, const tt_flextok_call *call, int64_t calls, tt_err *e)
{
    int64_t most = at_once(&f->decoder);
    tt_status s = TT_OK;
    for (int64_t i = 0; i < calls && !s; i++)
        if (!(call[i].t >= 0 && call[i].t <= 1) || call[i].keep < 0 ||
            call[i].keep > f->info.tokens)
            s = tt_fail(e, TT_EINVAL, "call %lld: time %g, %d tokens", (long long)i,
                        (double)call[i].t, call[i].keep);
    for (int64_t i = 0; i < calls && !s; i += most)
        s = run_some(f, call + i, calls - i < most ? calls - i : most, e);
    return s;
}

double tt_flextok_macs(const tt_flextok *f, bool decode)
{
    const tower *t = decode ? &f->decoder : &f->encoder;
    double d = (double)t->is.width, rows = (double)(t->patches + t->is.tokens);
    double mlp = (t->is.gated ? 3 : 2) * (double)t->ff * d;
    double ends = (double)t->patches * (double)patch_numbers(t) * d * (decode ? 2 : 1) +
                  (double)t->is.tokens * t->is.dims * d;
    return (double)t->is.layers * rows * (4 * d * d + mlp + 2 * rows * d) + ends;
}

size_t tt_flextok_bytes(const tt_flextok *f, int64_t calls)
{
    size_t most = 0;
    const tower *t[] = {&f->encoder, &f->decoder};
    for (int i = 0; i < 2; i++) {
        int64_t n = calls < at_once(t[i]) ? calls : at_once(t[i]), d = t[i]->is.width;
        int64_t rows = n * (t[i]->patches + t[i]->is.tokens) + own_rows(t[i]);
        size_t bytes = (size_t)(rows * (4 * d + wide_of(t[i])) +
                                MOST_CALLS * 2 * (MODS + 2) * d) * sizeof(float);
        most = bytes > most ? bytes : most;
    }
    return most;
}
