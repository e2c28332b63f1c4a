/* decider.c - see decider.h. */
#include "models/decider.h"

#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#define PREFIX "exit_decider."

typedef struct {
    float *weight, *bias; /* [n, k], [n]; k 0: a norm's, [n] each */
    int64_t n, k;
} layer;

typedef struct {
    layer norm, up, down;
} block;

struct tt_decider {
    int64_t width;
    layer logits, input, middle, norm, output;
    block *block;
    int blocks;
};

bool tt_decider_in(const tt_weights *w)
{
    return tt_weights_has(w, PREFIX "input.weight");
}

static tt_status read_floats(float **out, const tt_weights *w, const char *name, int rank,
                             const int64_t *dim, tt_tensor *t, tt_err *e)
{
    tt_status s = tt_weights_get(w, name, rank, dim, t, e);
    if (s)
        return s;
    int64_t n = tt_tensor_count(t);
    *out = malloc((size_t)n * sizeof **out + 1);
    if (!*out)
        return tt_fail(e, TT_ENOMEM, "no memory for tensor '%.80s'", name);
    s = tt_to_f32(*out, t, 0, n, e);
    return s ? tt_context(e, s, "tensor '%.80s'", name) : TT_OK;
}

/* n, k: -1 for any; k 0: a norm. */
static tt_status read_layer(layer *l, const tt_weights *w, const char *part, int64_t n, int64_t k,
                            tt_err *e)
{
    char name[120];
    tt_tensor t;
    snprintf(name, sizeof name, PREFIX "%s.weight", part);
    tt_status s = read_floats(&l->weight, w, name, k ? 2 : 1, (int64_t[]){n, k}, &t, e);
    if (s)
        return s;
    l->n = t.dim[0];
    l->k = k ? t.dim[1] : 0;
    snprintf(name, sizeof name, PREFIX "%s.bias", part);
    return read_floats(&l->bias, w, name, 1, &l->n, &t, e);
}

static tt_status read_block(block *b, const tt_weights *w, int i, int64_t width, tt_err *e)
{
    char part[40];
    snprintf(part, sizeof part, "blocks.%d.norm", i);
    tt_status s = read_layer(&b->norm, w, part, width, 0, e);
    snprintf(part, sizeof part, "blocks.%d.up", i);
    if (!s)
        s = read_layer(&b->up, w, part, -1, width, e);
    snprintf(part, sizeof part, "blocks.%d.down", i);
    return s ? s : read_layer(&b->down, w, part, width, b->up.n, e);
}

static int count_blocks(const tt_weights *w)
{
    char name[60];
    int n = 0;
    do
        snprintf(name, sizeof name, PREFIX "blocks.%d.up.weight", n);
    while (tt_weights_has(w, name) && ++n < 1000);
    return n;
}

tt_status tt_decider_open(tt_decider **out, const tt_weights *w, int64_t width, tt_err *e)
{
    *out = NULL;
    tt_decider *d = calloc(1, sizeof *d);
    if (!d)
        return tt_fail(e, TT_ENOMEM, "no memory for an exit decider");
    d->width = width;
    tt_status s = read_layer(&d->input, w, "input", -1, 2 * width, e);
    int64_t inner = d->input.n;
    if (!s)
        s = read_layer(&d->logits, w, "logits", width, -1, e);
    if (!s)
        s = read_layer(&d->middle, w, "middle", inner, inner, e);
    if (!s)
        s = read_layer(&d->norm, w, "norm", inner, 0, e);
    if (!s)
        s = read_layer(&d->output, w, "output", 1, inner, e);
    d->blocks = s ? 0 : count_blocks(w);
    d->block = calloc((size_t)d->blocks + 1, sizeof *d->block);
    if (!s && !d->block)
        s = tt_fail(e, TT_ENOMEM, "no memory for an exit decider");
    for (int i = 0; i < d->blocks && !s; i++)
        s = read_block(&d->block[i], w, i, inner, e);
    if (s)
        tt_decider_close(d);
    else
        *out = d;
    return s;
}

static void free_layer(layer *l)
{
    free(l->weight);
    free(l->bias);
}

void tt_decider_close(tt_decider *d)
{
    if (!d)
        return;
    for (int i = 0; d->block && i < d->blocks; i++) {
        free_layer(&d->block[i].norm);
        free_layer(&d->block[i].up);
        free_layer(&d->block[i].down);
    }
    free(d->block);
    free_layer(&d->logits);
    free_layer(&d->input);
    free_layer(&d->middle);
    free_layer(&d->norm);
    free_layer(&d->output);
    free(d);
}

static void linear(const layer *l, double *y, const double *x)
{
    for (int64_t j = 0; j < l->n; j++) {
        double sum = l->bias[j];
        for (int64_t i = 0; i < l->k; i++)
            sum += l->weight[j * l->k + i] * x[i];
        y[j] = sum;
    }
}

static void normalise(const layer *l, double *y, const double *x)
{
    double mean = 0, variance = 0;
    for (int64_t i = 0; i < l->n; i++)
        mean += x[i] / (double)l->n;
    for (int64_t i = 0; i < l->n; i++)
        variance += (x[i] - mean) * (x[i] - mean) / (double)l->n;
    for (int64_t i = 0; i < l->n; i++)
        y[i] = (x[i] - mean) / sqrt(variance + 1e-5) * l->weight[i] + l->bias[i];
}

/* The k largest of n, falling; zeros behind n. */
static void largest(double *top, int64_t k, const float *x, int64_t n)
{
    int64_t have = 0;
    for (int64_t i = 0; i < n; i++) {
        if (have == k && !(x[i] > top[k - 1]))
            continue;
        int64_t at = have < k ? have++ : k - 1;
        for (; at > 0 && top[at - 1] < x[i]; at--)
            top[at] = top[at - 1];
        top[at] = x[i];
    }
    for (; have < k; have++)
        top[have] = 0;
}

double tt_decider_continue(const tt_decider *d, const float *latent, const float *logits,
                           int64_t vocab)
{
    int64_t wide = 2 * d->width + d->logits.k, inner = d->input.n;
    int64_t most = wide > inner ? wide : inner;
    for (int i = 0; i < d->blocks; i++)
        most = d->block[i].up.n > most ? d->block[i].up.n : most;
    double *room = malloc(4 * (size_t)most * sizeof *room), out = 0;
    if (!room)
        return 0;
    double *x = room, *h = x + most, *u = h + most, *top = u + most;
    largest(top, d->logits.k, logits, vocab);
    for (int64_t i = 0; i < d->width; i++)
        h[i] = latent[i];
    linear(&d->logits, h + d->width, top);
    linear(&d->input, u, h);
    linear(&d->middle, x, u);
    for (int b = 0; b < d->blocks; b++) {
        const block *l = &d->block[b];
        normalise(&l->norm, h, x);
        linear(&l->up, u, h);
        for (int64_t i = 0; i < l->up.n; i++)
            u[i] = 0.5 * u[i] * (1 + erf(u[i] * 0.70710678118654752));
        linear(&l->down, h, u);
        for (int64_t i = 0; i < inner; i++)
            x[i] += h[i];
    }
    normalise(&d->norm, h, x);
    linear(&d->output, &out, h);
    free(room);
    return 1 / (1 + exp(-out));
}
