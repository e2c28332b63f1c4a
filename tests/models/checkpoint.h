/* checkpoint.h - a checkpoint of random numbers made in memory, for tests that compute a model's
 * outputs once more by plain loops. */
#ifndef TT_TEST_CHECKPOINT_H
#define TT_TEST_CHECKPOINT_H

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "models/weights.h"

enum { CHECKPOINT_TENSORS = 256 };

typedef struct {
    char name[CHECKPOINT_TENSORS][160];
    int64_t dim[CHECKPOINT_TENSORS][4];
    int rank[CHECKPOINT_TENSORS];
    int n;
    unsigned char *bytes;
    size_t size;
    tt_weights *weights;
} checkpoint;

static inline void checkpoint_add(checkpoint *c, const char *name, int rank, int64_t a, int64_t b,
                                  int64_t d, int64_t e)
{
    snprintf(c->name[c->n], sizeof c->name[0], "%s", name);
    memcpy(c->dim[c->n], (int64_t[]){a, b, d, e}, sizeof c->dim[0]);
    c->rank[c->n++] = rank;
}

static inline int64_t checkpoint_count(const checkpoint *c, int i)
{
    int64_t n = 1;
    for (int k = 0; k < c->rank[i]; k++)
        n *= c->dim[i][k];
    return n;
}

/* Everything but `without` (NULL: everything), uniform in +-spread. */
static inline tt_status checkpoint_open(checkpoint *c, const char *without, float spread, tt_err *e)
{
    size_t header = 0, at = 0, room = 1 << 17;
    char *text = calloc(room, 1);
    uint32_t state = 1;
    for (int i = 0; i < c->n; i++)
        at += (size_t)checkpoint_count(c, i) * 4;
    c->bytes = calloc(1, 8 + room + at);
    at = 0;
    header += (size_t)snprintf(text, room, "{");
    for (int i = 0; i < c->n; i++) {
        size_t end = at + (size_t)checkpoint_count(c, i) * 4;
        if (without && !strcmp(c->name[i], without))
            continue;
        header += (size_t)snprintf(text + header, room - header,
                                   "%s\"%s\":{\"dtype\":\"F32\",\"shape\":[", header > 1 ? "," : "",
                                   c->name[i]);
        for (int k = 0; k < c->rank[i]; k++)
            header += (size_t)snprintf(text + header, room - header, "%s%lld", k ? "," : "",
                                       (long long)c->dim[i][k]);
        header += (size_t)snprintf(text + header, room - header, "],\"data_offsets\":[%zu,%zu]}",
                                   at, end);
        at = end;
    }
    header += (size_t)snprintf(text + header, room - header, "}");
    while (header % 8)
        text[header++] = ' ';
    for (int i = 0; i < 8; i++)
        c->bytes[i] = (unsigned char)(header >> 8 * i);
    memcpy(c->bytes + 8, text, header);
    free(text);
    c->size = 8 + header + at;
    float *numbers = (float *)(void *)(c->bytes + 8 + header);
    for (size_t i = 0; i < at / 4; i++) {
        state = state * 1664525u + 1013904223u;
        numbers[i] = ((float)(state >> 8) * 0x1p-23f - 1) * spread;
    }
    return tt_weights_open_memory(&c->weights, c->bytes, c->size, e);
}

static inline void checkpoint_close(checkpoint *c)
{
    tt_weights_close(c->weights);
    free(c->bytes);
    c->weights = NULL;
    c->bytes = NULL;
}

/* A tensor's numbers. */
static inline const float *checkpoint_at(const checkpoint *c, const char *name)
{
    tt_tensor t;
    const char *have;
    for (size_t i = 0; (have = tt_weights_name(c->weights, i, &t)); i++)
        if (!strcmp(have, name))
            return t.data;
    fprintf(stderr, "no tensor %s\n", name);
    abort();
}

#endif
