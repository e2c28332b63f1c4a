/* trunk_load.c - binding a checkpoint's tensors to the trunk. */
#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "models/nn/trunk.h"

/* Arithmetic for a weights mode, given how this checkpoint stores its matrices. */
static void choose(tt_trunk *t, tt_weights_mode mode)
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
        t->compute = TT_COMPUTE_BF16;
        break;
    }
    t->quantise = mode == TT_WEIGHTS_INT8 && stored != TT_I8;
    t->act = s->op.act_type ? s->op.act_type(s, t->compute) : TT_F32;
}

static const char *compute_text(const tt_trunk *t)
{
    bool narrow = t->compute == TT_COMPUTE_BF16;
    if (t->quantise || t->stored == TT_I8)
        return narrow ? "int8 weights, bf16 products" : "int8 weights widened to f32";
    return narrow ? "bf16" : "f32";
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
    info->parameters = tt_weights_elements(w);
    info->layer_weights = t->layers * t->width *
                          (t->head_dim * (2 * t->heads + 2 * t->kv_heads) + 3 * t->ff);
    info->products = t->compute;
    info->bytes_per_weight = t->compute == TT_COMPUTE_F32           ? 4
                             : t->quantise || t->stored == TT_I8 ? 1
                                                                 : 2;
    info->weight_bytes = tt_weights_bytes(w);
    info->kv_bytes_per_column = (size_t)(t->layers * 2 * t->kv_heads * t->head_dim) *
                                tt_dtype_size(t->act);
    info->act = t->act;
    info->compute = compute_text(t);
}

void tt_trunk_close(tt_trunk *t)
{
    tt_stream *s = t->stream;
    for (int64_t i = 0; t->layer && i < t->layers; i++) {
        tt_trunk_layer *l = &t->layer[i];
        s->op.release(s, l->norm1);
        s->op.release(s, l->norm2);
        s->op.matrix_close(s, l->qkv);
        s->op.matrix_close(s, l->out);
        s->op.matrix_close(s, l->gate_up);
        s->op.matrix_close(s, l->down);
    }
    free(t->layer);
    s->op.release(s, t->norm);
    s->op.release(s, t->inv_freq);
    if (t->head != t->table)
        s->op.matrix_close(s, t->head);
    s->op.matrix_close(s, t->table);
    s->op.matrix_close(s, t->place_table);
    s->op.release(s, t->space);
    free(t->map);
    free(t->ints);
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

static tt_status vector(tt_trunk *t, float **out, const tt_weights *w, const char *name,
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

static tt_status rope(tt_trunk *t, double theta, int64_t rotary, tt_err *e)
{
    t->half = rotary / 2;
    float *host = malloc((size_t)t->half * sizeof *host);
    if (!host)
        return tt_fail(e, TT_ENOMEM, "no memory for rotary frequencies");
    for (int64_t i = 0; i < t->half; i++)
        host[i] = t->places ? 0 : (float)pow(theta, -2.0 * (double)i / (double)rotary);
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

/* One tensor of a stacked matrix, and its bias [n] or NULL. */
typedef struct {
    const char *name;
    int64_t n;
    const char *bias;
} part_name;

/* The parts' biases one after the other, zeros where a part has none; *out stays NULL when none
 * has. To be freed. */
static tt_status read_bias(float **out, const tt_weights *w, const part_name *part, int parts,
                           tt_err *e)
{
    int64_t n = 0, at = 0;
    bool any = false;
    *out = NULL;
    for (int i = 0; i < parts; i++) {
        n += part[i].n;
        any |= part[i].bias != NULL;
    }
    if (!any)
        return TT_OK;
    float *bias = calloc((size_t)n, sizeof *bias);
    if (!bias)
        return tt_fail(e, TT_ENOMEM, "no memory for %lld biases", (long long)n);
    *out = bias;
    for (int i = 0; i < parts; at += part[i++].n) {
        tt_tensor t;
        if (!part[i].bias)
            continue;
        tt_status s = tt_weights_get(w, part[i].bias, 1, (int64_t[]){part[i].n}, &t, e);
        if (!s)
            s = tt_to_f32(bias + at, &t, 0, part[i].n, e);
        if (s)
            return s;
    }
    return TT_OK;
}

enum { MAX_PARTS = 8 };

static tt_status matrix(tt_trunk *t, tt_matrix **out, const tt_weights *w, const part_name *part,
                        int parts, int64_t k, unsigned flags, tt_err *e)
{
    tt_weight list[MAX_PARTS] = {0};
    int rounded = 0;
    float *bias = NULL;
    tt_status s = parts <= MAX_PARTS ? TT_OK : tt_fail(e, TT_EINVAL, "matrix of %d parts", parts);
    for (int i = 0; i < parts && !s; i++)
        s = tt_weights_matrix(w, part[i].name, part[i].n, k, &list[i], e);
    /* Rounded copies live only while packing; a table is looked up in the mapped original. */
    bool round = t->quantise && !(flags & TT_MATRIX_TABLE);
    for (int i = 0; i < parts && !s && round; i++)
        if (list[i].data.dtype != TT_I8) {
            s = quantise_part(&list[i], e);
            rounded = s ? rounded : rounded | 1 << i;
        }
    if (!s)
        s = read_bias(&bias, w, part, parts, e);
    if (!s)
        s = t->stream->op.matrix_open(t->stream, out, list, parts, bias, t->compute, flags, e);
    free(bias);
    if (s)
        tt_context(e, s, "tensor '%.80s'", part[0].name);
    for (int i = 0; i < parts; i++)
        if (rounded & 1 << i) {
            free((void *)(uintptr_t)list[i].data.data);
            free((void *)(uintptr_t)list[i].scale.data);
        }
    return s;
}

/* --- all of a checkpoint --- */

enum { NORM1, Q, K, V, Q_BIAS, K_BIAS, V_BIAS, OUT, NORM2, GATE, UP, DOWN, LAYER_NAMES };

typedef struct {
    char text[LAYER_NAMES][128];
} layer_names;

/* The prefix holds one %lld; it comes from our own tables. */
static void spell(layer_names *l, const tt_trunk_names *n, int64_t i)
{
    const char *const part[LAYER_NAMES] = {
        n->norm1,  n->q,   n->k,     n->v,    n->q_bias, n->k_bias,
        n->v_bias, n->out, n->norm2, n->gate, n->up,     n->down};
    const char *mark = strstr(n->prefix, "%lld");
    for (int k = 0; k < LAYER_NAMES; k++)
        snprintf(l->text[k], sizeof l->text[k], "%.*s%lld%s%s", (int)(mark - n->prefix), n->prefix,
                 (long long)i, mark + 4, part[k] ? part[k] : "");
}

static tt_status bind_layer(tt_trunk *t, const tt_weights *w, const tt_trunk_names *names,
                            int64_t i, tt_err *e)
{
    layer_names n;
    spell(&n, names, i);
    tt_trunk_layer *l = &t->layer[i];
    int64_t d = t->width, q = t->heads * t->head_dim, kv = t->kv_heads * t->head_dim;
    part_name qkv[] = {{n.text[Q], q, names->q_bias ? n.text[Q_BIAS] : NULL},
                       {n.text[K], kv, names->k_bias ? n.text[K_BIAS] : NULL},
                       {n.text[V], kv, names->v_bias ? n.text[V_BIAS] : NULL}};
    part_name gate_up[] = {{n.text[GATE], t->ff, NULL}, {n.text[UP], t->ff, NULL}};
    part_name out = {n.text[OUT], d, NULL}, down = {n.text[DOWN], d, NULL};
    tt_status s = vector(t, &l->norm1, w, n.text[NORM1], d, e);
    if (!s)
        s = matrix(t, &l->qkv, w, qkv, 3, d, TT_MATRIX_LINEAR, e);
    if (!s)
        s = matrix(t, &l->out, w, &out, 1, q, TT_MATRIX_LINEAR, e);
    if (!s)
        s = vector(t, &l->norm2, w, n.text[NORM2], d, e);
    if (!s)
        s = matrix(t, &l->gate_up, w, gate_up, 2, d, TT_MATRIX_LINEAR | TT_MATRIX_GLU, e);
    if (!s)
        s = matrix(t, &l->down, w, &down, 1, t->ff, TT_MATRIX_LINEAR, e);
    return s ? tt_context(e, s, "layer %lld", (long long)i) : TT_OK;
}

/* Tied weights share one matrix unless rounding makes the two uses differ. */
static tt_status bind_ends(tt_trunk *t, const tt_weights *w, const tt_trunk_names *names, bool tied,
                           tt_err *e)
{
    part_name table = {names->table, t->vocab, NULL}, head = {names->head, t->vocab, NULL};
    part_name places = {names->place_table, t->places, NULL};
    bool share = tied && !t->quantise;
    unsigned both = TT_MATRIX_TABLE | TT_MATRIX_LINEAR;
    tt_status s = vector(t, &t->norm, w, names->norm, t->width, e);
    if (!s)
        s = matrix(t, &t->table, w, &table, 1, t->width, share ? both : TT_MATRIX_TABLE, e);
    if (!s && t->places)
        s = matrix(t, &t->place_table, w, &places, 1, t->width, TT_MATRIX_TABLE, e);
    if (s || !share)
        return s ? s : matrix(t, &t->head, w, tied ? &table : &head, 1, t->width,
                              TT_MATRIX_LINEAR, e);
    t->head = t->table;
    return TT_OK;
}

tt_status tt_trunk_open(tt_trunk *t, const tt_weights *w, const tt_trunk_names *names,
                        tt_weights_mode mode, double theta, int64_t rotary, bool tied,
                        void (*progress)(void *, double), void *arg, tt_err *e)
{
    layer_names n;
    tt_weight first;
    spell(&n, names, 0);
    tt_status s = tt_weights_matrix(w, n.text[Q], t->heads * t->head_dim, t->width, &first, e);
    if (s)
        return tt_context(e, s, "layer 0");
    t->stored = first.data.dtype;
    choose(t, mode);
    t->layer = calloc((size_t)t->layers, sizeof *t->layer);
    if (!t->layer)
        return tt_fail(e, TT_ENOMEM, "no memory for %lld layers", (long long)t->layers);
    s = rope(t, theta, rotary, e);
    for (int64_t i = 0; i < t->layers && !s; i++) {
        s = bind_layer(t, w, names, i, e);
        if (progress)
            progress(arg, (double)(i + 1) / (double)(t->layers + 1));
    }
    return s ? s : bind_ends(t, w, names, tied, e);
}
