/* Causal families (Llama 3, Qwen2, Qwen3) against a plain double-precision forward written here.
 *
 * What can go wrong: rotary scaling in the wrong band, heads sharing the wrong keys, norms of heads
 * left out or misplaced, biases or a tied head not found, scaling kinds passed over. */
#include <math.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include <cmocka.h>

#include "kernels/base/buf.h"
#include "models/nn/trunk_model.h"

enum { D = 24, LAYERS = 2, HEADS = 4, KV = 2, HD = 6, FF = 40, VOCAB = 31, ROWS = 9, TENSORS = 64 };

/* --- a checkpoint in memory --- */

typedef struct {
    char name[80];
    int64_t n, k; /* k 0: a vector */
    float *data;  /* in the image */
} tensor;

typedef struct {
    tensor list[TENSORS];
    int tensors;
    unsigned char *image;
    size_t size;
} checkpoint;

static void add(checkpoint *c, const char *name, int64_t n, int64_t k)
{
    tensor *t = &c->list[c->tensors++];
    snprintf(t->name, sizeof t->name, "%s", name);
    t->n = n;
    t->k = k;
}

static void add_layer(checkpoint *c, int i, const char *suffix, int64_t n, int64_t k)
{
    char name[80];
    snprintf(name, sizeof name, "model.layers.%d.%s", i, suffix);
    add(c, name, n, k);
}

static void describe(checkpoint *c, bool bias, bool head_norms, bool tied)
{
    add(c, "model.embed_tokens.weight", VOCAB, D);
    for (int i = 0; i < LAYERS; i++) {
        add_layer(c, i, "input_layernorm.weight", D, 0);
        add_layer(c, i, "self_attn.q_proj.weight", HEADS * HD, D);
        add_layer(c, i, "self_attn.k_proj.weight", KV * HD, D);
        add_layer(c, i, "self_attn.v_proj.weight", KV * HD, D);
        if (bias) {
            add_layer(c, i, "self_attn.q_proj.bias", HEADS * HD, 0);
            add_layer(c, i, "self_attn.k_proj.bias", KV * HD, 0);
            add_layer(c, i, "self_attn.v_proj.bias", KV * HD, 0);
        }
        if (head_norms) {
            add_layer(c, i, "self_attn.q_norm.weight", HD, 0);
            add_layer(c, i, "self_attn.k_norm.weight", HD, 0);
        }
        add_layer(c, i, "self_attn.o_proj.weight", D, HEADS * HD);
        add_layer(c, i, "post_attention_layernorm.weight", D, 0);
        add_layer(c, i, "mlp.gate_proj.weight", FF, D);
        add_layer(c, i, "mlp.up_proj.weight", FF, D);
        add_layer(c, i, "mlp.down_proj.weight", D, FF);
    }
    add(c, "model.norm.weight", D, 0);
    if (!tied)
        add(c, "lm_head.weight", VOCAB, D);
}

static float random_number(uint64_t *state)
{
    uint64_t z = *state += 0x9E3779B97F4A7C15u;
    z = (z ^ z >> 30) * 0xBF58476D1CE4E5B9u;
    return (float)((z ^ z >> 27) >> 40) * 0x1p-24f - 0.5f;
}

static void write_image(checkpoint *c)
{
    tt_buf header = {0};
    size_t at = 0;
    for (int i = 0; i < c->tensors; i++) {
        tensor *t = &c->list[i];
        size_t bytes = (size_t)(t->n * (t->k ? t->k : 1)) * sizeof(float);
        tt_buf_printf(&header, "%s\"%s\":{\"dtype\":\"F32\",\"shape\":[%lld", i ? "," : "{",
                      t->name, (long long)t->n);
        if (t->k)
            tt_buf_printf(&header, ",%lld", (long long)t->k);
        tt_buf_printf(&header, "],\"data_offsets\":[%zu,%zu]}", at, at + bytes);
        at += bytes;
    }
    tt_buf_putc(&header, '}');
    while (header.size % 8)
        tt_buf_putc(&header, ' ');
    c->size = 8 + header.size + at;
    c->image = malloc(c->size);
    assert_non_null(c->image);
    for (int i = 0; i < 8; i++)
        c->image[i] = (unsigned char)(header.size >> (8 * i));
    memcpy(c->image + 8, header.data, header.size);
    float *data = (float *)(void *)(c->image + 8 + header.size);
    uint64_t state = 7;
    for (int i = 0; i < c->tensors; i++) {
        tensor *t = &c->list[i];
        t->data = data;
        for (int64_t j = 0; j < t->n * (t->k ? t->k : 1); j++)
            *data++ = t->k ? random_number(&state) : 1 + random_number(&state);
    }
    tt_buf_free(&header);
}

static const float *find(const checkpoint *c, int layer, const char *name)
{
    char full[80];
    snprintf(full, sizeof full, "model.layers.%d.%s", layer, name);
    for (int i = 0; i < c->tensors; i++)
        if (!strcmp(c->list[i].name, layer < 0 ? name : full))
            return c->list[i].data;
    return NULL;
}

/* --- the reference --- */

static void norm(double *y, const double *x, const float *w, int n)
{
    double sum = 0;
    for (int i = 0; i < n; i++)
        sum += x[i] * x[i];
    double inv = 1 / sqrt(sum / n + 1e-6);
    for (int i = 0; i < n; i++)
        y[i] = w[i] * x[i] * inv;
}

static void times(double *y, const double *x, const float *w, const float *bias, int n, int k)
{
    for (int j = 0; j < n; j++) {
        y[j] = bias ? bias[j] : 0;
        for (int i = 0; i < k; i++)
            y[j] += w[j * k + i] * x[i];
    }
}

/* Scaling as in Llama 3.1's description, from the wavelength; scaled: factor 8, 1, 4, original 16.
 */
static double frequency(int i, bool scaled)
{
    double f = pow(10000, -2.0 * i / HD), wave = 2 * acos(-1) / f;
    if (!scaled || wave < 16.0 / 4)
        return f;
    if (wave > 16.0 / 1)
        return f / 8;
    double smooth = (16.0 / wave - 1) / (4 - 1);
    return (1 - smooth) * (f / 8) + smooth * f;
}

static void rotate(double *head, int position, bool scaled)
{
    for (int i = 0; i < HD / 2; i++) {
        double a = position * frequency(i, scaled), x = head[i], y = head[i + HD / 2];
        head[i] = x * cos(a) - y * sin(a);
        head[i + HD / 2] = y * cos(a) + x * sin(a);
    }
}

typedef struct {
    double q[HEADS * HD], k[KV * HD], v[KV * HD];
} projected;

static void attend(double *out, const projected *p, int row, int end)
{
    for (int h = 0; h < HEADS; h++) {
        int kv = h / (HEADS / KV);
        double weight[ROWS], sum = 0;
        for (int c = 0; c < end; c++) {
            double dot = 0;
            for (int i = 0; i < HD; i++)
                dot += p[row].q[h * HD + i] * p[c].k[kv * HD + i];
            sum += weight[c] = exp(dot / sqrt(HD));
        }
        for (int i = 0; i < HD; i++) {
            out[h * HD + i] = 0;
            for (int c = 0; c < end; c++)
                out[h * HD + i] += weight[c] / sum * p[c].v[kv * HD + i];
        }
    }
}

static void reference_layer(const checkpoint *c, int l, double x[ROWS][D], bool scaled, int block)
{
    projected p[ROWS];
    double h[D], att[HEADS * HD], y[D], gate[FF], up[FF];
    const float *q_norm = find(c, l, "self_attn.q_norm.weight");
    const float *k_norm = find(c, l, "self_attn.k_norm.weight");
    for (int r = 0; r < ROWS; r++) {
        norm(h, x[r], find(c, l, "input_layernorm.weight"), D);
        times(p[r].q, h, find(c, l, "self_attn.q_proj.weight"), find(c, l, "self_attn.q_proj.bias"),
              HEADS * HD, D);
        times(p[r].k, h, find(c, l, "self_attn.k_proj.weight"), find(c, l, "self_attn.k_proj.bias"),
              KV * HD, D);
        times(p[r].v, h, find(c, l, "self_attn.v_proj.weight"), find(c, l, "self_attn.v_proj.bias"),
              KV * HD, D);
        for (int i = 0; i < HEADS; i++) {
            if (q_norm)
                norm(p[r].q + i * HD, p[r].q + i * HD, q_norm, HD);
            rotate(p[r].q + i * HD, r, scaled);
        }
        for (int i = 0; i < KV; i++) {
            if (k_norm)
                norm(p[r].k + i * HD, p[r].k + i * HD, k_norm, HD);
            rotate(p[r].k + i * HD, r, scaled);
        }
    }
    for (int r = 0; r < ROWS; r++) {
        int end = block ? (r / block + 1) * block : r + 1; /* of what the row sees */
        attend(att, p, r, end < ROWS ? end : ROWS);
        times(y, att, find(c, l, "self_attn.o_proj.weight"), NULL, D, HEADS * HD);
        for (int i = 0; i < D; i++)
            x[r][i] += y[i];
        norm(h, x[r], find(c, l, "post_attention_layernorm.weight"), D);
        times(gate, h, find(c, l, "mlp.gate_proj.weight"), NULL, FF, D);
        times(up, h, find(c, l, "mlp.up_proj.weight"), NULL, FF, D);
        for (int i = 0; i < FF; i++)
            up[i] *= gate[i] / (1 + exp(-gate[i]));
        times(y, up, find(c, l, "mlp.down_proj.weight"), NULL, D, FF);
        for (int i = 0; i < D; i++)
            x[r][i] += y[i];
    }
}

static void reference(const checkpoint *c, const int32_t *id, bool scaled, int block,
                      double *logits)
{
    double x[ROWS][D], h[D];
    const float *table = find(c, -1, "model.embed_tokens.weight");
    const float *head = find(c, -1, "lm_head.weight");
    for (int r = 0; r < ROWS; r++)
        for (int i = 0; i < D; i++)
            x[r][i] = table[id[r] * D + i];
    for (int l = 0; l < LAYERS; l++)
        reference_layer(c, l, x, scaled, block);
    for (int r = 0; r < ROWS; r++) {
        norm(h, x[r], find(c, -1, "model.norm.weight"), D);
        times(logits + r * VOCAB, h, head ? head : table, NULL, VOCAB, D);
    }
}

/* --- comparing --- */

typedef struct {
    const char *architecture;
    bool bias, head_norms, tied, scaled;
    int block; /* 0: causal */
} variant;

static void config_of(const variant *v, const char *scaling, char *text, size_t size)
{
    snprintf(text, size,
             "{\"architectures\":[\"%s\"],\"hidden_size\":%d,\"num_hidden_layers\":%d,"
             "\"num_attention_heads\":%d,\"num_key_value_heads\":%d,\"head_dim\":%d,"
             "\"intermediate_size\":%d,\"vocab_size\":%d,\"rms_norm_eps\":1e-6,"
             "\"rope_theta\":10000,\"tie_word_embeddings\":%s,\"rope_scaling\":%s,"
             "\"eos_token_id\":[3,4],\"max_position_embeddings\":64}",
             v->architecture, D, LAYERS, HEADS, KV, HD, FF, VOCAB, v->tied ? "true" : "false",
             scaling);
}

#define LLAMA3                                                                             \
    "{\"rope_type\":\"llama3\",\"factor\":8,\"low_freq_factor\":1,\"high_freq_factor\":4," \
    "\"original_max_position_embeddings\":16}"

static tt_status open_model(const variant *v, const char *scaling, const checkpoint *c,
                            tt_stream *s, tt_weights **weights, tt_config **config, tt_model **m,
                            tt_err *e)
{
    char text[1024];
    config_of(v, scaling, text, sizeof text);
    assert_int_equal(tt_weights_open_memory(weights, c->image, c->size, e), TT_OK);
    assert_int_equal(tt_config_open_text(config, text, strlen(text), e), TT_OK);
    return tt_model_find(v->architecture)
        ->open(m, s, *weights, *config, TT_WEIGHTS_F32, NULL, NULL, e);
}

static void forward_equals_the_reference(void **state)
{
    (void)state;
    static const variant variants[] = {
        {"LlamaForCausalLM", false, false, true, true, 0},
        {"LlamaForCausalLM", false, false, false, false, 0},
        {"Qwen2ForCausalLM", true, false, true, false, 0},
        {"Qwen3ForCausalLM", false, true, false, false, 0},
        {"SDARForCausalLM", false, true, false, false, 4},
    };
    tt_stream *s;
    tt_err e = {0};
    assert_int_equal(tt_stream_open(&s, "plain", 1, &e), TT_OK);
    for (size_t k = 0; k < sizeof variants / sizeof *variants; k++) {
        const variant *v = &variants[k];
        static checkpoint c;
        c = (checkpoint){0};
        describe(&c, v->bias, v->head_norms, v->tied);
        write_image(&c);
        tt_weights *w;
        tt_config *config;
        tt_model *m;
        if (open_model(v, v->scaled ? LLAMA3 : "null", &c, s, &w, &config, &m, &e))
            fail_msg("%s: %s", v->architecture, e.text);
        assert_int_equal(m->info.eos_id, 3);
        assert_int_equal(m->info.block_length, v->block);
        int32_t id[ROWS], column[ROWS];
        tt_want want[ROWS];
        tt_row_stats stats[ROWS];
        float have[ROWS * VOCAB];
        double expected[ROWS * VOCAB], off = 0, size = 0;
        for (int i = 0; i < ROWS; i++) {
            id[i] = i * 7 % VOCAB;
            column[i] = i;
            want[i] = (tt_want){.row = i, .uncond = -1, .draw = {.top_p = 1, .target = -1}};
        }
        tt_pass_seq seq = {.rows = ROWS, .see_end = ROWS,
                           .see = v->block ? TT_SEE_BLOCK : TT_SEE_CAUSAL,
                           .block = v->block};
        tt_pass pass = {.rows = ROWS,
                        .id = id,
                        .position = column,
                        .column = column,
                        .seqs = 1,
                        .seq = &seq,
                        .wants = ROWS,
                        .want = want,
                        .stats = stats,
                        .logits = have};
        assert_int_equal(tt_model_run(m, &pass, &e), TT_OK);
        reference(&c, id, v->scaled, v->block, expected);
        for (int i = 0; i < ROWS * VOCAB; i++) {
            off += (have[i] - expected[i]) * (have[i] - expected[i]);
            size += expected[i] * expected[i];
        }
        if (!(sqrt(off / size) < 1e-5))
            fail_msg("%s (variant %zu): relative error %g", v->architecture, k, sqrt(off / size));
        tt_model_close(m);
        tt_config_close(config);
        tt_weights_close(w);
        free(c.image);
    }
    tt_stream_close(s);
}

/* Llama 3.1's own numbers: 64 frequencies of theta 5e5, factor 8, 1, 4, 8192. */
static void scaled_frequencies_fall_into_three_bands(void **state)
{
    (void)state;
    const tt_rotary plain = {.theta = 5e5, .width = 128};
    const tt_rotary scaled = {
        .theta = 5e5, .width = 128, .factor = 8, .low = 1, .high = 4, .original = 8192};
    int kept = 0, between = 0, divided = 0;
    double last = 2;
    for (int i = 0; i < 64; i++) {
        double f = tt_rotary_frequency(&plain, i), g = tt_rotary_frequency(&scaled, i);
        double wave = 2 * acos(-1) / f;
        assert_true(f == pow(5e5, -2.0 * i / 128));
        if (wave < 8192.0 / 4) {
            assert_true(g == f);
            kept++;
        } else if (wave > 8192) {
            assert_true(g == f / 8);
            divided++;
        } else {
            assert_true(g < f && g > f / 8);
            between++;
        }
        assert_true(g < last);
        last = g;
    }
    assert_int_equal(kept, 29);
    assert_int_equal(between, 6);
    assert_int_equal(divided, 29);
}

static void unknown_or_broken_scaling_is_refused(void **state)
{
    (void)state;
    static const struct {
        const char *scaling, *says;
        tt_status status;
    } bad[] = {
        {"{\"rope_type\":\"yarn\",\"factor\":4}", "yarn", TT_EUNSUP},
        {"{\"type\":\"linear\",\"factor\":4}", "linear", TT_EUNSUP},
        {"{}", "rope_type", TT_EUNSUP},
        {"7", "rope_scaling", TT_EFORMAT},
        {"{\"rope_type\":\"llama3\"}", "rope_scaling.factor", TT_EFORMAT},
        {"{\"rope_type\":\"llama3\",\"factor\":0,\"low_freq_factor\":1,\"high_freq_factor\":4,"
         "\"original_max_position_embeddings\":16}",
         "rope_scaling.factor", TT_EFORMAT},
        {"{\"rope_type\":\"llama3\",\"factor\":8,\"low_freq_factor\":4,\"high_freq_factor\":4,"
         "\"original_max_position_embeddings\":16}",
         "low_freq_factor", TT_EFORMAT},
        {"{\"rope_type\":\"llama3\",\"factor\":8,\"low_freq_factor\":1,\"high_freq_factor\":4,"
         "\"original_max_position_embeddings\":\"x\"}",
         "original_max", TT_EFORMAT},
    };
    const variant v = {"LlamaForCausalLM", false, false, true, false, 0};
    static checkpoint c;
    tt_stream *s;
    tt_err e = {0};
    describe(&c, false, false, true);
    write_image(&c);
    assert_int_equal(tt_stream_open(&s, "plain", 1, &e), TT_OK);
    for (size_t i = 0; i < sizeof bad / sizeof *bad; i++) {
        tt_weights *w;
        tt_config *config;
        tt_model *m = NULL;
        tt_status st = open_model(&v, bad[i].scaling, &c, s, &w, &config, &m, &e);
        if (st != bad[i].status || !strstr(e.text, bad[i].says))
            fail_msg("%s: status %d, \"%s\"", bad[i].scaling, st, e.text);
        tt_model_close(m);
        tt_config_close(config);
        tt_weights_close(w);
    }
    tt_stream_close(s);
    free(c.image);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(forward_equals_the_reference),
        cmocka_unit_test(scaled_frequencies_fall_into_three_bands),
        cmocka_unit_test(unknown_or_broken_scaling_is_refused),
    };
    return cmocka_run_group_tests_name("causal", tests, NULL, NULL);
}
