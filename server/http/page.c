/* page.c - see page.h. */
#include "server/http/page.h"

#include <stdio.h>
#include <string.h>

#define XXH_INLINE_ALL
#include <xxhash.h>

/* Laid out by assets.S. */
typedef struct {
    const char *name, *begin, *end;
} embedded;
extern const embedded tt_embedded_assets[]; /* ended by a NULL name */

static const struct {
    const char *suffix, *type;
} types[] = {
    {".html", "text/html; charset=utf-8"},     {".js", "text/javascript; charset=utf-8"},
    {".mjs", "text/javascript; charset=utf-8"}, {".css", "text/css; charset=utf-8"},
    {".svg", "image/svg+xml"},                 {".png", "image/png"},
    {".ico", "image/x-icon"},                  {".json", "application/json"},
    {".txt", "text/plain; charset=utf-8"},     {".woff2", "font/woff2"},
};

static const char *type_of(const char *name)
{
    const char *dot = strrchr(name, '.');
    for (size_t i = 0; dot && i < sizeof types / sizeof *types; i++)
        if (!strcmp(types[i].suffix, dot))
            return types[i].type;
    return "application/octet-stream";
}

int tt_asset_find(const char *path, tt_asset *out)
{
    if (*path++ != '/')
        return 0;
    const char *name = *path ? path : "index.html";
    for (const embedded *a = tt_embedded_assets; a->name; a++) {
        if (strcmp(a->name, name))
            continue;
        *out = (tt_asset){.name = a->name,
                          .data = a->begin,
                          .bytes = (size_t)(a->end - a->begin),
                          .type = type_of(a->name)};
        snprintf(out->etag, sizeof out->etag, "\"%016llx\"",
                 (unsigned long long)XXH3_64bits(out->data, out->bytes));
        return 1;
    }
    return 0;
}
