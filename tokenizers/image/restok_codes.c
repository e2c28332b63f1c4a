/* restok_codes.c - between the rows of ResTok's transformers and tokens: what belongs to a level,
 * and the codebook. A code is compared and used at length 1, so that only its direction counts. */
#include <math.h>
#include <stdlib.h>

#include "tokenizers/image/restok.h"

/* --- opening --- */

/* A tensor of a level or stage; format: of its side and number. */
static tt_status of_level(const tt_weights *w, float **out, const char *format, const char *side,
                          int level, int64_t n, tt_err *e)
{
    return tt_restok_host(w, out, tt_restok_named(format, side, level).text, n, e);
}

static const char level_place[] = "%s.latent_token_level_embedding.%d";

/* From a code to the width, and to its level's place. */
static tt_status bind_up(tt_restok *r, const tt_weights *w, int level, tt_err *e)
{
    int64_t d = r->out.vit.width, c = r->dims;
    tt_stream *st = r->base.stream;
    float *weight = NULL, *bias = NULL, *place = NULL;
    tt_status s = of_level(w, &weight, "%s.decoder_embed.%d.weight", "decoder", level, c * d, e);
    if (!s)
        s = of_level(w, &bias, "%s.decoder_embed.%d.bias", "decoder", level, d, e);
    if (!s)
        s = of_level(w, &place, level_place, "decoder", level, d, e);
    for (int64_t i = 0; i < d && !s; i++)
        bias[i] += place[i];
    tt_weight one = {.data = {.data = weight, .rank = 2, .dim = {d, c}, .dtype = TT_F32}};
    if (!s)
        s = st->op.matrix_open(st, &r->up[level], &one, 1, bias, TT_COMPUTE_F32, TT_MATRIX_LINEAR,
                               e);
    free(weight);
    free(bias);
    free(place);
    return s;
}

static tt_status bind_levels(tt_restok *r, const tt_weights *w, tt_err *e)
{
    int64_t d = r->in.vit.width, c = r->dims;
    tt_status s = TT_OK;
    for (int i = 0; i < r->base.info.layout.levels && !s; i++) {
        s = of_level(w, &r->down[i].weight, "%s.conv_out.%d.weight", "encoder", i, c * d, e);
        if (!s)
            s = of_level(w, &r->down[i].bias, "%s.conv_out.%d.bias", "encoder", i, c, e);
        if (!s)
            s = bind_up(r, w, i, e);
        if (!s)
            s = of_level(w, &r->level_in[i], level_place, "encoder", i, d, e);
    }
    for (int i = 0; i < r->stages && !s; i++)
        s = of_level(w, &r->stage_place[i], "%s.level_embedding.%d", "encoder", i, d, e);
    if (!s)
        s = tt_restok_host(w, &r->nothing, "decoder.latent_mask_token", c, e);
    return s ? s : tt_restok_host(w, &r->blank, "decoder.mask_token", tt_restok_blanks(r) * d, e);
}

/* out may be x. */
static void to_length_1(float *out, const float *x, int64_t n)
{
    double sum = 0;
    for (int64_t i = 0; i < n; i++)
        sum += (double)x[i] * x[i];
    double by = 1 / fmax(sqrt(sum), 1e-12);
    for (int64_t i = 0; i < n; i++)
        out[i] = (float)(x[i] * by);
}

tt_status tt_restok_bind_codes(tt_restok *r, const tt_weights *w, tt_err *e)
{
    int64_t codes = r->base.info.layout.codes, c = r->dims;
    tt_status s = bind_levels(r, w, e);
    if (!s)
        s = tt_restok_host(w, &r->unit, "quantize.embedding.weight", codes * c, e);
    for (int64_t k = 0; k < codes && !s; k++)
        to_length_1(r->unit + k * c, r->unit + k * c, c);
    return s;
}

void tt_restok_close_codes(tt_restok *r)
{
    tt_stream *s = r->base.stream;
    for (int i = 0; i < TT_MAX_LEVELS; i++) {
        free(r->down[i].weight);
        free(r->down[i].bias);
        s->op.matrix_close(s, r->up[i]);
        free(r->level_in[i]);
    }
    for (int i = 0; i < TT_RESTOK_STAGES; i++)
        free(r->stage_place[i]);
    free(r->unit);
    free(r->nothing);
    free(r->blank);
}

/* --- rows to tokens --- */

void tt_restok_project(const tt_restok *r, float *z, const float *row)
{
    const tt_layout *l = &r->base.info.layout;
    int64_t d = r->in.vit.width, c = r->dims, tokens = l->tokens, j = 0;
    int64_t step = r->in_place ? 1 : tokens; /* the buffer re-read as width x tokens */
    for (int32_t v = 0; v < l->levels; v++)
        for (int32_t k = 0; k < l->level[v]; k++, j++)
            for (int64_t i = 0; i < c; i++) {
                const float *first = row + (r->in_place ? j * d : j);
                double sum = r->down[v].bias[i];
                for (int64_t a = 0; a < d; a++)
                    sum += (double)r->down[v].weight[i * d + a] * first[a * step];
                z[j * c + i] = (float)sum;
            }
}

int32_t tt_restok_nearest(const tt_restok *r, const float *z, tt_code_distance *distance)
{
    float unit[256];
    int64_t c = r->dims;
    int32_t best = 0;
    tt_code_distance found = {INFINITY, INFINITY};
    to_length_1(unit, z, c);
    for (int32_t k = 0; k < r->base.info.layout.codes; k++) {
        float sum = 0;
        for (int64_t i = 0; i < c; i++) {
            float gap = unit[i] - r->unit[k * c + i];
            sum += gap * gap;
        }
        if (sum < found.nearest) {
            found.second = found.nearest;
            found.nearest = sum;
            best = k;
        } else if (sum < found.second) {
            found.second = sum;
        }
    }
    if (distance)
        *distance = found;
    return best;
}
