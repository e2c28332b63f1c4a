/* beside.c - see beside.h. */
#include "server/beside.h"

#include <errno.h>
#include <stdbool.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

/* Whether resolved path a lies below the folder that holds resolved path b. */
static bool near(const char *a, const char *b)
{
    size_t parent = (size_t)(strrchr(b, '/') - b) + 1; /* with its slash */
    return !strncmp(a, b, parent) && a[parent];
}

/* A path with steps in it, after every link was followed. */
static tt_status check_path(const char *path, const char *model, const char *key, const char *name,
                            tt_err *e)
{
    char *home = realpath(model, NULL), *real = home ? realpath(path, NULL) : NULL;
    tt_status s = TT_OK;
    if (!real)
        s = tt_fail(e, TT_EIO, "config.json: %s '%.80s': %s", key, name, strerror(errno));
    else if (!near(real, home))
        s = tt_fail(e, TT_EFORMAT, "config.json: %s '%.80s' is outside the folder that holds the "
                    "model's", key, name);
    free(real);
    free(home);
    return s;
}

tt_status tt_beside(char *out, size_t size, const char *model, const char *key, const char *name,
                    tt_err *e)
{
    if (!*name || *name == '/')
        return tt_fail(e, TT_EFORMAT, "config.json: %s '%.80s' is not a name", key, name);
    int n = snprintf(out, size, "%s/%s", model, name);
    if (n < 0 || (size_t)n >= size)
        return tt_fail(e, TT_EFORMAT, "config.json: %s '%.80s': the path is too long", key, name);
    bool plain = !strchr(name, '/') && *name != '.';
    return plain ? TT_OK : check_path(out, model, key, name, e);
}
