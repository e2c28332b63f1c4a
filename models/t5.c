/* t5.c - see t5.h. Scores are not scaled; a bias by distance, in buckets that widen with it, is the
 * only trace of order. */
#include "models/t5.h"

#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "models/nn/acts.h"

enum { LONGEST = 1024, TEXTS = 64 };

typedef struct {
    float *norm1, *norm2;
    tt_matrix *qkv, *out, *gate, *up, *down;
} layer;

struct tt_t5 {
    tt_stream *stream;
    tt_t5_info info;
    int64_t head_dim, ff;
    float eps;
    tt_compute compute;
    tt_dtype type;
    layer *layer;
    float *norm, *bias; /* device; bias: heads x (2 LONGEST - 1), by key minus query */
    tt_matrix *table;
};

/* --- opening --- */

static tt_status vector(tt_t5 *t, float **out, const tt_weights *w, const char *name, int64_t n,
                        tt_err *e)
{
    tt_tensor v;
    void *p = NULL;
    float *host = malloc((size_t)n * sizeof *host);
    tt_status s = host ? tt_weights_get(w, name, 1, (int64_t[]){n}, &v, e)
                       : tt_fail(e, TT_ENOMEM, "no memory for tensor '%.80s'", name);
    if (!s)
        s = tt_to_f32(host, &v, 0, n, e);
    if (!s)
        s = t->stream->op.alloc(t->stream, &p, (size_t)n * sizeof *host, e);
    *out = p;
    if (!s)
        s = t->stream->op.upload(t->stream, p, host, (size_t)n * sizeof *host, e);
    if (!s)
        s = t->stream->op.sync(t->stream, e);
    free(host);
    return s;
}

static tt_status matrix(tt_t5 *t, tt_matrix **out, const tt_weights *w, const char *const *name,
                        int parts, int64_t n, int64_t k, unsigned flags, tt_err *e)
{
    tt_weight part[3];
    tt_status s = TT_OK;
    for (int i = 0; i < parts && !s; i++)
        s = tt_weights_matrix(w, name[i], n, k, &part[i], e);
    return s ? s : t->stream->op.matrix_open(t->stream, out, part, parts, NULL, t->compute, flags,
                                             e);
}

/* Bucket of the key n places after the query: exact up to 8 either way, then by logarithm. */
static int bucket_of(int32_t n)
{
    int before = n > 0 ? 16 : 0, far = abs(n);
    if (far < 8)
        return before + far;
    int step = 8 + (int)(log(far / 8.0) / log(16.0) * 8);
    return before + (step < 15 ? step : 15);
}

static tt_status open_bias(tt_t5 *t, const tt_weights *w, tt_err *e)
{
    static const char *const name = "encoder.block.0.layer.0.SelfAttention."
                                    "relative_attention_bias.weight";
    int64_t heads = t->info.heads, wide = 2 * LONGEST - 1;
    float *table = malloc((size_t)(32 * heads) * sizeof *table);
    float *all = malloc((size_t)(heads * wide) * sizeof *all);
    tt_tensor v;
    void *p = NULL;
    tt_status s = table && all ? tt_weights_get(w, name, 2, (int64_t[]){32, heads}, &v, e)
                               : tt_fail(e, TT_ENOMEM, "no memory for distances");
    if (!s)
        s = tt_to_f32(table, &v, 0, 32 * heads, e);
    for (int64_t h = 0; h < heads && !s; h++)
        for (int32_t i = 0; i < wide; i++)
            all[h * wide + i] = table[bucket_of(i - (LONGEST - 1)) * heads + h];
    if (!s)
        s = t->stream->op.alloc(t->stream, &p, (size_t)(heads * wide) * sizeof *all, e);
    t->bias = p;
    if (!s)
        s = t->stream->op.upload(t->stream, p, all, (size_t)(heads * wide) * sizeof *all, e);
    if (!s)
        s = t->stream->op.sync(t->stream, e);
    free(table);
    free(all);
    return s;
}

static tt_status open_layer(tt_t5 *t, const tt_weights *w, int64_t i, tt_err *e)
{
    layer *l = &t->layer[i];
    int64_t d = t->info.width, in = t->info.heads * t->head_dim;
    char name[8][120];
    static const char *const suffix[] = {
        "layer.0.SelfAttention.q", "layer.0.SelfAttention.k", "layer.0.SelfAttention.v",
        "layer.0.SelfAttention.o", "layer.1.DenseReluDense.wi_0", "layer.1.DenseReluDense.wi_1",
        "layer.1.DenseReluDense.wo", "layer.0.layer_norm"};
    const char *part[8];
    for (int j = 0; j < 8; j++) {
        snprintf(name[j], sizeof name[j], "encoder.block.%lld.%s.weight", (long long)i, suffix[j]);
        part[j] = name[j];
    }
    tt_status s = matrix(t, &l->qkv, w, part, 3, in, d, TT_MATRIX_LINEAR, e);
    if (!s)
        s = matrix(t, &l->out, w, part + 3, 1, d, in, TT_MATRIX_LINEAR, e);
    if (!s)
        s = matrix(t, &l->gate, w, part + 4, 1, t->ff, d, TT_MATRIX_LINEAR, e);
    if (!s)
        s = matrix(t, &l->up, w, part + 5, 1, t->ff, d, TT_MATRIX_LINEAR, e);
    if (!s)
        s = matrix(t, &l->down, w, part + 6, 1, d, t->ff, TT_MATRIX_LINEAR, e);
    if (!s)
        s = vector(t, &l->norm1, w, part[7], d, e);
    snprintf(name[7], sizeof name[7], "encoder.block.%lld.layer.1.layer_norm.weight",
             (long long)i);
    return s ? s : vector(t, &l->norm2, w, part[7], d, e);
}

static tt_status read_config(tt_t5 *t, tt_config *c, tt_err *e)
{
    t->info.width = tt_config_need_int(c, "d_model", 1, 1 << 16);
    t->head_dim = tt_config_need_int(c, "d_kv", 1, 1 << 12);
    t->info.heads = tt_config_need_int(c, "num_heads", 1, 1 << 12);
    t->info.layers = tt_config_need_int(c, "num_layers", 1, 4096);
    t->ff = tt_config_need_int(c, "d_ff", 1, 1 << 18);
    t->info.vocab = (int32_t)tt_config_need_int(c, "vocab_size", 1, 1 << 24);
    t->eps = (float)tt_config_float(c, "layer_norm_epsilon", 1e-6, 0, 1);
    t->info.longest = LONGEST;
    int64_t buckets = tt_config_int(c, "relative_attention_num_buckets", 32, 1, 1 << 16);
    int64_t far = tt_config_int(c, "relative_attention_max_distance", 128, 1, 1 << 16);
    const char *act = tt_config_text(c, "feed_forward_proj", "gated-gelu");
    tt_status s = tt_config_status(c, e);
    if (!s && (buckets != 32 || far != 128))
        s = tt_fail(e, TT_EUNSUP, "config key 'relative_attention_num_buckets': only 32 buckets up "
                    "to a distance of 128 are supported");
    if (!s && strcmp(act, "gated-gelu"))
        s = tt_fail(e, TT_EUNSUP, "config key 'feed_forward_proj' is '%.40s'; only 'gated-gelu' is "
                    "supported", act);
    return s;
}

static tt_status open_all(tt_t5 *t, const tt_weights *w, tt_err *e)
{
    static const char *const table[] = {"shared.weight"};
    tt_status s = matrix(t, &t->table, w, table, 1, t->info.vocab, t->info.width, TT_MATRIX_TABLE,
                         e);
    if (!s)
        s = vector(t, &t->norm, w, "encoder.final_layer_norm.weight", t->info.width, e);
    if (!s)
        s = open_bias(t, w, e);
    for (int64_t i = 0; i < t->info.layers && !s; i++)
        s = open_layer(t, w, i, e);
    return s;
}

tt_status tt_t5_open(tt_t5 **out, tt_stream *stream, const tt_weights *w, tt_config *c,
                     tt_weights_mode mode, tt_err *e)
{
    const tt_backend *op = &stream->op;
    *out = NULL;
    tt_t5 *t = calloc(1, sizeof *t);
    if (!t)
        return tt_fail(e, TT_ENOMEM, "no memory for a text encoder");
    t->stream = stream;
    tt_status s = read_config(t, c, e);
    if (!s && !(op->attention_biased && op->multiply && op->gelu))
        s = tt_fail(e, TT_EUNSUP, "device '%s' has no operation attention_biased, multiply or gelu",
                    op->name);
    if (!s && !(t->layer = calloc((size_t)t->info.layers, sizeof *t->layer)))
        s = tt_fail(e, TT_ENOMEM, "no memory for %lld layers", (long long)t->info.layers);
    tt_weight first;
    if (!s)
        s = tt_weights_matrix(w, "shared.weight", t->info.vocab, t->info.width, &first, e);
    if (!s) {
        bool narrow = mode == TT_WEIGHTS_BF16 ||
                      (mode == TT_WEIGHTS_AUTO && first.data.dtype != TT_F32 &&
                       op->has_compute(stream, TT_COMPUTE_BF16));
        t->compute = narrow ? TT_COMPUTE_BF16 : TT_COMPUTE_F32;
        t->type = op->act_type ? op->act_type(stream, t->compute) : TT_F32;
        s = open_all(t, w, e);
    }
    t->info.parameters = tt_weights_elements(w);
    if (s) {
        tt_t5_close(t);
        return tt_context(e, s, "T5 encoder");
    }
    *out = t;
    return TT_OK;
}

void tt_t5_close(tt_t5 *t)
{
    if (!t)
        return;
    tt_stream *s = t->stream;
    for (int64_t i = 0; t->layer && i < t->info.layers; i++) {
        tt_matrix *m[] = {t->layer[i].qkv, t->layer[i].out, t->layer[i].gate, t->layer[i].up,
                          t->layer[i].down};
        for (int j = 0; j < 5; j++)
            s->op.matrix_close(s, m[j]);
        s->op.release(s, t->layer[i].norm1);
        s->op.release(s, t->layer[i].norm2);
    }
    s->op.matrix_close(s, t->table);
    s->op.release(s, t->norm);
    s->op.release(s, t->bias);
    free(t->layer);
    free(t);
}

const tt_t5_info *tt_t5_about(const tt_t5 *t)
{
    return &t->info;
}

/* --- running --- */

/* Some texts at once; device memory. */
typedef struct {
    const int32_t *length, *seen;
    int64_t texts, rows;
    void *ids, *x, *h, *qkv, *att, *gate, *up;
} job;

static tt_status take(tt_t5 *t, job *j, tt_err *e)
{
    tt_stream *s = t->stream;
    size_t size = tt_dtype_size(t->type), rows = (size_t)j->rows;
    size_t in = (size_t)(t->info.heads * t->head_dim), d = (size_t)t->info.width;
    void **part[] = {&j->ids, &j->x, &j->h, &j->qkv, &j->att, &j->gate, &j->up};
    const size_t bytes[] = {rows * sizeof(int32_t), rows * d * size, rows * d * size,
                            rows * 3 * in * size, rows * in * size, rows * (size_t)t->ff * size,
                            rows * (size_t)t->ff * size};
    tt_status st = TT_OK;
    for (int i = 0; i < 7 && !st; i++)
        st = s->op.alloc(s, part[i], bytes[i], e);
    return st;
}

static void give(tt_t5 *t, job *j)
{
    void *part[] = {j->ids, j->x, j->h, j->qkv, j->att, j->gate, j->up};
    for (int i = 0; i < 7; i++)
        t->stream->op.release(t->stream, part[i]);
}

static tt_status attend(tt_t5 *t, job *j, tt_err *e)
{
    tt_stream *s = t->stream;
    int64_t in = t->info.heads * t->head_dim, row = 0, size = (int64_t)tt_dtype_size(t->type);
    tt_biased_span span[TEXTS];
    for (int64_t i = 0; i < j->texts; i++) {
        char *k = (char *)j->qkv + (row * 3 + 1) * in * size;
        span[i] = (tt_biased_span){.query_row = row,
                                   .query_rows = j->length[i],
                                   .k = k,
                                   .v = k + in * size,
                                   .ld_kv = 3 * in,
                                   .keys = j->seen ? j->seen[i] : j->length[i],
                                   .bias = t->bias + LONGEST - 1,
                                   .bias_head = 2 * LONGEST - 1,
                                   .bias_query = -1,
                                   .bias_key = 1};
        row += j->length[i];
    }
    return s->op.attention_biased(s, j->att, in, j->qkv, 3 * in, span, j->texts, t->info.heads,
                                  t->head_dim, 1, t->compute, e);
}

static tt_status run_layer(tt_t5 *t, job *j, const layer *l, tt_err *e)
{
    tt_stream *s = t->stream;
    int64_t d = t->info.width, in = t->info.heads * t->head_dim, ff = t->ff, n = j->rows;
    tt_status st = s->op.rmsnorm(s, j->h, d, j->x, d, l->norm1, n, d, t->eps, e);
    if (!st)
        st = s->op.linear(s, j->qkv, 3 * in, j->h, d, n, l->qkv, false, e);
    if (!st)
        st = attend(t, j, e);
    if (!st)
        st = s->op.linear(s, j->x, d, j->att, in, n, l->out, true, e);
    if (!st)
        st = s->op.rmsnorm(s, j->h, d, j->x, d, l->norm2, n, d, t->eps, e);
    if (!st)
        st = s->op.linear(s, j->gate, ff, j->h, d, n, l->gate, false, e);
    if (!st)
        st = s->op.gelu(s, j->gate, ff, j->gate, ff, n, ff, e);
    if (!st)
        st = s->op.linear(s, j->up, ff, j->h, d, n, l->up, false, e);
    if (!st)
        st = s->op.multiply(s, j->gate, ff, j->up, ff, n, ff, e);
    return st ? st : s->op.linear(s, j->x, d, j->gate, ff, n, l->down, true, e);
}

static tt_status get(tt_t5 *t, float *host, const tt_act *from, int64_t n, tt_err *e)
{
    tt_stream *s = t->stream;
    tt_status st = s->op.download(s, host, from, (size_t)n * tt_dtype_size(t->type), e);
    if (!st)
        st = s->op.sync(s, e);
    if (!st)
        tt_acts_widen(host, t->type, n);
    return st;
}

static tt_status encode_some(tt_t5 *t, job *j, float *row, const int32_t *id, tt_err *e)
{
    tt_stream *s = t->stream;
    int64_t d = t->info.width;
    s->act = t->type;
    tt_status st = take(t, j, e);
    if (!st)
        st = s->op.upload(s, j->ids, id, (size_t)j->rows * sizeof *id, e);
    if (!st)
        st = s->op.embed(s, j->x, d, t->table, j->ids, j->rows, e);
    for (int64_t i = 0; i < t->info.layers && !st; i++)
        st = run_layer(t, j, &t->layer[i], e);
    if (!st)
        st = s->op.rmsnorm(s, j->h, d, j->x, d, t->norm, j->rows, d, t->eps, e);
    if (!st)
        st = get(t, row, j->h, j->rows * d, e);
    give(t, j);
    return st;
}

tt_status tt_t5_encode(tt_t5 *t, float *row, const int32_t *id, const int32_t *length,
                       const int32_t *seen, int64_t texts, tt_err *e)
{
    for (int64_t i = 0, at = 0; i < texts; at += length[i++]) {
        if (length[i] < 1 || length[i] > LONGEST || (seen && (seen[i] < 1 || seen[i] > length[i])))
            return tt_fail(e, TT_EINVAL, "text %lld has %d ids; 1 to %d are possible",
                           (long long)i, length[i], LONGEST);
        for (int32_t k = 0; k < length[i]; k++)
            if (id[at + k] < 0 || id[at + k] >= t->info.vocab)
                return tt_fail(e, TT_EINVAL, "text %lld: id %d is outside the vocabulary of %d",
                               (long long)i, id[at + k], t->info.vocab);
    }
    tt_status s = TT_OK;
    for (int64_t i = 0; i < texts && !s; i += TEXTS) {
        job j = {.length = length + i, .seen = seen ? seen + i : NULL,
                 .texts = texts - i < TEXTS ? texts - i : TEXTS};
        for (int64_t k = 0; k < j.texts; k++)
            j.rows += j.length[k];
        s = encode_some(t, &j, row, id, e);
        row += j.rows * t->info.width;
        id += j.rows;
    }
    return s;
}
