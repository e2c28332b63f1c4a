/* pass.c - one pass: whose turn it is, which sequences go through it together, what it took. */
#include "kernels/base/clock.h"
#include "kernels/base/log.h"
#include "server/scheduler/parts.h"

/* While another model waits, a pass of images ends after about so long. */
static const double image_pass_seconds = 0.1;

void tt_sched_plan(tt_scheduler *s)
{
    for (int i = 0; i < s->running;) {
        tt_active *a = s->list[i];
        pthread_mutex_lock(s->o.device); /* a plan may open a store */
        if (tt_active_is_picture(a))
            tt_picture_run_plan(&a->picture);
        else
            tt_run_plan(&a->run);
        pthread_mutex_unlock(s->o.device);
        if (tt_active_failure(a)) {
            tt_err error = *tt_active_failure(a);
            tt_sched_end_active(s, a, TT_FINISH_ERROR, a->job->spec.columns, &error);
        } else {
            i++;
        }
    }
}

/* --- who goes --- */

/* Of the runs that go with `first` (NULL: of the model whose turn it is) the one that waited
 * longest. */
static tt_active *oldest(const tt_scheduler *s, const tt_active *first, const void *model)
{
    tt_active *best = NULL;
    for (int i = 0; i < s->running; i++) {
        tt_active *a = s->list[i];
        bool fits = a->turn < s->turn &&
                    (first ? tt_active_same_pass(a, first) : a->job->spec.model == model);
        if (fits && (!best || a->turn < best->turn))
            best = a;
    }
    return best;
}

/* Runs of a pass at most. */
static int64_t most_of(const tt_scheduler *s, const tt_active *first)
{
    double each = tt_active_is_picture(first) ? s->per_image[first->picture.pass] : 0;
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
    for (tt_active *a = oldest(s, NULL, model); a && n < most; a = oldest(s, s->picked[0], NULL)) {
        if (n == s->o.max_running || (n && rows + tt_active_rows(a) > s->o.max_rows))
            break;
        rows += tt_active_rows(a);
        a->turn = s->turn;
        s->picked[n] = a;
        s->pick[n] = &a->run;
        s->pictures[n++] = &a->picture;
        if (n == 1)
            most = most_of(s, a);
    }
    return n;
}

/* --- what it took --- */

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
    if (tt_active_is_picture(s->picked[0]))
        count_pictures(s, n, pass, ms / 1000);
    else
        count_texts(s, n);
    pthread_mutex_unlock(&s->lock);
}

/* --- the pass --- */

/* failed: how the pass did, for all of them; or NULL. */
static void after_pass(tt_scheduler *s, tt_active *a, const tt_err *failed)
{
    tt_finish why;
    int32_t end;
    if (failed || (failed = tt_active_failure(a))) {
        tt_err error = *failed; /* the run's own goes with it */
        tt_sched_end_active(s, a, TT_FINISH_ERROR, a->job->spec.columns, &error);
    } else if (tt_sched_settle(a, &why, &end)) {
        tt_sched_end_active(s, a, why, end, NULL);
    } else if (a->job->spec.wake_steps && !a->job->search) {
        tt_job_wake(a->job);
    }
}

void tt_sched_run_pass(tt_scheduler *s)
{
    tt_err e = {0};
    s->turn++;
    int64_t n = choose(s), start = tt_now_ns();
    if (!n)
        return;
    bool images = tt_active_is_picture(s->picked[0]);
    tt_picture_pass pass = s->pictures[0]->pass;
    pthread_mutex_lock(s->o.device);
    tt_status st = images ? tt_picture_step(s->pictures, n, &e)
                          : tt_batch_step(&s->batch, s->pick, n, &e);
    pthread_mutex_unlock(s->o.device);
    if (st)
        tt_log(TT_LOG_ERROR, "pass", "sequences=%lld error=\"%s\"", (long long)n, e.text);
    else
        count_pass(s, n, pass, tt_now_ns() - start);
    for (int64_t i = 0; i < n; i++)
        after_pass(s, s->picked[i], st ? &e : NULL);
}
