/* trunk_load.c - binding a checkpoint's tensors to the trunk. */
#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "models/nn/trunk_load.h"

tt_status tt_trunk_choose(tt_trunk *t, tt_weights_mode mode, tt_err *e)
{
    tt_stream *s = t->stream;
    tt_dtype stored = t->stored;
    bool fast = s->op.has_compute(s, TT_COMPUTE_BF16);
    switch (mode) {
    case TT_WEIGHTS_AUTO:
        t->compute = stored != TT_F32 && fast ? TT_COMPUTE_BF16 : TT_COMPUTE_F32;
        break;
    case TT_WEIGHTS_F32:
        t->compute = TT_COMPUTE_F32;
        break;
    case TT_WEIGHTS_BF16:
    case TT_WEIGHTS_INT8:
    case TT_WEIGHTS_FP8:
        t->compute = TT_COMPUTE_BF16;
        break;
    }
    if (mode == TT_WEIGHTS_FP8 && !s->op.has_compute(s, TT_COMPUTE_FP8))
        return tt_fail(e, TT_EUNSUP, "weights 'fp8': device '%s' has no 8-bit float products; a "
                       "GPU of compute capability 9.0 has", s->op.name);
    t->layer_compute = mode == TT_WEIGHTS_FP8 ? TT_COMPUTE_FP8 : t->compute;
    t->quantise = mode == TT_WEIGHTS_INT8 && stored != TT_I8;
    t->act = s->op.act_type ? s->op.act_type(s, t->compute) : TT_F32;
    return TT_OK;
}

static const char *compute_text(const tt_trunk *t)
{
    bool narrow = t->compute == TT_COMPUTE_BF16;
    if (t->layer_compute == TT_COMPUTE_FP8)
        return "fp8 layers, bf16 head";
    if (t->quantise || t->stored == TT_I8)
        return narrow ? "int8 weights, bf16 products" : "int8 weights widened to f32";
    return narrow ? "bf16" : "f32";
}

/* 0 when experts are chosen: which matrices a row meets then differs. */
static int64_t layer_weights(const tt_trunk *t)
{
    int64_t sum = 0, attention = t->head_dim * (2 * t->heads + 2 * t->kv_heads);
    for (int64_t i = 0; i < t->layers; i++) {
        if (t->layer[i].routed)
            return 0;
        sum += t->width * (attention + (t->ungated ? 2 : 3) * t->ff);
    }
    return sum;
}

/* Whether the device holds matrices of layers in a byte an element: some widen integers. */
static bool held_in_bytes(const tt_trunk *t)
{
    int64_t n, k;
    size_t bytes;
    if (!t->quantise && t->stored != TT_I8 && t->layer_compute != TT_COMPUTE_FP8)
        return false;
    t->stream->op.matrix_size(t->layer[0].out, &n, &k, &bytes);
    return bytes < 2 * (size_t)n * (size_t)k;
}

void tt_trunk_info(const tt_trunk *t, tt_model *m, const tt_weights *w)
{
    tt_model_info *info = &m->info;
    info->family = m->def->family;
    info->architecture = m->def->architectures[0];
    info->kinds = m->def->kinds;
    info->layers = t->layers;
    info->width = t->width;
    info->heads = t->heads;
    info->kv_heads = t->kv_heads;
    info->head_dim = t->head_dim;
    info->vocab = t->vocab;
    info->table_rows = t->vocab + t->more_rows[0] + t->more_rows[1];
    info->parameters = tt_weights_elements(w);
    info->layer_weights = layer_weights(t);
    info->products = t->layer_compute;
    info->bytes_per_weight = t->compute == TT_COMPUTE_F32 ? 4 : held_in_bytes(t) ? 1 : 2;
    info->weight_bytes = tt_weights_bytes(w);
    info->kv_bytes_per_column = (size_t)(t->layers * 2 * t->kv_heads * t->head_dim) *
                                tt_dtype_size(t->act);
    info->act = t->act;
    info->compute = compute_text(t);
}

static void close_list(tt_trunk *t, tt_matrix **list)
{
    for (int32_t i = 0; list && i < t->router.experts; i++)
        t->stream->op.matrix_close(t->stream, list[i]);
    free(list);
}

void tt_trunk_close(tt_trunk *t)
{
    tt_stream *s = t->stream;
    for (int64_t i = 0; t->layer && i < t->layers; i++) {
        tt_trunk_layer *l = &t->layer[i];
        s->op.release(s, l->norm1);
        s->op.release(s, l->norm2);
        s->op.release(s, l->cross_norm);
        s->op.release(s, l->cross_norm_bias);
        s->op.matrix_close(s, l->cross_q);
        s->op.matrix_close(s, l->cross_kv);
        s->op.matrix_close(s, l->cross_out);
        s->op.release(s, l->after1);
        s->op.release(s, l->after2);
        s->op.release(s, l->norm1_bias);
        s->op.release(s, l->norm2_bias);
        s->op.matrix_close(s, l->qkv);
        s->op.matrix_close(s, l->out);
        s->op.release(s, l->q_norm);
        s->op.release(s, l->k_norm);
        s->op.matrix_close(s, l->gate_up);
        s->op.matrix_close(s, l->down);
        s->op.matrix_close(s, l->router);
        s->op.release(s, l->router_bias);
        close_list(t, l->expert_gate_up);
        close_list(t, l->expert_down);
    }
    free(t->layer);
    s->op.release(s, t->norm);
    s->op.release(s, t->norm_bias);
    s->op.release(s, t->classifier.norm);
    s->op.release(s, t->classifier.norm_bias);
    s->op.matrix_close(s, t->classifier.up);
    s->op.matrix_close(s, t->classifier.down);
    s->op.matrix_close(s, t->classifier.out);
    s->op.release(s, t->inv_freq);
    if (t->head != t->table)
        s->op.matrix_close(s, t->head);
    s->op.matrix_close(s, t->table);
    s->op.matrix_close(s, t->modulation.table);
    s->op.matrix_close(s, t->place_table);
    s->op.release(s, t->space);
    free(t->map);
    free(t->ints);
    free(t->conditions);
}

static tt_status to_device(tt_trunk *t, float **out, const float *host, int64_t n, tt_err *e)
{
    void *p = NULL;
    tt_status s = t->stream->op.alloc(t->stream, &p, (size_t)n * sizeof *host, e);
    if (s)
        return s;
    *out = p;
    s = t->stream->op.upload(t->stream, p, host, (size_t)n * sizeof *host, e);
    return s ? s : t->stream->op.sync(t->stream, e);
}

tt_status tt_trunk_vector(tt_trunk *t, float **out, const tt_weights *w, const char *name,
                          int64_t n, tt_err *e)
{
    tt_tensor v;
    tt_status s = tt_weights_get(w, name, 1, (int64_t[]){n}, &v, e);
    if (s)
        return s;
    float *host = malloc((size_t)n * sizeof *host);
    if (!host)
        return tt_fail(e, TT_ENOMEM, "no memory for tensor '%.80s'", name);
    s = tt_to_f32(host, &v, 0, n, e);
    if (!s)
        s = to_device(t, out, host, n, e);
    else
        tt_context(e, s, "tensor '%.80s'", name);
    free(host);
    return s;
}

double tt_rotary_frequency(const tt_rotary *r, int64_t i)
{
    double f = pow(r->theta, -2.0 * (double)i / (double)r->width);
    if (!(r->factor > 0))
        return f;
    double wave = 6.283185307179586 / f;
    if (wave < r->original / r->high)
        return f;
    if (wave > r->original / r->low)
        return f / r->factor;
    double s = (r->original / wave - r->low) / (r->high - r->low);
    return (1 - s) * f / r->factor + s * f;
}

tt_status tt_trunk_rotation(tt_trunk *t, const tt_rotary *r, tt_err *e)
{
    t->half = r->width / 2;
    float *host = malloc((size_t)t->half * sizeof *host);
    if (!host)
        return tt_fail(e, TT_ENOMEM, "no memory for rotary frequencies");
    for (int64_t i = 0; i < t->half; i++)
        host[i] = t->places ? 0 : (float)tt_rotary_frequency(r, i);
    tt_status s = to_device(t, &t->inv_freq, host, t->half, e);
    free(host);
    return s;
}

/* Symmetric rounding of one row to 8 bits: scale = max |w| / 127, kept in float32. */
static tt_status quantise_part(tt_weight *part, tt_err *e)
{
    int64_t n = part->data.dim[0], k = part->data.dim[1];
    int8_t *q = malloc((size_t)(n * k) + 1);
    float *scale = malloc((size_t)n * sizeof *scale), *row = malloc((size_t)k * sizeof *row);
    tt_status s = q && scale && row ? TT_OK : tt_fail(e, TT_ENOMEM, "no memory to round weights");
    for (int64_t r = 0; r < n && !s; r++) {
        if ((s = tt_to_f32(row, &part->data, r * k, k, e)))
            break;
        float max = 0;
        for (int64_t i = 0; i < k; i++)
            max = fmaxf(max, fabsf(row[i]));
        scale[r] = max / 127;
        for (int64_t i = 0; i < k; i++)
            q[r * k + i] = max > 0 ? (int8_t)lrintf(row[i] / scale[r]) : 0;
    }
    free(row);
    if (s) {
        free(q);
        free(scale);
        return s;
    }
    part->data.data = q;
    part->data.dtype = TT_I8;
    part->scale = (tt_tensor){.data = scale, .rank = 1, .dim = {n}, .dtype = TT_F32};
    return TT_OK;
}

/* --- names --- */

typedef struct {
    char text[160];
} tensor_name;

/* The prefixes hold one %lld each; they come from our own tables. expert -1: a tensor of the layer
 * itself. "" when the family has none. */
static tensor_name name_of(const tt_trunk_names *n, int64_t layer, int64_t expert,
                           const char *suffix)
{
    tensor_name out = {""};
    if (!suffix)
        return out;
    int at = 0;
    const char *const prefix[] = {n->prefix, expert < 0 ? NULL : n->expert};
    for (int i = 0; i < 2 && prefix[i]; i++) {
        const char *mark = strstr(prefix[i], "%lld");
        at += snprintf(out.text + at, sizeof out.text - (size_t)at, "%.*s%lld%s",
                       (int)(mark - prefix[i]), prefix[i], (long long)(i ? expert : layer),
                       mark + 4);
    }
    snprintf(out.text + at, sizeof out.text - (size_t)at, "%s", suffix);
    return out;
}

/* One tensor of a stacked matrix, and its bias [n] or "". */
typedef struct {
    tensor_name name;
    int64_t n;
    tensor_name bias;
    int64_t paired; /* of the first so many heads the channels that rotate together are neighbours,
                       and are to be half a rotation apart */
    int64_t head_dim, turning;
} part;

/* The tensor's row that becomes row r: in a paired head its even channels come first, then the
 * odd ones, then those that do not rotate. Scores are sums over channels, so that queries and keys
 * in another order give the same. */
static int64_t source_row(const part *p, int64_t r)
{
    int64_t c = r % (p->head_dim ? p->head_dim : 1), half = p->turning / 2;
    if (r >= p->paired * p->head_dim || c >= p->turning)
        return r;
    return r - c + (c < half ? 2 * c : 2 * (c - half) + 1);
}

static part outside(const char *name, int64_t n, const char *bias)
{
    part p = {.n = n};
    snprintf(p.name.text, sizeof p.name.text, "%s", name);
    snprintf(p.bias.text, sizeof p.bias.text, "%s", bias ? bias : "");
    return p;
}

/* --- matrices --- */

/* The parts' biases one after the other, zeros where a part has none; *out stays NULL when none
 * has. To be freed. */
static tt_status read_bias(float **out, const tt_weights *w, const part *list, int64_t parts,
                           tt_err *e)
{
    int64_t n = 0, at = 0;
    bool any = false;
    *out = NULL;
    for (int64_t i = 0; i < parts; i++) {
        n += list[i].n;
        any |= *list[i].bias.text != '\0';
    }
    if (!any)
        return TT_OK;
    float *bias = calloc((size_t)n, sizeof *bias);
    if (!bias)
        return tt_fail(e, TT_ENOMEM, "no memory for %lld biases", (long long)n);
    *out = bias;
    for (int64_t i = 0; i < parts; at += list[i++].n) {
        tt_tensor t;
        if (!*list[i].bias.text)
            continue;
        tt_status s = tt_weights_get(w, list[i].bias.text, 1, (int64_t[]){list[i].n}, &t, e);
        for (int64_t r = 0; r < list[i].n && !s; r++)
            s = tt_to_f32(bias + at + r, &t, source_row(&list[i], r), 1, e);
        if (s)
            return s;
    }
    return TT_OK;
}

/* A copy with its rows in our order. */
static tt_status reorder(tt_weight *w, const part *p, tt_err *e)
{
    int64_t n = w->data.dim[0], bytes = w->data.dim[1] * (int64_t)tt_dtype_size(w->data.dtype);
    int64_t one = w->scale.data ? (int64_t)tt_dtype_size(w->scale.dtype) : 0;
    char *data = malloc((size_t)(n * bytes)), *scale = malloc((size_t)(n * one) + 1);
    if (!data || !scale) {
        free(data);
        free(scale);
        return tt_fail(e, TT_ENOMEM, "no memory to reorder weights");
    }
    for (int64_t r = 0; r < n; r++) {
        int64_t from = source_row(p, r);
        memcpy(data + r * bytes, (const char *)w->data.data + from * bytes, (size_t)bytes);
        if (one)
            memcpy(scale + r * one, (const char *)w->scale.data + from * one, (size_t)one);
    }
    w->data.data = data;
    w->scale.data = one ? scale : NULL;
    if (!one)
        free(scale);
    return TT_OK;
}

static void free_copy(tt_weight *w)
{
    free((void *)(uintptr_t)w->data.data);
    free((void *)(uintptr_t)w->scale.data);
}

tt_status tt_trunk_pack(tt_trunk *t, tt_matrix **out, tt_weight *list, int64_t parts,
                        const float *bias, unsigned flags, tt_compute compute, tt_err *e)
{
    bool *rounded = calloc((size_t)parts, sizeof *rounded);
    tt_status s = rounded ? TT_OK : tt_fail(e, TT_ENOMEM, "no memory to pack a matrix");
    /* A table is looked up in the mapped original. */
    bool round = t->quantise && !(flags & TT_MATRIX_TABLE) && compute != TT_COMPUTE_F32;
    for (int64_t i = 0; i < parts && !s && round; i++)
        if (list[i].data.dtype != TT_I8) {
            s = quantise_part(&list[i], e);
            rounded[i] = !s;
        }
    if (!s)
        s = t->stream->op.matrix_open(t->stream, out, list, (int)parts, bias, compute, flags, e);
    for (int64_t i = 0; i < parts && rounded; i++)
        if (rounded[i]) { /* the copies live only while packing */
            free((void *)(uintptr_t)list[i].data.data);
            free((void *)(uintptr_t)list[i].scale.data);
        }
    free(rounded);
    return s;
}

/* compute F32: of unrounded weights, whatever the mode is. */
static tt_status matrix_as(tt_trunk *t, tt_matrix **out, const tt_weights *w, const part *parts,
                           int64_t n, int64_t k, unsigned flags, tt_compute compute, tt_err *e)
{
    float *bias = NULL;
    tt_weight *weight = calloc((size_t)n, sizeof *weight);
    tt_weight *copy = calloc((size_t)n, sizeof *copy); /* in our order, where it differs */
    tt_status s = TT_OK;
    if (!weight || !copy)
        s = tt_fail(e, TT_ENOMEM, "no memory for a matrix of %lld parts", (long long)n);
    for (int64_t i = 0; i < n && !s; i++)
        s = tt_weights_matrix(w, parts[i].name.text, parts[i].n, k, &weight[i], e);
    for (int64_t i = 0; i < n && !s; i++)
        if (parts[i].paired && !(s = reorder(&weight[i], &parts[i], e)))
            copy[i] = weight[i];
    if (!s)
        s = read_bias(&bias, w, parts, n, e);
    if (!s)
        s = tt_trunk_pack(t, out, weight, n, bias, flags, compute, e);
    for (int64_t i = 0; i < n && copy; i++)
        free_copy(&copy[i]);
    free(bias);
    free(weight);
    free(copy);
    return s ? tt_context(e, s, "tensor '%.80s'", parts[0].name.text) : TT_OK;
}

static tt_status matrix(tt_trunk *t, tt_matrix **out, const tt_weights *w, const part *parts,
                        int64_t n, int64_t k, unsigned flags, tt_err *e)
{
    return matrix_as(t, out, w, parts, n, k, flags, t->layer_compute, e);
}

/* --- a layer --- */

/* Where a layer's tensors are looked for. */
typedef struct {
    tt_trunk *t;
    const tt_weights *w;
    const tt_trunk_names *names;
    int64_t i;
} place;

static part in_layer(const place *p, int64_t expert, const char *suffix, int64_t n,
                     const char *bias)
{
    return (part){.name = name_of(p->names, p->i, expert, suffix),
                  .n = n,
                  .bias = name_of(p->names, p->i, expert, bias)};
}

static tt_status layer_vector(const place *p, float **out, const char *suffix, int64_t n,
                              tt_err *e)
{
    tensor_name name = name_of(p->names, p->i, -1, suffix);
    return suffix ? tt_trunk_vector(p->t, out, p->w, name.text, n, e) : TT_OK;
}

static tt_status bind_attention(const place *p, tt_trunk_layer *l, tt_err *e)
{
    tt_trunk *t = p->t;
    const tt_trunk_names *n = p->names;
    int64_t d = t->width, q = t->heads * t->head_dim, kv = t->kv_heads * t->head_dim;
    part separate[] = {in_layer(p, -1, n->q, q, n->q_bias), in_layer(p, -1, n->k, kv, n->k_bias),
                       in_layer(p, -1, n->v, kv, n->v_bias)};
    part fused = in_layer(p, -1, n->qkv, q + 2 * kv, n->qkv_bias);
    part out = in_layer(p, -1, n->out, d, NULL);
    part *turned[] = {&separate[0], &separate[1], &fused};
    const int64_t heads[] = {t->heads, t->kv_heads, t->heads + t->kv_heads};
    for (int i = 0; i < 3 && t->pairs; i++) {
        turned[i]->paired = heads[i];
        turned[i]->head_dim = t->head_dim;
        turned[i]->turning = 2 * t->half;
    }
    tt_status s = layer_vector(p, &l->norm1, n->norm1, d, e);
    if (!s)
        s = layer_vector(p, &l->norm1_bias, n->norm1_bias, d, e);
    if (!s)
        s = matrix(t, &l->qkv, p->w, n->qkv ? &fused : separate, n->qkv ? 1 : 3, d,
                   TT_MATRIX_LINEAR, e);
    if (!s)
        s = layer_vector(p, &l->q_norm, n->q_norm, t->head_dim, e);
    if (!s)
        s = layer_vector(p, &l->k_norm, n->k_norm, t->head_dim, e);
    return s ? s : matrix(t, &l->out, p->w, &out, 1, q, TT_MATRIX_LINEAR, e);
}

static tt_status bind_cross(const place *p, tt_trunk_layer *l, tt_err *e)
{
    tt_trunk *t = p->t;
    const tt_trunk_names *n = p->names;
    int64_t d = t->width;
    part q = in_layer(p, -1, n->cross_q, d, NULL), out = in_layer(p, -1, n->cross_out, d, NULL);
    part kv[] = {in_layer(p, -1, n->cross_k, d, NULL), in_layer(p, -1, n->cross_v, d, NULL)};
    tt_status s = layer_vector(p, &l->cross_norm, n->cross_norm, d, e);
    if (!s)
        s = layer_vector(p, &l->cross_norm_bias, n->cross_norm_bias, d, e);
    if (!s)
        s = matrix(t, &l->cross_q, p->w, &q, 1, d, TT_MATRIX_LINEAR, e);
    if (!s)
        s = matrix(t, &l->cross_kv, p->w, kv, 2, t->seen_width, TT_MATRIX_LINEAR, e);
    return s ? s : matrix(t, &l->cross_out, p->w, &out, 1, d, TT_MATRIX_LINEAR, e);
}

static tt_status bind_mlp(const place *p, tt_trunk_layer *l, tt_err *e)
{
    tt_trunk *t = p->t;
    const tt_trunk_names *n = p->names;
    bool shared = l->routed;
    l->ff = shared ? t->shared_ff : t->ff;
    if (!l->ff)
        return TT_OK;
    part up[] = {in_layer(p, -1, shared ? n->shared_gate : n->gate, l->ff, NULL),
                 in_layer(p, -1, shared ? n->shared_up : n->up, l->ff, n->up_bias)};
    part down = in_layer(p, -1, shared ? n->shared_down : n->down, t->width, n->down_bias);
    unsigned flags = TT_MATRIX_LINEAR | (t->ungated ? 0 : TT_MATRIX_GLU);
    tt_status s = matrix(t, &l->gate_up, p->w, up + t->ungated, t->ungated ? 1 : 2, t->width,
                         flags, e);
    return s ? s : matrix(t, &l->down, p->w, &down, 1, l->ff, TT_MATRIX_LINEAR, e);
}

static tt_status bind_experts(const place *p, tt_trunk_layer *l, tt_err *e)
{
    tt_trunk *t = p->t;
    const tt_trunk_names *n = p->names;
    int32_t experts = t->router.experts;
    part router = in_layer(p, -1, n->router, experts, NULL);
    l->expert_gate_up = calloc((size_t)experts, sizeof *l->expert_gate_up);
    l->expert_down = calloc((size_t)experts, sizeof *l->expert_down);
    if (!l->expert_gate_up || !l->expert_down)
        return tt_fail(e, TT_ENOMEM, "no memory for %d experts", experts);
    tt_status s = matrix_as(t, &l->router, p->w, &router, 1, t->width, TT_MATRIX_LINEAR,
                            TT_COMPUTE_F32, e);
    if (!s)
        s = layer_vector(p, &l->router_bias, n->router_bias, experts, e);
    for (int32_t x = 0; x < experts && !s; x++) {
        part up[] = {in_layer(p, x, n->expert_gate, t->expert_ff, NULL),
                     in_layer(p, x, n->expert_up, t->expert_ff, NULL)};
        part down = in_layer(p, x, n->expert_down, t->width, NULL);
        s = matrix(t, &l->expert_gate_up[x], p->w, up, 2, t->width, TT_MATRIX_LINEAR, e);
        if (!s)
            s = matrix(t, &l->expert_down[x], p->w, &down, 1, t->expert_ff, TT_MATRIX_LINEAR, e);
    }
    return s;
}

static tt_status bind_layer(const place *p, tt_err *e)
{
    tt_trunk_layer *l = &p->t->layer[p->i];
    tt_status s = bind_attention(p, l, e);
    if (!s && p->t->seen_width)
        s = bind_cross(p, l, e);
    if (!s)
        s = layer_vector(p, &l->norm2, p->names->norm2, p->t->width, e);
    if (!s)
        s = layer_vector(p, &l->norm2_bias, p->names->norm2_bias, p->t->width, e);
    if (!s)
        s = bind_mlp(p, l, e);
    if (!s && l->routed)
        s = bind_experts(p, l, e);
    return s ? tt_context(e, s, "layer %lld", (long long)p->i) : TT_OK;
}

/* --- all of a checkpoint --- */

/* Every layer's modulation and the final norm's, stacked: one product makes them all. */
static tt_status bind_modulation(tt_trunk *t, const tt_weights *w, const tt_trunk_names *names,
                                 tt_err *e)
{
    part *list = calloc((size_t)t->layers + 1, sizeof *list);
    if (!list)
        return tt_fail(e, TT_ENOMEM, "no memory for %lld layers", (long long)t->layers);
    for (int64_t i = 0; i < t->layers; i++)
        list[i] = in_layer(&(place){t, w, names, i}, -1, names->modulation, 6 * t->width,
                           names->modulation_bias);
    list[t->layers] = outside(names->last_modulation, 2 * t->width, names->last_modulation_bias);
    tt_status s = matrix_as(t, &t->modulation.table, w, list, t->layers + 1, t->modulation.width,
                            TT_MATRIX_LINEAR, TT_COMPUTE_F32, e);
    free(list);
    return s;
}

tt_status tt_trunk_ends(tt_trunk *t, const tt_weights *w, const tt_trunk_names *names, bool tied,
                        tt_err *e)
{
    part table[3] = {outside(names->table, t->vocab, NULL)};
    int64_t tables = 1;
    for (int i = 0; i < 2; i++)
        if (t->more_rows[i])
            table[tables++] = outside(names->more_tables[i], t->more_rows[i], NULL);
    part head = outside(tied ? names->table : names->head, t->vocab, names->head_bias);
    part places = outside(names->place_table, t->places, NULL);
    bool share = tied && !t->quantise;
    unsigned both = TT_MATRIX_TABLE | TT_MATRIX_LINEAR;
    tt_status s = names->norm ? tt_trunk_vector(t, &t->norm, w, names->norm, t->width, e) : TT_OK;
    if (!s && names->norm_bias)
        s = tt_trunk_vector(t, &t->norm_bias, w, names->norm_bias, t->width, e);
    if (!s)
        s = matrix_as(t, &t->table, w, table, tables, t->width, share ? both : TT_MATRIX_TABLE,
                      t->compute, e);
    if (!s && t->places)
        s = matrix_as(t, &t->place_table, w, &places, 1, t->width, TT_MATRIX_TABLE, t->compute, e);
    if (s || !share)
        return s ? s
                 : matrix_as(t, &t->head, w, &head, 1, t->width, TT_MATRIX_LINEAR, t->compute, e);
    t->head = t->table;
    return TT_OK;
}

static tt_status bind_classifier(tt_trunk *t, const tt_weights *w, const tt_trunk_names *n,
                                 tt_err *e)
{
    tt_classifier *c = &t->classifier;
    part up = outside(n->class_up, c->hidden, n->class_up_bias);
    part down = outside(n->class_down, t->width, n->class_down_bias);
    part out = outside(n->class_out, c->classes, NULL);
    tt_status s = tt_trunk_vector(t, &c->norm, w, n->class_norm, t->width, e);
    if (!s)
        s = tt_trunk_vector(t, &c->norm_bias, w, n->class_norm_bias, t->width, e);
    if (!s)
        s = matrix_as(t, &c->up, w, &up, 1, t->width, TT_MATRIX_LINEAR, t->compute, e);
    if (!s)
        s = matrix_as(t, &c->down, w, &down, 1, c->hidden, TT_MATRIX_LINEAR, t->compute, e);
    if (!s)
        s = matrix_as(t, &c->out, w, &out, 1, t->width, TT_MATRIX_LINEAR, t->compute, e);
    return s ? tt_context(e, s, "classifier") : TT_OK;
}

tt_status tt_trunk_layers(tt_trunk *t, tt_err *e)
{
    t->layer = calloc((size_t)t->layers, sizeof *t->layer);
    return t->layer ? TT_OK
                    : tt_fail(e, TT_ENOMEM, "no memory for %lld layers", (long long)t->layers);
}

/* The operations of TT_SOME_OPS that this checkpoint will call. */
static tt_status check_operations(const tt_trunk *t, const tt_trunk_names *names, tt_err *e)
{
    const tt_backend *op = &t->stream->op;
    const char *missing = NULL;
    if (names->q_norm && !op->rmsnorm_heads)
        missing = "rmsnorm_heads";
    if (t->router.experts && !(op->route && op->linear_grouped && op->combine))
        missing = "route, linear_grouped or combine";
    if (t->modulation.width && !(op->adaln && op->gate_add && op->gelu))
        missing = "adaln, gate_add or gelu";
    if ((names->norm1_bias || t->classifier.classes) && !op->layernorm)
        missing = "layernorm";
    if ((t->relu || t->classifier.classes) && !op->unit)
        missing = "unit";
    if (t->ungated && !t->relu && !op->gelu)
        missing = "gelu";
    return missing ? tt_fail(e, TT_EUNSUP, "device '%s' has no operation %s", op->name, missing)
                   : TT_OK;
}

tt_status tt_trunk_open(tt_trunk *t, const tt_weights *w, const tt_trunk_names *names,
                        tt_weights_mode mode, const tt_rotary *rotary, bool tied,
                        void (*progress)(void *, double), void *arg, tt_err *e)
{
    tt_weight first;
    tensor_name name = name_of(names, 0, -1, names->qkv ? names->qkv : names->q);
    int64_t q = t->heads * t->head_dim, kv = t->kv_heads * t->head_dim;
    tt_status s = tt_weights_matrix(w, name.text, names->qkv ? q + 2 * kv : q, t->width, &first, e);
    if (!s)
        s = check_operations(t, names, e);
    if (s)
        return tt_context(e, s, "layer 0");
    t->stored = first.data.dtype;
    t->pairs = rotary->pairs;
    s = tt_trunk_choose(t, mode, e);
    if (!s)
        s = tt_trunk_rotation(t, rotary, e);
    for (int64_t i = 0; i < t->layers && !s; i++) {
        s = bind_layer(&(place){t, w, names, i}, e);
        if (progress)
            progress(arg, (double)(i + 1) / (double)(t->layers + 1));
    }
    if (!s && t->modulation.width)
        s = bind_modulation(t, w, names, e);
    if (!s && t->classifier.classes)
        s = bind_classifier(t, w, names, e);
    return s ? s : tt_trunk_ends(t, w, names, tied, e);
}
