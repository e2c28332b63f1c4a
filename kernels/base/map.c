/* map.c - see map.h. */
#include "kernels/base/map.h"

#include <stdlib.h>
#include <string.h>

#define XXH_INLINE_ALL
#include <xxhash.h>

typedef struct {
    uint64_t hash;
    size_t at; /* offset of the key in text */
    uint32_t bytes;
    int32_t value; /* -1: empty slot */
} slot;

struct tt_map {
    slot *slots;
    size_t n_slots, count; /* n_slots is a power of two, at most 2/3 full */
    char *text;
    size_t text_used, text_size;
};

static slot *slots_new(size_t n)
{
    slot *s = n > SIZE_MAX / sizeof(slot) ? NULL : malloc(n * sizeof(slot));
    for (size_t i = 0; s && i < n; i++)
        s[i] = (slot){.value = -1};
    return s;
}

tt_status tt_map_open(tt_map **out, size_t expect, tt_err *e)
{
    *out = NULL;
    size_t n = 16;
    while (n / 3 * 2 < expect && n < SIZE_MAX / 4)
        n *= 2;
    tt_map *m = calloc(1, sizeof *m);
    slot *s = slots_new(n);
    if (!m || !s) {
        free(m);
        free(s);
        return tt_fail(e, TT_ENOMEM, "no memory for a map of %zu keys", expect);
    }
    *m = (tt_map){.slots = s, .n_slots = n};
    *out = m;
    return TT_OK;
}

void tt_map_close(tt_map *m)
{
    if (!m)
        return;
    free(m->slots);
    free(m->text);
    free(m);
}

static slot *probe(const tt_map *m, uint64_t hash, const void *key, size_t bytes)
{
    for (size_t i = hash & (m->n_slots - 1);; i = (i + 1) & (m->n_slots - 1)) {
        slot *s = &m->slots[i];
        if (s->value < 0)
            return s;
        if (s->hash == hash && s->bytes == bytes && !memcmp(m->text + s->at, key, bytes))
            return s;
    }
}

static tt_status grow(tt_map *m, tt_err *e)
{
    slot *old = m->slots, *s = slots_new(m->n_slots * 2);
    if (!s)
        return tt_fail(e, TT_ENOMEM, "no memory for a map of %zu keys", m->n_slots);
    size_t n = m->n_slots;
    m->slots = s;
    m->n_slots = n * 2;
    for (size_t i = 0; i < n; i++)
        if (old[i].value >= 0)
            *probe(m, old[i].hash, m->text + old[i].at, old[i].bytes) = old[i];
    free(old);
    return TT_OK;
}

static tt_status keep_key(tt_map *m, const void *key, size_t bytes, size_t *at, tt_err *e)
{
    if (bytes >= m->text_size - m->text_used) {
        size_t size = m->text_size ? m->text_size * 2 : 1024;
        while (size - m->text_used <= bytes)
            size *= 2;
        char *text = realloc(m->text, size);
        if (!text)
            return tt_fail(e, TT_ENOMEM, "no memory for a map of %zu keys", m->count);
        m->text = text;
        m->text_size = size;
    }
    *at = m->text_used;
    if (bytes)
        memcpy(m->text + *at, key, bytes);
    m->text_used += bytes;
    return TT_OK;
}

tt_status tt_map_put(tt_map *m, const void *key, size_t bytes, int32_t value, int32_t *old,
                     tt_err *e)
{
    if (bytes > UINT32_MAX || value < 0)
        return tt_fail(e, TT_EINVAL, "map: key of %zu bytes, value %d", bytes, value);
    if (m->count >= m->n_slots / 3 * 2) {
        tt_status st = grow(m, e);
        if (st)
            return st;
    }
    uint64_t hash = XXH3_64bits(key, bytes);
    if (!m->text) { /* so that probe() has an address to compare with */
        m->text = malloc(1024);
        if (!m->text)
            return tt_fail(e, TT_ENOMEM, "no memory for a map");
        m->text_size = 1024;
    }
    slot *s = probe(m, hash, key, bytes);
    if (old)
        *old = s->value;
    if (s->value < 0) {
        size_t at = 0;
        tt_status st = keep_key(m, key, bytes, &at, e);
        if (st)
            return st;
        *s = (slot){.hash = hash, .at = at, .bytes = (uint32_t)bytes};
        m->count++;
    }
    s->value = value;
    return TT_OK;
}

int32_t tt_map_get(const tt_map *m, const void *key, size_t bytes)
{
    if (!m->count || bytes > UINT32_MAX)
        return -1;
    return probe(m, XXH3_64bits(key, bytes), key, bytes)->value;
}

size_t tt_map_count(const tt_map *m) { return m->count; }
