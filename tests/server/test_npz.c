/* What can go wrong: sizes or sums that do not match, images that are missing, an archive left
 * half done under its own name. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include <cmocka.h>

#include "server/npz.h"

enum { IMAGES = 5, H = 3, W = 4, BYTES = H * W * 3 };

static void fill(uint8_t *pixels, int image)
{
    for (int i = 0; i < BYTES; i++)
        pixels[i] = (uint8_t)(image * 50 + i);
}

static uint64_t le(const unsigned char *p, int n)
{
    uint64_t v = 0;
    while (n--)
        v = v << 8 | p[n];
    return v;
}

static uint32_t crc(const unsigned char *p, size_t n)
{
    uint32_t c = ~0u;
    for (size_t i = 0; i < n; i++) {
        c ^= p[i];
        for (int k = 0; k < 8; k++)
            c = c >> 1 ^ (c & 1 ? 0xEDB88320u : 0);
    }
    return ~c;
}

static size_t read_all(const char *path, unsigned char *out, size_t room)
{
    FILE *f = fopen(path, "rb");
    assert_non_null(f);
    size_t n = fread(out, 1, room, f);
    fclose(f);
    return n;
}

/* The content of a member by way of the directory, its sum and sizes checked. */
static const unsigned char *find(const unsigned char *zip, size_t n, int which, size_t *bytes)
{
    const unsigned char *end = zip + n - 22;
    assert_int_equal(le(end, 4), 0x06054b50);
    const unsigned char *locator = end - 20, *end64 = zip + le(locator + 8, 8);
    assert_int_equal(le(locator, 4), 0x07064b50);
    assert_int_equal(le(end64, 4), 0x06064b50);
    assert_int_equal(le(end64 + 32, 8), 2);
    const unsigned char *central = zip + le(end64 + 48, 8);
    for (int i = 0; i < which; i++)
        central += 46 + le(central + 28, 2) + le(central + 30, 2);
    assert_int_equal(le(central, 4), 0x02014b50);
    const unsigned char *extra = central + 46 + le(central + 28, 2);
    *bytes = le(extra + 4, 8);
    const unsigned char *local = zip + le(extra + 20, 8);
    assert_int_equal(le(local, 4), 0x04034b50);
    assert_memory_equal(local + 14, central + 16, 12); /* sum and sizes */
    const unsigned char *content = local + 30 + le(local + 26, 2) + le(local + 28, 2);
    assert_int_equal(crc(content, *bytes), le(central + 16, 4));
    return content;
}

static void an_archive_holds_images_and_labels_in_order(void **state)
{
    (void)state;
    char path[64], part[80];
    uint8_t pixels[BYTES];
    static unsigned char zip[4096];
    const int64_t label[IMAGES] = {0, 0, 7, 7, 1000000};
    tt_npz *z;
    tt_err e = {0};
    snprintf(path, sizeof path, "/tmp/test_npz.%d.npz", (int)getpid());
    snprintf(part, sizeof part, "%s.part", path);
    assert_int_equal(tt_npz_open(&z, path, IMAGES, H, W, false, &e), TT_OK);
    for (int i = 2; i < IMAGES; i++) { /* out of order, and interrupted */
        fill(pixels, i);
        assert_int_equal(tt_npz_put(z, i, 1, pixels, &e), TT_OK);
    }
    assert_int_equal(tt_npz_put(z, IMAGES, 1, pixels, &e), TT_EINVAL);
    assert_int_equal(tt_npz_put(z, -1, 1, pixels, &e), TT_EINVAL);
    tt_npz_close(z);
    assert_int_equal(access(path, F_OK), -1);
    assert_int_equal(tt_npz_open(&z, path, IMAGES, H, W, true, &e), TT_OK);
    for (int i = 0; i < 2; i++) {
        fill(pixels, i);
        assert_int_equal(tt_npz_put(z, i, 1, pixels, &e), TT_OK);
    }
    assert_int_equal(tt_npz_finish(z, label, &e), TT_OK);
    tt_npz_close(z);
    assert_int_equal(access(part, F_OK), -1);

    size_t n = read_all(path, zip, sizeof zip), bytes;
    const unsigned char *m = find(zip, n, 0, &bytes);
    assert_int_equal(bytes, 128 + IMAGES * BYTES);
    assert_memory_equal(m, "\x93NUMPY\x01\0", 8);
    assert_non_null(memmem(m, 128, "'|u1', 'fortran_order': False, 'shape': (5, 3, 4, 3)", 52));
    assert_int_equal(m[127], '\n');
    for (int i = 0; i < IMAGES; i++) {
        fill(pixels, i);
        assert_memory_equal(m + 128 + i * BYTES, pixels, BYTES);
    }
    m = find(zip, n, 1, &bytes);
    assert_int_equal(bytes, 128 + IMAGES * 8);
    assert_non_null(memmem(m, 128, "'<i8', 'fortran_order': False, 'shape': (5,)", 44));
    for (int i = 0; i < IMAGES; i++)
        assert_int_equal(le(m + 128 + i * 8, 8), label[i]);
    remove(path);
}

static void a_path_that_cannot_be_written_is_named(void **state)
{
    (void)state;
    tt_npz *z;
    tt_err e = {0};
    assert_int_equal(tt_npz_open(&z, "/nonexistent/x.npz", 1, 1, 1, false, &e), TT_EIO);
    assert_null(z);
    assert_non_null(strstr(e.text, "/nonexistent/x.npz"));
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(an_archive_holds_images_and_labels_in_order),
        cmocka_unit_test(a_path_that_cannot_be_written_is_named),
    };
    return cmocka_run_group_tests_name("npz", tests, NULL, NULL);
}
