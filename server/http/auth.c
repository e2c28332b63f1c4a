/* auth.c - see auth.h. */
#include "server/http/auth.h"

#include <errno.h>
#include <pthread.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <strings.h>
#include <xxhash.h>

#include "kernels/base/buf.h"

struct tt_auth {
    pthread_mutex_t lock;
    tt_buf fixed;  /* keys of the command line, each ended by NUL */
    tt_buf loaded; /* keys of the file, the same way */
    char *file;
};

/* Lines of the file without blanks around them; empty ones and those beginning with # are left
 * out. */
static tt_status read_file(const char *file, tt_buf *out, tt_err *e)
{
    FILE *f = fopen(file, "re");
    if (!f)
        return tt_fail(e, TT_EIO, "cannot read the key file '%s': %s", file, strerror(errno));
    char *line = NULL;
    size_t room = 0;
    while (getline(&line, &room, f) >= 0) {
        char *from = line + strspn(line, " \t\r\n");
        size_t n = strcspn(from, " \t\r\n");
        if (!n || *from == '#')
            continue;
        tt_buf_add(out, from, n);
        tt_buf_putc(out, '\0');
    }
    bool bad = ferror(f);
    free(line);
    fclose(f);
    if (bad)
        return tt_fail(e, TT_EIO, "cannot read the key file '%s'", file);
    if (out->failed)
        return tt_fail(e, TT_ENOMEM, "no memory for the keys");
    return out->size ? TT_OK : tt_fail(e, TT_EINVAL, "the key file '%s' holds no key", file);
}

tt_status tt_auth_open(tt_auth **out, const char *const *keys, const char *file, tt_err *e)
{
    tt_auth *a = *out = calloc(1, sizeof *a);
    if (!a)
        return tt_fail(e, TT_ENOMEM, "no memory for the keys");
    pthread_mutex_init(&a->lock, NULL);
    tt_status s = TT_OK;
    for (int i = 0; keys && keys[i] && !s; i++) {
        if (!*keys[i])
            s = tt_fail(e, TT_EINVAL, "an API key is empty");
        tt_buf_add(&a->fixed, keys[i], strlen(keys[i]) + 1);
    }
    if (!s && a->fixed.failed)
        s = tt_fail(e, TT_ENOMEM, "no memory for the keys");
    if (!s && file) {
        a->file = strdup(file);
        s = a->file ? read_file(file, &a->loaded, e) : tt_fail(e, TT_ENOMEM, "no memory");
    }
    if (s) {
        tt_auth_close(a);
        *out = NULL;
    }
    return s;
}

void tt_auth_close(tt_auth *a)
{
    if (!a)
        return;
    pthread_mutex_destroy(&a->lock);
    tt_buf_free(&a->fixed);
    tt_buf_free(&a->loaded);
    free(a->file);
    free(a);
}

tt_status tt_auth_reload(tt_auth *a, tt_err *e)
{
    if (!a->file)
        return TT_OK;
    tt_buf fresh = {0};
    tt_status s = read_file(a->file, &fresh, e);
    if (s) {
        tt_buf_free(&fresh);
        return s;
    }
    pthread_mutex_lock(&a->lock);
    tt_buf old = a->loaded;
    a->loaded = fresh;
    pthread_mutex_unlock(&a->lock);
    tt_buf_free(&old);
    return TT_OK;
}

bool tt_auth_needed(tt_auth *a) { return a->fixed.size || a->file; }

/* 1 when equal, in a time that depends on the lengths alone. */
static unsigned same(const char *key, size_t key_bytes, const char *given, size_t given_bytes)
{
    unsigned differ = key_bytes != given_bytes;
    for (size_t i = 0; i < given_bytes; i++)
        differ |= (unsigned char)given[i] ^ (unsigned char)key[i % key_bytes];
    return differ == 0;
}

static unsigned any_same(const tt_buf *keys, const char *given, size_t n)
{
    unsigned found = 0;
    for (size_t at = 0; at < keys->size;) {
        size_t bytes = strlen(keys->data + at);
        found |= same(keys->data + at, bytes, given, n);
        at += bytes + 1;
    }
    return found;
}

bool tt_auth_allows(tt_auth *a, const char *header, uint64_t *who)
{
    *who = 0;
    if (!tt_auth_needed(a))
        return true;
    if (!header || strncasecmp(header, "Bearer ", 7))
        return false;
    const char *given = header + 7 + strspn(header + 7, " ");
    size_t n = strlen(given);
    pthread_mutex_lock(&a->lock);
    unsigned found = any_same(&a->fixed, given, n) | any_same(&a->loaded, given, n);
    pthread_mutex_unlock(&a->lock);
    if (found)
        *who = XXH3_64bits(given, n);
    return found != 0;
}
