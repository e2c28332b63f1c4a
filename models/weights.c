/* weights.c - safetensors files, mapped and checked. Format: 8-byte little-endian header length,
 * JSON header {name: {dtype, shape, data_offsets}}, then the data without gaps. */
#include "models/weights.h"

#include <cjson/cJSON.h>
#include <errno.h>
#include <fcntl.h>
#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/stat.h>
#include <unistd.h>

#include "kernels/base/map.h"
#include "kernels/base/utf8.h"
#include "models/random.h"

enum { MAX_HEADER = 100 << 20, MAX_FILES = 4096, MAX_TENSORS = 1 << 22 };

typedef struct {
    void *base;
    size_t size;
    bool owned; /* mapped here */
} mapping;

typedef struct {
    char *name;
    tt_tensor tensor;
    size_t begin, end; /* in the file's data */
    void *copy; /* of data that is not aligned where it lies; else NULL */
} entry;

struct tt_weights {
    mapping *file;
    size_t files;
    entry *list;
    size_t count, capacity;
    tt_map *by_name;
    tt_random *random; /* NULL: tensors are in files */
    tt_weights *grows; /* itself when tensors come to be by asking */
};

static void entry_close(entry *t)
{
    free(t->name);
    free(t->copy);
}

void tt_weights_close(tt_weights *w)
{
    if (!w)
        return;
    for (size_t i = 0; i < w->files; i++)
        if (w->file[i].owned)
            munmap(w->file[i].base, w->file[i].size);
    for (size_t i = 0; i < w->count; i++)
        entry_close(&w->list[i]);
    free(w->file);
    free(w->list);
    tt_random_close(w->random);
    tt_map_close(w->by_name);
    free(w);
}

static tt_status weights_new(tt_weights **out, tt_err *e)
{
    *out = NULL;
    tt_weights *w = calloc(1, sizeof *w);
    if (!w)
        return tt_fail(e, TT_ENOMEM, "no memory for a checkpoint");
    tt_status s = tt_map_open(&w->by_name, 512, e);
    if (s) {
        free(w);
        return s;
    }
    *out = w;
    return TT_OK;
}

/* A non-negative integer that a double holds exactly. */
static bool whole(const cJSON *j, uint64_t *out)
{
    if (!cJSON_IsNumber(j) || !(j->valuedouble >= 0) || j->valuedouble > 0x1p53 ||
        j->valuedouble != floor(j->valuedouble))
        return false;
    *out = (uint64_t)j->valuedouble;
    return true;
}

static tt_status read_shape(const cJSON *shape, const char *name, tt_tensor *t, tt_err *e)
{
    if (!cJSON_IsArray(shape))
        return tt_fail(e, TT_EFORMAT, "tensor '%.80s' has no shape", name);
    int64_t count = 1;
    const cJSON *d;
    cJSON_ArrayForEach(d, shape)
    {
        uint64_t v;
        if (t->rank == TT_MAX_RANK)
            return tt_fail(e, TT_EFORMAT, "tensor '%.80s' has more than %d dimensions", name,
                           TT_MAX_RANK);
        if (!whole(d, &v))
            return tt_fail(e, TT_EFORMAT, "tensor '%.80s' has a dimension that is no size", name);
        if (__builtin_mul_overflow(count, (int64_t)v, &count))
            return tt_fail(e, TT_EFORMAT, "tensor '%.80s' is too large", name);
        t->dim[t->rank++] = (int64_t)v;
    }
    return TT_OK;
}

static tt_status read_entry(const cJSON *j, const char *data, size_t data_bytes, entry *out,
                            tt_err *e)
{
    const char *name = j->string;
    const cJSON *dtype = cJSON_GetObjectItemCaseSensitive(j, "dtype");
    const cJSON *offsets = cJSON_GetObjectItemCaseSensitive(j, "data_offsets");
    tt_tensor t = {0};
    if (!cJSON_IsObject(j) || !cJSON_IsString(dtype))
        return tt_fail(e, TT_EFORMAT, "tensor '%.80s' has no dtype", name);
    if (!tt_dtype_find(dtype->valuestring, &t.dtype))
        return tt_fail(e, TT_EFORMAT, "tensor '%.80s' has dtype '%.20s', which is not known", name,
                       dtype->valuestring);
    tt_status s = read_shape(cJSON_GetObjectItemCaseSensitive(j, "shape"), name, &t, e);
    if (s)
        return s;
    uint64_t begin, end;
    if (!cJSON_IsArray(offsets) || cJSON_GetArraySize(offsets) != 2 ||
        !whole(offsets->child, &begin) || !whole(offsets->child->next, &end))
        return tt_fail(e, TT_EFORMAT, "tensor '%.80s' has no data_offsets", name);
    if (begin > end || end > data_bytes)
        return tt_fail(e, TT_EFORMAT,
                       "tensor '%.80s' lies at bytes %llu to %llu of %zu: the file is truncated or "
                       "its header is wrong",
                       name, (unsigned long long)begin, (unsigned long long)end, data_bytes);
    uint64_t need;
    if (__builtin_mul_overflow((uint64_t)tt_tensor_count(&t), tt_dtype_size(t.dtype), &need) ||
        need != end - begin)
        return tt_fail(e, TT_EFORMAT, "tensor '%.80s' occupies %llu bytes, its shape needs %llu",
                       name, (unsigned long long)(end - begin), (unsigned long long)need);
    t.data = data + begin;
    *out = (entry){.tensor = t, .begin = begin, .end = end};
    out->name = strdup(name);
    return out->name ? TT_OK : tt_fail(e, TT_ENOMEM, "no memory for a tensor's name");
}

static tt_status keep(tt_weights *w, entry *t, tt_err *e)
{
    int32_t old;
    if (w->count == w->capacity) {
        size_t capacity = w->capacity ? w->capacity * 2 : 256;
        entry *list = capacity > MAX_TENSORS ? NULL : realloc(w->list, capacity * sizeof *list);
        if (!list)
            return tt_fail(e, TT_ENOMEM, "no memory for %zu tensors", capacity);
        w->list = list;
        w->capacity = capacity;
    }
    tt_status s = tt_map_put(w->by_name, t->name, strlen(t->name), (int32_t)w->count, &old, e);
    if (s)
        return s;
    if (old >= 0)
        return tt_fail(e, TT_EFORMAT, "tensor '%.80s' is there twice", t->name);
    w->list[w->count++] = *t;
    t->name = NULL;
    return TT_OK;
}

static int by_begin(const void *a, const void *b)
{
    const entry *x = a, *y = b;
    if (x->begin != y->begin)
        return x->begin < y->begin ? -1 : 1;
    return x->end < y->end ? -1 : x->end > y->end;
}

/* Tensors of one file must tile its data: an overlap could alias, a gap could hide something. */
static tt_status check_tiling(const entry *list, size_t n, size_t data_bytes, tt_err *e)
{
    entry *sorted = malloc((n ? n : 1) * sizeof *sorted);
    if (!sorted)
        return tt_fail(e, TT_ENOMEM, "no memory for %zu tensors", n);
    if (n)
        memcpy(sorted, list, n * sizeof *sorted);
    qsort(sorted, n, sizeof *sorted, by_begin);
    size_t at = 0;
    tt_status s = TT_OK;
    for (size_t i = 0; i < n && !s; i++) {
        if (sorted[i].begin < at)
            s = tt_fail(e, TT_EFORMAT, "tensor '%.80s' overlaps another one", sorted[i].name);
        else if (sorted[i].begin > at)
            s = tt_fail(e, TT_EFORMAT, "%zu unused bytes lie before tensor '%.80s'",
                        sorted[i].begin - at, sorted[i].name);
        at = sorted[i].end;
    }
    if (!s && at != data_bytes)
        s = tt_fail(e, TT_EFORMAT, "%zu unused bytes follow the last tensor", data_bytes - at);
    free(sorted);
    return s;
}

/* Tensors that an older writer left where their elements cannot be read are copied; tiling was
 * checked, so that all copies together are no larger than the file. */
static tt_status align(entry *list, size_t n, tt_err *e)
{
    for (entry *t = list; t < list + n; t++) {
        size_t bytes = t->end - t->begin;
        if ((uintptr_t)t->tensor.data % tt_dtype_size(t->tensor.dtype) == 0 || !bytes)
            continue;
        if (!(t->copy = malloc(bytes)))
            return tt_fail(e, TT_ENOMEM, "no memory for tensor '%.80s'", t->name);
        t->tensor.data = memcpy(t->copy, t->tensor.data, bytes);
    }
    return TT_OK;
}

static tt_status read_header(tt_weights *w, const cJSON *root, const char *data, size_t data_bytes,
                             tt_err *e)
{
    size_t first = w->count;
    if (!cJSON_IsObject(root))
        return tt_fail(e, TT_EFORMAT, "the header is not a JSON object");
    const cJSON *j;
    cJSON_ArrayForEach(j, root)
    {
        if (!strcmp(j->string, "__metadata__"))
            continue;
        entry t = {0};
        tt_status s = read_entry(j, data, data_bytes, &t, e);
        if (!s)
            s = keep(w, &t, e);
        free(t.name);
        if (s)
            return s;
    }
    entry *added = w->count > first ? w->list + first : NULL;
    tt_status s = check_tiling(added, w->count - first, data_bytes, e);
    return s ? s : align(added, w->count - first, e);
}

static tt_status add_image(tt_weights *w, const char *bytes, size_t size, tt_err *e)
{
    if (size < 8)
        return tt_fail(e, TT_EFORMAT, "%zu bytes are too few for a safetensors file", size);
    uint64_t header = 0;
    for (int i = 7; i >= 0; i--)
        header = header << 8 | (unsigned char)bytes[i];
    if (header > MAX_HEADER || header > size - 8)
        return tt_fail(e, TT_EFORMAT, "header of %llu bytes in a file of %zu",
                       (unsigned long long)header, size);
    if (tt_utf8_valid(bytes + 8, header) != header)
        return tt_fail(e, TT_EFORMAT, "the header is not UTF-8");
    const char *end = NULL;
    char *text = malloc(header + 1);
    if (!text)
        return tt_fail(e, TT_ENOMEM, "no memory for a header of %llu bytes",
                       (unsigned long long)header);
    memcpy(text, bytes + 8, header);
    text[header] = '\0';
    cJSON *root = cJSON_ParseWithLengthOpts(text, header + 1, &end, 1);
    tt_status s = root ? read_header(w, root, bytes + 8 + header, size - 8 - header, e)
                       : tt_fail(e, TT_EFORMAT, "the header is not JSON (near byte %td)",
                                 end ? end - text : 0);
    cJSON_Delete(root);
    free(text);
    return s;
}

static tt_status map_file(const char *path, mapping *m, tt_err *e)
{
    int fd = open(path, O_RDONLY | O_CLOEXEC);
    if (fd < 0)
        return tt_fail(e, TT_EIO, "cannot open '%.160s': %s", path, strerror(errno));
    struct stat st;
    if (fstat(fd, &st) || !S_ISREG(st.st_mode)) {
        close(fd);
        return tt_fail(e, TT_EIO, "'%.160s' is not a regular file", path);
    }
    *m = (mapping){.size = (size_t)st.st_size, .owned = st.st_size > 0};
    if (m->owned)
        m->base = mmap(NULL, m->size, PROT_READ, MAP_PRIVATE, fd, 0);
    close(fd);
    if (m->base == MAP_FAILED) {
        m->owned = false;
        return tt_fail(e, TT_EIO, "cannot map '%.160s': %s", path, strerror(errno));
    }
    return TT_OK;
}

static tt_status add_file(tt_weights *w, const char *path, tt_err *e)
{
    mapping *file = realloc(w->file, (w->files + 1) * sizeof *file);
    if (!file)
        return tt_fail(e, TT_ENOMEM, "no memory for a checkpoint");
    w->file = file;
    mapping m = {0};
    tt_status s = map_file(path, &m, e);
    if (s)
        return s;
    w->file[w->files++] = m;
    s = add_image(w, m.base ? m.base : "", m.size, e);
    return s ? tt_context(e, s, "'%.120s'", path) : TT_OK;
}

tt_status tt_weights_open_memory(tt_weights **out, const void *bytes, size_t size, tt_err *e)
{
    tt_weights *w;
    tt_status s = weights_new(&w, e);
    *out = NULL;
    if (s)
        return s;
    s = add_image(w, bytes, size, e);
    if (s)
        tt_weights_close(w);
    else
        *out = w;
    return s;
}

tt_status tt_weights_open_file(tt_weights **out, const char *path, tt_err *e)
{
    tt_weights *w;
    tt_status s = weights_new(&w, e);
    *out = NULL;
    if (s)
        return s;
    s = add_file(w, path, e);
    if (s)
        tt_weights_close(w);
    else
        *out = w;
    return s;
}

/* --- sharded checkpoints --- */

static tt_status read_index(const char *path, cJSON **out, tt_err *e)
{
    mapping m = {0};
    const char *end = NULL;
    *out = NULL;
    tt_status s = map_file(path, &m, e);
    if (s)
        return s;
    char *text = m.size <= MAX_HEADER ? malloc(m.size + 1) : NULL;
    if (text) {
        if (m.size)
            memcpy(text, m.base, m.size);
        text[m.size] = '\0';
        *out = cJSON_ParseWithLengthOpts(text, m.size + 1, &end, 1);
    }
    if (!*out)
        s = tt_fail(e, TT_EFORMAT, "'%.160s' is not JSON", path);
    free(text);
    if (m.owned)
        munmap(m.base, m.size);
    return s;
}

/* A shard must lie in the folder itself: a name with a slash could point anywhere. */
static bool plain_file_name(const char *name)
{
    return *name && *name != '.' && !strchr(name, '/') && strlen(name) < 200;
}

static tt_status add_shards(tt_weights *w, const char *dir, const cJSON *index, tt_err *e)
{
    const cJSON *map = cJSON_GetObjectItemCaseSensitive(index, "weight_map"), *j;
    if (!cJSON_IsObject(map))
        return tt_fail(e, TT_EFORMAT, "the index has no weight_map");
    tt_map *seen;
    tt_status s = tt_map_open(&seen, 16, e);
    if (s)
        return s;
    cJSON_ArrayForEach(j, map)
    {
        char path[4096];
        const char *file = cJSON_IsString(j) ? j->valuestring : "";
        int32_t old;
        if (!plain_file_name(file)) {
            s = tt_fail(e, TT_EFORMAT, "weight_map names '%.80s' as the file of '%.80s'", file,
                        j->string);
            break;
        }
        if ((s = tt_map_put(seen, file, strlen(file), 0, &old, e)))
            break;
        if (old >= 0)
            continue;
        if (tt_map_count(seen) > MAX_FILES) {
            s = tt_fail(e, TT_EFORMAT, "more than %d shards", MAX_FILES);
            break;
        }
        snprintf(path, sizeof path, "%s/%s", dir, file);
        if ((s = add_file(w, path, e)))
            break;
    }
    tt_map_close(seen);
    if (s)
        return s;
    cJSON_ArrayForEach(j, map)
        if (!tt_weights_has(w, j->string))
            return tt_fail(e, TT_EFORMAT, "tensor '%.80s' is in the index but not in '%.60s'",
                           j->string, j->valuestring);
    return TT_OK;
}

tt_status tt_weights_open(tt_weights **out, const char *dir, tt_err *e)
{
    char path[4096];
    *out = NULL;
    if ((size_t)snprintf(path, sizeof path, "%s/model.safetensors.index.json", dir) >= sizeof path)
        return tt_fail(e, TT_EIO, "path '%.80s...' is too long", dir);
    if (access(path, F_OK)) {
        snprintf(path, sizeof path, "%s/model.safetensors", dir);
        return tt_weights_open_file(out, path, e);
    }
    tt_weights *w;
    tt_status s = weights_new(&w, e);
    if (s)
        return s;
    cJSON *index;
    s = read_index(path, &index, e);
    if (!s) {
        s = add_shards(w, dir, index, e);
        if (s)
            tt_context(e, s, "checkpoint '%.100s'", dir);
    }
    cJSON_Delete(index);
    if (s)
        tt_weights_close(w);
    else
        *out = w;
    return s;
}

/* --- no checkpoint --- */

tt_status tt_weights_open_random(tt_weights **out, tt_err *e)
{
    tt_status s = weights_new(out, e);
    if (s)
        return s;
    (*out)->grows = *out;
    s = tt_random_open(&(*out)->random, e);
    if (s) {
        tt_weights_close(*out);
        *out = NULL;
    }
    return s;
}

static tt_status invent(tt_weights *w, const char *name, int rank, const int64_t *dims, tt_err *e)
{
    size_t length = strlen(name);
    bool bias = length >= 4 && !strcmp(name + length - 4, "bias");
    int64_t count = 1;
    entry t = {.tensor = {.dtype = TT_BF16, .rank = rank}};
    for (int i = 0; i < rank; i++) {
        t.tensor.dim[i] = dims[i];
        if (dims[i] < 0)
            return tt_fail(e, TT_EUNSUP, "tensor '%.100s' has no sizes without a checkpoint", name);
        if (__builtin_mul_overflow(count, dims[i], &count))
            return tt_fail(e, TT_EFORMAT, "tensor '%.100s' is too large", name);
    }
    const uint16_t *data;
    tt_status s = tt_random_view(w->random, &data, name, count, rank == 1 && !bias, e);
    if (s)
        return s;
    t.tensor.data = data;
    t.end = (size_t)count * sizeof *data;
    t.name = strdup(name);
    s = t.name ? keep(w, &t, e) : tt_fail(e, TT_ENOMEM, "no memory for a tensor's name");
    free(t.name);
    return s;
}

/* --- lookup --- */

static const char *shape_text(char *out, size_t size, int rank, const int64_t *dim)
{
    size_t at = 0;
    at += (size_t)snprintf(out, size, "[");
    for (int i = 0; i < rank && at < size; i++) {
        const char *comma = i ? ", " : "";
        at += (size_t)(dim[i] < 0 ? snprintf(out + at, size - at, "%sany", comma)
                                  : snprintf(out + at, size - at, "%s%lld", comma,
                                             (long long)dim[i]));
    }
    if (at < size)
        snprintf(out + at, size - at, "]");
    return out;
}

tt_status tt_weights_get(const tt_weights *w, const char *name, int rank, const int64_t *dims,
                         tt_tensor *out, tt_err *e)
{
    int32_t i = tt_map_get(w->by_name, name, strlen(name));
    if (i < 0 && w->grows) {
        tt_status s = invent(w->grows, name, rank, dims, e);
        if (s)
            return s;
        i = (int32_t)w->count - 1;
    }
    if (i < 0)
        return tt_fail(e, TT_EFORMAT, "tensor '%.100s' is missing", name);
    const tt_tensor *t = &w->list[i].tensor;
    bool fits = t->rank == rank;
    for (int k = 0; fits && k < rank; k++)
        fits = dims[k] < 0 || t->dim[k] == dims[k];
    if (!fits) {
        char want[64], have[64];
        return tt_fail(e, TT_EFORMAT, "tensor '%.100s' has shape %s, expected %s", name,
                       shape_text(have, sizeof have, t->rank, t->dim),
                       shape_text(want, sizeof want, rank, dims));
    }
    *out = *t;
    return TT_OK;
}

bool tt_weights_has(const tt_weights *w, const char *name)
{
    return tt_map_get(w->by_name, name, strlen(name)) >= 0;
}

tt_status tt_weights_matrix(const tt_weights *w, const char *name, int64_t n, int64_t k,
                            tt_weight *out, tt_err *e)
{
    *out = (tt_weight){0};
    tt_tensor t;
    int lead = 0; /* sizes of 1 before those of the matrix */
    if (!tt_weights_get(w, name, 3, (int64_t[]){1, n, k}, &t, NULL))
        lead = 1;
    tt_status s = tt_weights_get(w, name, 2 + lead, lead ? (int64_t[]){1, n, k} : (int64_t[]){n, k},
                                 &out->data, e);
    if (s)
        return s;
    if (lead) {
        out->data.rank = 2;
        out->data.dim[0] = n;
        out->data.dim[1] = k;
    }
    switch (out->data.dtype) {
    case TT_F32:
    case TT_BF16:
    case TT_F16:
        return TT_OK;
    case TT_I8: {
        char scale[200];
        snprintf(scale, sizeof scale, "%.180s_scale", name);
        return tt_weights_get(w, scale, 1, (int64_t[]){n}, &out->scale, e);
    }
    default:
        return tt_fail(e, TT_EUNSUP, "tensor '%.100s' is %s; matrices may be F32, BF16, F16 or I8",
                       name, tt_dtype_name(out->data.dtype));
    }
}

const char *tt_weights_name(const tt_weights *w, size_t i, tt_tensor *out)
{
    if (i >= w->count)
        return NULL;
    *out = w->list[i].tensor;
    return w->list[i].name;
}

size_t tt_weights_count(const tt_weights *w) { return w->count; }

void tt_weights_rest(const tt_weights *w)
{
    for (size_t i = 0; i < w->files; i++)
        if (w->file[i].owned)
            madvise(w->file[i].base, w->file[i].size, MADV_DONTNEED);
}

int64_t tt_weights_elements(const tt_weights *w)
{
    int64_t n = 0;
    for (size_t i = 0; i < w->count; i++) {
        size_t len = strlen(w->list[i].name);
        if (len < 6 || strcmp(w->list[i].name + len - 6, "_scale"))
            n += tt_tensor_count(&w->list[i].tensor);
    }
    return n;
}

size_t tt_weights_bytes(const tt_weights *w)
{
    size_t n = 0;
    for (size_t i = 0; i < w->count; i++)
        n += w->list[i].end - w->list[i].begin;
    return n;
}
