/* batch_images.c - see batch_images.h.
 *
 * The work is cut into pieces of at most 16 images of a class, a job each. What a piece made is
 * written before its number is added to a list beside the output; a run that continues leaves out
 * the pieces on that list. Its first line says what was asked for. */
#include "server/batch_images.h"

#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#include "kernels/base/clock.h"
#include "kernels/base/pool.h"
#include "server/npz.h"
#include "server/png.h"

enum { PIECE = 16, WINDOW = 8, MAX_CLASSES = 1 << 20 };

typedef struct {
    tt_job *job; /* NULL: the slot is free */
    int64_t piece;
} slot;

typedef struct {
    tt_local *l;
    const tt_batch_images_args *a;
    const tt_image_model *m;
    tt_params params;
    tt_condition with;
    int32_t *class_of; /* number of each class in the first group */
    int32_t classes;
    int64_t pieces, per_class_pieces, next;
    int64_t done, before; /* images: of this run, of those that it continues */
    uint8_t *finished;    /* per piece */
    FILE *list;
    tt_npz *npz; /* NULL: a folder */
    tt_pool *pool;
    slot slot[WINDOW];
    int32_t *id; /* of a job's canvas: all open */
    uint8_t *open;
} batch;

/* --- pieces --- */

static int64_t first_of(const batch *b, int64_t piece)
{
    return piece % b->per_class_pieces * PIECE;
}

static int32_t class_index(const batch *b, int64_t piece)
{
    return (int32_t)(piece / b->per_class_pieces);
}

static int32_t images_of(const batch *b, int64_t piece)
{
    int64_t left = b->a->per_class - first_of(b, piece);
    return left < PIECE ? (int32_t)left : PIECE;
}

/* --- what to make --- */

static tt_status set_params(batch *b, tt_err *e)
{
    b->params = b->l->served->defaults;
    memset(b->params.given, 0, sizeof b->params.given);
    for (int i = 0; i < b->a->sets; i++) {
        const char *set = b->a->set[i], *equals = strchr(set, '=');
        char name[64];
        if (!equals || equals == set || (size_t)(equals - set) >= sizeof name)
            return tt_fail(e, TT_EINVAL, "--set is '%.60s', must be NAME=VALUE", set);
        snprintf(name, sizeof name, "%.*s", (int)(equals - set), set);
        const tt_param *p = tt_param_find(name);
        if (!p)
            return tt_fail(e, TT_EINVAL, "there is no parameter '%s'", name);
        tt_status s = tt_params_set_text(&b->params, p, equals + 1, e);
        if (s)
            return s;
    }
    return TT_OK;
}

/* "7", "0-9" or a name. */
static tt_status add_classes(batch *b, const char *at, size_t n, tt_err *e)
{
    const tt_generator_info *g = b->m->generator;
    char text[256];
    int from = -1, to = -1, used = 0;
    if (n >= sizeof text)
        return tt_fail(e, TT_EINVAL, "--classes: '%.60s' is too long", at);
    memcpy(text, at, n);
    text[n] = '\0';
    int32_t named = b->m->labels ? tt_labels_find(b->m->labels, 0, text, n) : -1;
    if (named >= 0)
        from = to = named;
    else if (sscanf(text, " %d - %d %n", &from, &to, &used) < 2 || text[used])
        to = sscanf(text, " %d %n", &from, &used) == 1 && !text[used] ? from : -1;
    if (from < 0 || to < from || to >= g->group[0])
        return tt_fail(e, TT_EINVAL, "--classes: '%.60s' is no class of this model (0..%d)", text,
                       g->group[0] - 1);
    for (int32_t c = from; c <= to; c++) {
        if (b->classes == MAX_CLASSES)
            return tt_fail(e, TT_EINVAL, "--classes: too many");
        b->class_of[b->classes++] = c;
    }
    return TT_OK;
}

static tt_status choose_classes(batch *b, tt_err *e)
{
    const tt_generator_info *g = b->m->generator;
    int32_t room = b->a->classes ? MAX_CLASSES : g->groups ? g->group[0] : 1;
    b->class_of = malloc((size_t)room * sizeof *b->class_of);
    if (!b->class_of)
        return tt_fail(e, TT_ENOMEM, "no memory for the classes");
    if (!g->groups)
        b->class_of[b->classes++] = -1; /* unconditional */
    for (int32_t c = 0; g->groups && !b->a->classes && c < g->group[0]; c++)
        b->class_of[b->classes++] = c;
    if (b->a->classes && !g->groups)
        return tt_fail(e, TT_EINVAL, "--classes: this model has none");
    for (const char *at = b->a->classes; at && *at;) {
        size_t n = strcspn(at, ",");
        tt_status s = add_classes(b, at, n, e);
        if (s)
            return s;
        at += n + (at[n] == ',');
    }
    return tt_labels_prompt(b->m->labels, g, b->a->with ? b->a->with : "", "with", &b->with, e);
}

/* --- the list of pieces --- */

static void describe(const batch *b, tt_buf *out)
{
    size_t n;
    const tt_param *all = tt_param_all(&n);
    tt_buf_printf(
        out, "tutti-batch 1 model=%s digest=%s per_class=%lld seed=%lld with=%s classes=%s",
        b->l->served->id, b->l->served->digest, (long long)b->a->per_class, (long long)b->a->seed,
        b->a->with ? b->a->with : "", b->a->classes ? b->a->classes : "all");
    for (size_t i = 0; i < n; i++)
        if (tt_planner_reads(b->m->planner, &all[i]))
            tt_buf_printf(out, " %s=%.9g", all[i].name, tt_params_get(&b->params, &all[i]));
}

/* Reads the numbers of finished pieces; a last line that is cut off does not count. */
static tt_status read_list(batch *b, const char *path, const char *first, tt_err *e)
{
    char *line = NULL;
    size_t room = 0;
    tt_status s = TT_OK;
    FILE *f = fopen(path, "r");
    if (!f)
        return errno == ENOENT ? TT_OK : tt_fail(e, TT_EIO, "'%.150s': %s", path, strerror(errno));
    ssize_t n = getline(&line, &room, f);
    while (n > 0 && line[n - 1] == '\n')
        line[--n] = '\0';
    if (n > 0 && strcmp(line, first))
        s = tt_fail(e, TT_EINVAL, "'%.120s' is of a run that was asked for something else", path);
    while (!s && getline(&line, &room, f) > 0) {
        char *end;
        long long piece = strtoll(line, &end, 10);
        if (*end != '\n' || piece < 0 || piece >= b->pieces || b->finished[piece])
            continue;
        b->finished[piece] = 1;
        b->before += images_of(b, piece);
    }
    free(line);
    fclose(f);
    return s;
}

static bool is_archive(const char *output)
{
    size_t n = strlen(output);
    return n > 4 && !strcmp(output + n - 4, ".npz");
}

static tt_status open_list(batch *b, bool *begun, tt_err *e)
{
    char path[4200];
    tt_buf first = {0};
    snprintf(path, sizeof path, is_archive(b->a->output) ? "%s.list" : "%s/batch.list",
             b->a->output);
    describe(b, &first);
    tt_status s = b->a->resume ? read_list(b, path, tt_buf_text(&first), e) : TT_OK;
    *begun = b->before > 0;
    if (!s) {
        b->list = fopen(path, b->before ? "a" : "w");
        if (!b->list)
            s = tt_fail(e, TT_EIO, "'%.150s': %s", path, strerror(errno));
        else if (!b->before)
            fprintf(b->list, "%s\n", tt_buf_text(&first));
    }
    tt_buf_free(&first);
    return s;
}

static tt_status open_output(batch *b, tt_err *e)
{
    const tt_codec_info *c = &b->m->codec->info;
    const char *name = b->a->output;
    bool archive = is_archive(name), begun;
    struct stat st;
    bool there = !stat(name, &st);
    if (there && archive && b->a->resume)
        return tt_fail(e, TT_EIO, "'%.120s' is complete", name);
    if (there && !b->a->resume && !b->a->force)
        return tt_fail(e, TT_EIO,
                       "output '%.100s' exists: --resume continues it, --force "
                       "replaces it",
                       name);
    if (!archive && !there && mkdir(name, 0777))
        return tt_fail(e, TT_EIO, "'%.150s': %s", name, strerror(errno));
    tt_status s = open_list(b, &begun, e);
    if (!s && archive)
        s = tt_npz_open(&b->npz, name, b->classes * b->a->per_class, c->height, c->width, begun, e);
    return s;
}

/* --- jobs --- */

static tt_status start(batch *b, slot *at, int64_t piece, tt_err *e)
{
    int32_t class = b->class_of[class_index(b, piece)];
    tt_picture_spec picture = {.task = TT_PICTURE_MAKE, .condition = b->with};
    if (class >= 0)
        picture.condition.label[0] = class;
    int64_t seed =
        b->a->seed + ((int64_t)(class < 0 ? 0 : class) << 20) + first_of(b, piece) / PIECE;
    tt_job_spec spec = {.model = b->l->served,
                        .params = b->params,
                        .id = b->id,
                        .open = b->open,
                        .columns = b->m->codec->info.layout.tokens,
                        .samples = images_of(b, piece),
                        .seed = (uint64_t)seed,
                        .picture = &picture,
                        .wake = tt_local_wake,
                        .wake_arg = b->l};
    at->piece = piece;
    return tt_engine_submit(b->l->engine, &spec, &at->job, NULL, e);
}

static tt_status fill(batch *b, tt_err *e)
{
    for (int i = 0; i < WINDOW; i++) {
        while (b->next < b->pieces && b->finished[b->next])
            b->next++;
        if (b->slot[i].job || b->next == b->pieces)
            continue;
        tt_status s = start(b, &b->slot[i], b->next++, e);
        if (s)
            return s;
    }
    return TT_OK;
}

/* --- writing --- */

typedef struct {
    const batch *b;
    int64_t piece;
    tt_view view[PIECE];
    tt_err error[PIECE];
} result;

/* One file, complete or not there. */
static tt_status write_png(const batch *b, int64_t piece, int32_t i, const uint8_t *pixels,
                           tt_err *e)
{
    const tt_codec_info *c = &b->m->codec->info;
    char path[4200], part[4210];
    int32_t class = b->class_of[class_index(b, piece)];
    tt_buf png = {0};
    snprintf(path, sizeof path, "%s/%05d-%05lld.png", b->a->output, class < 0 ? 0 : class,
             (long long)(first_of(b, piece) + i));
    snprintf(part, sizeof part, "%s.part", path);
    tt_status s = tt_png_encode(&png, pixels, c->width, c->height, 3, TT_PNG_SMALL, NULL, 0, e);
    FILE *f = s ? NULL : fopen(part, "wb");
    bool bad = !f || fwrite(png.data, 1, png.size, f) != png.size;
    if (f && fclose(f))
        bad = true;
    if (!s && (bad || rename(part, path)))
        s = tt_fail(e, TT_EIO, "'%.150s': %s", path, strerror(errno));
    tt_buf_free(&png);
    return s;
}

static void write_one(void *arg, int64_t i, int thread)
{
    result *r = arg;
    const batch *b = r->b;
    const uint8_t *pixels = r->view[i].picture;
    int64_t at = class_index(b, r->piece) * b->a->per_class + first_of(b, r->piece) + i;
    (void)thread;
    if (b->npz)
        tt_npz_put(b->npz, at, 1, pixels, &r->error[i]);
    else
        write_png(b, r->piece, (int32_t)i, pixels, &r->error[i]);
}

static tt_status write_piece(batch *b, slot *at, tt_err *e)
{
    result *r = calloc(1, sizeof *r);
    int32_t n = images_of(b, at->piece);
    tt_status s = r ? TT_OK : tt_fail(e, TT_ENOMEM, "no memory for images");
    for (int32_t i = 0; !s && i < n; i++) {
        tt_job_view(at->job, i, &r->view[i]);
        if (r->view[i].finish == TT_FINISH_ERROR) {
            *e = r->view[i].error;
            s = e->status ? e->status : TT_EFORMAT;
        }
    }
    if (!s) {
        r->b = b;
        r->piece = at->piece;
        tt_pool_run(b->pool, n, write_one, r);
    }
    for (int32_t i = 0; r && i < n; i++) {
        if (!s && r->error[i].status) {
            *e = r->error[i];
            s = e->status;
        }
        tt_view_free(&r->view[i]);
    }
    free(r);
    if (!s && (fprintf(b->list, "%lld\n", (long long)at->piece) < 0 || fflush(b->list)))
        s = tt_fail(e, TT_EIO, "writing the list of pieces: %s", strerror(errno));
    b->done += s ? 0 : n;
    tt_job_release(at->job);
    at->job = NULL;
    return s;
}

/* Writes what is finished; *freed: there was some. */
static tt_status harvest(batch *b, bool *freed, tt_err *e)
{
    tt_status s = TT_OK;
    *freed = false;
    for (int i = 0; !s && i < WINDOW; i++)
        if (b->slot[i].job && tt_job_finished(b->slot[i].job)) {
            s = write_piece(b, &b->slot[i], e);
            *freed = true;
        }
    return s;
}

static bool busy(const batch *b)
{
    for (int i = 0; i < WINDOW; i++)
        if (b->slot[i].job)
            return true;
    return false;
}

/* --- all of it --- */

static void progress(const batch *b, int64_t start_ms, bool last)
{
    int64_t all = b->classes * b->a->per_class, n = b->before + b->done;
    double seconds = (double)(tt_now_ms() - start_ms) / 1000;
    if (b->a->quiet || !isatty(STDERR_FILENO))
        return;
    fprintf(stderr, "\r\033[K%lld of %lld images, %3lld %%, %.1f a second%s", (long long)n,
            (long long)all, (long long)(n * 100 / all), seconds > 0 ? (double)b->done / seconds : 0,
            last ? "\n" : "");
}

static tt_status work(batch *b, tt_err *e)
{
    uint64_t seen = 0;
    int64_t start_ms = tt_now_ms(), shown_ms = 0;
    for (;;) {
        bool freed = false;
        tt_status s = fill(b, e);
        if (!s && !busy(b))
            break;
        if (!s)
            s = harvest(b, &freed, e);
        if (s)
            return s;
        if (tt_now_ms() - shown_ms >= 200) {
            progress(b, start_ms, false);
            shown_ms = tt_now_ms();
        }
        if (!freed)
            tt_local_wait(b->l, &seen, 200);
    }
    progress(b, start_ms, true);
    double seconds = (double)(tt_now_ms() - start_ms) / 1000;
    fprintf(stderr, "%lld images in %.1f s", (long long)b->done, seconds);
    if (b->a->resume)
        fprintf(stderr, "; %lld were there already", (long long)b->before);
    fputc('\n', stderr);
    return TT_OK;
}

static tt_status finish(batch *b, tt_err *e)
{
    char path[4200];
    int64_t images = b->classes * b->a->per_class;
    int64_t *label = b->npz ? malloc((size_t)images * sizeof *label) : NULL;
    if (!b->npz)
        return TT_OK;
    if (!label)
        return tt_fail(e, TT_ENOMEM, "no memory for labels");
    for (int64_t i = 0; i < images; i++)
        label[i] = b->class_of[i / b->a->per_class];
    tt_status s = tt_npz_finish(b->npz, label, e);
    free(label);
    snprintf(path, sizeof path, "%s.list", b->a->output);
    if (!s)
        remove(path);
    return s;
}

static tt_status open_all(batch *b, tt_err *e)
{
    int32_t tokens = b->m->codec->info.layout.tokens;
    long cores = sysconf(_SC_NPROCESSORS_ONLN);
    if (!b->m->planner || b->m->text)
        return tt_fail(e, TT_EINVAL, "--per-class: this model makes no images of classes");
    tt_status s = set_params(b, e);
    if (!s)
        s = choose_classes(b, e);
    if (s)
        return s;
    b->per_class_pieces = (b->a->per_class + PIECE - 1) / PIECE;
    b->pieces = b->classes * b->per_class_pieces;
    b->finished = calloc((size_t)b->pieces, 1);
    b->id = calloc((size_t)tokens, sizeof *b->id);
    b->open = malloc((size_t)tokens);
    if (!b->finished || !b->id || !b->open)
        return tt_fail(e, TT_ENOMEM, "no memory for %lld images",
                       (long long)(b->classes * b->a->per_class));
    memset(b->open, 1, (size_t)tokens);
    s = tt_pool_open(&b->pool, cores > 1 ? (int)cores : 1, e);
    return s ? s : open_output(b, e);
}

tt_status tt_batch_images(tt_local *l, const tt_batch_images_args *a, tt_err *e)
{
    batch b = {.l = l, .a = a, .m = l->served->image};
    if (!b.m)
        return tt_fail(e, TT_EINVAL, "model '%.80s' makes no images", l->served->id);
    tt_status s = open_all(&b, e);
    if (!s)
        s = work(&b, e);
    for (int i = 0; i < WINDOW; i++)
        tt_job_release(b.slot[i].job);
    if (b.list && fclose(b.list) && !s)
        s = tt_fail(e, TT_EIO, "writing the list of pieces: %s", strerror(errno));
    if (!s)
        s = finish(&b, e);
    tt_npz_close(b.npz);
    tt_pool_close(b.pool);
    free(b.class_of);
    free(b.finished);
    free(b.id);
    free(b.open);
    return s;
}
