/* comit_lists.c - what goes to the device for some calls of COMiT, and what comes back: patches,
 * messages and places as rows, and for every row where it comes from. */
#include <stdlib.h>
#include <string.h>

#include "models/comit_net.h"
#include "models/nn/acts.h"

int64_t tt_comit_messages_at(const tt_comit *c, const tt_comit_job *j)
{
    return (j->patches * tt_comit_patch_numbers(c) + 31) / 32 * 32;
}

int64_t tt_comit_places_at(const tt_comit *c, const tt_comit_job *j)
{
    int64_t messages = j->calls * c->info.tokens * c->info.dims;
    return (tt_comit_messages_at(c, j) + messages + 31) / 32 * 32;
}

int64_t tt_comit_numbers(const tt_comit *c, const tt_comit_job *j)
{
    return tt_comit_places_at(c, j) + 2 * j->calls;
}

int64_t tt_comit_ints(const tt_comit *c, const tt_comit_job *j)
{
    return 3 * j->rows + 2 * j->patches + 2 * j->calls * c->info.tokens;
}

/* Patches in raster order: channel, then row, then column of the patch. */
static void unfold(const tt_comit *c, float *out, const tt_comit_call *k)
{
    int64_t p = c->info.patch;
    for (int64_t y = 0; y < k->h; y += p)
        for (int64_t x = 0; x < k->w; x += p)
            for (int64_t ch = 0; ch < c->info.channels; ch++)
                for (int64_t u = 0; u < p; u++, out += p)
                    memcpy(out, k->latent + (ch * k->h + y + u) * k->w + x,
                           (size_t)p * sizeof *out);
}

/* Rows of a patch's velocity: row, then column, then channel. */
static void fold(const tt_comit *c, const tt_comit_call *k, const float *in)
{
    int64_t p = c->info.patch;
    for (int64_t y = 0; y < k->h; y += p)
        for (int64_t x = 0; x < k->w; x += p)
            for (int64_t u = 0; u < p; u++)
                for (int64_t v = 0; v < p; v++)
                    for (int64_t ch = 0; ch < c->info.channels; ch++)
                        k->velocity[(ch * k->h + y + u) * k->w + x + v] = *in++;
}

tt_status tt_comit_open_lists(const tt_comit *c, tt_comit_job *j, tt_err *e)
{
    size_t queries = (size_t)(j->calls * c->info.tokens);
    j->input = calloc((size_t)tt_comit_numbers(c, j), sizeof(float));
    j->velocity = malloc((size_t)(j->patches * tt_comit_patch_numbers(c)) * sizeof(float));
    j->renewed = malloc(queries * (size_t)c->info.dims * sizeof(float));
    j->index = malloc((size_t)tt_comit_ints(c, j) * sizeof *j->index);
    return j->input && j->velocity && j->renewed && j->index
               ? TT_OK
               : tt_fail(e, TT_ENOMEM, "no memory for %lld rows", (long long)j->rows);
}

/* Into the views of the ints: those of the host's list, or the device's. */
static void lay_out_ints(const tt_comit *c, tt_comit_job *j, int32_t *base)
{
    j->part = base;
    j->place = j->part + j->rows;
    j->mod = j->place + j->rows;
    j->patch_row = j->mod + j->rows;
    j->query_row = j->patch_row + j->patches;
    j->patch_time = j->query_row + j->calls * c->info.tokens;
    j->query_mod = j->patch_time + j->patches;
}

static int64_t slot_in(const tt_comit_job *j, float t)
{
    int64_t i = 0;
    while (j->t[i] != t)
        i++;
    return j->slot[i];
}

/* Numbers of call i, whose patches begin at `patch`. */
static void fill_numbers(const tt_comit *c, tt_comit_job *j, int64_t i, int64_t patch)
{
    const tt_comit_call *k = &j->call[i];
    int64_t message = (int64_t)c->info.tokens * c->info.dims;
    unfold(c, j->input + patch * tt_comit_patch_numbers(c), k);
    memcpy(j->input + tt_comit_messages_at(c, j) + i * message, k->message,
           (size_t)message * sizeof(float));
    memcpy(j->input + tt_comit_places_at(c, j) + 2 * i, k->offset, sizeof k->offset);
}

static void fill_row(tt_comit_job *j, int64_t row, int64_t part, int64_t place, int64_t mod)
{
    j->part[row] = (int32_t)part;
    j->place[row] = (int32_t)place;
    j->mod[row] = (int32_t)mod;
}

/* Rows of call i, the first of which is `row`. */
static void fill_rows(const tt_comit *c, tt_comit_job *j, int64_t i, int64_t row, int64_t patch)
{
    const tt_comit_call *k = &j->call[i];
    int64_t m = c->info.tokens, g = c->grid * c->grid, across = k->w / c->info.patch;
    int64_t messages = 1 + j->patches, places = messages + j->calls * m;
    int64_t n = tt_comit_patches(c, k), slot = slot_in(j, k->t);
    fill_row(j, row++, places + i, 0, 0);
    for (int64_t a = 0; a < n; a++, row++, patch++) {
        fill_row(j, row, 1 + patch, 1 + a / across * c->grid + a % across, 1 + 2 * slot);
        j->patch_row[patch] = (int32_t)row;
        j->patch_time[patch] = (int32_t)slot;
    }
    for (int64_t a = 0; a < m; a++, row++)
        fill_row(j, row, messages + i * m + a, 1 + g + a, 2 + 2 * slot);
    for (int64_t a = 0; a < m; a++, row++) {
        fill_row(j, row, 0, 1 + g + m + a, 2 + 2 * slot);
        j->query_row[i * m + a] = (int32_t)row;
        j->query_mod[i * m + a] = 0; /* LN alone */
    }
}

void tt_comit_fill_lists(const tt_comit *c, tt_comit_job *j)
{
    int64_t row = 0, patch = 0;
    lay_out_ints(c, j, j->index);
    for (int64_t i = 0; i < j->calls; i++) {
        fill_numbers(c, j, i, patch);
        fill_rows(c, j, i, row, patch);
        row += tt_comit_rows(c, &j->call[i]);
        patch += tt_comit_patches(c, &j->call[i]);
    }
}

void tt_comit_close_lists(tt_comit_job *j)
{
    free(j->input);
    free(j->velocity);
    free(j->renewed);
    free(j->index);
}

static size_t up(size_t bytes)
{
    return (bytes + 255) & ~(size_t)255;
}

size_t tt_comit_lay_out(const tt_comit *c, tt_comit_job *j, char *base)
{
    int64_t d = c->info.width, wide = c->ff > 3 * d ? c->ff : 3 * d;
    size_t size = tt_dtype_size(c->type), used = 0;
    const size_t part[] = {
        up((size_t)((1 + j->patches + j->calls * (c->info.tokens + 1)) * d) * size),
        up((size_t)(j->rows * d) * size),
        up((size_t)(j->rows * d) * size),
        up((size_t)(j->rows * wide) * size),
        up((size_t)tt_comit_numbers(c, j) * size),
        up((size_t)tt_comit_ints(c, j) * sizeof(int32_t)),
    };
    void *p[6] = {NULL};
    for (int i = 0; i < 6; i++) {
        p[i] = base ? base + used : NULL;
        used += part[i];
    }
    if (!base)
        return used;
    j->parts = p[0];
    j->x = p[1];
    j->h = p[2];
    j->wide = p[3];
    j->numbers = p[4];
    lay_out_ints(c, j, p[5]);
    return used;
}

void tt_comit_give_results(const tt_comit *c, tt_comit_job *j)
{
    int64_t message = (int64_t)c->info.tokens * c->info.dims, in = tt_comit_patch_numbers(c);
    int64_t patch = 0;
    if (j->velocities)
        tt_acts_widen(j->velocity, c->type, j->patches * in);
    if (j->messages)
        tt_acts_widen(j->renewed, c->type, j->calls * message);
    for (int64_t i = 0; i < j->calls; i++) {
        const tt_comit_call *k = &j->call[i];
        if (k->velocity)
            fold(c, k, j->velocity + patch * in);
        if (k->renewed)
            memcpy(k->renewed, j->renewed + i * message, (size_t)message * sizeof(float));
        patch += tt_comit_patches(c, k);
    }
}
