/* batcher.c - see batcher.h. */
#include "server/batcher.h"

#include <math.h>
#include <stdlib.h>
#include <string.h>

int32_t tt_run_columns(const tt_sampler *s, const tt_params *p, int32_t columns)
{
    int64_t block = s->needs & TT_KIND_BLOCKS && p->block_length > 0 ? p->block_length : 1;
    int64_t n = (columns + block - 1) / block * block + (s->overrun ? s->overrun(p) : 0);
    return n < INT32_MAX ? (int32_t)n : INT32_MAX;
}

/* --- memory --- */

static int32_t open_columns(const tt_run_spec *s)
{
    int32_t n = 0;
    for (int32_t c = 0; c < s->columns; c++)
        n += s->open[c] != 0;
    return n;
}

/* Sizes of the features an encoding run makes. */
static tt_features features_of(const tt_run_spec *s)
{
    tt_features f = {0};
    if (!s->encoding)
        return f;
    f.vectors = s->encoding->pool == TT_POOL_OPEN ? open_columns(s) : 1;
    f.width = s->model->info.width;
    f.terms = s->encoding->terms;
    return f;
}

static size_t life_bytes(const tt_run_spec *s)
{
    tt_features f = features_of(s);
    int32_t room = tt_run_columns(s->sampler, s->params, s->columns);
    return tt_seq_bytes(s->sampler, room, s->n_top, s->n_bias) + tt_features_bytes(&f) +
           tt_reach_bytes(s->constraint, s->constraints);
}

enum { SPARE = 8, SLACK = 64 }; /* biases a sampler may add to a list; alignment of one */

/* Lists that tt_run_plan() makes for the rules, two of each: see constrain(). */
static size_t rule_bytes(const tt_run_spec *s)
{
    size_t ids = 0, columns = 0;
    for (int32_t i = 0; i < s->rules; i++) {
        ids += (size_t)s->rule[i].n;
        columns += (size_t)(s->rule[i].end - s->rule[i].begin);
    }
    size_t lists = s->rules ? 2 * (size_t)s->rules + 1 : 0;
    if (columns < lists || s->sampler->biases_columns)
        lists = columns; /* else neighbours under the same rules share one */
    lists *= s->sampler->shadows ? 2 : 1;
    return 2 * lists * (((size_t)s->n_bias + SPARE + ids) * sizeof(tt_id_value) + SLACK);
}

static size_t step_bytes(const tt_run_spec *s)
{
    tt_features f = features_of(s);
    int32_t room = tt_run_columns(s->sampler, s->params, s->columns);
    size_t asks = (size_t)f.vectors * (size_t)(f.terms / TT_MAX_TOP + 2);
    return tt_seq_step_bytes(s->sampler, room, s->n_bias) + asks * sizeof(tt_ask) + rule_bytes(s) +
           tt_reach_step_bytes(s->constraint, s->constraints, s->vocab, s->n_bias + SPARE, room);
}

size_t tt_run_bytes(const tt_run_spec *s) { return life_bytes(s) + step_bytes(s); }

/* --- life --- */

tt_status tt_run_open(tt_run *r, const tt_run_spec *spec, tt_err *e)
{
    const tt_sampler *s = spec->sampler;
    const tt_model_info *info = &spec->model->info;
    *r = (tt_run){.sampler = s, .model = spec->model, .guide = spec->guide};
    if (!tt_sampler_fits(s, info->kinds))
        return tt_fail_param(e, "sampler", "unsupported_value",
                             "sampler '%s' does not fit the %s family", s->name, info->family);
    r->live = spec->columns;
    r->negative = spec->negative;
    r->negatives = spec->negatives;
    r->rule = spec->rule;
    r->rules = spec->rules;
    tt_status st = tt_arena_open(&r->life, life_bytes(spec), e);
    if (!st)
        st = tt_arena_open(&r->step, step_bytes(spec), e);
    r->seq = (tt_seq){.columns = spec->columns,
                      .prompt = spec->prompt,
                      .sampler = s,
                      .params = spec->params,
                      .kinds = info->kinds,
                      .noise = spec->noise,
                      .must = s->inserts ? spec->open : NULL,
                      .info = info,
                      .mask_id = info->mask_id,
                      .eos_id = info->eos_id,
                      .eot_id = info->eot_id,
                      .vocab = spec->vocab,
                      .row_shift = info->row_shift,
                      .guide_vocab = spec->guide ? (int32_t)spec->guide->info.vocab : 0,
                      .n_bias = spec->n_bias,
                      .n_top = spec->n_top,
                      .draft = spec->draft,
                      .samples = spec->samples ? spec->samples : 1,
                      .encoding = spec->encoding,
                      .features = features_of(spec),
                      .log = spec->log ? &r->log : NULL,
                      .source = spec->source,
                      .arena = &r->life};
    if (!st)
        st = tt_seq_begin(&r->seq, spec->id, spec->open, spec->bias, e);
    if (!st)
        st = tt_reach_begin(&r->seq, spec->constraint, spec->constraints, e);
    if (!st) {
        r->state = tt_arena_take(&r->life, 1, s->state_size);
        st = r->state ? s->open(&r->seq, r->state, e)
                      : tt_fail(e, TT_ENOMEM, "no memory for sampler '%s'", s->name);
    }
    if (st)
        tt_run_close(r);
    return st;
}

void tt_run_close(tt_run *r)
{
    for (size_t i = 0; i < sizeof r->kv / sizeof *r->kv; i++) {
        tt_kv_close(r->kv[i]);
        r->kv[i] = NULL;
    }
    tt_memo_close(r->memo);
    r->memo = NULL;
    tt_latents_close(r->latents);
    r->latents = NULL;
    tt_arena_close(&r->life);
    tt_arena_close(&r->step);
    tt_buf_free(&r->log);
}

void tt_run_cut(tt_run *r, int32_t end)
{
    tt_seq *q = &r->seq;
    uint8_t *fixed = (uint8_t *)(uintptr_t)q->fixed; /* the arena's: taken by tt_seq_begin() */
    for (int32_t c = end; c < q->columns; c++)
        if (tt_seq_open_at(q, c)) {
            q->id[c] = q->eos_id >= 0 ? q->eos_id : q->id[end - 1];
            fixed[c] = 1;
        }
    r->live = end;
}

tt_model *tt_run_model(const tt_run *r) { return r->plan.guide ? r->guide : r->model; }

static tt_kv **store_of(tt_run *r, bool twin) { return &r->kv[r->plan.guide ? 2 : twin]; }

/* Where an asked column's distribution comes from: its own row, or the one before it. Column 0 of
 * a shifted model has no row before it and takes its own. */
static int32_t source_column(const tt_run *r, const tt_ask *a)
{
    bool causal = tt_run_model(r)->info.kinds & TT_KIND_CAUSAL;
    int32_t shift = a->own_row ? 0 : causal ? 1 : r->seq.row_shift;
    return a->column >= shift ? a->column - shift : a->column;
}

static bool is_shadow(const tt_run *r, const tt_ask *a)
{
    return r->plan.shadow_begin < r->plan.shadow_end && a->column >= r->seq.columns;
}

/* A shifted model needs the row left of the first column asked for. */
static void feed_left_neighbour(tt_run *r)
{
    tt_plan *p = &r->plan;
    if (p->feed || p->token)
        return;
    for (int32_t i = 0; i < p->asks; i++) {
        int32_t c = source_column(r, &p->ask[i]);
        if (c < p->row_begin)
            p->row_begin = c;
    }
}

/* Rows of the canvas that the plan feeds, and columns of it. */
static int64_t real_rows(const tt_plan *p)
{
    return p->token ? p->tokens : p->feed ? p->feeds : p->row_end - p->row_begin;
}

static int32_t fed_column(const tt_plan *p, int64_t i)
{
    return p->feed ? p->feed[i] : p->row_begin + (int32_t)i;
}

/* --- the twin of guidance: the same columns after another prompt --- */

/* Where a column lies in the twin. Without a prompt of its own, its given columns are masked. */
static int32_t twin_column(const tt_run *r, int32_t column)
{
    if (!r->negatives || column <= 0)
        return column;
    int32_t c = column - r->seq.prompt + r->negatives;
    return c > 0 ? c : 0;
}

/* Of a list of columns fed, so many at its start lie before all that the twin has. */
static int64_t twin_leaves_out(const tt_run *r)
{
    int64_t n = 0;
    while (r->negatives && n < r->plan.feeds && r->plan.feed[n] < r->seq.prompt - r->negatives)
        n++;
    return n;
}

static int64_t twin_rows(const tt_run *r)
{
    const tt_plan *p = &r->plan;
    return p->feed ? p->feeds - twin_leaves_out(r)
                   : twin_column(r, p->row_end) - twin_column(r, p->row_begin);
}

/* --- rules of columns --- */

/* A shadow stands under the rules of its column. */
static bool covers(const tt_run *r, const tt_column_rule *rule, const tt_ask *a)
{
    int32_t shift = is_shadow(r, a) ? r->seq.columns - r->plan.shadow_begin : 0;
    return rule->begin <= a->column - shift && a->column - shift < rule->end;
}

static bool same_rules(const tt_run *r, const tt_ask *a, const tt_ask *b)
{
    for (int32_t i = 0; i < r->rules; i++)
        if (covers(r, &r->rule[i], a) != covers(r, &r->rule[i], b))
            return false;
    return true;
}

static int by_id(const void *a, const void *b)
{
    const tt_id_value *x = a, *y = b;
    if (x->id != y->id)
        return x->id < y->id ? -1 : 1;
    return (x->value > y->value) - (x->value < y->value);
}

/* The ask's biases with what the rules ban at its column; the ban wins. */
static tt_status add_bans(tt_run *r, tt_ask *a, tt_err *e)
{
    int32_t n = a->draw.n_bias, kept = 0;
    for (int32_t i = 0; i < r->rules; i++)
        n += covers(r, &r->rule[i], a) && !r->rule[i].allow ? r->rule[i].n : 0;
    if (n == a->draw.n_bias)
        return TT_OK;
    tt_id_value *list = TT_TAKE(&r->step, n, tt_id_value);
    if (!list)
        return tt_fail(e, TT_ENOMEM, "no memory for the rules of column %d", a->column);
    n = a->draw.n_bias;
    for (int32_t i = 0; i < n; i++)
        list[i] = a->draw.bias[i];
    for (int32_t i = 0; i < r->rules; i++)
        for (int32_t k = 0; covers(r, &r->rule[i], a) && !r->rule[i].allow && k < r->rule[i].n; k++)
            list[n++] = (tt_id_value){r->rule[i].id[k], -INFINITY};
    qsort(list, (size_t)n, sizeof *list, by_id);
    for (int32_t i = 0; i < n; i++) /* of equal ids the lowest value came first */
        if (!kept || list[i].id != list[kept - 1].id)
            list[kept++] = list[i];
    a->draw.bias = list;
    a->draw.n_bias = kept;
    return TT_OK;
}

/* Puts the rules into the asks of a plan; asks side by side under the same rules share a list. */
static tt_status constrain(tt_run *r, tt_err *e)
{
    const tt_id_value *from = NULL;
    for (int32_t i = 0; i < r->plan.asks; i++) {
        tt_ask *a = &r->plan.ask[i], *before = a - 1;
        for (int32_t k = 0; k < r->rules; k++)
            if (r->rule[k].allow && covers(r, &r->rule[k], a)) {
                a->draw.allow = r->rule[k].id;
                a->draw.n_allow = r->rule[k].n;
            }
        bool shared = i && a->draw.bias == from && same_rules(r, a, before);
        from = a->draw.bias;
        if (shared) {
            a->draw.bias = before->draw.bias;
            a->draw.n_bias = before->draw.n_bias;
            continue;
        }
        tt_status s = add_bans(r, a, e);
        if (s)
            return s;
    }
    return TT_OK;
}

/* Columns behind the end of the answer are not fed, except where they complete a block. */
static void leave_out_tail(tt_run *r)
{
    tt_plan *p = &r->plan;
    if (r->live == r->seq.columns || p->see == TT_SEE_BLOCK || p->token)
        return;
    p->row_end = p->row_end < r->live ? p->row_end : r->live;
    p->see_end = p->see_end < r->live ? p->see_end : r->live;
    p->row_begin = p->row_begin < p->row_end ? p->row_begin : p->row_end;
}

/* The states that a run of recurrent depth keeps. */
static tt_status open_latents(tt_run *r, int32_t columns, tt_err *e)
{
    tt_latent_size size = tt_sampler_latents(r->sampler, r->seq.params, columns);
    tt_status s = TT_OK;
    if (!r->latents && size.columns)
        s = tt_latents_open(&r->latents, r->model, &size, e);
    r->plan.depth->latents = r->latents;
    return s;
}

/* Stores and rows that the plan needs and the run does not have yet. */
static tt_status open_stores(tt_run *r, tt_err *e)
{
    const tt_params *p = r->seq.params;
    int32_t columns = tt_run_columns(r->sampler, p, r->seq.columns);
    if (!r->plan.guide)
        columns = tt_sampler_store(r->sampler, p, columns, r->seq.prompt);
    tt_kv_sharing sharing = {.entries = 1};
    if (!r->plan.guide)
        sharing = tt_sampler_sharing(r->sampler, p);
    int stores = !r->plan.keep ? 0 : r->plan.cfg_scale > 0 ? 2 : 1;
    for (int twin = 0; twin < stores; twin++) {
        tt_kv **kv = store_of(r, twin);
        int32_t room = twin ? twin_column(r, columns) : columns;
        tt_status s = *kv ? TT_OK : tt_kv_open_shared(kv, tt_run_model(r), room, &sharing, e);
        if (s)
            return s;
    }
    tt_status st = r->plan.depth ? open_latents(r, columns, e) : TT_OK;
    if (st)
        return st;
    bool opens = r->plan.memo && !r->memo;
    return opens ? tt_memo_open(&r->memo, r->model, r->plan.memo, r->seq.columns, e) : TT_OK;
}

void tt_run_plan(tt_run *r)
{
    if (r->planned || r->done || r->failed)
        return;
    tt_arena_rewind(&r->step, 0);
    r->plan = (tt_plan){.arena = &r->step, .n_top = r->seq.n_top};
    r->failed = r->sampler->plan(&r->seq, r->state, &r->plan, &r->error);
    if (!r->failed && r->rules && !r->plan.guide)
        r->failed = constrain(r, &r->error);
    if (!r->failed && !r->plan.guide)
        r->failed = tt_reach_constrain(&r->seq, &r->plan, &r->error);
    if (!r->failed)
        r->failed = open_stores(r, &r->error);
    leave_out_tail(r);
    feed_left_neighbour(r);
    r->planned = !r->failed;
}

int32_t tt_run_recurrences(const tt_run *r)
{
    return r->plan.depth ? r->plan.depth->recurrences : 0;
}

int64_t tt_run_rows(const tt_run *r)
{
    int64_t shadows = r->plan.shadow_end - r->plan.shadow_begin;
    return real_rows(&r->plan) + (r->plan.cfg_scale > 0 ? twin_rows(r) : 0) + shadows;
}

/* --- building the pass --- */

/* list: address of a pointer to entries of this size. */
static tt_status grow(void *list, int64_t *room, int64_t need, size_t size, tt_err *e)
{
    if (need <= *room)
        return TT_OK;
    int64_t n = *room ? *room : 256;
    while (n < need)
        n *= 2;
    void *p;
    memcpy(&p, list, sizeof p);
    p = realloc(p, (size_t)n * size);
    if (!p)
        return tt_fail(e, TT_ENOMEM, "no memory for a pass of %lld entries", (long long)need);
    memcpy(list, &p, sizeof p);
    *room = n;
    return TT_OK;
}

static tt_status reserve(tt_batch *b, tt_run *const *run, int64_t n, int32_t *n_top, tt_err *e)
{
    int64_t rows = 0, wants = 0, states = 0, classified = 0;
    const tt_model_info *info = &tt_run_model(run[0])->info;
    *n_top = 0;
    for (int64_t i = 0; i < n; i++) {
        rows += tt_run_rows(run[i]);
        wants += run[i]->plan.asks;
        states += run[i]->plan.states;
        classified += run[i]->plan.classify;
        *n_top = run[i]->plan.n_top > *n_top ? run[i]->plan.n_top : *n_top;
    }
    int64_t room[4] = {b->row_room, b->row_room, b->row_room, b->row_room};
    int64_t want_room[2] = {b->want_room, b->want_room};
    tt_status s = grow(&b->id, &room[0], rows, sizeof *b->id, e);
    if (!s)
        s = grow(&b->position, &room[1], rows, sizeof *b->position, e);
    if (!s)
        s = grow(&b->column, &room[2], rows, sizeof *b->column, e);
    if (!s)
        s = grow(&b->mix, &room[3], rows, sizeof *b->mix, e);
    b->row_room = s ? b->row_room : room[0];
    if (!s)
        s = grow(&b->want, &want_room[0], wants, sizeof *b->want, e);
    if (!s)
        s = grow(&b->kl, &want_room[1], wants, sizeof *b->kl, e);
    if (!s)
        s = grow(&b->stats, &b->want_room, wants, sizeof *b->stats, e);
    if (!s)
        s = grow(&b->seq, &b->seq_room, 3 * n, sizeof *b->seq, e);
    if (!s)
        s = grow(&b->state_row, &b->state_room, states, sizeof *b->state_row, e);
    if (!s)
        s = grow(&b->state, &b->float_room, states * info->width, sizeof *b->state, e);
    if (!s)
        s = grow(&b->class_row, &b->class_room, classified, sizeof *b->class_row, e);
    if (!s)
        s = grow(&b->classes, &b->class_float_room, classified * info->classes,
                 sizeof *b->classes, e);
    if (!s && *n_top)
        s = grow(&b->top, &b->top_room, wants * *n_top, sizeof *b->top, e);
    return s;
}

/* The token fed at a column. Open columns behind the last one asked for show their draft: they are
 * decided later. */
static int32_t token_at(const tt_run *r, int32_t c)
{
    const tt_plan *p = &r->plan;
    const tt_seq *q = &r->seq;
    if (p->row_id)
        return p->row_id[c];
    bool later = !p->asks || c > p->ask[p->asks - 1].column;
    bool drafted = q->draft && !r->sampler->reads && later && c < q->columns && q->draft[c] >= 0;
    return drafted && tt_seq_open_at(q, c) ? q->draft[c] : q->id[c];
}

static void open_seq(tt_batch *b, tt_run *r, bool twin, int64_t rows)
{
    const tt_plan *p = &r->plan;
    bool moved = twin && r->negatives;
    b->seq[b->seqs++] =
        (tt_pass_seq){.row = b->rows,
                      .rows = rows,
                      .see_begin = moved ? twin_column(r, p->see_begin) : p->see_begin,
                      .see_end = moved ? twin_column(r, p->see_end) : p->see_end,
                      .see = p->see,
                      .block = p->block,
                      .memo = r->memo,
                      .sigma = p->sigma,
                      .depth = twin ? NULL : p->depth,
                      .kv = p->keep ? *store_of(r, twin) : NULL};
}

static void add_row(tt_batch *b, int32_t id, int32_t position, int32_t column, float mix)
{
    b->id[b->rows] = id;
    b->position[b->rows] = position;
    b->column[b->rows] = column;
    b->mix[b->rows] = mix;
    b->mixes |= mix != 0;
    b->rows++;
}

static void add_rows(tt_batch *b, tt_run *r)
{
    const tt_plan *p = &r->plan;
    int64_t rows = real_rows(p);
    r->row = b->rows;
    open_seq(b, r, false, rows);
    for (int64_t i = 0; i < rows; i++) {
        if (p->token) {
            add_row(b, p->token[i], (int32_t)i, (int32_t)i, 0);
            continue;
        }
        int32_t c = fed_column(p, i);
        bool mixed = p->mix && tt_seq_open_at(&r->seq, c);
        add_row(b, token_at(r, c), c, c, mixed ? p->mix[c] : 0);
    }
}

/* The twin has the negative prompt in place of the prompt, or masks where columns were given. */
static void add_twin(tt_batch *b, tt_run *r)
{
    const tt_plan *p = &r->plan;
    const tt_seq *q = &r->seq;
    int64_t rows = twin_rows(r), left_out = twin_leaves_out(r);
    r->twin_row = b->rows;
    open_seq(b, r, true, rows);
    for (int64_t i = 0; i < rows; i++) {
        int32_t t = p->feed ? twin_column(r, p->feed[left_out + i])
                            : twin_column(r, p->row_begin) + (int32_t)i;
        int32_t c = r->negatives ? t - r->negatives + q->prompt : t, id;
        if (r->negatives)
            id = t < r->negatives ? r->negative[t] : token_at(r, c);
        else
            id = q->fixed[c] ? q->mask_id : token_at(r, c);
        add_row(b, id, t, t, 0);
    }
}

/* The shadow columns, masks that lie behind the canvas in the store. */
static void add_shadows(tt_batch *b, tt_run *r)
{
    const tt_plan *p = &r->plan;
    int32_t n = p->shadow_end - p->shadow_begin;
    if (!n)
        return;
    b->seq[b->seqs++] = (tt_pass_seq){.row = b->rows,
                                      .rows = n,
                                      .see_begin = p->see_begin,
                                      .see_end = r->seq.columns + n,
                                      .see = TT_SEE_ALL,
                                      .hole = p->shadow_begin + 1,
                                      .kv = r->kv[0]};
    for (int32_t i = 0; i < n; i++)
        add_row(b, r->seq.mask_id, p->shadow_begin + i, r->seq.columns + i, 0);
}

/* Which of the rows fed a column is. */
static int64_t place_of(const tt_plan *p, int32_t column)
{
    if (!p->feed || p->token)
        return column - p->row_begin;
    int32_t low = 0, high = p->feeds - 1;
    while (low < high) {
        int32_t middle = (low + high) / 2;
        if (p->feed[middle] < column)
            low = middle + 1;
        else
            high = middle;
    }
    return low;
}

/* The rows of the pass that hold an asked column's distribution. */
static int64_t row_of(const tt_run *r, const tt_ask *a)
{
    const tt_plan *p = &r->plan;
    if (is_shadow(r, a))
        return r->row + real_rows(p) + (p->cfg_scale > 0 ? twin_rows(r) : 0) + a->column -
               r->seq.columns;
    return r->row + place_of(p, source_column(r, a));
}

static int64_t twin_row_of(const tt_run *r, const tt_ask *a)
{
    const tt_plan *p = &r->plan;
    int32_t c = source_column(r, a);
    int64_t at = p->feed ? place_of(p, c) - twin_leaves_out(r)
                         : twin_column(r, c) - twin_column(r, p->row_begin);
    return r->twin_row + (at > 0 ? at : 0);
}

static void add_states(tt_batch *b, tt_run *r)
{
    r->first_state = b->states;
    for (int32_t i = 0; i < r->plan.states; i++)
        b->state_row[b->states++] = r->row + place_of(&r->plan, r->plan.state[i]);
}

static void add_class(tt_batch *b, tt_run *r)
{
    r->class_row = b->classified;
    if (r->plan.classify)
        b->class_row[b->classified++] = r->row;
}

static void add_wants(tt_batch *b, tt_run *r)
{
    const tt_plan *p = &r->plan;
    r->want = b->wants;
    for (int32_t i = 0; i < p->asks; i++) {
        const tt_ask *a = &p->ask[i];
        b->want[b->wants++] = (tt_want){.row = row_of(r, a),
                                        .uncond = p->cfg_scale > 0 ? twin_row_of(r, a) : -1,
                                        .cfg_scale = p->cfg_scale,
                                        .draw = a->draw,
                                        .memo = p->memo && i < p->memos ? r->memo : NULL,
                                        .memo_column = a->column};
    }
}

/* The pass computes the longest list of alternatives anybody wants; each run keeps its part. */
static void narrow_top(tt_batch *b, const tt_run *r, int32_t n_top)
{
    int32_t keep = r->plan.n_top;
    for (int64_t i = 0; keep && keep < n_top && i < r->plan.asks; i++)
        memmove(b->top + r->want * n_top + i * keep, b->top + (r->want + i) * n_top,
                (size_t)keep * sizeof *b->top);
}

/* A drafted token that is the model's own choice for its column is taken, whatever the sampler
 * would have waited for. */
static void accept_drafts(tt_run *r, const tt_result *result)
{
    const tt_plan *p = &r->plan;
    tt_seq *q = &r->seq;
    for (int32_t i = 0; i < p->asks; i++) {
        int32_t c = p->ask[i].column;
        if (c < q->columns && tt_seq_open_at(q, c) && result->stats[i].drawn == q->draft[c])
            tt_seq_commit(q, result, i);
    }
}

static void apply(tt_batch *b, tt_run *r, int32_t n_top)
{
    narrow_top(b, r, n_top);
    tt_result result = {.plan = &r->plan,
                        .stats = b->stats + r->want,
                        .top = r->plan.n_top ? b->top + r->want * n_top : NULL,
                        .kl = b->kl + r->want,
                        .state = b->state + r->first_state * tt_run_model(r)->info.width,
                        .classes = b->classes + r->class_row * tt_run_model(r)->info.classes};
    r->planned = false;
    r->nfe++;
    for (int32_t i = 0; i < r->plan.asks && !r->failed; i++)
        if (result.stats[i].drawn < 0)
            r->failed = tt_fail_param(&r->error, "logit_bias", "constraint_unsatisfiable",
                                      "no token is possible at column %d",
                                      r->plan.ask[i].column);
    if (!r->failed && r->seq.draft && !r->sampler->reads && !r->plan.guide)
        accept_drafts(r, &result);
    if (!r->failed)
        r->failed = r->sampler->apply(&r->seq, r->state, &result, &r->done, &r->error);
    r->seq.step++;
}

tt_status tt_batch_step(tt_batch *b, tt_run *const *run, int64_t n, tt_err *e)
{
    int32_t n_top;
    for (int64_t i = 1; i < n; i++)
        if (tt_run_model(run[i]) != tt_run_model(run[0]))
            return tt_fail(e, TT_EINVAL, "a step of runs of different models");
    tt_status s = n ? reserve(b, run, n, &n_top, e) : TT_OK;
    if (s || !n)
        return s;
    b->rows = b->wants = b->seqs = b->states = b->classified = 0;
    b->mixes = false;
    for (int64_t i = 0; i < n; i++) {
        add_rows(b, run[i]);
        if (run[i]->plan.cfg_scale > 0)
            add_twin(b, run[i]);
        add_shadows(b, run[i]);
        add_wants(b, run[i]);
        add_states(b, run[i]);
        add_class(b, run[i]);
    }
    tt_pass pass = {.rows = b->rows,
                    .id = b->id,
                    .position = b->position,
                    .column = b->column,
                    .mix = b->mixes ? b->mix : NULL,
                    .kl = b->kl,
                    .seqs = b->seqs,
                    .seq = b->seq,
                    .wants = b->wants,
                    .want = b->want,
                    .n_top = n_top,
                    .stats = b->stats,
                    .top = n_top ? b->top : NULL,
                    .states = b->states,
                    .state_row = b->state_row,
                    .state = b->state,
                    .classified = b->classified,
                    .class_row = b->class_row,
                    .classes = b->classes};
    s = tt_model_run(tt_run_model(run[0]), &pass, e);
    for (int64_t i = 0; i < n && !s; i++)
        apply(b, run[i], n_top);
    return s;
}

void tt_batch_free(tt_batch *b)
{
    free(b->id);
    free(b->position);
    free(b->column);
    free(b->seq);
    free(b->want);
    free(b->stats);
    free(b->mix);
    free(b->kl);
    free(b->top);
    free(b->state_row);
    free(b->state);
    free(b->class_row);
    free(b->classes);
    *b = (tt_batch){0};
}
