/* random.c - see random.h. */
#include "models/random.h"

#include <stdlib.h>
#include <string.h>

#include "kernels/base/rng.h"
#include "kernels/tensor.h"

enum {
    STARTS = 1 << 15, /* places where a view may begin, 32 numbers (64 bytes) apart */
    STEP = 32,
    GROWN = 48, /* a block has at least twice the numbers of the one before */
};

/* Blocks that were outgrown stay until the end: views point into them. All hold the same stream of
 * numbers, each more of it. */
typedef struct {
    uint16_t value[1 << 16]; /* the number that 16 random bits stand for */
    uint16_t *block[GROWN];
    int blocks;
    int64_t filled; /* numbers in the last one */
} stream;

struct tt_random {
    stream spread, gain;
};

/* Uniform around the middle with a standard deviation of 0.02. */
static void spread_values(stream *s, float middle)
{
    const float width = 0.0692820f; /* 0.02 * sqrt(12) */
    for (int i = 0; i < 1 << 16; i++)
        s->value[i] = tt_f32_to_bf16(((float)i * 0x1p-16f - 0.5f) * width + middle);
}

tt_status tt_random_open(tt_random **out, tt_err *e)
{
    *out = calloc(1, sizeof **out);
    if (!*out)
        return tt_fail(e, TT_ENOMEM, "no memory for random weights");
    spread_values(&(*out)->spread, 0);
    spread_values(&(*out)->gain, 1);
    return TT_OK;
}

static void drop(stream *s)
{
    for (int i = 0; i < s->blocks; i++)
        free(s->block[i]);
}

void tt_random_close(tt_random *r)
{
    if (!r)
        return;
    drop(&r->spread);
    drop(&r->gain);
    free(r);
}

/* Number i is half i % 8 of the Philox block i / 8; from and to are multiples of 8. */
static void fill(const stream *s, uint16_t *out, int64_t from, int64_t to)
{
    for (int64_t i = from; i < to; i += 8) {
        tt_rng_block b = tt_philox(1, (uint32_t)(i >> 3), (uint32_t)(i >> 35), 0, 0);
        for (int k = 0; k < 4; k++) {
            out[i + 2 * k] = s->value[b.v[k] & 0xFFFF];
            out[i + 2 * k + 1] = s->value[b.v[k] >> 16];
        }
    }
}

static tt_status grow(stream *s, int64_t count, tt_err *e)
{
    int64_t size = count > 2 * s->filled ? count : 2 * s->filled;
    size = (size + STEP - 1) / STEP * STEP;
    uint16_t *block = s->blocks < GROWN ? aligned_alloc(64, (size_t)size * sizeof *block) : NULL;
    if (!block)
        return tt_fail(e, TT_ENOMEM, "no memory for %lld random weights", (long long)size);
    if (s->filled)
        memcpy(block, s->block[s->blocks - 1], (size_t)s->filled * sizeof *block);
    fill(s, block, s->filled, size);
    s->block[s->blocks++] = block;
    s->filled = size;
    return TT_OK;
}

/* FNV-1a */
static uint32_t hash(const char *name)
{
    uint32_t h = 2166136261u;
    for (; *name; name++)
        h = (h ^ (unsigned char)*name) * 16777619u;
    return h ^ h >> 16;
}

tt_status tt_random_view(tt_random *r, const uint16_t **out, const char *name, int64_t count,
                         bool near_one, tt_err *e)
{
    stream *s = near_one ? &r->gain : &r->spread;
    int64_t start = (int64_t)(hash(name) % STARTS) * STEP;
    *out = NULL;
    if (count < 0 || count > INT64_MAX / 8)
        return tt_fail(e, TT_ENOMEM, "no memory for %lld random weights", (long long)count);
    if (start + count > s->filled) { /* then for any start: the next name may have a later one */
        tt_status st = grow(s, STARTS * STEP + count, e);
        if (st)
            return st;
    }
    *out = s->block[s->blocks - 1] + start;
    return TT_OK;
}
