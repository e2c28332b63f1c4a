/* graph.c - passes recorded as CUDA graphs.
 *
 * A pass shape that is seen for the first time runs operation by operation, which also loads every
 * kernel; the second time it is recorded; from then on it is replayed. One graph a pass: a chain of
 * a few hundred kernels launches in a time that does not grow with it (cut into pieces, to run one
 * while the next is launched, passes took as long or longer). */
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "kernels/cuda/cuda.h"

enum { GRAPHS = 96, KEY = 16 };

struct cuda_graph {
    int64_t key[KEY];
    int n;
    bool used, refused; /* refused: does not fit the buffers, or could not be recorded */
    size_t args;        /* bytes of its arguments */
    cudaGraphExec_t exec;
    uint64_t last; /* for replacing the least recently used */
};

static void drop(cuda_graph *g)
{
    if (g->exec)
        cudaGraphExecDestroy(g->exec);
    g->exec = NULL;
}

void cuda_drop_passes(cuda *c)
{
    for (int i = 0; i < GRAPHS; i++)
        drop(&c->graph[i]);
}

void cuda_forget_passes(cuda *c)
{
    bool any = false;
    for (int i = 0; i < GRAPHS; i++)
        any |= c->graph[i].exec != NULL;
    if (any)
        cudaStreamSynchronize(c->q);
    cuda_drop_passes(c);
    memset(c->graph, 0, GRAPHS * sizeof *c->graph);
}

void cuda_refuse_pass(cuda *c)
{
    if (c->current)
        c->current->refused = true;
}

/* Few shapes: multiples that grow with the size, so that padding stays below an eighth. */
int64_t tt_cuda_bucket(const tt_stream *s, int64_t rows)
{
    (void)s;
    int64_t step = rows <= 64 ? 16 : rows <= 256 ? 32 : rows <= 1024 ? 64 : 128;
    return (rows + step - 1) / step * step;
}

static cuda_graph *find(cuda *c, const int64_t *key, int n)
{
    cuda_graph *oldest = &c->graph[0];
    for (int i = 0; i < GRAPHS; i++) {
        cuda_graph *g = &c->graph[i];
        if (g->used && g->n == n && !memcmp(g->key, key, (size_t)n * sizeof *key))
            return g;
        if (!g->used || (oldest->used && g->last < oldest->last))
            oldest = g;
    }
    drop(oldest);
    *oldest = (cuda_graph){.n = n, .used = true};
    memcpy(oldest->key, key, (size_t)n * sizeof *key);
    return oldest;
}

/* The first node of a recorded pass copies all its arguments. */
static tt_status record(cuda *c, tt_err *e)
{
    tt_status s = cuda_check(cudaStreamBeginCapture(c->q, cudaStreamCaptureModeRelaxed), "record",
                             e);
    if (!s && c->current->args)
        s = cuda_check(cudaMemcpyAsync(c->args, c->args_host, c->current->args,
                                       cudaMemcpyHostToDevice, c->q), "record", e);
    return s;
}

/* Ends the recording; what went wrong in between makes it worthless. */
static tt_status instantiate(cuda *c, tt_status so_far, tt_err *e)
{
    cudaGraph_t graph = NULL;
    tt_status s = cuda_check(cudaStreamEndCapture(c->q, &graph), "record", so_far ? NULL : e);
    if (!s && !so_far)
        s = cuda_check(cudaGraphInstantiate(&c->current->exec, graph, 0), "record", e);
    if (graph)
        cudaGraphDestroy(graph);
    if (s || so_far)
        c->current->refused = true;
    return so_far ? so_far : s;
}

/* --- a pass --- */

enum { KEY_ROWS = 2 }; /* where models put the rows of a pass in its key */

static void pass_range(const cuda *c, const int64_t *key, int n)
{
    char name[40] = "pass";
    if (n > KEY_ROWS)
        snprintf(name, sizeof name, "pass %lld", (long long)key[KEY_ROWS]);
    cuda_range_begin(c, name);
}

static void leave_pass(cuda *c)
{
    c->mode = CUDA_LIVE;
    c->in_pass = false;
    c->current = NULL;
    cuda_range_end(c);
}

tt_status tt_cuda_pass_begin(tt_stream *s, const int64_t *key, int n, tt_err *e)
{
    cuda *c = cuda_of(s);
    if (n > KEY || c->in_pass)
        return tt_fail(e, TT_EINVAL, "pass_begin: key of %d, %s", n, c->in_pass ? "twice" : "once");
    c->current = find(c, key, n);
    bool known = c->current->last != 0;
    c->current->last = ++c->clock;
    c->in_pass = true;
    pass_range(c, key, n);
    c->args_used = 0;
    c->mode = c->current->exec                     ? CUDA_REPLAY
              : known && !c->current->refused ? CUDA_CAPTURE
                                              : CUDA_LIVE;
    tt_status st = c->mode == CUDA_CAPTURE ? record(c, e) : TT_OK;
    if (st)
        leave_pass(c);
    return st;
}

tt_status tt_cuda_pass_end(tt_stream *s, tt_status so_far, tt_err *e)
{
    cuda *c = cuda_of(s);
    cuda_graph *g = c->current;
    cuda_mode mode = c->mode;
    tt_status st = mode == CUDA_CAPTURE ? instantiate(c, so_far, e) : so_far;
    if (!st && mode == CUDA_LIVE)
        g->args = c->args_used;
    if (!st && mode != CUDA_LIVE && c->args_used != g->args)
        st = tt_fail(e, TT_EINVAL, "a pass took %zu bytes of arguments, one of its key before %zu",
                     c->args_used, g->args);
    if (!st && mode != CUDA_LIVE)
        st = cuda_check(cudaGraphLaunch(g->exec, c->q), "replay", e);
    if (st) {
        cudaStreamSynchronize(c->q);
        c->pendings = 0;
        c->results_used = 0;
    }
    leave_pass(c);
    return st;
}

/* --- opening --- */

tt_status cuda_passes_open(cuda *c, tt_err *e)
{
    c->graph = calloc(GRAPHS, sizeof *c->graph);
    return c->graph ? TT_OK : tt_fail(e, TT_ENOMEM, "no memory for a stream");
}

void cuda_passes_close(cuda *c)
{
    if (c->graph)
        cuda_drop_passes(c);
    free(c->graph);
}
