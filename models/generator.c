/* generator.c - every image generator, once; opening one, and the checks every call goes
 * through. */
#include "models/generator.h"

#include <stdlib.h>
#include <string.h>

#include "models/folder.h"

#define TT_GENERATORS(X) \
    X(enat)              \
    X(har)               \
    X(flexar)

#define DECLARE(id) extern const tt_generator_def tt_generator_##id;
TT_GENERATORS(DECLARE)

#define ENTRY(id) &tt_generator_##id,
static const tt_generator_def *const table[] = {TT_GENERATORS(ENTRY) NULL};

const tt_generator_def *const *tt_generator_all(void) { return table; }

const tt_generator_def *tt_generator_find(const char *name)
{
    for (const tt_generator_def *const *g = table; *g; g++)
        for (const char *const *a = (*g)->architectures; *a; a++)
            if (!strcmp(*a, name))
                return *g;
    return NULL;
}

static const tt_generator_def *named_in(tt_config *c, const char **name)
{
    *name = tt_config_family(c);
    return tt_generator_find(*name);
}

bool tt_generator_in(const char *folder)
{
    tt_config *c;
    const char *name;
    if (tt_config_open(&c, folder, NULL))
        return false;
    bool found = named_in(c, &name) != NULL;
    tt_config_close(c);
    return found;
}

tt_status tt_generator_open(tt_generator **out, tt_weights **weights, tt_config **config,
                            tt_stream *s, const char *folder, tt_weights_mode mode, bool random,
                            tt_err *e)
{
    const char *name;
    *out = NULL;
    *weights = NULL;
    tt_status st = tt_config_open(config, folder, e);
    if (st)
        return st;
    const tt_generator_def *def = named_in(*config, &name);
    if (!def)
        st = tt_fail(e, TT_EUNSUP, "'%.60s' in '%.100s/config.json' is no image generator known",
                     name, folder);
    if (!st)
        st = tt_folder_weights(weights, folder, random, e);
    if (!st) {
        st = def->open(out, s, *weights, *config, mode, e);
        if (st)
            tt_context(e, st, "'%.100s'", folder);
        tt_weights_rest(*weights);
    }
    return tt_folder_opened(st, weights, config);
}

void tt_generator_close(tt_generator *g)
{
    if (g)
        g->def->close(g);
}

tt_status tt_generator_groups(tt_generator_info *info, tt_config *c, int64_t classes, tt_err *e)
{
    int64_t sum = 0;
    for (int i = 0; i <= TT_MAX_LABEL_GROUPS; i++) {
        int64_t n = tt_config_int_at(c, "label_groups", i, 0, 0, classes);
        if (!n)
            break;
        if (i == TT_MAX_LABEL_GROUPS)
            return tt_fail(e, TT_EFORMAT, "config key 'label_groups' has more than %d entries",
                           TT_MAX_LABEL_GROUPS);
        info->group[info->groups++] = (int32_t)n;
        sum += n;
    }
    if (!info->groups && classes) {
        info->group[info->groups++] = (int32_t)classes;
        sum = classes;
    }
    return sum <= classes ? TT_OK
                          : tt_fail(e, TT_EFORMAT, "config key 'label_groups': %lld labels, "
                                    "num_classes is %lld", (long long)sum, (long long)classes);
}

/* --- states --- */

static tt_status state_new(tt_generator_state **out, tt_generator *g, tt_err *e)
{
    tt_generator_state *st = calloc(1, g->def->state_size);
    int32_t *id = calloc((size_t)g->info.layout.tokens, sizeof *id);
    *out = NULL;
    if (!st || !id) {
        free(st);
        free(id);
        return tt_fail(e, TT_ENOMEM, "no memory for an image of %d tokens", g->info.layout.tokens);
    }
    st->generator = g;
    st->id = id;
    *out = st;
    return TT_OK;
}

static void state_free(tt_generator_state *st)
{
    free(st->id);
    free(st);
}

static tt_status check_condition(const tt_generator_info *info, const tt_condition *c, tt_err *e)
{
    for (int32_t i = 0; i < TT_MAX_LABEL_GROUPS; i++) {
        int32_t n = i < info->groups ? info->group[i] : 0;
        if (c->label[i] < -1 || c->label[i] >= n)
            return tt_fail(e, TT_EINVAL, "label %d of group %d: the model has %d labels there",
                           c->label[i], i, n);
    }
    return TT_OK;
}

static tt_status check_token(const tt_generator_info *info, int32_t slot, int32_t id, tt_err *e)
{
    if (id >= 0 && id < info->layout.codes)
        return TT_OK;
    return tt_fail(e, TT_EINVAL, "token %d at %d is outside the %d codes", id, slot,
                   info->layout.codes);
}

tt_status tt_generator_begin(tt_generator_state **out, tt_generator *g, const tt_condition *c,
                             const int32_t *id, tt_err *e)
{
    const tt_generator_info *info = &g->info;
    *out = NULL;
    tt_status s = check_condition(info, c, e);
    for (int32_t i = 0; id && i < info->layout.tokens && !s; i++)
        if (id[i] != info->mask_id)
            s = check_token(info, i, id[i], e);
    tt_generator_state *st = NULL;
    if (!s)
        s = state_new(&st, g, e);
    if (s)
        return s;
    for (int32_t i = 0; i < info->layout.tokens; i++) {
        st->id[i] = id ? id[i] : info->mask_id;
        st->known += st->id[i] != info->mask_id;
    }
    g->stream->act = info->act;
    s = g->def->begin(g, st, c, e);
    if (s)
        state_free(st);
    else
        *out = st;
    return s;
}

static tt_status check_call(const tt_generator *g, const tt_generator_call *c, tt_err *e)
{
    const tt_layout *l = &g->info.layout;
    if (c->state->generator != g)
        return tt_fail(e, TT_EINVAL, "step: a state of another generator");
    if (c->wants < 0 || c->wants > l->tokens - c->state->known)
        return tt_fail(e, TT_EINVAL, "step: %d tokens wanted, %d are hidden", c->wants,
                       l->tokens - c->state->known);
    for (int32_t i = 0; i < c->wants; i++) {
        int32_t slot = c->slot[i];
        if (slot < 0 || slot >= l->tokens || (i && slot <= c->slot[i - 1]) ||
            c->state->id[slot] != g->info.mask_id)
            return tt_fail(e, TT_EINVAL, "step: token %d is wanted but not hidden", slot);
    }
    return TT_OK;
}

tt_status tt_generator_step(tt_generator *g, const tt_generator_call *call, int64_t calls,
                            tt_err *e)
{
    if (calls < 0 || calls > INT32_MAX / (4 * g->info.layout.tokens))
        return tt_fail(e, TT_EINVAL, "step: %lld calls", (long long)calls);
    tt_status s = TT_OK;
    for (int64_t i = 0; i < calls && !s; i++)
        s = check_call(g, &call[i], e);
    if (s || !calls)
        return s;
    g->stream->act = g->info.act;
    return g->def->step(g, call, calls, e);
}

tt_status tt_generator_commit(tt_generator_state *st, const int32_t *slot, const int32_t *id,
                              int32_t n, tt_err *e)
{
    const tt_generator_info *info = &st->generator->info;
    for (int32_t i = 0; i < n; i++) {
        if (slot[i] < 0 || slot[i] >= info->layout.tokens || st->id[slot[i]] != info->mask_id)
            return tt_fail(e, TT_EINVAL, "commit: token %d is not hidden", slot[i]);
        tt_status s = check_token(info, slot[i], id[i], e);
        if (s)
            return tt_context(e, s, "commit");
        st->id[slot[i]] = id[i];
        st->known++;
    }
    return TT_OK;
}

tt_status tt_generator_fork(tt_generator_state **out, const tt_generator_state *from, tt_err *e)
{
    tt_generator *g = from->generator;
    tt_status s = state_new(out, g, e);
    if (s)
        return s;
    memcpy((*out)->id, from->id, (size_t)g->info.layout.tokens * sizeof *from->id);
    (*out)->known = from->known;
    g->stream->act = g->info.act;
    s = g->def->fork(*out, from, e);
    if (s) {
        state_free(*out);
        *out = NULL;
    }
    return s;
}

void tt_generator_drop(tt_generator_state *st)
{
    if (!st)
        return;
    st->generator->def->drop(st);
    state_free(st);
}

tt_status tt_generator_work_of(tt_generator *g, const tt_generator_call *call, int64_t calls,
                               tt_generator_work *out, tt_err *e)
{
    *out = (tt_generator_work){0};
    return calls ? g->def->work(g, call, calls, out, e) : TT_OK;
}

size_t tt_generator_step_bytes(const tt_generator *g, int64_t calls)
{
    return g->def->step_bytes(g, calls);
}
