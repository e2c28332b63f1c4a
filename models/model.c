/* model.c - opening a model folder, and the checks every pass goes through. */
#include "models/model.h"

#include <string.h>

#include "models/folder.h"
#include "models/kv.h"
#include "models/memo.h"

/* What the device cannot, the model cannot. */
static void limit_kinds(tt_model *m)
{
    const tt_backend *op = &m->stream->op;
    if (!op->head_kl || !op->head_mean || !op->add_scaled)
        m->info.kinds &= ~(uint32_t)TT_KIND_MEMO;
    if (!(op->flags & TT_BACKEND_HOLES))
        m->info.kinds &= ~(uint32_t)TT_KIND_SHADOWS;
}

static tt_status open_folder(tt_model **out, tt_weights **weights, tt_config **config,
                             bool random, tt_stream *s, const char *folder, tt_weights_mode mode,
                             void (*progress)(void *arg, double done), void *arg, tt_err *e)
{
    *out = NULL;
    *weights = NULL;
    *config = NULL;
    tt_status st = tt_config_open(config, folder, e);
    if (st)
        return st;
    const char *architecture = tt_config_architecture(*config);
    const tt_model_def *def = tt_model_find(architecture);
    if (!def)
        st = tt_fail(e, TT_EUNSUP, "architecture '%.60s' in '%.100s/config.json' is not known; "
                     "`tutti inspect --list` shows those that are", architecture, folder);
    if (!st)
        st = tt_folder_weights(weights, folder, random, e);
    if (!st) {
        st = def->open(out, s, *weights, *config, mode, progress, arg, e);
        if (st)
            tt_context(e, st, "'%.100s'", folder);
        else
            limit_kinds(*out);
        tt_weights_rest(*weights);
    }
    return tt_folder_opened(st, weights, config);
}

tt_status tt_model_open(tt_model **out, tt_weights **weights, tt_config **config, tt_stream *s,
                        const char *folder, tt_weights_mode mode,
                        void (*progress)(void *arg, double done), void *arg, tt_err *e)
{
    return open_folder(out, weights, config, false, s, folder, mode, progress, arg, e);
}

tt_status tt_model_open_random(tt_model **out, tt_weights **weights, tt_config **config,
                               tt_stream *s, const char *folder, tt_weights_mode mode,
                               void (*progress)(void *arg, double done), void *arg, tt_err *e)
{
    return open_folder(out, weights, config, true, s, folder, mode, progress, arg, e);
}

void tt_model_close(tt_model *m)
{
    if (m)
        m->def->close(m);
}

static tt_status check_rows(const tt_model *m, const tt_pass *p, tt_err *e)
{
    const tt_model_info *info = &m->info;
    int64_t ids = info->table_rows > info->vocab ? info->table_rows : info->vocab;
    for (int64_t r = 0; r < p->rows; r++)
        if (p->id[r] < 0 || p->id[r] >= ids)
            return tt_fail(e, TT_EINVAL, "pass: token %d of row %lld is outside the vocabulary of "
                           "%lld", p->id[r], (long long)r, (long long)ids);
    return TT_OK;
}

/* Rows that expected embeddings are mixed into have them; rows to be kept have a place. */
static tt_status check_memos(const tt_model *m, const tt_pass *p, tt_err *e)
{
    bool used = p->mix != NULL;
    for (int64_t i = 0; i < p->seqs && p->mix; i++) {
        const tt_pass_seq *q = &p->seq[i];
        for (int64_t r = q->row; r < q->row + q->rows; r++)
            if (p->mix[r] != 0 && (!q->memo || q->memo->kind != TT_MEMO_MEAN ||
                                   p->column[r] >= q->memo->columns ||
                                   !q->memo->filled[p->column[r]]))
                return tt_fail(e, TT_EINVAL, "pass: row %lld has no expected embedding to mix in",
                               (long long)r);
    }
    for (int64_t i = 0; i < p->wants; i++) {
        const tt_want *w = &p->want[i];
        if (!w->memo)
            continue;
        used = true;
        if (w->memo_column < 0 || w->memo_column >= w->memo->columns ||
            (w->memo->kind == TT_MEMO_HIDDEN && !p->kl))
            return tt_fail(e, TT_EINVAL, "pass: want %lld keeps column %d of %d", (long long)i,
                           w->memo_column, w->memo->columns);
    }
    if (used && !(m->info.kinds & TT_KIND_MEMO))
        return tt_fail(e, TT_EUNSUP, "pass: the %s family keeps no rows between passes",
                       m->info.family);
    return TT_OK;
}

/* Without a store the rows are the columns; with one, every visible column must be fed now or
 * have been fed before. */
static tt_status check_seq(const tt_pass *p, int64_t i, tt_err *e)
{
    const tt_pass_seq *q = &p->seq[i];
    int32_t columns = q->kv ? q->kv->columns : (int32_t)q->rows;
    if (q->see_begin < 0 || q->see_end > columns || q->see_begin > q->see_end)
        return tt_fail(e, TT_EINVAL, "pass: sequence %lld sees columns %d..%d of %d", (long long)i,
                       q->see_begin, q->see_end, columns);
    if (q->hole < 0 || (q->hole && q->see != TT_SEE_ALL))
        return tt_fail(e, TT_EINVAL, "pass: sequence %lld has a hole beside another rule",
                       (long long)i);
    for (int64_t r = q->row; r < q->row + q->rows; r++) {
        int32_t c = p->column[r];
        if (c < 0 || c >= columns || (!q->kv && c != (int32_t)(r - q->row)))
            return tt_fail(e, TT_EINVAL, "pass: row %lld has column %d of %d", (long long)r, c,
                           columns);
        if (q->kv)
            q->kv->filled[c] = 1;
    }
    for (int32_t c = q->see_begin; q->kv && c < q->see_end; c++)
        if (!q->kv->filled[c])
            return tt_fail(e, TT_EINVAL, "pass: sequence %lld sees column %d, which was never "
                           "computed", (long long)i, c);
    return TT_OK;
}

tt_status tt_model_run(tt_model *m, const tt_pass *p, tt_err *e)
{
    if (p->rows < 0 || p->rows > INT32_MAX || p->wants < 0 || p->n_top < 0 ||
        p->n_top > TT_MAX_TOP)
        return tt_fail(e, TT_EINVAL, "pass: %lld rows, %lld wants, %d alternatives",
                       (long long)p->rows, (long long)p->wants, p->n_top);
    if (p->rows == 0)
        return TT_OK;
    tt_status s = check_rows(m, p, e);
    int64_t next = 0;
    for (int64_t i = 0; i < p->seqs && !s; i++) {
        if (p->seq[i].row != next || p->seq[i].rows < 0 || p->seq[i].rows > p->rows - next)
            return tt_fail(e, TT_EINVAL, "pass: sequence %lld does not follow the one before",
                           (long long)i);
        next += p->seq[i].rows;
        s = check_seq(p, i, e);
    }
    if (!s && next != p->rows)
        return tt_fail(e, TT_EINVAL, "pass: %lld of %lld rows belong to a sequence",
                       (long long)next, (long long)p->rows);
    for (int64_t i = 0; i < p->wants && !s; i++)
        if (p->want[i].row < 0 || p->want[i].row >= p->rows || p->want[i].uncond >= p->rows)
            return tt_fail(e, TT_EINVAL, "pass: want %lld names row %lld", (long long)i,
                           (long long)p->want[i].row);
    for (int64_t i = 0; i < p->states && !s; i++)
        if (p->state_row[i] < 0 || p->state_row[i] >= p->rows ||
            (i && p->state_row[i] <= p->state_row[i - 1]))
            return tt_fail(e, TT_EINVAL, "pass: state %lld is of row %lld", (long long)i,
                           (long long)p->state_row[i]);
    for (int64_t i = 0; i < p->classified && !s; i++)
        if (m->info.classes < 1 || p->class_row[i] < 0 || p->class_row[i] >= p->rows ||
            (i && p->class_row[i] <= p->class_row[i - 1]))
            return tt_fail(e, TT_EINVAL, "pass: row %lld is to be classified by %d classes",
                           (long long)p->class_row[i], m->info.classes);
    if (!s)
        s = check_memos(m, p, e);
    if (s)
        return s;
    m->stream->act = m->info.act;
    return m->def->run(m, p, e);
}
