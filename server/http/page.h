/* page.h - the files of web/, linked into the program (assets.S). */
#ifndef TT_PAGE_H
#define TT_PAGE_H

#include <stddef.h>

typedef struct {
    const char *name; /* "index.html" */
    const char *data;
    size_t bytes;
    const char *type; /* content type */
    char etag[24];    /* with its quotes */
} tt_asset;

/* path: as requested, "/" is index.html. False when there is no such file. */
int tt_asset_find(const char *path, tt_asset *out);

#endif
