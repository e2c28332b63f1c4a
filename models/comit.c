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

enum { WAVES = 256, MODS = 6, SHAPES = 4, MOST_ROWS = 16384 };

typedef struct {
    tt_matrix *qkv, *out, *up, *down, *x_mod, *r_mod;
} layer;

/* A column of scores' additions, for latents of so many patches. */
typedef struct {
    int64_t patches;
    float *table; /* device, N x N */
} bias;

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
    bias bias[SHAPES];
    int biases;
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

/* [width, channels, patch, patch] as a product over unfolded patches. */
static tt_status open_patches(tt_comit *c, const tt_bind *b, tt_err *e)
{
    int64_t p = c->info.patch, d = c->info.width;
    tt_weight w = {0};
    float *shift = malloc((size_t)d * sizeof *shift);
    tt_status s = shift ? TT_OK : tt_fail(e, TT_ENOMEM, "no memory for a bias");
    if (!s)
        s = tt_bind_host(b->weights, shift, "predictor.x_embedder.proj.bias", d, e);
    if (!s)
        s = tt_weights_get(b->weights, "predictor.x_embedder.proj.weight", 4,
                           (int64_t[]){d, c->info.channels, p, p}, &w.data, e);
    w.data.rank = 2;
    w.data.dim[1] = c->info.channels * p * p;
    if (!s)
        s = c->stream->op.matrix_open(c->stream, &c->patches, &w, 1, shift, b->compute,
                                      TT_MATRIX_LINEAR, e);
    free(shift);
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
    tt_status s = open_patches(c, b, e);
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
        s = tt_bind_choose(&b.compute, stream, w, sample, mode, e);
    c->compute = b.compute;
    c->type = stream->op.act_type ? stream->op.act_type(stream, b.compute) : TT_F32;
    c->info.compute = tt_bind_text(w, sample, b.compute);
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
    s->op.release(s, c->places);
    s->op.release(s, c->ones);
    free(c->layer);
    free(c);
}

const tt_comit_info *tt_comit_about(const tt_comit *c)
{
    return &c->info;
}

/* --- the table of additions --- */

static tt_status make_bias(tt_comit *c, float **out, int64_t patches, tt_err *e)
{
    int64_t m = c->info.tokens, n = 1 + patches + 2 * m;
    float no = c->strict ? -INFINITY : 0;
    float *table = malloc((size_t)(n * n) * sizeof *table);
    if (!table)
        return tt_fail(e, TT_ENOMEM, "no memory for scores of %lld rows", (long long)n);
    for (int64_t i = 0; i < n; i++)
        for (int64_t j = 0; j < n; j++)
            table[i * n + j] = j < n - m || (i >= n - m && i >= j) ? 1 : no;
    tt_status s = tt_bind_floats(c->stream, out, table, n * n, e);
    free(table);
    return s;
}

/* The shapes of latents are few: crops and the whole picture. */
static tt_status bias_of(tt_comit *c, const float **out, int64_t patches, tt_err *e)
{
    for (int i = 0; i < c->biases; i++)
        if (c->bias[i].patches == patches) {
            *out = c->bias[i].table;
            return TT_OK;
        }
    if (c->biases == SHAPES) { /* the oldest goes */
        c->stream->op.release(c->stream, c->bias[0].table);
        memmove(c->bias, c->bias + 1, (SHAPES - 1) * sizeof *c->bias);
        c->biases--;
    }
    bias *b = &c->bias[c->biases];
    *b = (bias){.patches = patches};
    tt_status s = make_bias(c, &b->table, patches, e);
    if (s) {
        c->stream->op.release(c->stream, b->table);
        return s;
    }
    c->biases++;
    *out = b->table;
    return TT_OK;
}

/* --- a run --- */

/* Lists of some calls and the device's working memory. */
typedef struct {
    const tt_comit_call *call;
    int64_t calls, rows, patches; /* rows and patches of all calls */
    int64_t times;                /* different t */
    float t[64];
    /* host */
    float *unfolded, *message, *offset, *waves, *result;
    int32_t *index;
    /* device, of activations; `mods` holds for every t: none, of patches, of messages */
    void *x, *h, *wide, *parts, *input, *mods, *last, *time;
    /* device: of each row: its part, its place, its modulation; of each patch and query: its row,
       and its t */
    int32_t *part, *place, *mod, *patch_row, *query_row, *patch_time, *query_mod;
    void *ints;
} job;

static int64_t patches_of(const tt_comit *c, const tt_comit_call *k)
{
    return (int64_t)(k->h / c->info.patch) * (k->w / c->info.patch);
}

static int64_t rows_of(const tt_comit *c, const tt_comit_call *k)
{
    return 1 + patches_of(c, k) + 2 * c->info.tokens;
}

static int64_t time_of(job *j, float t)
{
    for (int64_t i = 0; i < j->times; i++)
        if (j->t[i] == t)
            return i;
    j->t[j->times] = t;
    return j->times++;
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
    int64_t in = c->info.channels * c->info.patch * c->info.patch, m = c->info.tokens;
    int64_t out = j->patches * in, renewed = j->calls * m * c->info.dims;
    int64_t mods = 3 * j->times * MODS * c->info.width;
    out = out > renewed ? out : renewed;
    j->unfolded = malloc((size_t)(j->patches * in) * sizeof(float));
    j->message = malloc((size_t)renewed * sizeof(float));
    j->offset = malloc((size_t)j->calls * 2 * sizeof(float));
    j->waves = calloc((size_t)(j->times * WAVES > mods ? j->times * WAVES : mods), sizeof(float));
    j->result = malloc((size_t)out * sizeof(float));
    j->index = malloc((size_t)(3 * j->rows + 2 * j->patches + 2 * j->calls * m) *
                      sizeof *j->index);
    return j->unfolded && j->message && j->offset && j->waves && j->result && j->index
               ? TT_OK
               : tt_fail(e, TT_ENOMEM, "no memory for %lld rows", (long long)j->rows);
}

/* Parts are: patches of all calls, messages of all calls, places of all calls, one row of zeros. */
static void fill_lists(const tt_comit *c, job *j)
{
    int64_t m = c->info.tokens, in = c->info.channels * c->info.patch * c->info.patch;
    int64_t g = c->grid * c->grid, row = 0, patch = 0;
    int32_t *part = j->index, *place = part + j->rows, *mod = place + j->rows;
    int32_t *patch_row = mod + j->rows, *query_row = patch_row + j->patches;
    int32_t *patch_time = query_row + j->calls * m, *query_mod = patch_time + j->patches;
    int64_t messages = j->patches, places = messages + j->calls * m, nothing = places + j->calls;
    for (int64_t i = 0; i < j->calls; i++) {
        const tt_comit_call *k = &j->call[i];
        int64_t t = time_of(j, k->t), across = k->w / c->info.patch, n = patches_of(c, k);
        unfold(c, j->unfolded + patch * in, k);
        memcpy(j->message + i * m * c->info.dims, k->message,
               (size_t)(m * c->info.dims) * sizeof(float));
        j->offset[2 * i] = k->offset[0];
        j->offset[2 * i + 1] = k->offset[1];
        part[row] = (int32_t)(places + i);
        place[row] = 0;
        mod[row++] = (int32_t)(3 * t);
        for (int64_t a = 0; a < n; a++, row++, patch++) {
            part[row] = (int32_t)patch;
            place[row] = (int32_t)(1 + a / across * c->grid + a % across);
            mod[row] = (int32_t)(3 * t + 1);
            patch_row[patch] = (int32_t)row;
            patch_time[patch] = (int32_t)t;
        }
        for (int64_t a = 0; a < 2 * m; a++, row++) {
            bool query = a >= m;
            part[row] = (int32_t)(query ? nothing : messages + i * m + a);
            place[row] = (int32_t)(1 + g + a);
            mod[row] = (int32_t)(3 * t + 2);
            if (query)
                query_row[i * m + a - m] = (int32_t)row;
        }
        for (int64_t a = 0; a < m; a++)
            query_mod[i * m + a] = 0; /* LN alone */
    }
}

static void job_close(const tt_comit *c, job *j)
{
    void *device[] = {j->x, j->h, j->wide, j->parts, j->input, j->mods, j->last, j->time, j->ints};
    for (size_t i = 0; i < sizeof device / sizeof *device; i++)
        c->stream->op.release(c->stream, device[i]);
    free(j->unfolded);
    free(j->message);
    free(j->offset);
    free(j->waves);
    free(j->result);
    free(j->index);
}

static tt_status device_memory(const tt_comit *c, job *j, tt_err *e)
{
    tt_stream *s = c->stream;
    int64_t d = c->info.width, m = c->info.tokens, wide = c->ff > 3 * d ? c->ff : 3 * d;
    int64_t in = c->info.channels * c->info.patch * c->info.patch;
    int64_t parts = j->patches + j->calls * (m + 1) + 1;
    int64_t input = j->patches * in, times = j->times * WAVES, dims = j->calls * m * c->info.dims;
    input = input > times ? input : times;
    input = input > dims ? input : dims;
    int64_t ints = 3 * j->rows + 2 * j->patches + 2 * j->calls * m;
    const struct {
        void **out;
        int64_t n;
        size_t size;
    } part[] = {
        {&j->x, j->rows * d, 0},           {&j->h, (j->rows + parts) * d, 0},
        {&j->wide, j->rows * wide, 0},     {&j->parts, parts * d, 0},
        {&j->input, input + 2 * j->calls, 0}, {&j->mods, 3 * j->times * MODS * d, 0},
        {&j->last, j->times * 2 * d, 0},   {&j->time, j->times * d, 0},
        {&j->ints, ints, sizeof(int32_t)},
    };
    tt_status st = TT_OK;
    for (size_t i = 0; i < sizeof part / sizeof *part && !st; i++)
        st = s->op.alloc(s, part[i].out,
                         (size_t)part[i].n * (part[i].size ? part[i].size
                                                           : tt_dtype_size(c->type)), e);
    if (!st)
        st = s->op.upload(s, j->ints, j->index, (size_t)ints * sizeof *j->index, e);
    j->part = j->ints;
    j->place = j->part + j->rows;
    j->mod = j->place + j->rows;
    j->patch_row = j->mod + j->rows;
    j->query_row = j->patch_row + j->patches;
    j->patch_time = j->query_row + j->calls * m;
    j->query_mod = j->patch_time + j->patches;
    return st;
}

static tt_act *at(const tt_comit *c, void *p, int64_t elements)
{
    return (char *)p + elements * (int64_t)tt_dtype_size(c->type);
}

static tt_status put(const tt_comit *c, void *to, const float *host, int64_t n, tt_err *e)
{
    tt_stream *s = c->stream;
    if (c->type == TT_F32) {
        tt_status st = s->op.upload(s, to, host, (size_t)n * sizeof *host, e);
        return st ? st : s->op.sync(s, e);
    }
    uint16_t *narrow = malloc((size_t)n * sizeof *narrow);
    if (!narrow)
        return tt_fail(e, TT_ENOMEM, "no memory to narrow %lld numbers", (long long)n);
    for (int64_t i = 0; i < n; i++)
        narrow[i] = tt_f32_to_bf16(host[i]);
    tt_status st = s->op.upload(s, to, narrow, (size_t)n * sizeof *narrow, e);
    if (!st)
        st = s->op.sync(s, e);
    free(narrow);
    return st;
}

/* out = second(silu(first(host))), rows of k numbers. */
static tt_status embed(const tt_comit *c, job *j, tt_act *out, const float *host, int64_t rows,
                       int64_t k, tt_matrix *const two[2], tt_err *e)
{
    tt_stream *s = c->stream;
    int64_t d = c->info.width;
    tt_status st = put(c, j->input, host, rows * k, e);
    if (!st)
        st = s->op.linear(s, j->h, d, j->input, k, rows, two[0], false, e);
    if (!st)
        st = s->op.unit(s, j->h, d, j->h, d, rows, d, TT_UNIT_SILU, e);
    return st ? st : s->op.linear(s, out, d, j->h, d, rows, two[1], false, e);
}

/* cos and sin of 1000 t at falling frequencies. */
static void make_waves(job *j)
{
    for (int64_t i = 0; i < j->times; i++)
        for (int k = 0; k < WAVES / 2; k++) {
            double angle = (double)(1000 * j->t[i]) * exp(-log(10000.0) * k / (WAVES / 2));
            j->waves[i * WAVES + k] = (float)cos(angle);
            j->waves[i * WAVES + WAVES / 2 + k] = (float)sin(angle);
        }
}

/* silu(e(t)), the final modulation, and modulations that change nothing but open the gates. */
static tt_status begin_times(const tt_comit *c, job *j, tt_err *e)
{
    tt_stream *s = c->stream;
    int64_t d = c->info.width;
    make_waves(j);
    tt_status st = embed(c, j, j->time, j->waves, j->times, WAVES, c->time, e);
    if (!st)
        st = s->op.unit(s, j->time, d, j->time, d, j->times, d, TT_UNIT_SILU, e);
    if (!st)
        st = s->op.linear(s, j->last, 2 * d, j->time, d, j->times, c->last_mod, false, e);
    memset(j->waves, 0, (size_t)(3 * j->times * MODS * d) * sizeof *j->waves);
    for (int64_t i = 0; i < j->times; i++)
        for (int64_t k = 0; k < d; k++) {
            float *none = j->waves + 3 * i * MODS * d;
            none[2 * d + k] = none[5 * d + k] = 1;
        }
    return st ? st : put(c, j->mods, j->waves, 3 * j->times * MODS * d, e);
}

static tt_status begin_rows(const tt_comit *c, job *j, tt_err *e)
{
    tt_stream *s = c->stream;
    int64_t d = c->info.width, m = c->info.tokens;
    int64_t in = c->info.channels * c->info.patch * c->info.patch;
    int64_t messages = j->patches, places = messages + j->calls * m, nothing = places + j->calls;
    float *zero = calloc((size_t)d, sizeof *zero);
    tt_status st = zero ? put(c, at(c, j->parts, nothing * d), zero, d, e)
                        : tt_fail(e, TT_ENOMEM, "no memory for a row");
    free(zero);
    if (!st)
        st = put(c, j->input, j->unfolded, j->patches * in, e);
    if (!st)
        st = s->op.linear(s, j->parts, d, j->input, in, j->patches, c->patches, false, e);
    if (!st)
        st = embed(c, j, at(c, j->parts, messages * d), j->message, j->calls * m, c->info.dims,
                   c->message, e);
    if (!st)
        st = embed(c, j, at(c, j->parts, places * d), j->offset, j->calls, 2, c->place, e);
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
    tt_status st = TT_OK;
    for (int64_t i = 0; i < j->calls && !st;) {
        tt_biased_span list[32];
        int64_t n = 0;
        for (; n < 32 && i < j->calls && !st; n++, i++) {
            int64_t rows = rows_of(c, &j->call[i]);
            list[n] = (tt_biased_span){.query_row = row,
                                       .query_rows = rows,
                                       .k = at(c, j->wide, row * 3 * d + d),
                                       .v = at(c, j->wide, row * 3 * d + 2 * d),
                                       .ld_kv = 3 * d,
                                       .keys = rows,
                                       .bias_query = rows,
                                       .bias_key = 1};
            st = bias_of(c, &list[n].bias, patches_of(c, &j->call[i]), e);
            row += rows;
        }
        if (!st)
            st = s->op.attention_biased(s, j->h, d, j->wide, 3 * d, list, n, c->info.heads, hd,
                                        (float)(1 / sqrt((double)hd)), c->compute, e);
    }
    return st;
}

/* The norm before attention (half 0) or the MLP (half 1), modulated by row. */
static tt_status normalise(const tt_comit *c, job *j, int half, tt_err *e)
{
    int64_t d = c->info.width;
    tt_act *shift = at(c, j->mods, 3 * half * d);
    return c->stream->op.adaln(c->stream, j->h, d, j->x, d, c->ones, shift, at(c, shift, d),
                               MODS * d, j->mod, j->rows, d, 1e-6f, e);
}

/* x += gate * (in m). */
static tt_status add_gated(const tt_comit *c, job *j, const tt_act *in, int64_t ld,
                           const tt_matrix *m, tt_act *spare, int half, tt_err *e)
{
    tt_stream *s = c->stream;
    int64_t d = c->info.width;
    tt_status st = s->op.linear(s, spare, d, in, ld, j->rows, m, false, e);
    return st ? st
              : s->op.gate_add(s, j->x, d, spare, d, at(c, j->mods, (3 * half + 2) * d), MODS * d,
                               j->mod, j->rows, d, e);
}

static tt_status run_layer(tt_comit *c, job *j, const layer *l, tt_err *e)
{
    tt_stream *s = c->stream;
    int64_t d = c->info.width;
    tt_status st = s->op.linear(s, at(c, j->mods, MODS * d), 3 * MODS * d, j->time, d, j->times,
                                l->x_mod, false, e);
    if (!st)
        st = s->op.linear(s, at(c, j->mods, 2 * MODS * d), 3 * MODS * d, j->time, d, j->times,
                          l->r_mod, false, e);
    if (!st)
        st = normalise(c, j, 0, e);
    if (!st)
        st = s->op.linear(s, j->wide, 3 * d, j->h, d, j->rows, l->qkv, false, e);
    if (!st)
        st = attend(c, j, e);
    if (!st)
        st = add_gated(c, j, j->h, d, l->out, j->wide, 0, e);
    if (!st)
        st = normalise(c, j, 1, e);
    if (!st)
        st = s->op.linear(s, j->wide, c->ff, j->h, d, j->rows, l->up, false, e);
    if (!st)
        st = s->op.gelu(s, j->wide, c->ff, j->wide, c->ff, j->rows, c->ff, e);
    return st ? st : add_gated(c, j, j->wide, c->ff, l->down, j->h, 1, e);
}

static tt_status get(const tt_comit *c, float *host, const tt_act *from, int64_t n, tt_err *e)
{
    tt_stream *s = c->stream;
    tt_status st = s->op.download(s, host, from, (size_t)n * tt_dtype_size(c->type), e);
    if (!st)
        st = s->op.sync(s, e);
    for (int64_t i = n; c->type == TT_BF16 && i-- > 0 && !st;) {
        uint16_t half;
        memcpy(&half, (char *)host + i * (int64_t)sizeof half, sizeof half);
        host[i] = tt_bf16_to_f32(half);
    }
    return st;
}

static tt_status give_velocities(const tt_comit *c, job *j, tt_err *e)
{
    tt_stream *s = c->stream;
    int64_t d = c->info.width, in = c->info.channels * c->info.patch * c->info.patch, at_patch = 0;
    tt_status st = s->op.gather(s, j->h, d, j->x, d, j->patch_row, j->patches, d, e);
    if (!st)
        st = s->op.adaln(s, j->h, d, j->h, d, c->ones, j->last, at(c, j->last, d), 2 * d,
                         j->patch_time, j->patches, d, 1e-6f, e);
    if (!st)
        st = s->op.linear(s, j->wide, in, j->h, d, j->patches, c->velocity, false, e);
    if (!st)
        st = get(c, j->result, j->wide, j->patches * in, e);
    for (int64_t i = 0; i < j->calls && !st; i++) {
        if (j->call[i].velocity)
            fold(c, &j->call[i], j->result + at_patch * in);
        at_patch += patches_of(c, &j->call[i]);
    }
    return st;
}

static tt_status give_messages(const tt_comit *c, job *j, tt_err *e)
{
    tt_stream *s = c->stream;
    int64_t d = c->info.width, m = c->info.tokens, rows = j->calls * m, dims = c->info.dims;
    tt_status st = s->op.gather(s, j->h, d, j->x, d, j->query_row, rows, d, e);
    if (!st)
        st = s->op.adaln(s, j->h, d, j->h, d, c->ones, j->mods, at(c, j->mods, d), MODS * d,
                         j->query_mod, rows, d, 1e-6f, e);
    if (!st)
        st = s->op.linear(s, j->wide, dims, j->h, d, rows, c->renewed, false, e);
    if (!st)
        st = get(c, j->result, j->wide, rows * dims, e);
    for (int64_t i = 0; i < j->calls && !st; i++)
        if (j->call[i].renewed)
            memcpy(j->call[i].renewed, j->result + i * m * dims,
                   (size_t)(m * dims) * sizeof(float));
    return st;
}

static tt_status run_some(tt_comit *c, job *j, tt_err *e)
{
    bool velocities = false, messages = false;
    for (int64_t i = 0; i < j->calls; i++) {
        velocities |= j->call[i].velocity != NULL;
        messages |= j->call[i].renewed != NULL;
        time_of(j, j->call[i].t);
    }
    tt_status s = host_lists(c, j, e);
    if (!s) {
        fill_lists(c, j);
        s = device_memory(c, j, e);
    }
    c->stream->act = c->type;
    if (!s)
        s = begin_times(c, j, e);
    if (!s)
        s = begin_rows(c, j, e);
    for (int64_t i = 0; i < c->info.layers && !s; i++)
        s = run_layer(c, j, &c->layer[i], e);
    if (!s && velocities)
        s = give_velocities(c, j, e);
    return s || !messages ? s : give_messages(c, j, e);
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

tt_status tt_comit_run(tt_comit *c, const tt_comit_call *call, int64_t calls, tt_err *e)
{
    for (int64_t i = 0; i < calls; i++) {
        tt_status s = check(c, &call[i], i, e);
        if (s)
            return s;
    }
    tt_status s = TT_OK;
    for (int64_t i = 0; i < calls && !s;) { /* as many at once as memory is meant for */
        job j = {.call = call + i};
        while (i < calls && j.calls < 64 &&
               (!j.calls || j.rows + rows_of(c, &call[i]) <= MOST_ROWS)) {
            j.rows += rows_of(c, &call[i]);
            j.patches += patches_of(c, &call[i]);
            j.calls++;
            i++;
        }
        s = run_some(c, &j, e);
        job_close(c, &j);
    }
    return s;
}

size_t tt_comit_bytes(const tt_comit *c, int64_t calls)
{
    int64_t d = c->info.width, wide = c->ff > 3 * d ? c->ff : 3 * d;
    int64_t one = 1 + c->grid * c->grid + 2 * c->info.tokens, rows = calls * one;
    rows = rows < MOST_ROWS ? rows : MOST_ROWS > one ? MOST_ROWS : one;
    return (size_t)(rows * (4 * d + wide)) * tt_dtype_size(c->type);
}
