/* json_write.c - see json_write.h. */
#include "server/json_write.h"

#include <inttypes.h>
#include <math.h>
#include <string.h>

#include "kernels/base/utf8.h"

static void before_value(tt_json *w)
{
    if (w->comma)
        tt_buf_putc(w->out, ',');
    w->comma = true;
}

void tt_json_open(tt_json *w, char bracket)
{
    before_value(w);
    tt_buf_putc(w->out, bracket);
    w->comma = false;
}

void tt_json_close(tt_json *w, char bracket)
{
    tt_buf_putc(w->out, bracket);
    w->comma = true;
}

/* The short escape's letter, or 0. */
static char short_escape(unsigned char c)
{
    switch (c) {
    case '"':
    case '\\':
        return (char)c;
    case '\n':
        return 'n';
    case '\r':
        return 'r';
    case '\t':
        return 't';
    case '\b':
        return 'b';
    case '\f':
        return 'f';
    default:
        return 0;
    }
}

static void put_special(tt_buf *out, unsigned char c)
{
    char letter = short_escape(c);
    if (letter) {
        tt_buf_putc(out, '\\');
        tt_buf_putc(out, letter);
    } else {
        tt_buf_printf(out, "\\u%04x", c);
    }
}

/* Bytes from p that can be copied as they are. */
static size_t plain_run(const char *p, size_t n)
{
    size_t i = 0;
    while (i < n) {
        unsigned char c = (unsigned char)p[i];
        if (c < 0x20 || c == '"' || c == '\\' || c == 0x7F)
            break;
        size_t length = c < 0x80 ? 1 : tt_utf8_length(p + i, n - i);
        if (!length)
            break;
        i += length;
    }
    return i;
}

static void put_string(tt_buf *out, const char *text, size_t bytes)
{
    tt_buf_putc(out, '"');
    for (size_t i = 0; i < bytes;) {
        size_t run = plain_run(text + i, bytes - i);
        tt_buf_add(out, text + i, run);
        i += run;
        if (i == bytes)
            break;
        unsigned char c = (unsigned char)text[i];
        if (c < 0x80) {
            put_special(out, c);
            i++;
        } else {
            tt_buf_puts(out, "\xEF\xBF\xBD");
            i += tt_utf8_bad_length(text + i, bytes - i);
        }
    }
    tt_buf_putc(out, '"');
}

void tt_json_key(tt_json *w, const char *key)
{
    before_value(w);
    put_string(w->out, key, strlen(key));
    tt_buf_putc(w->out, ':');
    w->comma = false;
}

void tt_json_put_bytes(tt_json *w, const char *text, size_t bytes)
{
    before_value(w);
    put_string(w->out, text, bytes);
}

void tt_json_put_text(tt_json *w, const char *text)
{
    if (text)
        tt_json_put_bytes(w, text, strlen(text));
    else
        tt_json_put_null(w);
}

void tt_json_put_int(tt_json *w, int64_t v)
{
    before_value(w);
    tt_buf_printf(w->out, "%" PRId64, v);
}

void tt_json_put_float(tt_json *w, double v)
{
    before_value(w);
    if (isfinite(v))
        tt_buf_printf(w->out, "%.9g", v);
    else
        tt_buf_puts(w->out, "null");
}

void tt_json_put_raw(tt_json *w, const char *json)
{
    before_value(w);
    tt_buf_puts(w->out, json);
}

void tt_json_put_bool(tt_json *w, bool v) { tt_json_put_raw(w, v ? "true" : "false"); }

void tt_json_put_null(tt_json *w) { tt_json_put_raw(w, "null"); }

void tt_json_text_member(tt_json *w, const char *key, const char *text)
{
    tt_json_key(w, key);
    tt_json_put_text(w, text);
}

void tt_json_int_member(tt_json *w, const char *key, int64_t v)
{
    tt_json_key(w, key);
    tt_json_put_int(w, v);
}

void tt_json_float_member(tt_json *w, const char *key, double v)
{
    tt_json_key(w, key);
    tt_json_put_float(w, v);
}

void tt_json_bool_member(tt_json *w, const char *key, bool v)
{
    tt_json_key(w, key);
    tt_json_put_bool(w, v);
}

void tt_json_null_member(tt_json *w, const char *key)
{
    tt_json_key(w, key);
    tt_json_put_null(w);
}

void tt_json_open_member(tt_json *w, const char *key, char bracket)
{
    tt_json_key(w, key);
    tt_json_open(w, bracket);
}
