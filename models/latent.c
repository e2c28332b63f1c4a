/* latent.c - latent states, input embeddings and past differences of one sequence, which outlive a
 * pass: see depth.h. */
#include <stdlib.h>

#include "models/depth.h"

struct tt_latents {
    tt_stream *stream;
    int32_t columns;
    int64_t width;
    size_t act_bytes;
    char *plane[TT_LATENT_PLANES]; /* NULL: not kept */
    void *memory;
};

static int planes_of(const tt_latent_size *size)
{
    return 1 + size->embeds + size->past;
}

size_t tt_latents_bytes(const tt_model *m, const tt_latent_size *size)
{
    size_t row = (size_t)m->info.width * tt_dtype_size(m->info.act);
    return (size_t)planes_of(size) * (size_t)size->columns * row;
}

tt_status tt_latents_open(tt_latents **out, tt_model *m, const tt_latent_size *size, tt_err *e)
{
    *out = NULL;
    tt_latents *l = calloc(1, sizeof *l);
    if (!l)
        return tt_fail(e, TT_ENOMEM, "no memory for latent states");
    *l = (tt_latents){.stream = m->stream,
                      .columns = size->columns,
                      .width = m->info.width,
                      .act_bytes = tt_dtype_size(m->info.act)};
    tt_status s = m->stream->op.alloc(m->stream, &l->memory, tt_latents_bytes(m, size), e);
    if (s) {
        tt_latents_close(l);
        return tt_context(e, s, "latent states of %d columns", size->columns);
    }
    size_t plane = tt_latents_bytes(m, size) / (size_t)planes_of(size);
    char *at = l->memory;
    l->plane[TT_LATENT_STATE] = at;
    l->plane[TT_LATENT_EMBED] = size->embeds ? at += plane : NULL;
    l->plane[TT_LATENT_PAST] = size->past ? at += plane : NULL;
    *out = l;
    return TT_OK;
}

void tt_latents_close(tt_latents *l)
{
    if (!l)
        return;
    if (l->memory)
        l->stream->op.release(l->stream, l->memory);
    free(l);
}

tt_act *tt_latent_row(const tt_latents *l, tt_latent_plane plane, int32_t column)
{
    if (!l || !l->plane[plane])
        return NULL;
    int64_t row = column % l->columns;
    return l->plane[plane] + (size_t)(row * l->width) * l->act_bytes;
}

int32_t tt_latents_columns(const tt_latents *l) { return l ? l->columns : 0; }
