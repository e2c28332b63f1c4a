/* npz.c - see npz.h. Layout of ZIP: APPNOTE 6.3; of .npy: NumPy's format 1.0. */
#include "server/npz.h"

#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>
#include <zlib.h>

#include "kernels/base/buf.h"

enum { MEMBERS = 2, HEAD = 128, NAME = 9, LOCAL = 30 + NAME + 20 };

typedef struct {
    char head[HEAD];   /* of the .npy */
    int64_t at, bytes; /* of the local header; of the member's content, head included */
    uint32_t crc;
} member;

struct tt_npz {
    int fd;
    char *path, *part;
    int64_t images, image_bytes;
    member member[MEMBERS];
};

static const char *const names[MEMBERS] = {"arr_0.npy", "arr_1.npy"};

static tt_status io_error(const tt_npz *z, tt_err *e)
{
    return tt_fail(e, TT_EIO, "'%.150s': %s", z->part, strerror(errno));
}

static tt_status put_at(const tt_npz *z, const void *bytes, int64_t n, int64_t at, tt_err *e)
{
    const char *p = bytes;
    while (n > 0) {
        ssize_t done = pwrite(z->fd, p, (size_t)n, (off_t)at);
        if (done < 0 && errno == EINTR)
            continue;
        if (done <= 0)
            return io_error(z, e);
        p += done;
        at += done;
        n -= done;
    }
    return TT_OK;
}

/* A .npy header of HEAD bytes. */
static void npy_head(char *out, const char *type, const char *shape)
{
    char text[HEAD];
    int n = snprintf(text, sizeof text, "{'descr': '%s', 'fortran_order': False, 'shape': (%s), }",
                     type, shape);
    memset(out, ' ', HEAD);
    memcpy(out, "\x93NUMPY\x01\x00", 8);
    out[8] = (char)(HEAD - 10);
    out[9] = 0;
    memcpy(out + 10, text, (size_t)n);
    out[HEAD - 1] = '\n';
}

static void lay_out(tt_npz *z, int32_t height, int32_t width)
{
    char shape[80];
    snprintf(shape, sizeof shape, "%lld, %d, %d, 3", (long long)z->images, height, width);
    npy_head(z->member[0].head, "|u1", shape);
    z->member[0].bytes = HEAD + z->images * z->image_bytes;
    snprintf(shape, sizeof shape, "%lld,", (long long)z->images);
    npy_head(z->member[1].head, "<i8", shape);
    z->member[1].bytes = HEAD + z->images * 8;
    z->member[1].at = LOCAL + z->member[0].bytes;
}

static char *joined(const char *a, const char *b)
{
    size_t n = strlen(a) + strlen(b) + 1;
    char *s = malloc(n);
    if (s)
        snprintf(s, n, "%s%s", a, b);
    return s;
}

tt_status tt_npz_open(tt_npz **out, const char *path, int64_t images, int32_t height, int32_t width,
                      bool resume, tt_err *e)
{
    *out = NULL;
    tt_npz *z = calloc(1, sizeof *z);
    if (!z)
        return tt_fail(e, TT_ENOMEM, "no memory for an archive");
    z->fd = -1;
    z->path = joined(path, "");
    z->part = joined(path, ".part");
    z->images = images;
    z->image_bytes = (int64_t)height * width * 3;
    if (!z->path || !z->part) {
        tt_npz_close(z);
        return tt_fail(e, TT_ENOMEM, "no memory for an archive");
    }
    lay_out(z, height, width);
    z->fd = open(z->part, O_RDWR | O_CREAT | O_CLOEXEC | (resume ? 0 : O_TRUNC), 0666);
    tt_status s = z->fd < 0 ? io_error(z, e) : TT_OK;
    for (int i = 0; !s && i < MEMBERS; i++)
        s = put_at(z, z->member[i].head, HEAD, z->member[i].at + LOCAL, e);
    if (s)
        tt_npz_close(z);
    else
        *out = z;
    return s;
}

void tt_npz_close(tt_npz *z)
{
    if (!z)
        return;
    if (z->fd >= 0)
        close(z->fd);
    free(z->path);
    free(z->part);
    free(z);
}

tt_status tt_npz_put(tt_npz *z, int64_t first, int64_t n, const uint8_t *pixels, tt_err *e)
{
    if (first < 0 || n < 0 || first > z->images - n)
        return tt_fail(e, TT_EINVAL, "images %lld..%lld of %lld", (long long)first,
                       (long long)(first + n - 1), (long long)z->images);
    return put_at(z, pixels, n * z->image_bytes, LOCAL + HEAD + first * z->image_bytes, e);
}

/* --- the directory --- */

static void put_le(tt_buf *b, uint64_t v, int bytes)
{
    for (int i = 0; i < bytes; i++)
        tt_buf_putc(b, (char)(v >> 8 * i & 255));
}

/* What local and central headers share: version, flags, method, date (1980-01-01), sums. Sizes are
 * in the extra field. */
static void put_common(tt_buf *b, const member *m)
{
    put_le(b, 45, 2);
    put_le(b, 0, 2);
    put_le(b, 0, 2);
    put_le(b, 0, 2);
    put_le(b, 33, 2);
    put_le(b, m->crc, 4);
    put_le(b, 0xFFFFFFFF, 4);
    put_le(b, 0xFFFFFFFF, 4);
    put_le(b, NAME, 2);
}

static void put_extra(tt_buf *b, const member *m, bool central)
{
    put_le(b, 1, 2);
    put_le(b, central ? 24 : 16, 2);
    put_le(b, (uint64_t)m->bytes, 8);
    put_le(b, (uint64_t)m->bytes, 8);
    if (central)
        put_le(b, (uint64_t)m->at, 8);
}

static void put_local(tt_buf *b, const member *m, const char *name)
{
    put_le(b, 0x04034b50, 4);
    put_common(b, m);
    put_le(b, 20, 2);
    tt_buf_add(b, name, NAME);
    put_extra(b, m, false);
}

static void put_central(tt_buf *b, const member *m, const char *name)
{
    put_le(b, 0x02014b50, 4);
    put_le(b, 45, 2);
    put_common(b, m);
    put_le(b, 28, 2);
    put_le(b, 0, 2);
    put_le(b, 0, 2);
    put_le(b, 0, 2);
    put_le(b, 0, 4);
    put_le(b, 0xFFFFFFFF, 4);
    tt_buf_add(b, name, NAME);
    put_extra(b, m, true);
}

static void put_end(tt_buf *b, uint64_t directory, uint64_t bytes)
{
    put_le(b, 0x06064b50, 4); /* ZIP64 end of central directory */
    put_le(b, 44, 8);
    put_le(b, 45, 2);
    put_le(b, 45, 2);
    put_le(b, 0, 4);
    put_le(b, 0, 4);
    put_le(b, MEMBERS, 8);
    put_le(b, MEMBERS, 8);
    put_le(b, bytes, 8);
    put_le(b, directory, 8);
    put_le(b, 0x07064b50, 4); /* its locator */
    put_le(b, 0, 4);
    put_le(b, directory + bytes, 8);
    put_le(b, 1, 4);
    put_le(b, 0x06054b50, 4); /* end of central directory */
    put_le(b, 0, 4);
    put_le(b, MEMBERS, 2);
    put_le(b, MEMBERS, 2);
    put_le(b, 0xFFFFFFFF, 4);
    put_le(b, 0xFFFFFFFF, 4);
    put_le(b, 0, 2);
}

static tt_status sum_member(const tt_npz *z, member *m, tt_err *e)
{
    static const int64_t piece = 1 << 20;
    unsigned char *bytes = malloc((size_t)piece);
    tt_status s = bytes ? TT_OK : tt_fail(e, TT_ENOMEM, "no memory for an archive");
    uLong crc = crc32(0, NULL, 0);
    for (int64_t at = 0; !s && at < m->bytes;) {
        int64_t left = m->bytes - at, want = left < piece ? left : piece;
        ssize_t n = pread(z->fd, bytes, (size_t)want, (off_t)(m->at + LOCAL + at));
        if (n <= 0) {
            s = n < 0 ? io_error(z, e)
                      : tt_fail(e, TT_EIO, "'%.150s' is too short: images are missing", z->part);
            break;
        }
        crc = crc32(crc, bytes, (uInt)n);
        at += n;
    }
    free(bytes);
    m->crc = (uint32_t)crc;
    return s;
}

static tt_status put_labels(const tt_npz *z, const int64_t *label, tt_err *e)
{
    tt_buf b = {0};
    for (int64_t i = 0; i < z->images; i++)
        put_le(&b, (uint64_t)label[i], 8);
    tt_status s = b.failed ? tt_fail(e, TT_ENOMEM, "no memory for labels")
                           : put_at(z, b.data, (int64_t)b.size, z->member[1].at + LOCAL + HEAD, e);
    tt_buf_free(&b);
    return s;
}

static tt_status put_directory(tt_npz *z, tt_err *e)
{
    int64_t directory = z->member[1].at + LOCAL + z->member[1].bytes;
    tt_buf b = {0};
    tt_status s = TT_OK;
    for (int i = 0; !s && i < MEMBERS; i++) {
        put_local(&b, &z->member[i], names[i]);
        s = b.failed ? TT_ENOMEM : put_at(z, b.data, LOCAL, z->member[i].at, e);
        tt_buf_clear(&b);
    }
    for (int i = 0; i < MEMBERS; i++)
        put_central(&b, &z->member[i], names[i]);
    put_end(&b, (uint64_t)directory, b.size);
    if (b.failed)
        s = tt_fail(e, TT_ENOMEM, "no memory for an archive");
    if (!s)
        s = put_at(z, b.data, (int64_t)b.size, directory, e);
    if (!s && ftruncate(z->fd, (off_t)directory + (off_t)b.size))
        s = io_error(z, e);
    tt_buf_free(&b);
    return s;
}

tt_status tt_npz_finish(tt_npz *z, const int64_t *label, tt_err *e)
{
    tt_status s = put_labels(z, label, e);
    for (int i = 0; !s && i < MEMBERS; i++)
        s = sum_member(z, &z->member[i], e);
    if (!s)
        s = put_directory(z, e);
    if (!s && rename(z->part, z->path))
        s = io_error(z, e);
    return s;
}
