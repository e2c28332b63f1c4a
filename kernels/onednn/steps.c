/* steps.c - primitives by shape: made once, kept for the life of the stream. */
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "kernels/onednn/onednn.h"

tt_status tt_onednn_check(dnnl_status_t st, const char *doing, tt_err *e)
{
    if (st == dnnl_success)
        return TT_OK;
    if (st == dnnl_out_of_memory)
        return tt_fail(e, TT_ENOMEM, "oneDNN: no memory to %s", doing);
    return tt_fail(e, TT_EUNSUP, "oneDNN cannot %s (status %d)", doing, (int)st);
}

static dnnl_status_t plain(dnnl_memory_desc_t *d, dnnl_data_type_t type, int64_t rows,
                           int64_t width, int64_t ld)
{
    return dnnl_memory_desc_init_by_strides(d, 2, (dnnl_dims_t){rows, width}, type,
                                            (dnnl_dims_t){ld, 1});
}

/* weights NULL: any layout. */
static dnnl_status_t describe_product(onednn *d, step_shape s, const dnnl_memory_desc_t *weights,
                                      dnnl_primitive_desc_t *out)
{
    dnnl_memory_desc_t x, w, y;
    dnnl_matmul_desc_t product;
    dnnl_primitive_attr_t attr = NULL;
    dnnl_status_t st = plain(&x, s.type, s.m, s.k, s.k);
    if (!st && !weights)
        st = dnnl_memory_desc_init_by_tag(&w, 2, (dnnl_dims_t){s.k, s.n}, s.type,
                                          dnnl_format_tag_any);
    if (!st)
        st = plain(&y, dnnl_f32, s.m, s.n, s.n);
    if (!st)
        st = dnnl_matmul_desc_init(&product, &x, weights ? weights : &w, NULL, &y);
    if (!st)
        st = dnnl_primitive_attr_create(&attr);
    if (!st)
        st = dnnl_primitive_attr_set_scratchpad_mode(attr, dnnl_scratchpad_mode_user);
    if (!st)
        st = dnnl_primitive_desc_create(out, &product, attr, d->engine, NULL);
    if (attr)
        dnnl_primitive_attr_destroy(attr);
    return st;
}

tt_status tt_onednn_layout(onednn *d, dnnl_data_type_t type, int64_t n, int64_t k,
                           dnnl_memory_desc_t *packed, char name[48], tt_err *e)
{
    dnnl_primitive_desc_t p;
    step_shape shape = {PRODUCT, type, MOST_ROWS, n, k};
    dnnl_status_t st = describe_product(d, shape, NULL, &p);
    if (st)
        return tt_onednn_check(st, "describe a product", e);
    const char *info = NULL;
    dnnl_primitive_desc_query(p, dnnl_query_impl_info_str, 0, &info);
    if (name)
        snprintf(name, 48, "%s", info ? info : "?");
    *packed = *dnnl_primitive_desc_query_md(p, dnnl_query_weights_md, 0);
    bool invariant = info && !strncmp(info, "brg", 3);
    dnnl_primitive_desc_destroy(p);
    if (!invariant)
        return tt_fail(e, TT_EUNSUP, "oneDNN would use %s, whose results depend on the batch",
                       info ? info : "?");
    return TT_OK;
}

static void forget(onednn *d, step *s)
{
    for (int t = 0; t < d->threads; t++) {
        if (s->from && s->from[t])
            dnnl_memory_destroy(s->from[t]);
        if (s->to && s->to[t])
            dnnl_memory_destroy(s->to[t]);
        if (s->scratch && s->scratch[t])
            dnnl_memory_destroy(s->scratch[t]);
    }
    if (s->primitive)
        dnnl_primitive_destroy(s->primitive);
    free(s->from);
    free(s->to);
    free(s->scratch);
    free(s);
}

void tt_onednn_forget_steps(onednn *d)
{
    for (int b = 0; b < BUCKETS; b++)
        for (step *s = d->bucket[b], *next; s; s = next) {
            next = s->next;
            forget(d, s);
        }
    memset(d->bucket, 0, sizeof d->bucket);
}

static dnnl_status_t handles(onednn *d, dnnl_memory_t **out, const dnnl_memory_desc_t *desc)
{
    *out = calloc((size_t)d->threads, sizeof **out);
    dnnl_status_t st = *out ? dnnl_success : dnnl_out_of_memory;
    for (int t = 0; t < d->threads && !st; t++)
        st = dnnl_memory_create(&(*out)[t], desc, d->engine, DNNL_MEMORY_NONE);
    return st;
}

static tt_status describe(onednn *d, step_shape s, dnnl_primitive_desc_t *out, tt_err *e)
{
    dnnl_memory_desc_t a, b;
    if (s.kind == PRODUCT) {
        tt_status st = tt_onednn_layout(d, s.type, s.n, s.k, &a, NULL, e);
        return st ? st : tt_onednn_check(describe_product(d, s, &a, out), "make a product", e);
    }
    dnnl_status_t st = plain(&a, dnnl_f32, s.m, s.k, s.n);
    if (!st)
        st = plain(&b, dnnl_bf16, s.m, s.k, s.k);
    if (!st)
        st = dnnl_reorder_primitive_desc_create(out, &a, d->engine, &b, d->engine, NULL);
    return tt_onednn_check(st, "make a conversion", e);
}

static tt_status make(onednn *d, step_shape shape, step **out, tt_err *e)
{
    dnnl_primitive_desc_t p = NULL;
    step *s = calloc(1, sizeof *s);
    if (!s)
        return tt_fail(e, TT_ENOMEM, "no memory for a primitive");
    s->shape = shape;
    tt_status st = describe(d, shape, &p, e);
    if (st) {
        free(s);
        return st;
    }
    const dnnl_memory_desc_t *scratch =
        dnnl_primitive_desc_query_md(p, dnnl_query_scratchpad_md, 0);
    s->scratch_bytes = shape.kind == PRODUCT ? dnnl_memory_desc_get_size(scratch) : 0;
    dnnl_status_t made = dnnl_primitive_create(&s->primitive, p);
    if (!made)
        made = handles(d, &s->from, dnnl_primitive_desc_query_md(p, dnnl_query_src_md, 0));
    if (!made)
        made = handles(d, &s->to, dnnl_primitive_desc_query_md(p, dnnl_query_dst_md, 0));
    if (!made && s->scratch_bytes)
        made = handles(d, &s->scratch, scratch);
    dnnl_primitive_desc_destroy(p);
    st = tt_onednn_check(made, "make a primitive", e);
    if (st) {
        forget(d, s);
        return st;
    }
    *out = s;
    return TT_OK;
}

tt_status tt_onednn_step(onednn *d, step_shape shape, step **out, tt_err *e)
{
    uint64_t h = (uint64_t)shape.kind * 2 + (shape.type == dnnl_bf16);
    h = (h * 0x9E3779B97F4A7C15u) ^ (uint64_t)shape.m;
    h = (h * 0x9E3779B97F4A7C15u) ^ (uint64_t)shape.n;
    h = (h * 0x9E3779B97F4A7C15u) ^ (uint64_t)shape.k;
    step **bucket = &d->bucket[(h * 0x9E3779B97F4A7C15u) >> 56];
    for (step *s = *bucket; s; s = s->next)
        if (s->shape.kind == shape.kind && s->shape.type == shape.type && s->shape.m == shape.m &&
            s->shape.n == shape.n && s->shape.k == shape.k) {
            *out = s;
            return TT_OK;
        }
    tt_status st = make(d, shape, out, e);
    if (st)
        return st;
    (*out)->next = *bucket;
    *bucket = *out;
    return TT_OK;
}
