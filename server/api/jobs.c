/* jobs.c - see jobs.h. */
#include "server/api/jobs.h"

#include <pthread.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/random.h>
#include <time.h>

#include "kernels/base/clock.h"
#include "server/json_write.h"

typedef struct entry {
    struct entry *next; /* newest first */
    tt_jobs *table;
    char id[32];
    uint64_t who; /* asked for it: nobody else knows of it */
    int64_t created, created_ms, ended_ms; /* ended_ms: 0 while it runs */
    tt_work *work;                         /* NULL once it has ended */
    bool woken, busy; /* busy: the table's thread uses the work, nobody else may */
    bool cancelled;   /* asked for */
    bool dropped;     /* deleted: is freed when it has ended */
    tt_progress progress;
    tt_reply reply; /* of ended ones: status and body */
} entry;

struct tt_jobs {
    tt_jobs_options o;
    pthread_t thread;
    pthread_mutex_t lock; /* of everything here */
    pthread_cond_t news;
    entry *first;
    int entries;
    size_t bytes; /* of kept answers */
    bool quit;
};

/* --- the table; all with its lock held --- */

static void unlink_entry(tt_jobs *j, entry *x)
{
    entry **at = &j->first;
    while (*at != x)
        at = &(*at)->next;
    *at = x->next;
    j->entries--;
    j->bytes -= x->reply.body.size;
}

static void entry_free(entry *x)
{
    tt_buf_free(&x->reply.body);
    free(x);
}

static bool visible(const entry *x, uint64_t who) { return !x->dropped && x->who == who; }

static entry *find(tt_jobs *j, const char *id, uint64_t who)
{
    for (entry *x = j->first; x; x = x->next)
        if (visible(x, who) && !strcmp(x->id, id))
            return x;
    return NULL;
}

static entry *oldest_ended(tt_jobs *j)
{
    entry *best = NULL;
    for (entry *x = j->first; x; x = x->next)
        if (x->ended_ms && (!best || x->ended_ms < best->ended_ms))
            best = x;
    return best;
}

/* Forgets answers that are too old, too many or too large. */
static void expire(tt_jobs *j)
{
    int64_t limit = tt_now_ms() - (int64_t)j->o.keep_seconds * 1000;
    for (entry *x; (x = oldest_ended(j)) != NULL;) {
        if (x->ended_ms > limit && j->entries <= j->o.max_jobs && j->bytes <= j->o.max_bytes)
            return;
        unlink_entry(j, x);
        entry_free(x);
    }
}

/* --- following --- */

static void wake(void *arg)
{
    entry *x = arg;
    pthread_mutex_lock(&x->table->lock);
    x->woken = true;
    pthread_cond_signal(&x->table->news);
    pthread_mutex_unlock(&x->table->lock);
}

/* Takes the answer of work that is over. Without the lock: it may take long. */
static void finish(tt_metrics *m, tt_work *w, tt_reply *r)
{
    tt_work_answer(w, r);
    if (r->body.failed) {
        tt_err e = {0};
        tt_buf_free(&r->body);
        tt_fail(&e, TT_ENOMEM, "no memory for the answer");
        tt_reply_error(r, &e);
    }
    tt_request_record record;
    tt_work_record(w, &record);
    tt_metrics_request(m, &record);
    if (record.finished[TT_FINISH_CANCELLED])
        tt_metrics_cancelled(m, "client");
    tt_work_free(w);
}

/* Looks at one job; the lock is held before and after, not meanwhile. */
static void follow(tt_jobs *j, entry *x)
{
    tt_reply r = {0};
    tt_work *w = x->work;
    x->woken = false;
    x->busy = true;
    pthread_mutex_unlock(&j->lock);
    bool over = tt_work_poll(w);
    tt_progress p = x->progress;
    w->def->progress(w, &p);
    if (over)
        finish(j->o.metrics, w, &r);
    pthread_mutex_lock(&j->lock);
    x->busy = false;
    x->progress = p;
    if (!over) {
        if (x->cancelled)
            tt_work_cancel(w); /* asked for while it was busy */
        return;
    }
    x->work = NULL;
    x->ended_ms = tt_now_ms();
    x->reply = r;
    j->bytes += r.body.size;
    if (x->dropped) {
        unlink_entry(j, x);
        entry_free(x);
    }
    expire(j);
}

static entry *next_woken(tt_jobs *j)
{
    for (entry *x = j->first; x; x = x->next)
        if (x->woken && x->work && !x->busy)
            return x;
    return NULL;
}

static void *thread_main(void *arg)
{
    tt_jobs *j = arg;
    pthread_setname_np(pthread_self(), "tutti-jobs");
    pthread_mutex_lock(&j->lock);
    while (!j->quit) {
        entry *x = next_woken(j);
        if (x) {
            follow(j, x);
            continue;
        }
        struct timespec until;
        clock_gettime(CLOCK_MONOTONIC, &until);
        until.tv_sec += 10;
        pthread_cond_timedwait(&j->news, &j->lock, &until);
        expire(j);
    }
    pthread_mutex_unlock(&j->lock);
    return NULL;
}

tt_status tt_jobs_open(tt_jobs **out, const tt_jobs_options *o, tt_err *e)
{
    *out = NULL;
    tt_jobs *j = calloc(1, sizeof *j);
    if (!j)
        return tt_fail(e, TT_ENOMEM, "no memory for the table of jobs");
    j->o = o ? *o : (tt_jobs_options){0};
    j->o.max_jobs = j->o.max_jobs ? j->o.max_jobs : 256;
    j->o.max_bytes = j->o.max_bytes ? j->o.max_bytes : 64 << 20;
    j->o.keep_seconds = j->o.keep_seconds ? j->o.keep_seconds : 600;
    pthread_condattr_t monotonic;
    pthread_condattr_init(&monotonic);
    pthread_condattr_setclock(&monotonic, CLOCK_MONOTONIC);
    pthread_mutex_init(&j->lock, NULL);
    pthread_cond_init(&j->news, &monotonic);
    pthread_condattr_destroy(&monotonic);
    if (pthread_create(&j->thread, NULL, thread_main, j)) {
        free(j);
        return tt_fail(e, TT_ENOMEM, "cannot start the thread of jobs");
    }
    *out = j;
    return TT_OK;
}

void tt_jobs_close(tt_jobs *j)
{
    if (!j)
        return;
    pthread_mutex_lock(&j->lock);
    j->quit = true;
    pthread_cond_signal(&j->news);
    pthread_mutex_unlock(&j->lock);
    pthread_join(j->thread, NULL);
    for (entry *x = j->first, *next; x; x = next) {
        next = x->next;
        tt_work_free(x->work);
        entry_free(x);
    }
    pthread_cond_destroy(&j->news);
    pthread_mutex_destroy(&j->lock);
    free(j);
}

int tt_jobs_active(tt_jobs *j)
{
    int n = 0;
    if (!j)
        return 0;
    pthread_mutex_lock(&j->lock);
    for (entry *x = j->first; x; x = x->next)
        n += x->work != NULL;
    pthread_mutex_unlock(&j->lock);
    return n;
}

/* --- answers --- */

static const char *state_of(const entry *x)
{
    if (x->work)
        return x->progress.running ? "generating" : "queued";
    return x->reply.status == 200 ? "completed" : x->cancelled ? "cancelled" : "failed";
}

static void put_entry(const entry *x, bool whole, tt_json *w)
{
    char url[48];
    snprintf(url, sizeof url, "/v1/jobs/%s", x->id);
    tt_json_open(w, '{');
    tt_json_text_member(w, "id", x->id);
    tt_json_text_member(w, "object", "job");
    tt_json_text_member(w, "status", state_of(x));
    tt_json_int_member(w, "created", x->created);
    tt_json_text_member(w, "poll_url", url);
    if (x->work) {
        tt_json_int_member(w, "queue_position", x->progress.running ? 0 : x->progress.ahead);
        tt_json_open_member(w, "progress", '{');
        tt_json_int_member(w, "step", x->progress.step);
        tt_json_int_member(w, "of", x->progress.steps);
        tt_json_close(w, '}');
    } else if (whole && x->reply.status == 200) {
        tt_json_key(w, "result");
        tt_json_put_raw(w, tt_buf_text(&x->reply.body));
    } else if (whole) { /* {"error": ...}: its one member is ours */
        tt_json_key(w, "error");
        tt_buf_add(w->out, x->reply.body.data + 9, x->reply.body.size - 10);
        w->comma = true;
    }
    tt_json_close(w, '}');
}

static void answer_entry(const entry *x, int status, tt_reply *r)
{
    tt_json w = {.out = &r->body};
    put_entry(x, true, &w);
    r->status = status;
}

static void not_found(const char *id, tt_reply *r)
{
    tt_reply_fail(r, 404, "invalid_request_error", "not_found", NULL,
                  "there is no job '%.60s'; finished ones are kept for a while", id);
}

/* --- taking --- */

static entry *new_entry(tt_jobs *j, tt_work *w, uint64_t who)
{
    unsigned char bits[12] = {0};
    entry *x = calloc(1, sizeof *x);
    if (!x)
        return NULL;
    if (getrandom(bits, sizeof bits, 0) != (ssize_t)sizeof bits)
        memcpy(bits, &x, sizeof x);
    int n = snprintf(x->id, sizeof x->id, "job-");
    for (size_t i = 0; i < sizeof bits; i++)
        n += snprintf(x->id + n, sizeof x->id - (size_t)n, "%02x", bits[i]);
    x->table = j;
    x->work = w;
    x->who = who;
    x->created = (int64_t)time(NULL);
    x->busy = true; /* until it is submitted */
    return x;
}

/* Puts it into the table; false when that is full of jobs that run. */
static bool link_entry(tt_jobs *j, entry *x)
{
    pthread_mutex_lock(&j->lock);
    x->next = j->first;
    j->first = x;
    j->entries++;
    expire(j);
    bool room = j->entries <= j->o.max_jobs;
    if (!room)
        unlink_entry(j, x);
    pthread_mutex_unlock(&j->lock);
    return room;
}

void tt_jobs_take(tt_jobs *j, tt_work *w, uint64_t who, tt_reply *r)
{
    tt_err e = {0};
    int64_t retry_ms = 0;
    entry *x = new_entry(j, w, who);
    tt_status s = !x ? tt_fail(&e, TT_ENOMEM, "no memory for a job") : TT_OK;
    if (!s && !link_entry(j, x)) {
        s = tt_fail(&e, TT_EBUSY, "%d jobs are running or waiting already", j->o.max_jobs);
        retry_ms = 1000;
        entry_free(x);
        x = NULL;
    }
    if (!s)
        s = tt_work_submit(w, wake, x, &retry_ms, &e);
    if (s) {
        tt_work_free(w); /* nothing wakes it any more */
        r->retry_after_ms = retry_ms;
        tt_reply_error(r, &e);
    }
    if (!x)
        return;
    pthread_mutex_lock(&j->lock);
    if (s) {
        unlink_entry(j, x);
        entry_free(x);
    } else {
        w->def->progress(w, &x->progress);
        x->busy = false;
        answer_entry(x, 202, r);
        pthread_cond_signal(&j->news); /* it may have been woken meanwhile */
    }
    pthread_mutex_unlock(&j->lock);
}

/* --- routes --- */

static void refresh(entry *x)
{
    if (!x->work || x->busy)
        return;
    tt_work_poll(x->work); /* the thread takes the answer when it is over */
    x->work->def->progress(x->work, &x->progress);
}

void tt_api_jobs(const tt_call *c, tt_reply *r)
{
    tt_jobs *j = c->api->jobs;
    tt_json w = {.out = &r->body};
    tt_json_open(&w, '{');
    tt_json_text_member(&w, "object", "list");
    tt_json_open_member(&w, "data", '[');
    if (j)
        pthread_mutex_lock(&j->lock);
    for (entry *x = j ? j->first : NULL; x; x = x->next)
        if (visible(x, c->who)) {
            refresh(x);
            put_entry(x, false, &w);
        }
    if (j)
        pthread_mutex_unlock(&j->lock);
    tt_json_close(&w, ']');
    tt_json_close(&w, '}');
    r->status = 200;
}

void tt_api_job(const tt_call *c, tt_reply *r)
{
    tt_jobs *j = c->api->jobs;
    if (!j) {
        not_found(c->tail, r);
        return;
    }
    pthread_mutex_lock(&j->lock);
    entry *x = find(j, c->tail, c->who);
    if (x) {
        refresh(x);
        answer_entry(x, 200, r);
    } else {
        not_found(c->tail, r);
    }
    pthread_mutex_unlock(&j->lock);
}

static void cancel(entry *x)
{
    x->cancelled = x->work != NULL;
    if (x->work && !x->busy)
        tt_work_cancel(x->work);
}

void tt_api_job_cancel(const tt_call *c, tt_reply *r)
{
    tt_jobs *j = c->api->jobs;
    char id[40];
    snprintf(id, sizeof id, "%.*s", (int)strcspn(c->tail, "/"), c->tail);
    if (!j) {
        not_found(id, r);
        return;
    }
    pthread_mutex_lock(&j->lock);
    entry *x = find(j, id, c->who);
    if (x && !x->work) {
        tt_reply_fail(r, 409, "invalid_request_error", "conflict", NULL, "job '%s' is %s", id,
                      state_of(x));
        r->no_retry = true;
    } else if (x) {
        cancel(x);
        answer_entry(x, 200, r);
    } else {
        not_found(id, r);
    }
    pthread_mutex_unlock(&j->lock);
}

void tt_api_job_delete(const tt_call *c, tt_reply *r)
{
    tt_jobs *j = c->api->jobs;
    if (!j) {
        not_found(c->tail, r);
        return;
    }
    pthread_mutex_lock(&j->lock);
    entry *x = find(j, c->tail, c->who);
    if (!x) {
        not_found(c->tail, r);
    } else {
        tt_json w = {.out = &r->body};
        tt_json_open(&w, '{');
        tt_json_text_member(&w, "id", x->id);
        tt_json_text_member(&w, "object", "job");
        tt_json_bool_member(&w, "deleted", true);
        tt_json_close(&w, '}');
        r->status = 200;
        cancel(x);
        x->dropped = true;
        if (!x->work) {
            unlink_entry(j, x);
            entry_free(x);
        }
    }
    pthread_mutex_unlock(&j->lock);
}
