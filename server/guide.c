/* guide.c - see guide.h. */
#include "server/guide.h"

#include <string.h>

static int32_t pieces(const tt_served *m) { return m->tok ? tt_tok_vocab(m->tok) : 0; }

/* Added tokens may differ: mask and turn markers. */
static bool same_piece(const tt_tok *x, const tt_tok *y, int32_t id)
{
    size_t a = 0, b = 0;
    const char *p = tt_tok_piece(x, id, &a), *q = tt_tok_piece(y, id, &b);
    if ((p && tt_tok_is_special(x, id)) || (q && tt_tok_is_special(y, id)))
        return true;
    return p && q ? a == b && !memcmp(p, q, a) : !p && !q;
}

tt_status tt_guide_check(const tt_served *m, const tt_served *g, tt_err *e)
{
    if (!(g->info.kinds & TT_KIND_CAUSAL))
        return tt_fail_param(e, "guide", "invalid_value", "model '%.60s' is not causal", g->id);
    for (int32_t id = 0, n = pieces(m) > pieces(g) ? pieces(m) : pieces(g); id < n; id++)
        if (m->tok && g->tok && !same_piece(m->tok, g->tok, id))
            return tt_fail_param(e, "guide", "invalid_value",
                                 "'%.60s' and '%.60s' differ in token %d: they need one vocabulary",
                                 m->id, g->id, id);
    return TT_OK;
}
