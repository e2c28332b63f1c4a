/* checkpoint.h - a checkpoint of random numbers made in memory, for tests that compute a model's
 * outputs once more by plain loops. */
#ifndef TT_TEST_CHECKPOINT_H
#define TT_TEST_CHECKPOINT_H

#include <stdbool.h>
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

/* AT + NAME + ".weight" and ".bias" of a linear map, [n, k]; k 0: of a norm. */
static inline void checkpoint_add_pair(checkpoint *c, const char *at, const char *name, int64_t n,
                                       int64_t k)
{
    char full[160];
    snprintf(full, sizeof full, "%s%s.weight", at, name);
    checkpoint_add(c, full, k ? 2 : 1, n, k, 0, 0);
    snprintf(full, sizeof full, "%s%s.bias", at, name);
    checkpoint_add(c, full, 1, n, 0, 0, 0);
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

/* As a model's folder: config.json and model.safetensors in a new folder under /tmp, whose name
 * goes to folder. False: it could not be written. */
static inline bool checkpoint_save(const checkpoint *c, const char *config, char folder[64])
{
    char path[96];
    strcpy(folder, "/tmp/tutti-model-XXXXXX");
    if (!mkdtemp(folder))
        return false;
    snprintf(path, sizeof path, "%s/config.json", folder);
    FILE *f = fopen(path, "w");
    bool good = f && fwrite(config, strlen(config), 1, f) == 1;
    good &= f && !fclose(f);
    snprintf(path, sizeof path, "%s/model.safetensors", folder);
    f = fopen(path, "wb");
    good &= f && fwrite(c->bytes, c->size, 1, f) == 1;
    return f && !fclose(f) && good;
}

static inline void checkpoint_remove(const char *folder)
{
    static const char *const file[] = {"/config.json", "/model.safetensors", ""};
    for (int i = 0; i < 3; i++) {
        char path[96];
        snprintf(path, sizeof path, "%s%s", folder, file[i]);
        remove(path);
    }
}

/* The numbers of all tensors whose names end in `end` times `by`, before anyone reads them. */
static inline void checkpoint_scale(checkpoint *c, const char *end, float by)
{
    tt_tensor t;
    const char *name;
    for (size_t i = 0; (name = tt_weights_name(c->weights, i, &t)); i++) {
        size_t more = strlen(name) - strlen(end);
        if (strlen(name) < strlen(end) || strcmp(name + more, end))
            continue;
        float *number = (float *)(void *)(c->bytes + ((const unsigned char *)t.data - c->bytes));
        for (int64_t k = 0; k < tt_tensor_count(&t); k++)
            number[k] *= by;
    }
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
