/* comit.c - see comit.h. A call's rows are [ c | x | r | q ]: where it lies, the latent's patches,
 * the message, and as many queries whose rows become the new message.
 *
 *   S = LN(c), LN(x) modulated by t, LN(r) and LN(q) modulated by t in another way
 *   rows += gate * attention(S);  rows += gate * mlp(S')          (c without modulation or gate)
 *
 * Scores have 1 added for all columns but the queries', which only queries before them add 1 to: a
 * table meant as a mask that the released code hands to an attention which adds it. */
#include "models/comit.h"

#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "models/nn/bind.h"

enum { WAVES = 256, MODS = 6, SHAPES = 4, TIMES = 32, MOST_CALLS = 64, MOST_ROWS = 16384 };

typedef struct {
    tt_matrix *qkv, *out, *up, *down, *x_mod, *r_mod;
} layer;

/* Scores' additions, for latents of so many patches. */
typedef struct {
    int64_t patches;
    float *table; /* device, N rows of bias_step(N) */
} bias;

/* What the network makes of times alone, kept from call to call: every step of every picture that
 * is painted in so many steps needs the same ones, and their matrices are as large as all others
 * together. */
typedef struct {
    void *mods; /* device, per layer: none, then of every time that of patches and of messages */
    void *last; /* device, TIMES x 2 width */
    void *time; /* device, [width] */
    float t[TIMES];
    uint64_t used[TIMES], clock; /* 0: free */
} times;

struct tt_comit {
    tt_stream *stream;
    tt_comit_info info;
    int64_t ff, grid;
    tt_compute compute;
    tt_dtype type;
    bool strict;
    layer *layer;
    tt_matrix *patches, *message[2], *place[2], *time[2];
    tt_matrix *last_mod, *velocity, *renewed;
    tt_act *places; /* device, rows x width: c, grid^2 patches, r, q */
    float *ones;    /* device, [width] */
    bias bias[SHAPES]; /* the last used is last */
    int biases;
    times times;
    void *space; /* of a run; grown to the largest */
    size_t space_bytes;
};

/* --- opening --- */

static tt_status one(const tt_bind *b, tt_matrix **out, const char *name, int64_t n, int64_t k,
                     tt_err *e)
{
    char weight[120], shift[120];
    snprintf(weight, sizeof weight, "predictor.%s.weight", name);
    snprintf(shift, sizeof shift, "predictor.%s.bias", name);
    tt_bind_part part = {weight, n, shift};
    return tt_bind_matrix(b, out, &part, 1, k, TT_MATRIX_LINEAR, e);
}

static tt_status open_layer(tt_comit *c, const tt_bind *b, int64_t i, tt_err *e)
{
    int64_t d = c->info.width;
    layer *l = &c->layer[i];
    const struct {
        const char *name;
        tt_matrix **out;
        int64_t n, k;
    } part[] = {
        {"attn.qkv", &l->qkv, 3 * d, d},      {"attn.proj", &l->out, d, d},
        {"mlp.fc1", &l->up, c->ff, d},        {"mlp.fc2", &l->down, d, c->ff},
        {"x_adaLN_modulation.1", &l->x_mod, MODS * d, d},
        {"r_adaLN_modulation.1", &l->r_mod, MODS * d, d},
    };
    tt_status s = TT_OK;
    for (size_t j = 0; j < sizeof part / sizeof *part && !s; j++) {
        char name[80];
        snprintf(name, sizeof name, "blocks.%lld.%s", (long long)i, part[j].name);
        s = one(b, part[j].out, name, part[j].n, part[j].k, e);
    }
    return s;
}

static tt_status to_device(const tt_comit *c, tt_act **out, const float *host, int64_t n, tt_err *e)
{
    tt_stream *s = c->stream;
    void *p = NULL;
    uint16_t *narrow = NULL;
    const void *from = host;
    tt_status st = TT_OK;
    if (c->type != TT_F32) {
        from = narrow = malloc((size_t)n * sizeof *narrow);
        if (!narrow)
            st = tt_fail(e, TT_ENOMEM, "no memory to narrow %lld numbers", (long long)n);
        for (int64_t i = 0; i < n && narrow; i++)
            narrow[i] = tt_f32_to_bf16(host[i]);
    }
    if (!st)
        st = s->op.alloc(s, &p, (size_t)n * tt_dtype_size(c->type), e);
    *out = p;
    if (!st)
        st = s->op.upload(s, p, from, (size_t)n * tt_dtype_size(c->type), e);
    if (!st)
        st = s->op.sync(s, e);
    free(narrow);
    return st;
}

/* What is added to every row by its place, and the queries, which are nothing else. */
static tt_status open_places(tt_comit *c, const tt_weights *w, tt_err *e)
{
    int64_t d = c->info.width, m = c->info.tokens, g = c->grid * c->grid;
    int64_t rows = 1 + g + 2 * m;
    float *all = malloc((size_t)(rows * d) * sizeof *all), *q = malloc((size_t)d * sizeof *q);
    float *ones = malloc((size_t)d * sizeof *ones);
    tt_status s = all && q && ones ? TT_OK : tt_fail(e, TT_ENOMEM, "no memory for places");
    if (!s)
        s = tt_bind_host(w, all, "predictor.c_pos_embed", d, e);
    if (!s)
        s = tt_bind_host(w, all + d, "predictor.pos_embed", g * d, e);
    if (!s)
        s = tt_bind_host(w, all + (1 + g) * d, "predictor.r_pos_embed", m * d, e);
    if (!s)
        s = tt_bind_host(w, all + (1 + g + m) * d, "predictor.r_to_pos_embed", m * d, e);
    if (!s)
        s = tt_bind_host(w, q, "predictor.r_to_token", d, e);
    for (int64_t i = 0; i < m * d && !s; i++)
        all[(1 + g + m) * d + i] += q[i % d];
    for (int64_t i = 0; i < d && !s; i++)
        ones[i] = 1;
    if (!s)
        s = to_device(c, &c->places, all, rows * d, e);
    if (!s)
        s = tt_bind_floats(c->stream, &c->ones, ones, d, e);
    free(all);
    free(q);
    free(ones);
    return s;
}

static tt_status open_all(tt_comit *c, const tt_bind *b, tt_err *e)
{
    int64_t d = c->info.width, p = c->info.patch;
    tt_status s = tt_bind_patches(b, &c->patches, "predictor.x_embedder.proj.weight", d,
                                  c->info.channels, p, "predictor.x_embedder.proj.bias", e);
    if (!s)
        s = one(b, &c->message[0], "r_embedder.0", d, c->info.dims, e);
    if (!s)
        s = one(b, &c->message[1], "r_embedder.2", d, d, e);
    if (!s)
        s = one(b, &c->place[0], "c_embedder.0", d, 2, e);
    if (!s)
        s = one(b, &c->place[1], "c_embedder.2", d, d, e);
    if (!s)
        s = one(b, &c->time[0], "t_embedder.mlp.0", d, WAVES, e);
    if (!s)
        s = one(b, &c->time[1], "t_embedder.mlp.2", d, d, e);
    if (!s)
        s = one(b, &c->last_mod, "final_layer.adaLN_modulation.1", 2 * d, d, e);
    if (!s)
        s = one(b, &c->velocity, "final_layer.linear", p * p * c->info.channels, d, e);
    if (!s)
        s = one(b, &c->renewed, "r_final_layer.linear", c->info.dims, d, e);
    if (!s)
        s = open_places(c, b->weights, e);
    for (int64_t i = 0; i < c->info.layers && !s; i++)
        s = open_layer(c, b, i, e);
    return s;
}

static tt_status read_config(tt_comit *c, tt_config *p, tt_err *e)
{
    tt_comit_info *i = &c->info;
    i->side = (int32_t)tt_config_int(p, "max_input_size", 32, 1, 1 << 12);
    i->patch = (int32_t)tt_config_int(p, "patch_size", 2, 1, 1 << 10);
    i->channels = (int32_t)tt_config_int(p, "in_channels", 4, 1, 1 << 10);
    int64_t out = tt_config_int(p, "out_channels", 4, 1, 1 << 10);
    i->width = tt_config_int(p, "hidden_size", 1152, 4, 1 << 16);
    i->layers = tt_config_int(p, "depth", 28, 1, 4096);
    i->heads = tt_config_int(p, "num_heads", 16, 1, 1 << 12);
    i->tokens = (int32_t)tt_config_int(p, "num_msg_tokens", 16, 1, 1 << 12);
    i->dims = (int32_t)tt_config_int(p, "msg_tokens_dim", 64, 1, 1 << 10);
    c->ff = (int64_t)floor((double)i->width * tt_config_float(p, "mlp_ratio", 4, 0.01, 64));
    tt_status s = tt_config_status(p, e);
    if (s)
        return s;
    if (i->side % i->patch || i->width % i->heads || out != i->channels)
        return tt_fail(e, TT_EFORMAT, "config key 'predictor': latents of %d in patches of %d, "
                       "%lld heads of %lld, %d channels in and %lld out", i->side, i->patch,
                       (long long)i->heads, (long long)i->width, i->channels, (long long)out);
    c->grid = i->side / i->patch;
    return TT_OK;
}

tt_status tt_comit_open(tt_comit **out, tt_stream *stream, const tt_weights *w,
                        tt_config *predictor, tt_weights_mode mode, bool strict, tt_err *e)
{
    static const char *const sample = "predictor.blocks.0.attn.qkv.weight";
    tt_bind b = {.stream = stream, .weights = w};
    *out = NULL;
    tt_comit *c = calloc(1, sizeof *c);
    if (!c)
        return tt_fail(e, TT_ENOMEM, "no memory for a COMiT network");
    c->stream = stream;
    c->strict = strict;
    tt_status s = read_config(c, predictor, e);
    if (!s)
        s = TT_BIND_NEED(stream, attention_biased, e);
    if (!s)
        s = TT_BIND_NEED(stream, unit, e);
    if (!s)
        s = TT_BIND_NEED(stream, linear_gelu, e);
    if (!s)
        s = TT_BIND_NEED(stream, gate_adaln, e);
    if (!s)
        s = tt_bind_choose(&b.compute, stream, w, sample, mode, e);
    c->compute = b.compute;
    c->type = stream->op.act_type ? stream->op.act_type(stream, b.compute) : TT_F32;
    c->info.compute = tt_bind_text(w, sample, b.compute);
    c->info.exact = b.compute == TT_COMPUTE_F32;
    c->info.parameters = tt_weights_elements(w);
    c->info.weight_bytes = (int64_t)tt_weights_bytes(w);
    if (!s && !(c->layer = calloc((size_t)c->info.layers, sizeof *c->layer)))
        s = tt_fail(e, TT_ENOMEM, "no memory for %lld layers", (long long)c->info.layers);
    if (!s)
        s = open_all(c, &b, e);
    if (s) {
        tt_comit_close(c);
        return tt_context(e, s, "COMiT network");
    }
    *out = c;
    return TT_OK;
}

void tt_comit_close(tt_comit *c)
{
    if (!c)
        return;
    tt_stream *s = c->stream;
    for (int64_t i = 0; c->layer && i < c->info.layers; i++) {
        tt_matrix *m[] = {c->layer[i].qkv, c->layer[i].out, c->layer[i].up, c->layer[i].down,
                          c->layer[i].x_mod, c->layer[i].r_mod};
        for (int j = 0; j < 6; j++)
            s->op.matrix_close(s, m[j]);
    }
    tt_matrix *m[] = {c->patches, c->message[0], c->message[1], c->place[0], c->place[1],
                      c->time[0], c->time[1], c->last_mod, c->velocity, c->renewed};
    for (int j = 0; j < 10; j++)
        s->op.matrix_close(s, m[j]);
    for (int i = 0; i < c->biases; i++)
        s->op.release(s, c->bias[i].table);
    void *memory[] = {c->places, c->ones, c->times.mods, c->times.last, c->times.time, c->space};
    for (int i = 0; i < 6; i++)
        s->op.release(s, memory[i]);
    free(c->layer);
    free(c);
}

const tt_comit_info *tt_comit_about(const tt_comit *c)
{
    return &c->info;
}

/* --- numbers --- */

static tt_act *at(const tt_comit *c, void *p, int64_t elements)
{
    return (char *)p + elements * (int64_t)tt_dtype_size(c->type);
}

static tt_status put(const tt_comit *c, void *to, const float *host, int64_t n, tt_err *e)
{
    tt_stream *s = c->stream;
    if (c->type == TT_F32)
        return s->op.upload(s, to, host, (size_t)n * sizeof *host, e);
    uint16_t *narrow = malloc((size_t)n * sizeof *narrow);
    if (!narrow)
        return tt_fail(e, TT_ENOMEM, "no memory to narrow %lld numbers", (long long)n);
    for (int64_t i = 0; i < n; i++)
        narrow[i] = tt_f32_to_bf16(host[i]);
    tt_status st = s->op.upload(s, to, narrow, (size_t)n * sizeof *narrow, e);
    free(narrow);
    return st;
}

/* Of a download that landed in the first half of host, from the end. */
static void widen(const tt_comit *c, float *host, int64_t n)
{
    for (int64_t i = n; c->type == TT_BF16 && i-- > 0;) {
        uint16_t half;
        memcpy(&half, (char *)host + i * (int64_t)sizeof half, sizeof half);
        host[i] = tt_bf16_to_f32(half);
    }
}

/* --- the table of additions --- */

/* Even, so that the device may read two at a time. */
static int64_t bias_step(int64_t rows)
{
    return (rows + 1) / 2 * 2;
}

static tt_status make_bias(tt_comit *c, float **out, int64_t patches, tt_err *e)
{
    int64_t m = c->info.tokens, n = 1 + patches + 2 * m, step = bias_step(n);
    float no = c->strict ? -INFINITY : 0;
    float *table = calloc((size_t)(n * step), sizeof *table);
    if (!table)
        return tt_fail(e, TT_ENOMEM, "no memory for scores of %lld rows", (long long)n);
    for (int64_t i = 0; i < n; i++)
        for (int64_t j = 0; j < n; j++)
            table[i * step + j] = j < n - m || (i >= n - m && i >= j) ? 1 : no;
    tt_status s = tt_bind_floats(c->stream, out, table, n * step, e);
    free(table);
    return s;
}

/* The shapes of latents are few: crops and the whole picture. A run has no more than are kept. */
static tt_status bias_of(tt_comit *c, const float **out, int64_t patches, tt_err *e)
{
    int i = 0;
    while (i < c->biases && c->bias[i].patches != patches)
        i++;
    bias found = {.patches = patches};
    tt_status s = TT_OK;
    if (i < c->biases)
        found = c->bias[i];
    else
        s = make_bias(c, &found.table, patches, e);
    if (s) {
        c->stream->op.release(c->stream, found.table);
        return s;
    }
    if (i == SHAPES) { /* the one that was used longest ago goes */
        c->stream->op.release(c->stream, c->bias[0].table);
        i = 0;
    } else if (i == c->biases) {
        c->biases++;
    }
    memmove(c->bias + i, c->bias + i + 1, (size_t)(c->biases - 1 - i) * sizeof *c->bias);
    c->bias[c->biases - 1] = found;
    *out = found.table;
    return TT_OK;
}

/* --- what follows from times --- */

/* Rows of a layer's modulations: the first changes nothing but opens the gates. */
enum { MOD_ROWS = 1 + 2 * TIMES };

static tt_act *mods_of(const tt_comit *c, int64_t block, int64_t row, int64_t chunk)
{
    return at(c, c->times.mods, ((block * MOD_ROWS + row) * MODS + chunk) * c->info.width);
}

static tt_status open_times(tt_comit *c, tt_err *e)
{
    tt_stream *s = c->stream;
    times *k = &c->times;
    int64_t d = c->info.width, layers = c->info.layers;
    size_t size = tt_dtype_size(c->type);
    float *none = calloc((size_t)(MODS * d), sizeof *none);
    tt_status st = none ? TT_OK : tt_fail(e, TT_ENOMEM, "no memory for a modulation");
    for (int64_t i = 0; i < d && !st; i++)
        none[2 * d + i] = none[5 * d + i] = 1;
    if (!st)
        st = s->op.alloc(s, &k->mods, (size_t)(layers * MOD_ROWS * MODS * d) * size, e);
    if (!st)
        st = s->op.alloc(s, &k->last, (size_t)(TIMES * 2 * d) * size, e);
    if (!st)
        st = s->op.alloc(s, &k->time, (size_t)(2 * d > WAVES ? 2 * d : WAVES) * size, e);
    for (int64_t i = 0; i < layers && !st; i++)
        st = put(c, mods_of(c, i, 0, 0), none, MODS * d, e);
    if (!st)
        st = s->op.sync(s, e);
    free(none);
    return st;
}

/* cos and sin of 1000 t at falling frequencies. */
static void make_waves(float waves[WAVES], float t)
{
    for (int k = 0; k < WAVES / 2; k++) {
        double angle = (double)(1000 * t) * exp(-log(10000.0) * k / (WAVES / 2));
        waves[k] = (float)cos(angle);
        waves[WAVES / 2 + k] = (float)sin(angle);
    }
}

/* All layers' modulations at t. hidden: room for a row. */
static tt_status fill_time(tt_comit *c, int slot, float t, tt_act *hidden, tt_err *e)
{
    tt_stream *s = c->stream;
    times *k = &c->times;
    int64_t d = c->info.width;
    float waves[WAVES];
    make_waves(waves, t);
    tt_status st = put(c, k->time, waves, WAVES, e);
    if (!st)
        st = s->op.linear(s, hidden, d, k->time, WAVES, 1, c->time[0], false, e);
    if (!st)
        st = s->op.unit(s, hidden, d, hidden, d, 1, d, TT_UNIT_SILU, e);
    if (!st)
        st = s->op.linear(s, k->time, d, hidden, d, 1, c->time[1], false, e);
    if (!st)
        st = s->op.unit(s, k->time, d, k->time, d, 1, d, TT_UNIT_SILU, e);
    if (!st)
        st = s->op.linear(s, at(c, k->last, slot * 2 * d), 2 * d, k->time, d, 1, c->last_mod,
                          false, e);
    for (int64_t i = 0; i < c->info.layers && !st; i++) {
        st = s->op.linear(s, mods_of(c, i, 1 + 2 * slot, 0), MODS * d, k->time, d, 1,
                          c->layer[i].x_mod, false, e);
        if (!st)
            st = s->op.linear(s, mods_of(c, i, 2 + 2 * slot, 0), MODS * d, k->time, d, 1,
                              c->layer[i].r_mod, false, e);
    }
    k->t[slot] = t;
    k->used[slot] = st ? 0 : ++k->clock;
    return st;
}

/* Where the modulations at t are; the ones used longest ago make room. A run has at most TIMES
 * times, so that none of its own goes. */
static tt_status slot_of(tt_comit *c, int *slot, float t, tt_act *hidden, tt_err *e)
{
    times *k = &c->times;
    tt_status s = k->mods ? TT_OK : open_times(c, e);
    int oldest = 0;
    for (int i = 0; i < TIMES && !s; i++) {
        if (k->used[i] && k->t[i] == t) {
            k->used[i] = ++k->clock;
            *slot = i;
            return TT_OK;
        }
        if (k->used[i] < k->used[oldest])
            oldest = i;
    }
    *slot = oldest;
    return s ? s : fill_time(c, oldest, t, hidden, e);
}

/* --- a run --- */

/* Lists of some calls, and views into the device's working memory. */
typedef struct {
    const tt_comit_call *call;
    int64_t calls, rows, patches; /* rows and patches of all calls */
    int64_t shapes, times;        /* different ones */
    int64_t shape[SHAPES];
    float t[TIMES];
    int slot[TIMES];
    bool velocities, messages; /* wanted */
    /* host: patches, messages and places; ints as below; results */
    float *input, *velocity, *renewed;
    int32_t *index;
    /* device, of activations */
    tt_act *x, *h, *wide, *parts, *numbers;
    /* device: of each row: its part, its place, its modulation; of each patch and query: its row,
       and its time or modulation */
    int32_t *part, *place, *mod, *patch_row, *query_row, *patch_time, *query_mod;
} job;

static int64_t patches_of(const tt_comit *c, const tt_comit_call *k)
{
    return (int64_t)(k->h / c->info.patch) * (k->w / c->info.patch);
}

static int64_t rows_of(const tt_comit *c, const tt_comit_call *k)
{
    return 1 + patches_of(c, k) + 2 * c->info.tokens;
}

static int64_t patch_numbers(const tt_comit *c)
{
    return c->info.channels * c->info.patch * c->info.patch;
}

/* Where messages and places begin in the list of numbers; what it holds. */
static int64_t messages_at(const tt_comit *c, const job *j)
{
    return (j->patches * patch_numbers(c) + 31) / 32 * 32;
}
static int64_t places_at(const tt_comit *c, const job *j)
{
    return (messages_at(c, j) + j->calls * c->info.tokens * c->info.dims + 31) / 32 * 32;
}
static int64_t numbers_of(const tt_comit *c, const job *j)
{
    return places_at(c, j) + 2 * j->calls;
}

static int64_t ints_of(const tt_comit *c, const job *j)
{
    return 3 * j->rows + 2 * j->patches + 2 * j->calls * c->info.tokens;
}

/* Patches in raster order: channel, then row, then column of the patch. */
static void unfold(const tt_comit *c, float *out, const tt_comit_call *k)
{
    int64_t p = c->info.patch;
    for (int64_t y = 0; y < k->h; y += p)
        for (int64_t x = 0; x < k->w; x += p)
            for (int64_t ch = 0; ch < c->info.channels; ch++)
                for (int64_t u = 0; u < p; u++, out += p)
                    memcpy(out, k->latent + (ch * k->h + y + u) * k->w + x,
                           (size_t)p * sizeof *out);
}

/* Rows of a patch's velocity: row, then column, then channel. */
static void fold(const tt_comit *c, const tt_comit_call *k, const float *in)
{
    int64_t p = c->info.patch;
    for (int64_t y = 0; y < k->h; y += p)
        for (int64_t x = 0; x < k->w; x += p)
            for (int64_t u = 0; u < p; u++)
                for (int64_t v = 0; v < p; v++)
                    for (int64_t ch = 0; ch < c->info.channels; ch++)
                        k->velocity[(ch * k->h + y + u) * k->w + x + v] = *in++;
}

static tt_status host_lists(const tt_comit *c, job *j, tt_err *e)
{
    size_t queries = (size_t)(j->calls * c->info.tokens);
    j->input = calloc((size_t)numbers_of(c, j), sizeof(float));
    j->velocity = malloc((size_t)(j->patches * patch_numbers(c)) * sizeof(float));
    j->renewed = malloc(queries * (size_t)c->info.dims * sizeof(float));
    j->index = malloc((size_t)ints_of(c, j) * sizeof *j->index);
    return j->input && j->velocity && j->renewed && j->index
               ? TT_OK
               : tt_fail(e, TT_ENOMEM, "no memory for %lld rows", (long long)j->rows);
}

/* Into the views of the ints: those of the host's list, or the device's. */
static void lay_out_ints(const tt_comit *c, job *j, int32_t *base)
{
    j->part = base;
    j->place = j->part + j->rows;
    j->mod = j->place + j->rows;
    j->patch_row = j->mod + j->rows;
    j->query_row = j->patch_row + j->patches;
    j->patch_time = j->query_row + j->calls * c->info.tokens;
    j->query_mod = j->patch_time + j->patches;
}

static int64_t slot_in(const job *j, float t)
{
    int64_t i = 0;
    while (j->t[i] != t)
        i++;
    return j->slot[i];
}

/* Parts are: a row of zeros, patches of all calls, messages of all calls, places of all calls. */
static void fill_lists(const tt_comit *c, job *j)
{
    int64_t m = c->info.tokens, g = c->grid * c->grid, row = 0, patch = 0;
    int64_t messages = 1 + j->patches, places = messages + j->calls * m;
    lay_out_ints(c, j, j->index);
    for (int64_t i = 0; i < j->calls; i++) {
        const tt_comit_call *k = &j->call[i];
        int64_t slot = slot_in(j, k->t), across = k->w / c->info.patch, n = patches_of(c, k);
        unfold(c, j->input + patch * patch_numbers(c), k);
        memcpy(j->input + messages_at(c, j) + i * m * c->info.dims, k->message,
               (size_t)(m * c->info.dims) * sizeof(float));
        memcpy(j->input + places_at(c, j) + 2 * i, k->offset, sizeof k->offset);
        j->part[row] = (int32_t)(places + i);
        j->place[row] = 0;
        j->mod[row++] = 0;
        for (int64_t a = 0; a < n; a++, row++, patch++) {
            j->part[row] = (int32_t)(1 + patch);
            j->place[row] = (int32_t)(1 + a / across * c->grid + a % across);
            j->mod[row] = (int32_t)(1 + 2 * slot);
            j->patch_row[patch] = (int32_t)row;
            j->patch_time[patch] = (int32_t)slot;
        }
        for (int64_t a = 0; a < 2 * m; a++, row++) {
            bool query = a >= m;
            j->part[row] = (int32_t)(query ? 0 : messages + i * m + a);
            j->place[row] = (int32_t)(1 + g + a);
            j->mod[row] = (int32_t)(2 + 2 * slot);
            if (query)
                j->query_row[i * m + a - m] = (int32_t)row;
        }
        for (int64_t a = 0; a < m; a++)
            j->query_mod[i * m + a] = 0; /* LN alone */
    }
}

static void job_close(job *j)
{
    free(j->input);
    free(j->velocity);
    free(j->renewed);
    free(j->index);
}

static size_t up(size_t bytes)
{
    return (bytes + 255) & ~(size_t)255;
}

/* Lays the views out from base (NULL: only counts) and returns the bytes used. */
static size_t lay_out(const tt_comit *c, job *j, char *base)
{
    int64_t d = c->info.width, wide = c->ff > 3 * d ? c->ff : 3 * d;
    size_t size = tt_dtype_size(c->type), used = 0;
    const size_t part[] = {
        up((size_t)((1 + j->patches + j->calls * (c->info.tokens + 1)) * d) * size),
        up((size_t)(j->rows * d) * size),
        up((size_t)(j->rows * d) * size),
        up((size_t)(j->rows * wide) * size),
        up((size_t)numbers_of(c, j) * size),
        up((size_t)ints_of(c, j) * sizeof(int32_t)),
    };
    void *p[6] = {NULL};
    for (int i = 0; i < 6; i++) {
        p[i] = base ? base + used : NULL;
        used += part[i];
    }
    if (!base)
        return used;
    j->parts = p[0];
    j->x = p[1];
    j->h = p[2];
    j->wide = p[3];
    j->numbers = p[4];
    lay_out_ints(c, j, p[5]);
    return used;
}

/* The row of zeros is the first thing there. */
static tt_status reserve(tt_comit *c, job *j, tt_err *e)
{
    tt_stream *s = c->stream;
    size_t need = lay_out(c, j, NULL);
    tt_status st = TT_OK;
    if (need > c->space_bytes) {
        float *zero = calloc((size_t)c->info.width, sizeof *zero);
        s->op.release(s, c->space);
        c->space = NULL;
        c->space_bytes = 0;
        st = zero ? s->op.alloc(s, &c->space, need, e)
                  : tt_fail(e, TT_ENOMEM, "no memory for a row");
        if (!st)
            st = put(c, c->space, zero, c->info.width, e);
        free(zero);
        if (st)
            return st;
        c->space_bytes = need;
    }
    lay_out(c, j, c->space);
    return TT_OK;
}

/* out = second(silu(first(in))), rows of k numbers. */
static tt_status embed(const tt_comit *c, job *j, tt_act *out, const tt_act *in, int64_t rows,
                       int64_t k, tt_matrix *const two[2], tt_err *e)
{
    tt_stream *s = c->stream;
    int64_t d = c->info.width;
    tt_status st = s->op.linear(s, j->wide, d, in, k, rows, two[0], false, e);
    if (!st)
        st = s->op.unit(s, j->wide, d, j->wide, d, rows, d, TT_UNIT_SILU, e);
    return st ? st : s->op.linear(s, out, d, j->wide, d, rows, two[1], false, e);
}

static tt_status begin_rows(const tt_comit *c, job *j, tt_err *e)
{
    tt_stream *s = c->stream;
    int64_t d = c->info.width, m = c->info.tokens, in = patch_numbers(c);
    int64_t messages = 1 + j->patches, places = messages + j->calls * m;
    tt_status st = put(c, j->numbers, j->input, numbers_of(c, j), e);
    if (!st)
        st = s->op.upload(s, j->part, j->index, (size_t)ints_of(c, j) * sizeof *j->index, e);
    if (!st)
        st = s->op.linear(s, at(c, j->parts, d), d, j->numbers, in, j->patches, c->patches, false,
                          e);
    if (!st)
        st = embed(c, j, at(c, j->parts, messages * d), at(c, j->numbers, messages_at(c, j)),
                   j->calls * m, c->info.dims, c->message, e);
    if (!st)
        st = embed(c, j, at(c, j->parts, places * d), at(c, j->numbers, places_at(c, j)), j->calls,
                   2, c->place, e);
    if (!st)
        st = s->op.gather(s, j->x, d, j->parts, d, j->part, j->rows, d, e);
    if (!st)
        st = s->op.gather(s, j->h, d, c->places, d, j->place, j->rows, d, e);
    return st ? st : s->op.add(s, j->x, d, j->h, d, j->rows, d, e);
}

static tt_status attend(tt_comit *c, job *j, tt_err *e)
{
    tt_stream *s = c->stream;
    int64_t d = c->info.width, hd = d / c->info.heads, row = 0;
    tt_biased_span list[MOST_CALLS];
    tt_status st = TT_OK;
    for (int64_t i = 0; i < j->calls && !st; i++) {
        int64_t rows = rows_of(c, &j->call[i]);
        list[i] = (tt_biased_span){.query_row = row,
                                   .query_rows = rows,
                                   .k = at(c, j->wide, row * 3 * d + d),
                                   .v = at(c, j->wide, row * 3 * d + 2 * d),
                                   .ld_kv = 3 * d,
                                   .keys = rows,
                                   .bias_query = bias_step(rows),
                                   .bias_key = 1};
        st = bias_of(c, &list[i].bias, patches_of(c, &j->call[i]), e);
        row += rows;
    }
    return st ? st
              : s->op.attention_biased(s, j->h, d, j->wide, 3 * d, list, j->calls, c->info.heads,
                                       hd, (float)(1 / sqrt((double)hd)), c->compute, e);
}

/* The norm before attention (half 0) or the MLP (half 1), modulated by row. */
static tt_status normalise(const tt_comit *c, job *j, int64_t block, int half, tt_err *e)
{
    int64_t d = c->info.width;
    return c->stream->op.adaln(c->stream, j->h, d, j->x, d, c->ones, mods_of(c, block, 0, 3 * half),
                               mods_of(c, block, 0, 3 * half + 1), MODS * d, j->mod, j->rows, d,
                               1e-6f, e);
}

/* x += gate * branch, then the norm before the next half, of this layer or the one after it. */
static tt_status next_half(const tt_comit *c, job *j, const tt_act *branch, int64_t block, int half,
                           tt_err *e)
{
    tt_stream *s = c->stream;
    int64_t d = c->info.width, next = block + half;
    tt_act *gate = mods_of(c, block, 0, 3 * half + 2);
    if (next == c->info.layers)
        return s->op.gate_add(s, j->x, d, branch, d, gate, MODS * d, j->mod, j->rows, d, e);
    int chunk = half ? 0 : 3;
    return s->op.gate_adaln(s, j->h, d, j->x, d, branch, d, c->ones, gate,
                            mods_of(c, next, 0, chunk), mods_of(c, next, 0, chunk + 1), MODS * d,
                            j->mod, j->rows, d, 1e-6f, e);
}

/* From the normalised rows in h to those of the next layer. */
static tt_status run_layer(tt_comit *c, job *j, int64_t i, tt_err *e)
{
    tt_stream *s = c->stream;
    const layer *l = &c->layer[i];
    int64_t d = c->info.width;
    tt_status st = s->op.linear(s, j->wide, 3 * d, j->h, d, j->rows, l->qkv, false, e);
    if (!st)
        st = attend(c, j, e);
    if (!st)
        st = s->op.linear(s, j->wide, d, j->h, d, j->rows, l->out, false, e);
    if (!st)
        st = next_half(c, j, j->wide, i, 0, e);
    if (!st)
        st = s->op.linear_gelu(s, j->wide, c->ff, j->h, d, j->rows, l->up, e);
    if (!st)
        st = s->op.linear(s, j->h, d, j->wide, c->ff, j->rows, l->down, false, e);
    return st ? st : next_half(c, j, j->h, i, 1, e);
}

static tt_status give_velocities(const tt_comit *c, job *j, tt_err *e)
{
    tt_stream *s = c->stream;
    int64_t d = c->info.width, in = patch_numbers(c);
    tt_status st = s->op.gather(s, j->h, d, j->x, d, j->patch_row, j->patches, d, e);
    if (!st)
        st = s->op.adaln(s, j->h, d, j->h, d, c->ones, c->times.last, at(c, c->times.last, d),
                         2 * d, j->patch_time, j->patches, d, 1e-6f, e);
    if (!st)
        st = s->op.linear(s, j->wide, in, j->h, d, j->patches, c->velocity, false, e);
    return st ? st
              : s->op.download(s, j->velocity, j->wide,
                               (size_t)(j->patches * in) * tt_dtype_size(c->type), e);
}

static tt_status give_messages(const tt_comit *c, job *j, tt_err *e)
{
    tt_stream *s = c->stream;
    int64_t d = c->info.width, rows = j->calls * c->info.tokens, dims = c->info.dims;
    tt_status st = s->op.gather(s, j->h, d, j->x, d, j->query_row, rows, d, e);
    if (!st)
        st = s->op.adaln(s, j->h, d, j->h, d, c->ones, mods_of(c, 0, 0, 0), mods_of(c, 0, 0, 1),
                         MODS * d, j->query_mod, rows, d, 1e-6f, e);
    if (!st)
        st = s->op.linear(s, j->wide, dims, j->h, d, rows, c->renewed, false, e);
    return st ? st
              : s->op.download(s, j->renewed, j->wide,
                               (size_t)(rows * dims) * tt_dtype_size(c->type), e);
}

static tt_status run_body(tt_comit *c, job *j, tt_err *e)
{
    tt_status s = begin_rows(c, j, e);
    if (!s)
        s = normalise(c, j, 0, 0, e);
    for (int64_t i = 0; i < c->info.layers && !s; i++)
        s = run_layer(c, j, i, e);
    if (!s && j->velocities)
        s = give_velocities(c, j, e);
    return s || !j->messages ? s : give_messages(c, j, e);
}

/* Runs of the same sizes are recorded where the backend can. */
static tt_status run_recorded(tt_comit *c, job *j, tt_err *e)
{
    tt_stream *s = c->stream;
    if (!s->op.pass_begin)
        return run_body(c, j, e);
    const int64_t key[] = {(int64_t)(intptr_t)c, (int64_t)(intptr_t)c->space, j->rows, j->calls,
                           j->patches, j->velocities, j->messages};
    tt_status st = s->op.pass_begin(s, key, sizeof key / sizeof *key, e);
    if (st)
        return st;
    st = run_body(c, j, e);
    return s->op.pass_end(s, st, e);
}

static void give_results(const tt_comit *c, job *j)
{
    int64_t in = patch_numbers(c), message = (int64_t)c->info.tokens * c->info.dims, patch = 0;
    if (j->velocities)
        widen(c, j->velocity, j->patches * in);
    if (j->messages)
        widen(c, j->renewed, j->calls * message);
    for (int64_t i = 0; i < j->calls; i++) {
        const tt_comit_call *k = &j->call[i];
        if (k->velocity)
            fold(c, k, j->velocity + patch * in);
        if (k->renewed)
            memcpy(k->renewed, j->renewed + i * message, (size_t)message * sizeof(float));
        patch += patches_of(c, k);
    }
}

/* Tables that the run needs and that must not be made while it is recorded. */
static tt_status prepare(tt_comit *c, job *j, tt_err *e)
{
    tt_status s = TT_OK;
    const float *unused;
    for (int64_t i = 0; i < j->times && !s; i++)
        s = slot_of(c, &j->slot[i], j->t[i], j->wide, e);
    for (int64_t i = 0; i < j->shapes && !s; i++)
        s = bias_of(c, &unused, j->shape[i], e);
    return s;
}

static tt_status run_some(tt_comit *c, job *j, tt_err *e)
{
    c->stream->act = c->type;
    tt_status s = host_lists(c, j, e);
    if (!s)
        s = reserve(c, j, e);
    if (!s)
        s = prepare(c, j, e);
    if (!s) {
        fill_lists(c, j);
        lay_out(c, j, c->space);
        s = run_recorded(c, j, e);
    }
    if (!s)
        s = c->stream->op.sync(c->stream, e);
    if (!s)
        give_results(c, j);
    return s;
}

static tt_status check(const tt_comit *c, const tt_comit_call *k, int64_t i, tt_err *e)
{
    int32_t p = c->info.patch, side = c->info.side;
    if (k->h < 1 || k->w < 1 || k->h > side || k->w > side || k->h % p || k->w % p)
        return tt_fail(e, TT_EINVAL, "call %lld: a latent of %d x %d; sides are multiples of %d up "
                       "to %d", (long long)i, k->h, k->w, p, side);
    return k->t >= 0 && k->t <= 1 ? TT_OK
                                  : tt_fail(e, TT_EINVAL, "call %lld: time %g is not in [0, 1]",
                                            (long long)i, (double)k->t);
}

/* Takes a call into the job unless memory, times or shapes would become too many. */
static bool take(const tt_comit *c, job *j, const tt_comit_call *k)
{
    int64_t rows = rows_of(c, k), patches = patches_of(c, k), t = 0, shape = 0;
    while (t < j->times && j->t[t] != k->t)
        t++;
    while (shape < j->shapes && j->shape[shape] != patches)
        shape++;
    if (j->calls == MOST_CALLS || t == TIMES || shape == SHAPES ||
        (j->calls && j->rows + rows > MOST_ROWS))
        return false;
    j->t[t] = k->t;
    j->times += t == j->times;
    j->shape[shape] = patches;
    j->shapes += shape == j->shapes;
    j->rows += rows;
    j->patches += patches;
    j->velocities |= k->velocity != NULL;
    j->messages |= k->renewed != NULL;
    j->calls++;
    return true;
}

tt_status tt_comit_run(tt_comit *c, const tt_comit_call *call, int64_t calls, tt_err *e)
{
    for (int64_t i = 0; i < calls; i++) {
        tt_status s = check(c, &call[i], i, e);
        if (s)
            return s;
    }
    tt_status s = TT_OK;
    for (int64_t i = 0; i < calls && !s;) {
        job j = {.call = call + i};
        while (i < calls && take(c, &j, &call[i]))
            i++;
        s = run_some(c, &j, e);
        job_close(&j);
    }
    return s;
}

size_t tt_comit_bytes(const tt_comit *c, int64_t calls)
{
    int64_t cells = c->grid * c->grid, one = 1 + cells + 2 * c->info.tokens;
    int64_t most = MOST_ROWS > one ? MOST_ROWS / one : 1;
    most = most < MOST_CALLS ? most : MOST_CALLS;
    job j = {.calls = calls < most ? calls : most};
    j.rows = j.calls * one;
    j.patches = j.calls * cells;
    return lay_out(c, &j, NULL);
}

double tt_comit_macs(const tt_comit *c, int64_t h, int64_t w)
{
    double d = (double)c->info.width, ff = (double)c->ff, p = c->info.patch;
    double rows = 1 + (double)(h * w) / (p * p) + 2 * c->info.tokens;
    return (double)c->info.layers * rows * (4 * d * d + 2 * d * ff + 2 * d * rows);
}
