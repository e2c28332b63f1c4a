/* models_dir.c - see models_dir.h. */
#include "server/models_dir.h"

#include <dirent.h>
#include <errno.h>
#include <limits.h>
#include <stdbool.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#include "kernels/base/buf.h"

typedef struct {
    tt_model_place *place;
    size_t count;
    bool failed;
} places;

static bool holds_model(const char *folder)
{
    char path[PATH_MAX];
    int n = snprintf(path, sizeof path, "%s/config.json", folder);
    struct stat st;
    return n > 0 && (size_t)n < sizeof path && stat(path, &st) == 0 && S_ISREG(st.st_mode);
}

static bool known(const places *p, const char *id)
{
    for (size_t i = 0; i < p->count; i++)
        if (!strcmp(p->place[i].id, id))
            return true;
    return false;
}

static void add(places *p, const char *id, const char *folder)
{
    tt_model_place *more = realloc(p->place, (p->count + 1) * sizeof *more);
    if (!more) {
        p->failed = true;
        return;
    }
    p->place = more;
    tt_model_place *at = &more[p->count++];
    snprintf(at->id, sizeof at->id, "%s", id);
    snprintf(at->folder, sizeof at->folder, "%s", folder);
}

/* Adds the models of one folder of models; a folder that is not there has none. */
static void scan(places *p, const char *root)
{
    DIR *dir = opendir(root);
    if (!dir)
        return;
    for (struct dirent *d; (d = readdir(dir));) {
        char folder[PATH_MAX];
        int n = snprintf(folder, sizeof folder, "%s/%s", root, d->d_name);
        bool fits =
            n > 0 && (size_t)n < sizeof p->place->folder && strlen(d->d_name) < sizeof p->place->id;
        if (d->d_name[0] != '.' && fits && holds_model(folder) && !known(p, d->d_name))
            add(p, d->d_name, folder);
    }
    closedir(dir);
}

static void scan_environment(places *p)
{
    const char *list = getenv("TUTTI_MODELS");
    char *copy = list ? strdup(list) : NULL, *save = NULL;
    for (char *root = copy ? strtok_r(copy, ":", &save) : NULL; root;
         root = strtok_r(NULL, ":", &save))
        scan(p, root);
    free(copy);
}

static void scan_beside_program(places *p)
{
    static const char *const beside[] = {"/../../models/demo", "/../share/tutti/models"};
    char program[PATH_MAX], root[PATH_MAX];
    ssize_t n = readlink("/proc/self/exe", program, sizeof program - 1);
    if (n <= 0)
        return;
    program[n] = 0;
    char *slash = strrchr(program, '/');
    if (!slash)
        return;
    *slash = 0;
    for (int i = 0; i < 2; i++) {
        char relative[PATH_MAX + 32];
        snprintf(relative, sizeof relative, "%s%s", program, beside[i]);
        if (realpath(relative, root))
            scan(p, root);
    }
}

/* The default model comes first. */
static int by_id(const void *a, const void *b)
{
    const char *x = ((const tt_model_place *)a)->id, *y = ((const tt_model_place *)b)->id;
    int first = !strcmp(y, TT_DEFAULT_MODEL) - !strcmp(x, TT_DEFAULT_MODEL);
    return first ? first : strcmp(x, y);
}

tt_status tt_models_dir_list(tt_model_place **out, size_t *n, tt_err *e)
{
    places p = {0};
    scan_environment(&p);
    scan_beside_program(&p);
    scan(&p, "models/demo");
    *out = NULL;
    *n = 0;
    if (p.failed) {
        free(p.place);
        return tt_fail(e, TT_ENOMEM, "listing models: out of memory");
    }
    if (p.count)
        qsort(p.place, p.count, sizeof *p.place, by_id);
    *out = p.place;
    *n = p.count;
    return TT_OK;
}

/* ID=FOLDER or FOLDER; id NULL: the last part of the path. */
static tt_status from_folder(const char *id, size_t id_bytes, const char *folder,
                             tt_model_place *out, tt_err *e)
{
    char real[PATH_MAX];
    if (!realpath(folder, real))
        return tt_fail_param(e, "model", "model_not_found", "model folder '%.100s': %s", folder,
                             strerror(errno));
    if (!holds_model(real))
        return tt_fail_param(e, "model", "model_not_found",
                             "'%.100s' is not a model folder: it has no config.json", folder);
    const char *slash = strrchr(real, '/');
    if (!id) {
        id = slash ? slash + 1 : real;
        id_bytes = strlen(id);
    }
    if (id_bytes == 0 || id_bytes >= sizeof out->id)
        return tt_fail_param(e, "model", "invalid_value",
                             "the id of model folder '%.60s' has %zu bytes, must be 1..%zu", folder,
                             id_bytes, sizeof out->id - 1);
    snprintf(out->id, sizeof out->id, "%.*s", (int)id_bytes, id);
    snprintf(out->folder, sizeof out->folder, "%s", real);
    return TT_OK;
}

static tt_status unknown(const char *name, const tt_model_place *place, size_t n, tt_err *e)
{
    tt_buf ids = {0};
    for (size_t i = 0; i < n; i++)
        tt_buf_printf(&ids, "%s'%s'", i ? ", " : "", place[i].id);
    tt_status s = tt_fail_param(
        e, "model", "model_not_found", "no model '%.60s': %s%.100s; give one or a model folder",
        name, n ? "there is " : "none was found, set TUTTI_MODELS to a folder of models",
        tt_buf_text(&ids));
    tt_buf_free(&ids);
    return s;
}

tt_status tt_models_dir_find(const char *name, tt_model_place *out, tt_err *e)
{
    const char *equals = strchr(name, '=');
    if (equals && !holds_model(name))
        return from_folder(name, (size_t)(equals - name), equals + 1, out, e);
    if (strchr(name, '/'))
        return from_folder(NULL, 0, name, out, e);

    tt_model_place *place;
    size_t n;
    tt_status s = tt_models_dir_list(&place, &n, e);
    if (s)
        return s;
    for (size_t i = 0; i < n; i++)
        if (!strcmp(place[i].id, name)) {
            *out = place[i];
            free(place);
            return TT_OK;
        }
    s = holds_model(name) ? from_folder(NULL, 0, name, out, e) : unknown(name, place, n, e);
    free(place);
    return s;
}
