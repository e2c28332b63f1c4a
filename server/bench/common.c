/* common.c - sizes, ceilings, floors and memory of `tutti bench`. */
#include <stdarg.h>
#include <string.h>

#include "server/bench/bench.h"

void tt_bench_say(const tt_bench *b, const char *fmt, ...)
{
    if (!b->progress)
        return;
    va_list args;
    va_start(args, fmt);
    fputs("\r\033[K", stderr);
    if (fmt)
        vfprintf(stderr, fmt, args);
    va_end(args);
    fflush(stderr);
}

/* --- sizes --- */

static tt_status too_large(const char *option, int64_t v, const char *what, int64_t limit,
                           tt_err *e)
{
    return tt_fail(e, TT_EINVAL, "--%s is %lld, but the model's context leaves %lld %s", option,
                   (long long)v, (long long)limit, what);
}

static tt_status fit_rows(tt_bench_list *rows, int64_t context, tt_err *e)
{
    int n = 0;
    for (int i = 0; i < rows->n; i++) {
        if (rows->v[i] <= context)
            rows->v[n++] = rows->v[i];
        else if (rows->given)
            return too_large("rows", rows->v[i], "rows", context, e);
    }
    rows->n = n;
    return TT_OK;
}

tt_status tt_bench_fit(tt_bench_sizes *s, const tt_model_info *info, tt_err *e)
{
    int64_t context = info->context, left = context - s->block;
    tt_status st = fit_rows(&s->rows, context, e);
    if (st)
        return st;
    if (left < 0)
        return too_large("block", s->block, "columns", context, e);
    if (s->cached < 0)
        s->cached = left < 1024 ? left : 1024;
    if (s->cached > left)
        return too_large("cached", s->cached, "columns", left, e);
    if (s->tokens < 0)
        s->tokens = context / 2 < 256 ? context / 2 : 256;
    if (s->tokens > context)
        return too_large("tokens", s->tokens, "columns", context, e);
    left = context - s->tokens;
    if (s->prompt < 0)
        s->prompt = left < 256 ? left : 256;
    if (s->prompt > left)
        return too_large("prompt", s->prompt, "columns", left, e);
    return TT_OK;
}

/* --- ceilings and floors --- */

static void print_flops(FILE *out, const char *type, double flops)
{
    if (flops >= 1e12)
        fprintf(out, ", %s %.1f TFLOP/s", type, flops * 1e-12);
    else if (flops > 0)
        fprintf(out, ", %s %.1f GFLOP/s", type, flops * 1e-9);
}

tt_status tt_bench_ceilings(tt_bench *b, tt_err *e)
{
    tt_stream *s = b->stream;
    if (!s->op.ceilings) {
        fprintf(b->out, "ceilings   not known by this backend\n");
        return TT_OK;
    }
    tt_bench_say(b, "ceilings");
    tt_ceilings *c = &b->ceilings;
    tt_status st = s->op.ceilings(s, 3 * b->sizes.seconds, c, e);
    tt_bench_say(b, NULL);
    if (st)
        return tt_context(e, st, "ceilings");
    fprintf(b->out, "ceilings   memory %.1f GB/s", c->bytes_per_s * 1e-9);
    print_flops(b->out, "f32", c->flops_f32);
    print_flops(b->out, "bf16", c->flops_bf16);
    print_flops(b->out, "fp8", c->flops_fp8);
    fprintf(b->out, "\n");
    fflush(b->out);
    tt_json_open_member(&b->json, "ceilings", '{');
    tt_json_float_member(&b->json, "bytes_per_s", c->bytes_per_s);
    tt_json_float_member(&b->json, "flops_f32", c->flops_f32);
    tt_json_float_member(&b->json, "flops_bf16", c->flops_bf16);
    tt_json_float_member(&b->json, "flops_fp8", c->flops_fp8);
    tt_json_close(&b->json, '}');
    return TT_OK;
}

/* Products of a type the device has no units for run at the speed of float32. */
static double peak(const tt_bench *b)
{
    const tt_ceilings *c = &b->ceilings;
    if (b->model->info.products == TT_COMPUTE_FP8)
        return c->flops_fp8 > 0 ? c->flops_fp8 : c->flops_f32;
    bool narrow = b->model->info.products == TT_COMPUTE_BF16 && c->flops_bf16 > 0;
    return narrow ? c->flops_bf16 : c->flops_f32;
}

tt_bench_floor tt_bench_least(const tt_bench *b, int64_t rows, int64_t wants, int64_t stored,
                              int64_t seen)
{
    const tt_model_info *i = &b->model->info;
    double layers = (double)i->layer_weights, head = (double)i->vocab * (double)i->width;
    double bytes = i->bytes_per_weight * (layers + (wants ? head : 0)) +
                   (double)stored * (double)i->kv_bytes_per_column;
    double flops = 2 * layers * (double)rows + 2 * head * (double)wants +
                   4.0 * (double)(i->layers * i->heads * i->head_dim) * (double)seen;
    tt_bench_floor f = {0};
    if (layers > 0 && b->ceilings.bytes_per_s > 0 && peak(b) > 0)
        f = (tt_bench_floor){.memory = bytes / b->ceilings.bytes_per_s,
                             .arithmetic = flops / peak(b)};
    return f;
}

/* --- memory --- */

size_t tt_bench_note_memory(tt_bench *b, int64_t columns)
{
    tt_stream *s = b->stream;
    tt_memory m;
    if (!s->op.memory || s->op.memory(s, &m, NULL))
        return 0;
    size_t known = b->loaded_bytes + (size_t)columns * b->model->info.kv_bytes_per_column;
    size_t beyond = m.peak > known ? m.peak - known : 0;
    b->peak_bytes = m.peak > b->peak_bytes ? m.peak : b->peak_bytes;
    b->beyond_bytes = beyond > b->beyond_bytes ? beyond : b->beyond_bytes;
    return beyond;
}

void tt_bench_memory(tt_bench *b)
{
    if (!b->peak_bytes) {
        fprintf(b->out, "memory     not known by this backend\n");
        return;
    }
    fprintf(b->out,
            "memory     %.1f MB when loaded, %.1f at most; beyond model, keys and values %.1f\n",
            (double)b->loaded_bytes * 1e-6, (double)b->peak_bytes * 1e-6,
            (double)b->beyond_bytes * 1e-6);
    tt_json_open_member(&b->json, "memory", '{');
    tt_json_int_member(&b->json, "loaded", (int64_t)b->loaded_bytes);
    tt_json_int_member(&b->json, "peak", (int64_t)b->peak_bytes);
    tt_json_int_member(&b->json, "beyond", (int64_t)b->beyond_bytes);
    tt_json_close(&b->json, '}');
}
