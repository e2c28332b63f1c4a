/* err.h - how a function says that it failed.
 *
 * Fallible functions return tt_status and take a tt_err * as last argument. The deepest function
 * that knows what is wrong writes the sentence; each caller that knows more about what was being
 * attempted puts it in front with tt_context(). Nobody logs and returns: the one who handles the
 * error logs it. A NULL tt_err is allowed when only the status matters. */
#ifndef TT_ERR_H
#define TT_ERR_H

#ifdef __cplusplus
extern "C" {
#endif

typedef enum {
    TT_OK = 0,
    TT_EINVAL,  /* caller's mistake: maps to HTTP 400 */
    TT_ENOMEM,  /* host or device memory: 503 */
    TT_EIO,     /* file or socket: 500, message names the path */
    TT_EFORMAT, /* file is not what it claims to be */
    TT_ENODEV,  /* no usable accelerator or plug-in; another backend may do */
    TT_EUNSUP,  /* valid, but not by this model, sampler or backend */
    TT_ECANCEL, /* stopped on request; not a fault */
    TT_EBUSY,   /* queue full: 429, try again later */
} tt_status;

typedef struct {
    tt_status status;
    char text[240]; /* one line, no trailing full stop, cut off if longer */
    char param[96]; /* for TT_EINVAL: the request field at fault as a JSON path, or "" */
    char code[40];  /* machine-readable reason such as "unknown_parameter", or "" */
} tt_err;

/* All return the status, so that `return tt_fail(...)` reads well. Text is cut at a character
 * border, never inside one. */
tt_status tt_fail(tt_err *e, tt_status s, const char *fmt, ...)
    __attribute__((format(printf, 3, 4), cold));
/* Puts "<formatted>: " in front of the text already there. */
tt_status tt_context(tt_err *e, tt_status s, const char *fmt, ...)
    __attribute__((format(printf, 3, 4), cold));
/* TT_EINVAL about one request field: param is its JSON path, code as in the REST error table. */
tt_status tt_fail_param(tt_err *e, const char *param, const char *code, const char *fmt, ...)
    __attribute__((format(printf, 4, 5), cold));

/* "invalid argument", ... for logs. */
const char *tt_status_text(tt_status s);

#ifdef __cplusplus
}
#endif

#endif
