/* plug.c - see plug.h. */
#include "kernels/base/plug.h"

#include <dlfcn.h>
#include <limits.h>
#include <stdbool.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

static bool readable(char *path, size_t size, const char *folder, const char *middle,
                     const char *file)
{
    int n = snprintf(path, size, "%s%s/%s", folder, middle, file);
    return n > 0 && (size_t)n < size && access(path, R_OK) == 0;
}

static bool find(char *path, size_t size, const char *file)
{
    const char *user = getenv("TUTTI_PLUGIN_DIR");
    if (user)
        return readable(path, size, user, "", file);
    char self[PATH_MAX];
    ssize_t n = readlink("/proc/self/exe", self, sizeof self - 1);
    if (n <= 0)
        return false;
    self[n] = '\0';
    /* Test programs lie deeper in the build folder than the program: look upwards too. */
    for (char *slash = strrchr(self, '/'); slash && slash != self; slash = strrchr(self, '/')) {
        *slash = '\0';
        if (readable(path, size, self, "", file) || readable(path, size, self, "/lib/tutti", file))
            return true;
    }
    return false;
}

tt_status tt_plug_open(const char *file, const void **table, tt_err *e)
{
    char path[PATH_MAX];
    *table = NULL;
    if (!find(path, sizeof path, file))
        return tt_fail(e, TT_ENODEV, "plug-in %s is not installed", file);
    void *lib = dlopen(path, RTLD_NOW | RTLD_LOCAL);
    if (!lib)
        return tt_fail(e, TT_ENODEV, "plug-in %s cannot be loaded: %s", file, dlerror());
    const void *(*entry)(void) = NULL;
    void *symbol = dlsym(lib, "tutti_plugin");
    if (symbol)
        memcpy(&entry, &symbol, sizeof entry);
    *table = entry ? entry() : NULL;
    if (!*table) {
        dlclose(lib);
        return tt_fail(e, TT_ENODEV, "plug-in %s exports no table", file);
    }
    return TT_OK;
}
