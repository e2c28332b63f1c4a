/* err.c - writing and extending error sentences. */
#include "kernels/base/err.h"

#include <stdarg.h>
#include <stdio.h>
#include <string.h>

/* snprintf may stop inside a multi-byte character; drop the stump so that the text stays UTF-8. */
static void trim_broken_tail(char *text, size_t cap)
{
    size_t n = strlen(text);
    if (n + 1 < cap)
        return;
    size_t start = n;
    while (start > 0 && ((unsigned char)text[start - 1] & 0xC0) == 0x80)
        start--;
    if (start == 0)
        return;
    unsigned char lead = (unsigned char)text[start - 1];
    size_t want = lead >= 0xF0 ? 4 : lead >= 0xE0 ? 3 : lead >= 0xC0 ? 2 : 1;
    if (n - (start - 1) < want)
        text[start - 1] = '\0';
}

static void one_line(char *text)
{
    for (; *text; text++)
        if ((unsigned char)*text < 0x20)
            *text = ' ';
}

tt_status tt_fail(tt_err *e, tt_status s, const char *fmt, ...)
{
    if (!e)
        return s;
    va_list ap;
    va_start(ap, fmt);
    vsnprintf(e->text, sizeof e->text, fmt, ap);
    va_end(ap);
    trim_broken_tail(e->text, sizeof e->text);
    one_line(e->text);
    e->status = s;
    e->param[0] = e->code[0] = '\0';
    return s;
}

tt_status tt_context(tt_err *e, tt_status s, const char *fmt, ...)
{
    if (!e)
        return s;
    char front[sizeof e->text], whole[2 * sizeof e->text + 2];
    va_list ap;
    va_start(ap, fmt);
    vsnprintf(front, sizeof front, fmt, ap);
    va_end(ap);
    snprintf(whole, sizeof whole, "%s: %s", front, e->text);
    snprintf(e->text, sizeof e->text, "%.*s", (int)sizeof e->text - 1, whole);
    trim_broken_tail(e->text, sizeof e->text);
    one_line(e->text);
    e->status = s;
    return s;
}

tt_status tt_fail_param(tt_err *e, const char *param, const char *code, const char *fmt, ...)
{
    if (!e)
        return TT_EINVAL;
    va_list ap;
    va_start(ap, fmt);
    vsnprintf(e->text, sizeof e->text, fmt, ap);
    va_end(ap);
    trim_broken_tail(e->text, sizeof e->text);
    one_line(e->text);
    e->status = TT_EINVAL;
    snprintf(e->param, sizeof e->param, "%s", param);
    trim_broken_tail(e->param, sizeof e->param);
    snprintf(e->code, sizeof e->code, "%s", code);
    return TT_EINVAL;
}

const char *tt_status_text(tt_status s)
{
    switch (s) {
    case TT_OK:
        return "ok";
    case TT_EINVAL:
        return "invalid argument";
    case TT_ENOMEM:
        return "out of memory";
    case TT_EIO:
        return "input or output failed";
    case TT_EFORMAT:
        return "malformed file";
    case TT_ENODEV:
        return "no such device";
    case TT_EUNSUP:
        return "not supported";
    case TT_ECANCEL:
        return "cancelled";
    case TT_EBUSY:
        return "busy";
    }
    return "unknown status";
}
