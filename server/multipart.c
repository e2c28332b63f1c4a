/* multipart.c - see multipart.h. */
#include "server/multipart.h"

#include <string.h>
#include <strings.h>

enum { MAX_BOUNDARY = 70, MAX_HEADERS = 4096 };

bool tt_is_multipart(const char *content_type)
{
    static const char name[] = "multipart/form-data";
    size_t n = content_type ? strcspn(content_type, "; \t") : 0;
    return n == sizeof name - 1 && !strncasecmp(content_type, name, n);
}

static tt_status bad(tt_err *e, const char *what)
{
    return tt_fail_param(e, "", "invalid_form", "the form cannot be read: %s", what);
}

/* Copies a value, quoted or not, from *at, which moves behind it. False when it is cut off or too
 * long. */
static bool take_value(const char **at, const char *end, char *out, size_t size)
{
    const char *p = *at;
    bool quoted = p < end && *p == '"';
    size_t k = 0;
    for (p += quoted; p < end && (quoted ? *p != '"' : *p != ';' && *p != ' '); p++) {
        if (quoted && *p == '\\' && p + 1 < end)
            p++;
        if (k + 1 < size)
            out[k] = *p;
        k++;
    }
    bool whole = !quoted || p < end;
    *at = p + (quoted && whole);
    out[k < size ? k : 0] = '\0';
    return whole && k < size;
}

/* The parameter of a header value; false when it is not there, cut off or too long. */
static bool parameter(const char *at, const char *end, const char *name, char *out, size_t size)
{
    size_t n = strlen(name);
    char other[512];
    while (at < end && (at = memchr(at, ';', (size_t)(end - at)))) {
        for (at++; at < end && (*at == ' ' || *at == '\t');)
            at++;
        const char *sign = at < end ? memchr(at, '=', (size_t)(end - at)) : NULL;
        if (!sign)
            return false;
        bool same = (size_t)(sign - at) == n && !strncasecmp(at, name, n);
        at = sign + 1;
        if (same)
            return take_value(&at, end, out, size);
        take_value(&at, end, other, sizeof other);
    }
    return false;
}

/* One header line of a part. */
static tt_status read_header(tt_part_of_form *p, const char *line, const char *end, tt_err *e)
{
    static const char disposition[] = "content-disposition:";
    size_t n = sizeof disposition - 1;
    char file[512];
    if ((size_t)(end - line) < n || strncasecmp(line, disposition, n))
        return TT_OK; /* the content decides what it is, not what is said about it */
    line += n;
    if (*p->name)
        return bad(e, "a part has two names");
    if (!parameter(line, end, "name", p->name, sizeof p->name) || !*p->name)
        return bad(e, "a part has no name, or one of more than 127 bytes");
    if (strlen(p->name) != strcspn(p->name, "\r\n"))
        return bad(e, "a name holds a line break");
    p->file = parameter(line, end, "filename", file, sizeof file) ||
              parameter(line, end, "filename*", file, sizeof file);
    return TT_OK;
}

/* Headers up to the empty line; *at moves behind it. */
static tt_status read_headers(tt_part_of_form *p, const char **at, const char *end, tt_err *e)
{
    const char *limit = end - *at > MAX_HEADERS ? *at + MAX_HEADERS : end;
    for (;;) {
        const char *line = *at, *stop = memmem(line, (size_t)(limit - line), "\r\n", 2);
        if (!stop)
            return bad(e, "a part's headers do not end");
        *at = stop + 2;
        if (stop == line)
            return *p->name ? TT_OK : bad(e, "a part has no name");
        tt_status s = read_header(p, line, stop, e);
        if (s)
            return s;
    }
}

/* Content up to the next boundary; *at moves behind that, *last: it was the closing one. */
static tt_status read_content(tt_part_of_form *p, const char *mark, const char **at,
                              const char *end, bool *last, tt_err *e)
{
    size_t n = strlen(mark);
    const char *stop = memmem(*at, (size_t)(end - *at), mark, n);
    if (!stop)
        return bad(e, "the closing boundary is missing");
    p->data = *at;
    p->bytes = (size_t)(stop - *at);
    *at = stop + n;
    *last = end - *at >= 2 && !memcmp(*at, "--", 2);
    if (!*last && (end - *at < 2 || memcmp(*at, "\r\n", 2)))
        return bad(e, "a boundary is followed by something else");
    *at += 2;
    return TT_OK;
}

tt_status tt_multipart_read(tt_multipart *out, const char *content_type, const char *body,
                            size_t bytes, tt_err *e)
{
    char mark[MAX_BOUNDARY + 8] = "\r\n--", *boundary = mark + 4;
    const char *end = body + bytes, *at = body;
    bool last = false;
    out->parts = 0;
    if (!parameter(content_type, content_type + strlen(content_type), "boundary", boundary,
                   MAX_BOUNDARY + 1) ||
        !*boundary)
        return bad(e, "its Content-Type names no boundary of 1 to 70 characters");
    size_t n = strlen(mark + 2);
    if (bytes < n + 2 || memcmp(body, mark + 2, n))
        return bad(e, "it does not begin with its boundary");
    at += n;
    if (!memcmp(at, "--", 2))
        return TT_OK; /* an empty form */
    if (memcmp(at, "\r\n", 2))
        return bad(e, "a boundary is followed by something else");
    at += 2;
    while (!last) {
        if (out->parts == TT_MAX_PARTS)
            return bad(e, "it has more than 64 parts");
        tt_part_of_form *p = &out->part[out->parts++];
        *p = (tt_part_of_form){.file = false};
        tt_status s = read_headers(p, &at, end, e);
        if (!s)
            s = read_content(p, mark, &at, end, &last, e);
        if (s)
            return s;
    }
    return TT_OK;
}
