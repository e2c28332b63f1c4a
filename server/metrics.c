/* metrics.c - see metrics.h. The tables below are the list of metrics; writing walks them. One
 * lock is enough: it is taken a few times per request, never per step. */
#include "server/metrics.h"

#include <pthread.h>
#include <stddef.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>
#include <unistd.h>

enum { MAX_BOUNDS = 20, MAX_SERIES = 512 };

typedef struct {
    const double *bound;
    int bounds;
} scale;

static const double seconds_bound[] = {0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5,
                                       1,     2.5,    5,     10,   20,    40,   80,  160};
static const double token_bound[] = {1, 2, 5, 10, 20, 50, 100, 200, 500, 1000, 2000, 5000, 10000};
static const double fine_bound[] = {0.0005, 0.001, 0.0025, 0.005, 0.01, 0.025, 0.05,
                                    0.075,  0.1,   0.15,   0.2,   0.3,  0.5,   1};
#define SCALE(a) {a, (int)(sizeof a / sizeof *a)}
enum { SECONDS, TOKENS, FINE };
static const scale scales[] = {SCALE(seconds_bound), SCALE(token_bound), SCALE(fine_bound)};

/* X(member, scale, tutti name, vLLM name or NULL, help): histograms kept per model. */
#define HISTOGRAMS(X)                                                                              \
    X(first_text, SECONDS, "tutti_time_to_first_text_seconds", "vllm:time_to_first_token_seconds", \
      "from arrival to the first committed text")                                                  \
    X(first_draft, SECONDS, "tutti_time_to_first_draft_seconds", NULL,                             \
      "from arrival to the first committed token anywhere on the canvas")                          \
    X(gap, FINE, "tutti_inter_token_seconds", "vllm:inter_token_latency_seconds",                  \
      "time between emissions of committed text, per token in them")                               \
    X(end_to_end, SECONDS, "tutti_request_seconds", "vllm:e2e_request_latency_seconds",            \
      "from arrival to the end of the answer")                                                     \
    X(queue, SECONDS, "tutti_request_queue_seconds", "vllm:request_queue_time_seconds",            \
      "waiting before the first forward pass")                                                     \
    X(run, SECONDS, "tutti_request_run_seconds", "vllm:request_decode_time_seconds",               \
      "from the first forward pass to the last")                                                   \
    X(prompt, TOKENS, "tutti_request_prompt_tokens", "vllm:request_prompt_tokens",                 \
      "given tokens of a request")                                                                 \
    X(generated, TOKENS, "tutti_request_generation_tokens", "vllm:request_generation_tokens",      \
      "tokens of a request's answers")                                                             \
    X(nfe, TOKENS, "tutti_nfe_per_request", NULL, "forward passes a request took part in")

typedef struct {
    uint64_t bucket[MAX_BOUNDS + 1], count;
    double sum;
} histogram;

typedef struct {
    char name[128];
#define MEMBER(member, ...) histogram member;
    HISTOGRAMS(MEMBER)
#undef MEMBER
    int64_t prompt_tokens, generation_tokens, candidates, finished[TT_FINISH_ERROR + 1];
} model_numbers;

typedef struct {
    const char *handler, *method; /* of the route table: they outlive this */
    int status;
    int64_t count;
    histogram time;
} http_numbers;

typedef struct {
    char reason[24];
    int64_t count;
} cancel_numbers;

struct tt_metrics {
    pthread_mutex_t lock;
    bool vllm_names;
    double started; /* Unix seconds */
    model_numbers *model;
    int models;
    http_numbers http[MAX_SERIES];
    int https;
    cancel_numbers cancel[8];
    int cancels;
};

tt_status tt_metrics_open(tt_metrics **out, bool vllm_names, tt_err *e)
{
    tt_metrics *m = *out = calloc(1, sizeof *m);
    if (!m)
        return tt_fail(e, TT_ENOMEM, "no memory for metrics");
    pthread_mutex_init(&m->lock, NULL);
    m->vllm_names = vllm_names;
    m->started = (double)time(NULL);
    return TT_OK;
}

void tt_metrics_close(tt_metrics *m)
{
    if (!m)
        return;
    pthread_mutex_destroy(&m->lock);
    free(m->model);
    free(m);
}

/* --- adding --- */

static void observe(histogram *h, int which, double v, int64_t times)
{
    const scale *s = &scales[which];
    int i = 0;
    while (i < s->bounds && v > s->bound[i])
        i++;
    h->bucket[i] += (uint64_t)times;
    h->count += (uint64_t)times;
    h->sum += v * (double)times;
}

/* The model's numbers, new ones when it is seen first; NULL when memory is out. */
static model_numbers *model_of(tt_metrics *m, const char *name)
{
    for (int i = 0; i < m->models; i++)
        if (!strncmp(m->model[i].name, name, sizeof m->model[i].name - 1))
            return &m->model[i];
    model_numbers *more = realloc(m->model, (size_t)(m->models + 1) * sizeof *more);
    if (!more)
        return NULL;
    m->model = more;
    model_numbers *n = &more[m->models++];
    memset(n, 0, sizeof *n);
    strncat(n->name, name, sizeof n->name - 1);
    return n;
}

static void add_request(model_numbers *n, const tt_request_record *r)
{
    if (r->first_text >= 0)
        observe(&n->first_text, SECONDS, r->first_text, 1);
    if (r->first_draft >= 0)
        observe(&n->first_draft, SECONDS, r->first_draft, 1);
    if (r->queue >= 0)
        observe(&n->queue, SECONDS, r->queue, 1);
    if (r->run >= 0)
        observe(&n->run, SECONDS, r->run, 1);
    observe(&n->end_to_end, SECONDS, r->end_to_end, 1);
    observe(&n->prompt, TOKENS, (double)r->prompt_tokens, 1);
    observe(&n->generated, TOKENS, (double)r->generation_tokens, 1);
    observe(&n->nfe, TOKENS, (double)r->nfe, 1);
    n->prompt_tokens += r->prompt_tokens;
    n->generation_tokens += r->generation_tokens;
    n->candidates += r->candidates;
    for (int i = 0; i <= TT_FINISH_ERROR; i++)
        n->finished[i] += r->finished[i];
}

void tt_metrics_request(tt_metrics *m, const tt_request_record *r)
{
    pthread_mutex_lock(&m->lock);
    model_numbers *n = model_of(m, r->model);
    if (n)
        add_request(n, r);
    pthread_mutex_unlock(&m->lock);
}

void tt_metrics_emission(tt_metrics *m, const char *model, double seconds, int64_t tokens)
{
    if (tokens < 1)
        return;
    pthread_mutex_lock(&m->lock);
    model_numbers *n = model_of(m, model);
    if (n)
        observe(&n->gap, FINE, seconds / (double)tokens, tokens);
    pthread_mutex_unlock(&m->lock);
}

static http_numbers *http_of(tt_metrics *m, const char *handler, const char *method, int status)
{
    for (int i = 0; i < m->https; i++) {
        http_numbers *h = &m->http[i];
        if (h->status == status && !strcmp(h->handler, handler) && !strcmp(h->method, method))
            return h;
    }
    if (m->https == MAX_SERIES)
        return NULL;
    http_numbers *h = &m->http[m->https++];
    *h = (http_numbers){.handler = handler, .method = method, .status = status};
    return h;
}

void tt_metrics_http(tt_metrics *m, const char *handler, const char *method, int status,
                     double seconds)
{
    pthread_mutex_lock(&m->lock);
    http_numbers *h = http_of(m, handler, method, status);
    if (h) {
        h->count++;
        observe(&h->time, SECONDS, seconds, 1);
    }
    pthread_mutex_unlock(&m->lock);
}

void tt_metrics_cancelled(tt_metrics *m, const char *reason)
{
    pthread_mutex_lock(&m->lock);
    int i = 0, room = (int)(sizeof m->cancel / sizeof *m->cancel);
    while (i < m->cancels && strcmp(m->cancel[i].reason, reason))
        i++;
    if (i == m->cancels && i < room) {
        strncat(m->cancel[i].reason, reason, sizeof m->cancel[i].reason - 1);
        m->cancels++;
    }
    if (i < room)
        m->cancel[i].count++;
    pthread_mutex_unlock(&m->lock);
}

/* --- writing --- */

static void head(tt_buf *b, const char *name, const char *type, const char *help)
{
    tt_buf_printf(b, "# HELP %s %s\n# TYPE %s %s\n", name, help, name, type);
}

static void plain(tt_buf *b, const char *name, const char *type, const char *help, double v)
{
    head(b, name, type, help);
    tt_buf_printf(b, "%s %.17g\n", name, v);
}

/* A label's value: backslash, quote and newline escaped. */
static void label(tt_buf *b, const char *key, const char *value)
{
    tt_buf_printf(b, "%s=\"", key);
    for (; *value; value++) {
        if (*value == '\\' || *value == '"')
            tt_buf_putc(b, '\\');
        if (*value == '\n')
            tt_buf_puts(b, "\\n");
        else
            tt_buf_putc(b, *value);
    }
    tt_buf_putc(b, '"');
}

static void histogram_lines(tt_buf *b, const char *name, const char *labels, const histogram *h,
                            int which)
{
    const scale *s = &scales[which];
    uint64_t below = 0;
    for (int i = 0; i < s->bounds; i++) {
        below += h->bucket[i];
        tt_buf_printf(b, "%s_bucket{%s,le=\"%g\"} %llu\n", name, labels, s->bound[i],
                      (unsigned long long)below);
    }
    tt_buf_printf(b, "%s_bucket{%s,le=\"+Inf\"} %llu\n", name, labels,
                  (unsigned long long)h->count);
    tt_buf_printf(b, "%s_sum{%s} %.9g\n%s_count{%s} %llu\n", name, labels, h->sum, name, labels,
                  (unsigned long long)h->count);
}

static void model_histogram(const tt_metrics *m, tt_buf *b, const char *name, const char *help,
                            size_t offset, int which)
{
    if (!name || !m->models)
        return;
    head(b, name, "histogram", help);
    for (int i = 0; i < m->models; i++) {
        tt_buf labels = {0};
        label(&labels, "model_name", m->model[i].name);
        const histogram *h = (const void *)((const char *)&m->model[i] + offset);
        histogram_lines(b, name, tt_buf_text(&labels), h, which);
        tt_buf_free(&labels);
    }
}

static void model_counter(const tt_metrics *m, tt_buf *b, const char *name, const char *help,
                          size_t offset)
{
    if (!m->models)
        return;
    head(b, name, "counter", help);
    for (int i = 0; i < m->models; i++) {
        int64_t v;
        memcpy(&v, (const char *)&m->model[i] + offset, sizeof v);
        tt_buf_printf(b, "%s{", name);
        label(b, "model_name", m->model[i].name);
        tt_buf_printf(b, "} %lld\n", (long long)v);
    }
}

static const char *const finish_names[] = {
    [TT_FINISH_STOP] = "stop",          [TT_FINISH_LENGTH] = "length",
    [TT_FINISH_CANCELLED] = "abort",    [TT_FINISH_DEADLINE] = "deadline",
    [TT_FINISH_ERROR] = "error",
};

static void finish_counter(const tt_metrics *m, tt_buf *b, const char *name)
{
    if (!m->models)
        return;
    head(b, name, "counter", "answers by how they ended");
    for (int i = 0; i < m->models; i++)
        for (int f = TT_FINISH_STOP; f <= TT_FINISH_ERROR; f++) {
            tt_buf_printf(b, "%s{", name);
            label(b, "model_name", m->model[i].name);
            tt_buf_putc(b, ',');
            label(b, "finished_reason", finish_names[f]);
            tt_buf_printf(b, "} %lld\n", (long long)m->model[i].finished[f]);
        }
}

static void write_models(const tt_metrics *m, tt_buf *b)
{
#define WRITE(member, which, own, theirs, help)                                                    \
    model_histogram(m, b, own, help, offsetof(model_numbers, member), which);                      \
    model_histogram(m, b, m->vllm_names ? theirs : NULL, help, offsetof(model_numbers, member),    \
                    which);
    HISTOGRAMS(WRITE)
#undef WRITE
    size_t prompt = offsetof(model_numbers, prompt_tokens);
    size_t generated = offsetof(model_numbers, generation_tokens);
    model_counter(m, b, "tutti_prompt_tokens_total", "given tokens", prompt);
    model_counter(m, b, "tutti_generation_tokens_total", "tokens of answers", generated);
    finish_counter(m, b, "tutti_answers_total");
    model_counter(m, b, "tutti_search_candidates_total", "sequences made by searches",
                  offsetof(model_numbers, candidates));
    if (!m->vllm_names)
        return;
    model_counter(m, b, "vllm:prompt_tokens_total", "given tokens", prompt);
    model_counter(m, b, "vllm:generation_tokens_total", "tokens of answers", generated);
    finish_counter(m, b, "vllm:request_success_total");
}

static void write_http(const tt_metrics *m, tt_buf *b)
{
    if (!m->https)
        return;
    head(b, "http_requests_total", "counter", "answers by route, method and status");
    for (int i = 0; i < m->https; i++)
        tt_buf_printf(b, "http_requests_total{handler=\"%s\",method=\"%s\",status=\"%d\"} %lld\n",
                      m->http[i].handler, m->http[i].method, m->http[i].status,
                      (long long)m->http[i].count);
    head(b, "http_request_duration_seconds", "histogram", "from request line to end of answer");
    for (int i = 0; i < m->https; i++) {
        tt_buf labels = {0};
        tt_buf_printf(&labels, "handler=\"%s\",method=\"%s\",status=\"%d\"", m->http[i].handler,
                      m->http[i].method, m->http[i].status);
        histogram_lines(b, "http_request_duration_seconds", tt_buf_text(&labels),
                        &m->http[i].time, SECONDS);
        tt_buf_free(&labels);
    }
}

static void write_cancelled(const tt_metrics *m, tt_buf *b)
{
    if (!m->cancels)
        return;
    head(b, "tutti_cancelled_total", "counter", "requests cancelled, by whom");
    for (int i = 0; i < m->cancels; i++)
        tt_buf_printf(b, "tutti_cancelled_total{reason=\"%s\"} %lld\n", m->cancel[i].reason,
                      (long long)m->cancel[i].count);
}

/* Buckets of the engine: passes of at most 2^i * 0.25 ms; the last one holds all others. */
static void write_steps(const tt_engine_stats *s, tt_buf *b)
{
    int last = (int)(sizeof s->step_bucket / sizeof *s->step_bucket) - 1;
    int64_t below = 0;
    head(b, "tutti_step_seconds", "histogram", "duration of one forward pass");
    for (int i = 0; i < last; i++) {
        below += s->step_bucket[i];
        tt_buf_printf(b, "tutti_step_seconds_bucket{le=\"%g\"} %lld\n",
                      0.00025 * (double)(1 << i), (long long)below);
    }
    tt_buf_printf(b, "tutti_step_seconds_bucket{le=\"+Inf\"} %lld\ntutti_step_seconds_sum %.9g\n"
                     "tutti_step_seconds_count %lld\n",
                  (long long)(below + s->step_bucket[last]), s->pass_seconds,
                  (long long)(below + s->step_bucket[last]));
}

static void write_vllm_gauges(tt_engine *g, const tt_engine_stats *s, tt_buf *b)
{
    const char *name = tt_engine_models(g) == 1 ? tt_engine_model(g, 0)->id : "all";
    double used = s->bytes_limit > 0 ? (double)s->bytes_used / (double)s->bytes_limit : 0;
    const struct {
        const char *name, *help;
        double v;
    } gauge[] = {{"vllm:num_requests_running", "sequences in the step batch", (double)s->running},
                 {"vllm:num_requests_waiting", "jobs queued", (double)s->waiting},
                 {"vllm:kv_cache_usage_perc", "share of the jobs' memory in use, 0 to 1", used}};
    for (size_t i = 0; i < sizeof gauge / sizeof *gauge; i++) {
        head(b, gauge[i].name, "gauge", gauge[i].help);
        tt_buf_printf(b, "%s{", gauge[i].name);
        label(b, "model_name", name);
        tt_buf_printf(b, "} %.9g\n", gauge[i].v);
    }
}

static void write_engine(tt_engine *g, bool vllm_names, tt_buf *b)
{
    tt_engine_stats s;
    tt_engine_get_stats(g, &s);
    plain(b, "tutti_sequences_running", "gauge", "sequences in the step batch", (double)s.running);
    plain(b, "tutti_jobs_waiting", "gauge", "jobs queued", (double)s.waiting);
    plain(b, "tutti_jobs_bytes", "gauge", "memory of admitted jobs", (double)s.bytes_used);
    plain(b, "tutti_jobs_bytes_limit", "gauge", "most memory jobs may have",
          (double)s.bytes_limit);
    plain(b, "tutti_forward_total", "counter", "forward passes", (double)s.passes);
    plain(b, "tutti_forward_rows_total", "counter", "token rows in forward passes",
          (double)s.rows);
    plain(b, "tutti_head_rows_total", "counter", "rows whose output distribution was wanted",
          (double)s.wants);
    plain(b, "tutti_committed_tokens_total", "counter", "tokens committed by samplers",
          (double)s.committed);
    plain(b, "tutti_revised_tokens_total", "counter", "committed tokens changed later",
          (double)s.revised);
    static const char *const pass_names[] = {"encode", "step", "decode"};
    plain(b, "tutti_images_total", "counter", "images made", (double)s.pictures);
    head(b, "tutti_image_passes_total", "counter", "forward passes of image models by their kind");
    for (int i = 0; i < TT_PICTURE_PASSES; i++)
        tt_buf_printf(b, "tutti_image_passes_total{pass=\"%s\"} %lld\n", pass_names[i],
                      (long long)s.picture_passes[i]);
    head(b, "tutti_sequences_finished_total", "counter", "sequences by how they ended");
    for (int f = TT_FINISH_STOP; f <= TT_FINISH_ERROR; f++)
        tt_buf_printf(b, "tutti_sequences_finished_total{reason=\"%s\"} %lld\n", finish_names[f],
                      (long long)s.finished[f]);
    write_steps(&s, b);
    if (vllm_names)
        write_vllm_gauges(g, &s, b);
}

static void write_process(const tt_metrics *m, const char *version, tt_buf *b)
{
    head(b, "tutti_build_info", "gauge", "always 1; the label says which build this is");
    tt_buf_printf(b, "tutti_build_info{version=\"%s\"} 1\n", version);
    plain(b, "process_start_time_seconds", "gauge", "Unix time of the start", m->started);
    struct timespec cpu;
    clock_gettime(CLOCK_PROCESS_CPUTIME_ID, &cpu);
    plain(b, "process_cpu_seconds_total", "counter", "processor time used",
          (double)cpu.tv_sec + (double)cpu.tv_nsec * 1e-9);
    FILE *f = fopen("/proc/self/statm", "r");
    long long pages = 0;
    if (f && fscanf(f, "%*s %lld", &pages) == 1)
        plain(b, "process_resident_memory_bytes", "gauge", "resident memory",
              (double)pages * (double)sysconf(_SC_PAGESIZE));
    if (f)
        fclose(f);
}

void tt_metrics_write(tt_metrics *m, tt_engine *g, const char *version, tt_buf *out)
{
    write_process(m, version, out);
    if (g)
        write_engine(g, m->vllm_names, out);
    pthread_mutex_lock(&m->lock);
    write_models(m, out);
    write_http(m, out);
    write_cancelled(m, out);
    pthread_mutex_unlock(&m->lock);
}
