/* scheduler.c - see scheduler.h. */
#include "server/scheduler.h"

#include <stdlib.h>
#include <string.h>

#include "kernels/base/clock.h"
#include "kernels/base/log.h"
#include "server/share.h"

/* While another model waits, a pass of images ends after about so long. */
static const double image_pass_seconds = 0.1;

typedef struct {
    tt_run run;             /* of a text, or */
    tt_picture_run picture; /* of an image: job->spec.picture */
    tt_job *job;
    int32_t sample;
    uint64_t turn; /* of the last pass it took part in */
} active;

struct tt_scheduler {
    tt_scheduler_options o;
    pthread_t thread;
    pthread_mutex_t lock; /* queue, quit, stats */
    pthread_cond_t work;
    tt_job *queue; /* by priority, then arrival; jobs leave when their last sample started */
    int queued;
    uint64_t numbers;
    bool quit;
    tt_engine_stats stats;

    /* The thread's own. */
    active **list;
    int running, room;
    tt_job *searches; /* those that have begun, by search_next */
    bool waits;       /* one of them waits for a program */
    tt_run **pick;
    tt_picture_run **pictures;
    active **picked;
    tt_share share;
    double per_image[TT_PICTURE_PASSES]; /* seconds of it in a pass, as last measured */
    tt_batch batch;
    uint64_t turn;
};

/* --- queue --- */

static void count_ahead(tt_scheduler *s)
{
    int n = 0;
    for (tt_job *j = s->queue; j; j = j->next)
        j->ahead = n++;
}

static bool before(const tt_job *a, const tt_job *b)
{
    return a->spec.priority != b->spec.priority ? a->spec.priority < b->spec.priority
                                                : a->number < b->number;
}

static void enqueue(tt_scheduler *s, tt_job *j)
{
    j->number = s->numbers++;
    tt_job **at = &s->queue;
    while (*at && before(*at, j))
        at = &(*at)->next;
    j->next = *at;
    *at = j;
    s->queued++;
    count_ahead(s);
}

static void dequeue(tt_scheduler *s, tt_job *j)
{
    tt_job **at = &s->queue;
    while (*at != j)
        at = &(*at)->next;
    *at = j->next;
    j->next = NULL;
    j->ahead = 0;
    s->queued--;
    count_ahead(s);
}

static bool is_queued(const tt_scheduler *s, const tt_job *j)
{
    const tt_job *at = s->queue;
    while (at && at != j)
        at = at->next;
    return at != NULL;
}

/* A guess from what passes cost so far: every queued job runs once through the batch. */
static int64_t guess_wait_ms(const tt_scheduler *s)
{
    int64_t jobs = 0;
    for (int i = 0; i <= TT_FINISH_ERROR; i++)
        jobs += s->stats.finished[i];
    double per_job = jobs ? s->stats.pass_seconds * 1000 / (double)jobs : 100;
    double ms = per_job * (s->queued + 1);
    return ms < 50 ? 50 : ms > 60000 ? 60000 : (int64_t)ms;
}

tt_status tt_scheduler_submit(tt_scheduler *s, tt_job *j, int64_t *retry_after_ms, tt_err *e)
{
    tt_status st = TT_OK;
    if (j->bytes > s->o.max_bytes)
        return tt_fail(e, TT_ENOMEM, "the job needs %zu MiB; this server gives jobs %zu",
                       j->bytes >> 20, s->o.max_bytes >> 20);
    pthread_mutex_lock(&s->lock);
    /* What can start at the next turn does not count as waiting. */
    bool full = s->queued >= s->o.max_queue && s->stats.running >= s->o.max_running;
    full |= s->queued >= s->o.max_queue + s->o.max_running;
    if (s->quit)
        st = tt_fail(e, TT_ECANCEL, "the server is shutting down");
    else if (full && !j->spec.continues)
        st = tt_fail(e, TT_EBUSY, "%d jobs are waiting already", s->queued);
    if (st == TT_EBUSY && retry_after_ms)
        *retry_after_ms = guess_wait_ms(s);
    if (!st) {
        enqueue(s, j);
        pthread_cond_signal(&s->work);
    }
    s->stats.waiting = s->queued;
    pthread_mutex_unlock(&s->lock);
    return st;
}

/* --- starting and ending --- */

/* Counts first, so that whoever sees the job finished sees its memory free. */
static void end_sample(tt_scheduler *s, tt_job *j, int32_t i, tt_finish why, int32_t end,
                       const tt_err *error)
{
    bool last = j->unfinished == 1; /* only this thread changes it */
    pthread_mutex_lock(&s->lock);
    s->stats.finished[why]++;
    s->stats.bytes_used -= last && j->started_ns ? (int64_t)j->bytes : 0;
    pthread_mutex_unlock(&s->lock);
    tt_job_finish(j, i, why, end, error);
    if (last || j->spec.wake_steps)
        tt_job_wake(j);
    if (last)
        tt_job_drop(j);
}

/* A piece of a search has come to its end: the search takes what came of it. */
static void end_piece(active *a, tt_finish why, const tt_err *error)
{
    if (why == TT_FINISH_ERROR)
        tt_picture_search_fail(a->job->search, error);
    else
        tt_picture_search_take(a->job->search, a->sample, &a->picture);
}

static void end_active(tt_scheduler *s, int at, tt_finish why, int32_t end, const tt_err *error)
{
    active *a = s->list[at];
    s->list[at] = s->list[--s->running];
    a->job->running--;
    pthread_mutex_lock(&s->lock);
    s->stats.running = s->running;
    pthread_mutex_unlock(&s->lock);
    pthread_mutex_lock(s->o.device);
    if (a->job->search && why != TT_FINISH_CANCELLED)
        end_piece(a, why, error);
    tt_run_close(&a->run);
    tt_picture_run_close(&a->picture);
    pthread_mutex_unlock(s->o.device);
    if (!a->job->search)
        end_sample(s, a->job, a->sample, why, end, error);
    free(a);
}

/* A search that is over, whatever is left of it. */
static void end_search(tt_scheduler *s, tt_job *j, tt_finish why, const tt_err *error)
{
    for (int i = s->running - 1; i >= 0; i--)
        if (s->list[i]->job == j)
            end_active(s, i, TT_FINISH_CANCELLED, 0, NULL);
    pthread_mutex_lock(&s->lock);
    if (is_queued(s, j))
        dequeue(s, j);
    s->stats.waiting = s->queued;
    pthread_mutex_unlock(&s->lock);
    for (tt_job **at = &s->searches; *at; at = &(*at)->search_next)
        if (*at == j) {
            *at = j->search_next;
            break;
        }
    pthread_mutex_lock(s->o.device);
    tt_picture_search_clear(j->search);
    pthread_mutex_unlock(s->o.device);
    for (int32_t k = 0, n = j->spec.samples; k < n; k++) /* the last may free the job */
        end_sample(s, j, k, why, j->spec.columns, error);
}

static tt_finish overdue(const tt_job *j, int64_t now)
{
    if (j->cancel)
        return TT_FINISH_CANCELLED;
    if (j->spec.deadline_ms > 0 && now - j->submitted_ns > j->spec.deadline_ms * 1000000)
        return TT_FINISH_DEADLINE;
    return TT_FINISH_NONE;
}

static tt_status open_run(active *a, tt_job *j, int32_t i, tt_err *e)
{
    if (j->search)
        return tt_picture_search_start(j->search, i, &a->picture, e);
    if (j->spec.picture) {
        tt_picture_run_spec picture = tt_job_picture_spec(j, i);
        tt_status s = tt_job_picture_room(j, i, e);
        return s ? s : tt_picture_run_open(&a->picture, &picture, e);
    }
    tt_run_spec spec = tt_job_run_spec(j, i);
    return tt_run_open(&a->run, &spec, e);
}

static void start_sample(tt_scheduler *s, tt_job *j, int32_t i)
{
    const tt_job_spec *p = &j->spec;
    tt_err e = {0};
    active *a = calloc(1, sizeof *a);
    tt_status st = a ? open_run(a, j, i, &e) : tt_fail(&e, TT_ENOMEM, "no memory");
    if (st) {
        free(a);
        if (j->search)
            tt_picture_search_fail(j->search, &e);
        else
            end_sample(s, j, i, TT_FINISH_ERROR, p->columns, &e);
        return;
    }
    a->job = j;
    a->sample = i;
    a->turn = s->turn; /* not older than those that wait already */
    s->list[s->running++] = a;
    j->running++;
    pthread_mutex_lock(&s->lock);
    s->stats.running = s->running;
    pthread_mutex_unlock(&s->lock);
}

/* Queued jobs that were cancelled or ran out of time leave at once. */
static tt_job *take_overdue(tt_scheduler *s, int64_t now, tt_finish *why)
{
    for (tt_job *j = s->queue; j; j = j->next)
        if ((*why = overdue(j, now))) {
            dequeue(s, j);
            return j;
        }
    return NULL;
}

/* True when the model's sequences are as many as a step may have. Models do not take each other's
 * places: what is made of one waits for its own kind alone. */
static bool is_full(const tt_scheduler *s, const tt_served *model)
{
    int n = 0;
    for (int i = 0; i < s->running; i++)
        n += s->list[i]->job->spec.model == model;
    return n >= s->o.max_running;
}

/* Whether memory is left for a job that has not begun; those that have keep theirs. */
static bool fits(const tt_scheduler *s, const tt_job *j)
{
    return j->started_ns || s->stats.bytes_used + (int64_t)j->bytes <= (int64_t)s->o.max_bytes;
}

/* Of the most urgent jobs that find a place the one with the fewest samples in the batch: a job of
 * many samples leaves room for those behind it. One that finds no memory keeps those behind it from
 * beginning, but not from going on: what they give back is what it waits for. */
static tt_job *next_in_line(const tt_scheduler *s)
{
    tt_job *best = NULL;
    const tt_served *known = NULL; /* the model of `full`: neighbours are often alike */
    bool full = false, blocked = false;
    for (tt_job *j = s->queue; j; j = j->next) {
        if (best && j->spec.priority != best->spec.priority)
            break;
        blocked |= !fits(s, j);
        if (blocked && !j->started_ns)
            continue;
        if (j->spec.model != known) {
            known = j->spec.model;
            full = is_full(s, known);
        }
        if (!full && (!best || j->running < best->running))
            best = j;
    }
    return best;
}

/* Room for one more in the list. */
static bool grow(tt_scheduler *s)
{
    if (s->running < s->room)
        return true;
    active **more = realloc(s->list, (size_t)s->room * 2 * sizeof(active *));
    if (!more)
        return false;
    s->list = more;
    s->room *= 2;
    return true;
}

/* The next sample to start, or NULL when the batch, memory or the queue is at its end. */
static tt_job *take_next(tt_scheduler *s, int32_t *sample)
{
    tt_job *j = next_in_line(s);
    if (!j || !grow(s))
        return NULL;
    if (!j->started_ns) {
        s->stats.bytes_used += (int64_t)j->bytes;
        pthread_mutex_lock(&j->lock);
        j->started_ns = tt_now_ns();
        pthread_mutex_unlock(&j->lock);
        if (j->search) {
            j->search_next = s->searches;
            s->searches = j;
        }
    }
    *sample = j->to_start++;
    if (j->to_start == j->units)
        dequeue(s, j);
    return j;
}

static void admit(tt_scheduler *s)
{
    for (;;) {
        tt_finish why = TT_FINISH_NONE;
        int32_t i = 0;
        pthread_mutex_lock(&s->lock);
        tt_job *late = take_overdue(s, tt_now_ns(), &why);
        tt_job *j = late ? late : take_next(s, &i);
        s->stats.waiting = s->queued;
        pthread_mutex_unlock(&s->lock);
        if (!j)
            return;
        if (!late) {
            start_sample(s, j, i);
            continue;
        }
        if (late->search) {
            end_search(s, late, why, NULL);
            continue;
        }
        /* Its samples that did not start end here; finishing the last one may free the job. */
        for (int32_t k = j->to_start, n = j->spec.samples; k < n; k++)
            end_sample(s, j, k, why, j->spec.columns, NULL);
    }
}

/* --- texts and images alike --- */

static bool is_picture(const active *a) { return a->job->spec.picture != NULL; }

/* How its run failed; NULL: it did not. */
static const tt_err *failure(const active *a)
{
    if (is_picture(a))
        return a->picture.failed ? &a->picture.error : NULL;
    return a->run.failed ? &a->run.error : NULL;
}

/* What runs its next pass; runs with the same go through it together. */
static const void *runs_on(const active *a)
{
    return is_picture(a) ? tt_picture_run_model(&a->picture) : (void *)tt_run_model(&a->run);
}

static bool same_pass(const active *a, const active *b)
{
    if (runs_on(a) != runs_on(b))
        return false;
    return is_picture(a) ? a->picture.pass == b->picture.pass
                         : tt_run_recurrences(&a->run) == tt_run_recurrences(&b->run);
}

static int64_t rows_of(const active *a)
{
    return is_picture(a) ? tt_picture_run_rows(&a->picture) : tt_run_rows(&a->run);
}

/* --- one pass --- */

static bool is_stop(const tt_job *j, int32_t id)
{
    for (int k = 0; k < j->spec.model->stop_ids; k++)
        if (j->spec.model->stop_id[k] == id)
            return true;
    return false;
}

/* The column of the first generated stop id, if nothing before it is open or may be revised; else
 * -1. */
static int32_t stop_column(const active *a)
{
    const tt_seq *q = &a->run.seq;
    for (int32_t c = 0; c < q->columns - q->unsettled; c++) {
        if (q->fixed[c])
            continue;
        if (tt_seq_open_at(q, c))
            return -1;
        if (is_stop(a->job, q->id[c]))
            return c;
    }
    return -1;
}

/* The answer ends at its first stop id at the latest, wherever columns before it are still open. */
static void cut_behind_stop(active *a)
{
    const tt_seq *q = &a->run.seq;
    for (int32_t c = 0; c + 1 < a->run.live; c++)
        if (!q->fixed[c] && !tt_seq_open_at(q, c) && is_stop(a->job, q->id[c]))
            tt_run_cut(&a->run, c + 1);
}

/* Publishes what the pass changed; true when the run is over, with the reason. */
static bool settle(active *a, tt_finish *why, int32_t *end)
{
    tt_job *j = a->job;
    tt_run *r = &a->run;
    *end = j->spec.columns;
    *why = TT_FINISH_ERROR;
    if (failure(a))
        return true;
    if (j->search) {
        *why = TT_FINISH_LENGTH;
        return a->picture.done;
    }
    if (is_picture(a)) {
        tt_job_publish_picture(j, a->sample, &a->picture);
        *why = TT_FINISH_LENGTH;
        return a->picture.done;
    }
    /* Guided and block-causal samplers end by themselves; nothing is cut that may be revised. */
    bool cuts = tt_sampler_shares(r->sampler, &j->spec.params) &&
                !(r->sampler->needs & TT_KIND_BLOCKS);
    if (j->spec.stop_early && j->spec.shrink && cuts && !r->seq.unsettled)
        cut_behind_stop(a);
    tt_job_publish(j, a->sample, r);
    if (r->done && r->seq.complete) {
        *why = TT_FINISH_STOP;
        return true;
    }
    int32_t stop = j->spec.ban_stops ? -1 : stop_column(a);
    if (stop >= 0 && (j->spec.stop_early || r->done)) {
        *why = TT_FINISH_STOP;
        *end = stop;
        return true;
    }
    *why = TT_FINISH_LENGTH;
    return r->done;
}

/* Of the runs that go with `first` (NULL: of the model whose turn it is) the one that waited
 * longest. */
static active *oldest(const tt_scheduler *s, const active *first, const void *model)
{
    active *best = NULL;
    for (int i = 0; i < s->running; i++) {
        active *a = s->list[i];
        bool fits = a->turn < s->turn &&
                    (first ? same_pass(a, first) : a->job->spec.model == model);
        if (fits && (!best || a->turn < best->turn))
            best = a;
    }
    return best;
}

/* Runs of a pass at most. */
static int64_t most_of(const tt_scheduler *s, const active *first)
{
    double each = is_picture(first) ? s->per_image[first->picture.pass] : 0;
    if (each <= 0 || tt_share_waiting(&s->share) < 2)
        return s->running;
    return each < image_pass_seconds ? (int64_t)(image_pass_seconds / each) : 1;
}

/* Fills s->picked, and s->pick or s->pictures, with runs of one pass, those that waited longest
 * first. */
static int64_t choose(tt_scheduler *s)
{
    int64_t n = 0, rows = 0, most = 1;
    tt_share_begin(&s->share);
    for (int i = 0; i < s->running; i++)
        tt_share_waits(&s->share, s->list[i]->job->spec.model);
    const void *model = tt_share_next(&s->share);
    for (active *a = oldest(s, NULL, model); a && n < most; a = oldest(s, s->picked[0], NULL)) {
        if (n == s->o.max_running || (n && rows + rows_of(a) > s->o.max_rows))
            break;
        rows += rows_of(a);
        a->turn = s->turn;
        s->picked[n] = a;
        s->pick[n] = &a->run;
        s->pictures[n++] = &a->picture;
        if (n == 1)
            most = most_of(s, a);
    }
    return n;
}

static int bucket(double ms)
{
    int b = 0;
    for (double limit = 0.25; b < 15 && ms > limit; limit *= 2)
        b++;
    return b;
}

static void count_texts(tt_scheduler *s, int64_t n)
{
    s->stats.rows += s->batch.rows;
    s->stats.wants += s->batch.wants;
    for (int64_t i = 0; i < n; i++) {
        s->stats.committed += s->pick[i]->seq.committed;
        s->stats.revised += s->pick[i]->seq.revised;
        s->pick[i]->seq.committed = s->pick[i]->seq.revised = 0;
    }
}

/* pass: what they waited for; by now they wait for the next. */
static void count_pictures(tt_scheduler *s, int64_t n, tt_picture_pass pass, double seconds)
{
    s->per_image[pass] = seconds / (double)n;
    s->stats.picture_passes[pass]++;
    for (int64_t i = 0; i < n; i++) {
        const tt_picture_run *r = s->pictures[i];
        s->stats.pictures += r->done && r->pictures;
        if (pass == TT_PICTURE_PASS_STEP && !r->failed)
            s->stats.committed += r->seq.commits;
    }
}

static void count_pass(tt_scheduler *s, int64_t n, tt_picture_pass pass, int64_t ns)
{
    double ms = (double)ns / 1e6;
    tt_share_took(&s->share, s->picked[0]->job->spec.model, ms / 1000);
    pthread_mutex_lock(&s->lock);
    s->stats.passes++;
    s->stats.pass_seconds += ms / 1000;
    s->stats.step_bucket[bucket(ms)]++;
    if (is_picture(s->picked[0]))
        count_pictures(s, n, pass, ms / 1000);
    else
        count_texts(s, n);
    pthread_mutex_unlock(&s->lock);
}

static int index_of(const tt_scheduler *s, const active *a)
{
    int i = 0;
    while (s->list[i] != a)
        i++;
    return i;
}

static void run_pass(tt_scheduler *s)
{
    tt_err e = {0};
    s->turn++;
    int64_t n = choose(s), start = tt_now_ns();
    if (!n)
        return;
    bool images = is_picture(s->picked[0]);
    tt_picture_pass pass = s->pictures[0]->pass;
    pthread_mutex_lock(s->o.device);
    tt_status st = images ? tt_picture_step(s->pictures, n, &e)
                          : tt_batch_step(&s->batch, s->pick, n, &e);
    pthread_mutex_unlock(s->o.device);
    if (st)
        tt_log(TT_LOG_ERROR, "pass", "sequences=%lld error=\"%s\"", (long long)n, e.text);
    else
        count_pass(s, n, pass, tt_now_ns() - start);
    for (int64_t i = 0; i < n; i++) {
        active *a = s->picked[i];
        tt_finish why = TT_FINISH_ERROR;
        int32_t end = a->job->spec.columns;
        if (st) {
            end_active(s, index_of(s, a), why, end, &e);
        } else if (settle(a, &why, &end)) {
            tt_err error = failure(a) ? *failure(a) : (tt_err){0};
            end_active(s, index_of(s, a), why, end, &error);
        } else if (a->job->spec.wake_steps && !a->job->search) {
            tt_job_wake(a->job);
        }
    }
}

/* --- the loop --- */

/* The next order of a search, in the queue as any job: others of its priority come first. */
static void put_pieces(tt_scheduler *s, tt_job *j)
{
    pthread_mutex_lock(&s->lock);
    j->to_start = 0;
    j->units = tt_picture_search_pieces(j->search);
    enqueue(s, j);
    s->stats.waiting = s->queued;
    pthread_mutex_unlock(&s->lock);
}

static void put_last(tt_scheduler *s, tt_job *j)
{
    tt_job **at = &s->searches;
    while (*at != j)
        at = &(*at)->search_next;
    *at = j->search_next;
    while (*at)
        at = &(*at)->search_next;
    *at = j;
    j->search_next = NULL;
}

/* True when it used the device, so that others come first now. */
static bool advance_search(tt_scheduler *s, tt_job *j)
{
    tt_search_next next = TT_SEARCH_AGAIN;
    tt_err e = {0};
    pthread_mutex_lock(s->o.device);
    tt_status st = tt_picture_search_next(j->search, &next, &e);
    pthread_mutex_unlock(s->o.device);
    if (!st && next == TT_SEARCH_OVER)
        st = tt_job_publish_search(j, &e);
    if (st || next == TT_SEARCH_OVER) {
        end_search(s, j, st ? TT_FINISH_ERROR : TT_FINISH_LENGTH, st ? &e : NULL);
        return true;
    }
    if (next == TT_SEARCH_PIECES)
        put_pieces(s, j);
    s->waits |= next == TT_SEARCH_WAITS;
    if (j->spec.wake_steps && next == TT_SEARCH_PIECES)
        tt_job_wake(j);
    if (next == TT_SEARCH_WAITS)
        return false;
    put_last(s, j);
    return true;
}

/* Of best of n no more samples begin once its time is over. */
static void curtail(tt_scheduler *s, tt_job *j)
{
    if (!tt_picture_search_curtail(j->search, j->to_start))
        return;
    pthread_mutex_lock(&s->lock);
    j->units = j->to_start;
    dequeue(s, j);
    s->stats.waiting = s->queued;
    pthread_mutex_unlock(&s->lock);
}

/* Searches whose pieces are all done go on, one a turn; those that were cancelled or took too long
 * end. */
static void advance_searches(tt_scheduler *s)
{
    int64_t now = tt_now_ns();
    s->waits = false;
    for (tt_job *j = s->searches, *next; j; j = next) {
        next = j->search_next;
        tt_finish why = overdue(j, now);
        if (why)
            end_search(s, j, why, NULL);
        else
            curtail(s, j);
    }
    for (tt_job *j = s->searches, *next; j; j = next) {
        next = j->search_next;
        if (tt_picture_search_idle(j->search) && advance_search(s, j))
            return;
    }
}

static void drop_ended(tt_scheduler *s)
{
    int64_t now = tt_now_ns();
    for (int i = 0; i < s->running;) {
        active *a = s->list[i];
        if (a->job->search) {
            i++;
            continue;
        }
        tt_finish why = overdue(a->job, now);
        if (!why && a->job->sample[a->sample].stop)
            why = TT_FINISH_STOP;
        if (why)
            end_active(s, i, why, a->job->spec.columns, NULL);
        else
            i++;
    }
}

static void plan_all(tt_scheduler *s)
{
    for (int i = 0; i < s->running;) {
        active *a = s->list[i];
        pthread_mutex_lock(s->o.device); /* a plan may open a store */
        if (is_picture(a))
            tt_picture_run_plan(&a->picture);
        else
            tt_run_plan(&a->run);
        pthread_mutex_unlock(s->o.device);
        if (failure(a)) {
            tt_err error = *failure(a);
            end_active(s, i, TT_FINISH_ERROR, a->job->spec.columns, &error);
        } else {
            i++;
        }
    }
}

static void cancel_all(tt_scheduler *s)
{
    while (s->searches)
        end_search(s, s->searches, TT_FINISH_CANCELLED, NULL);
    while (s->running)
        end_active(s, 0, TT_FINISH_CANCELLED, s->list[0]->job->spec.columns, NULL);
    for (;;) {
        pthread_mutex_lock(&s->lock);
        tt_job *j = s->queue;
        if (j)
            dequeue(s, j);
        pthread_mutex_unlock(&s->lock);
        if (!j)
            return;
        if (j->search) {
            end_search(s, j, TT_FINISH_CANCELLED, NULL);
            continue;
        }
        for (int32_t k = j->to_start, n = j->spec.samples; k < n; k++)
            end_sample(s, j, k, TT_FINISH_CANCELLED, j->spec.columns, NULL);
    }
}

/* Nothing to run: the next look at who waits comes a little later, or when there is a new job. */
static void doze(tt_scheduler *s)
{
    struct timespec until;
    clock_gettime(CLOCK_REALTIME, &until);
    until.tv_nsec += 2000000;
    until.tv_sec += until.tv_nsec / 1000000000;
    until.tv_nsec %= 1000000000;
    pthread_mutex_lock(&s->lock);
    if (!s->quit && !s->queue)
        pthread_cond_timedwait(&s->work, &s->lock, &until);
    pthread_mutex_unlock(&s->lock);
}

static void *thread_main(void *arg)
{
    tt_scheduler *s = arg;
    pthread_setname_np(pthread_self(), "tutti-engine");
    for (;;) {
        pthread_mutex_lock(&s->lock);
        while (!s->quit && !s->queue && !s->running && !s->searches)
            pthread_cond_wait(&s->work, &s->lock);
        bool quit = s->quit;
        pthread_mutex_unlock(&s->lock);
        if (quit)
            break;
        drop_ended(s);
        advance_searches(s);
        admit(s);
        plan_all(s);
        run_pass(s);
        if (s->waits && !s->running)
            doze(s);
    }
    cancel_all(s);
    return NULL;
}

tt_status tt_scheduler_open(tt_scheduler **out, const tt_scheduler_options *o, tt_err *e)
{
    *out = NULL;
    tt_scheduler *s = calloc(1, sizeof *s);
    if (!s)
        return tt_fail(e, TT_ENOMEM, "no memory for a scheduler");
    s->o = *o;
    s->stats.bytes_limit = (int64_t)o->max_bytes;
    size_t n = (size_t)o->max_running;
    s->room = o->max_running;
    s->list = calloc(n, sizeof *s->list);
    s->pick = calloc(n, sizeof *s->pick);
    s->pictures = calloc(n, sizeof *s->pictures);
    s->picked = calloc(n, sizeof *s->picked);
    pthread_mutex_init(&s->lock, NULL);
    pthread_cond_init(&s->work, NULL);
    if (!s->list || !s->pick || !s->pictures || !s->picked ||
        pthread_create(&s->thread, NULL, thread_main, s)) {
        free(s->list);
        free(s->pick);
        free(s->pictures);
        free(s->picked);
        free(s);
        return tt_fail(e, TT_ENOMEM, "cannot start the engine's thread");
    }
    *out = s;
    return TT_OK;
}

void tt_scheduler_close(tt_scheduler *s)
{
    if (!s)
        return;
    pthread_mutex_lock(&s->lock);
    s->quit = true;
    pthread_cond_signal(&s->work);
    pthread_mutex_unlock(&s->lock);
    pthread_join(s->thread, NULL);
    tt_batch_free(&s->batch);
    pthread_mutex_destroy(&s->lock);
    pthread_cond_destroy(&s->work);
    free(s->list);
    free(s->pick);
    free(s->pictures);
    free(s->picked);
    free(s);
}

void tt_scheduler_stats(tt_scheduler *s, tt_engine_stats *out)
{
    pthread_mutex_lock(&s->lock);
    *out = s->stats;
    pthread_mutex_unlock(&s->lock);
}
