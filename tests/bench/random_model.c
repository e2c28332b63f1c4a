/* random_model.c - see random_model.h. */
#include "tests/bench/random_model.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "kernels/base/buf.h"
#include "kernels/base/rng.h"

typedef struct {
    tt_buf header;
    int64_t at; /* elements so far */
} writer;

static void tensor(writer *w, const char *name, int64_t a, int64_t b)
{
    int64_t n = b ? a * b : a;
    tt_buf_printf(&w->header, "%s\"model.transformer.%s.weight\":{\"dtype\":\"BF16\",\"shape\":[",
                  w->at ? "," : "{", name);
    if (b)
        tt_buf_printf(&w->header, "%lld,%lld", (long long)a, (long long)b);
    else
        tt_buf_printf(&w->header, "%lld", (long long)a);
    tt_buf_printf(&w->header, "],\"data_offsets\":[%lld,%lld]}", (long long)w->at * 2,
                  (long long)(w->at + n) * 2);
    w->at += n;
}

static void describe(writer *w, tt_random_shape s)
{
    tensor(w, "wte", s.vocab, s.width);
    for (int64_t i = 0; i < s.layers; i++) {
        static const char *const square[] = {"q_proj", "k_proj", "v_proj", "attn_out"};
        char name[64];
        for (int k = 0; k < 4; k++) {
            snprintf(name, sizeof name, "blocks.%lld.%s", (long long)i, square[k]);
            tensor(w, name, s.width, s.width);
        }
        snprintf(name, sizeof name, "blocks.%lld.ff_proj", (long long)i);
        tensor(w, name, s.ff, s.width);
        snprintf(name, sizeof name, "blocks.%lld.up_proj", (long long)i);
        tensor(w, name, s.ff, s.width);
        snprintf(name, sizeof name, "blocks.%lld.ff_out", (long long)i);
        tensor(w, name, s.width, s.ff);
        snprintf(name, sizeof name, "blocks.%lld.attn_norm", (long long)i);
        tensor(w, name, s.width, 0);
        snprintf(name, sizeof name, "blocks.%lld.ff_norm", (long long)i);
        tensor(w, name, s.width, 0);
    }
    tensor(w, "ln_f", s.width, 0);
    tt_buf_putc(&w->header, '}');
    while (w->header.size % 8) /* data behind it must be aligned */
        tt_buf_putc(&w->header, ' ');
}

/* Uniform in +-0.06, which keeps activations near one at these widths. */
static void fill(uint16_t *p, int64_t n)
{
    for (int64_t i = 0; i < n; i += 4) {
        tt_rng_block b = tt_philox(1, (uint32_t)(i >> 2), (uint32_t)(i >> 34), 0, 0);
        for (int64_t k = 0; k < 4 && i + k < n; k++)
            p[i + k] = tt_f32_to_bf16((tt_uniform(b.v[k]) - 0.5f) * 0.12f);
    }
}

static void *make_image(tt_random_shape s, size_t *size)
{
    writer w = {0};
    describe(&w, s);
    size_t n = w.header.size;
    *size = 8 + n + (size_t)w.at * 2;
    unsigned char *image = malloc(*size);
    if (image && !w.header.failed) {
        for (int i = 0; i < 8; i++)
            image[i] = (unsigned char)(n >> (8 * i));
        memcpy(image + 8, w.header.data, n);
        fill((uint16_t *)(void *)(image + 8 + n), w.at);
    }
    tt_buf_free(&w.header);
    return image;
}

tt_status tt_random_model_open(tt_random_model *out, tt_stream *s, tt_random_shape shape,
                               tt_weights_mode mode, tt_err *e)
{
    *out = (tt_random_model){0};
    size_t size;
    char text[512];
    int n = snprintf(text, sizeof text,
                     "{\"architectures\":[\"LLaDAModelLM\"],\"d_model\":%lld,\"n_layers\":%lld,"
                     "\"n_heads\":%lld,\"mlp_hidden_size\":%lld,\"vocab_size\":%lld,"
                     "\"max_sequence_length\":%lld,\"mask_token_id\":1,\"eos_token_id\":0,"
                     "\"weight_tying\":true}",
                     (long long)shape.width, (long long)shape.layers, (long long)shape.heads,
                     (long long)shape.ff, (long long)shape.vocab, (long long)shape.context);
    out->image = make_image(shape, &size);
    if (!out->image)
        return tt_fail(e, TT_ENOMEM, "no memory for a random model");
    tt_status st = tt_weights_open_memory(&out->weights, out->image, size, e);
    if (!st)
        st = tt_config_open_text(&out->config, text, (size_t)n, e);
    if (!st)
        st = tt_model_find("LLaDAModelLM")->open(&out->model, s, out->weights, out->config, mode,
                                                 NULL, NULL, e);
    if (st)
        tt_random_model_close(out);
    return st;
}

void tt_random_model_close(tt_random_model *m)
{
    tt_model_close(m->model);
    tt_weights_close(m->weights);
    tt_config_close(m->config);
    free(m->image);
    *m = (tt_random_model){0};
}
