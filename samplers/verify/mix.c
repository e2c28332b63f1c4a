/* mix.c - aggregation of scores as the search-over-tokens code does it, without its two slips:
 * weights stay with their member when another has no say, and ties are broken by index. */
#include "samplers/mix.h"

#include <math.h>
#include <string.h>

static bool has_say(const tt_mix_part *p)
{
    return p->score && p->weight > 0;
}

/* Candidates that score better than i, those of the same score before it included. */
static int32_t rank_of(const float *score, int32_t n, int32_t i)
{
    int32_t rank = 0;
    for (int32_t j = 0; j < n; j++)
        rank += score[j] > score[i] || (j < i && score[j] == score[i]);
    return rank;
}

static double rank_part(const tt_mix_part *part, int parts, int32_t n, int32_t i, double total)
{
    double cost = 0;
    for (int p = 0; p < parts; p++)
        if (has_say(&part[p]))
            cost += part[p].weight * rank_of(part[p].score, n, i);
    return n > 1 ? 1 - cost / (total * (n - 1)) : 1;
}

static double weighted_part(const tt_mix_part *part, int parts, int32_t n, int32_t i)
{
    double sum = 0;
    for (int p = 0; p < parts; p++) {
        if (!has_say(&part[p]))
            continue;
        const float *s = part[p].score;
        float low = s[0], high = s[0];
        for (int32_t j = 1; j < n; j++) {
            low = fminf(low, s[j]);
            high = fmaxf(high, s[j]);
        }
        if ((double)high - low > 1e-8)
            sum += part[p].weight * ((double)s[i] - low) / ((double)high - low);
    }
    return sum;
}

tt_status tt_mix(float *out, const tt_mix_part *part, int parts, int32_t n, tt_mix_rule rule,
                 tt_err *e)
{
    double total = 0;
    for (int p = 0; p < parts; p++) {
        if (!(part[p].weight >= 0) || !isfinite(part[p].weight))
            return tt_fail(e, TT_EINVAL, "weight of verifier %d must be a number of at least 0",
                           p);
        if (has_say(&part[p]))
            total += part[p].weight;
    }
    if (!(total > 0))
        return tt_fail(e, TT_EINVAL, "none of the %d verifiers gave a score that counts", parts);
    for (int32_t i = 0; i < n; i++)
        out[i] = (float)(rule == TT_MIX_RANK ? rank_part(part, parts, n, i, total)
                                             : weighted_part(part, parts, n, i));
    return TT_OK;
}

/* --- where things stand --- */

bool tt_relation_find(const char *name, tt_relation *out)
{
    static const struct {
        const char *name;
        tt_relation relation;
    } known[] = {
        {"left of", TT_LEFT_OF},   {"to the left of", TT_LEFT_OF},
        {"right of", TT_RIGHT_OF}, {"to the right of", TT_RIGHT_OF},
        {"above", TT_ABOVE},       {"below", TT_BELOW},
    };
    for (size_t i = 0; i < sizeof known / sizeof *known; i++)
        if (!strcmp(known[i].name, name)) {
            *out = known[i].relation;
            return true;
        }
    return false;
}

/* Share of the mask in line i of the axis: a column of pixels when `across`, else a row. */
static double share(const uint8_t *mask, int32_t width, int32_t height, bool across, int32_t i)
{
    int32_t n = 0, length = across ? height : width;
    for (int32_t j = 0; j < length; j++)
        n += mask[across ? (int64_t)j * width + i : (int64_t)i * width + j] != 0;
    return n;
}

float tt_relation_score(const uint8_t *a, const uint8_t *b, int32_t width, int32_t height,
                        tt_relation r)
{
    bool across = r == TT_LEFT_OF || r == TT_RIGHT_OF, swapped = r == TT_RIGHT_OF || r == TT_BELOW;
    const uint8_t *p = swapped ? b : a, *q = swapped ? a : b;
    int32_t lines = across ? width : height;
    double whole_p = 0, whole_q = 0, run_p = 0, run_q = 0, reverse = 0, loss = 0;
    for (int32_t i = 0; i < lines; i++) {
        double at_p = share(p, width, height, across, i), at_q = share(q, width, height, across, i);
        whole_p += at_p;
        whole_q += at_q;
        run_p += at_p;
        run_q += at_q;
        reverse += at_q * run_p;
        loss += at_p * run_q;
    }
    double scale = whole_p * whole_q;
    return scale > 0 && reverse > loss ? (float)((reverse - loss) / scale) : 0;
}

bool tt_relation_holds(const tt_box *a, const tt_box *b, tt_relation r)
{
    float across = (b->x0 + b->x1) - (a->x0 + a->x1), down = (b->y0 + b->y1) - (a->y0 + a->y1);
    switch (r) {
    case TT_LEFT_OF:
        return across > 0;
    case TT_RIGHT_OF:
        return across < 0;
    case TT_ABOVE:
        return down > 0;
    case TT_BELOW:
        return down < 0;
    }
    return false;
}

static float area(const tt_box *b)
{
    return (b->x1 - b->x0) * (b->y1 - b->y0);
}

void tt_prune_boxes(bool *keep, const tt_box *box, int32_t n, float most)
{
    for (int32_t i = 0; i < n; i++)
        keep[i] = true;
    for (int32_t i = 0; i < n; i++)
        for (int32_t j = i + 1; j < n && keep[i]; j++) {
            if (!keep[j])
                continue;
            const tt_box *a = &box[i], *b = &box[j];
            float w = fminf(a->x1, b->x1) - fmaxf(a->x0, b->x0);
            float h = fminf(a->y1, b->y1) - fmaxf(a->y0, b->y0);
            float both = w > 0 && h > 0 ? w * h : 0;
            if (both > most * area(a) || both > most * area(b))
                keep[area(a) > area(b) ? i : j] = false;
        }
}
