/* Any bytes as a picture: decoded within its limits, or refused with a reason. What was decoded is
 * written and read again, and must come back as it was. */
#include <stddef.h>
#include <stdint.h>
#include <string.h>

#include "server/png.h"

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

enum { SIDE = 512 };

static void check_again(const tt_picture *p)
{
    tt_buf file = {0};
    tt_picture again;
    size_t bytes = (size_t)p->width * (size_t)p->height * 4;
    if (tt_png_encode(&file, p->rgba, p->width, p->height, 4, TT_PNG_FAST, NULL, 0, NULL) ||
        tt_png_decode(&again, file.data, file.size, SIDE, "image", NULL) ||
        again.width != p->width || again.height != p->height ||
        again.transparent != p->transparent || memcmp(again.rgba, p->rgba, bytes))
        __builtin_trap();
    tt_picture_free(&again);
    tt_buf_free(&file);
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    tt_picture p;
    tt_err e = {0};
    tt_status s = tt_png_decode(&p, data, size, SIDE, "image", &e);
    if (s) {
        if (p.rgba || !*e.text || (s == TT_EINVAL && strcmp(e.code, "invalid_image")))
            __builtin_trap();
        return 0;
    }
    if (p.width < 1 || p.width > SIDE || p.height < 1 || p.height > SIDE)
        __builtin_trap();
    check_again(&p);
    tt_picture_free(&p);
    return 0;
}
