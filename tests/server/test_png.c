/* What can go wrong: files that lie about their size, stop early, expand without end or hold forms
 * that nobody writes by hand; pixels that change on the way through. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <unistd.h>

#include <cmocka.h>
#include <png.h>

#include "server/png.h"

/* --- files of every form, by libpng --- */

typedef struct {
    int width, height, depth, type, interlace;
    bool key; /* a transparent colour, or for palettes an alpha per entry */
} form;

static void append(png_structp png, png_bytep from, size_t n)
{
    tt_buf_add(png_get_io_ptr(png), from, n);
}

static int samples(int type)
{
    return type == PNG_COLOR_TYPE_RGB          ? 3
           : type == PNG_COLOR_TYPE_RGB_ALPHA  ? 4
           : type == PNG_COLOR_TYPE_GRAY_ALPHA ? 2
                                               : 1;
}

/* Sample values grow along the row and from row to row. */
static void fill_row(const form *f, int y, uint8_t *row)
{
    int n = f->width * samples(f->type), most = (1 << (f->depth < 8 ? f->depth : 8)) - 1;
    memset(row, 0, (size_t)n * 2 + 8);
    for (int i = 0; i < n; i++) {
        int v = (i + y) & most;
        if (f->depth == 16)
            row[2 * i] = row[2 * i + 1] = (uint8_t)v;
        else if (f->depth == 8)
            row[i] = (uint8_t)v;
        else
            row[i * f->depth / 8] |= (uint8_t)(v << (8 - f->depth - i * f->depth % 8));
    }
}

static void set_colours(png_structp png, png_infop info, const form *f)
{
    png_color colour[256];
    uint8_t alpha[256];
    png_color_16 key = {.gray = 1, .red = 1, .green = 2, .blue = 3};
    for (int i = 0; i < 256; i++) {
        colour[i] = (png_color){(uint8_t)i, (uint8_t)(255 - i), 7};
        alpha[i] = (uint8_t)(i ? 255 : 0);
    }
    if (f->type == PNG_COLOR_TYPE_PALETTE)
        png_set_PLTE(png, info, colour, 1 << f->depth);
    if (f->key)
        png_set_tRNS(png, info, alpha, 1, f->type == PNG_COLOR_TYPE_PALETTE ? NULL : &key);
}

static tt_buf make(const form *f)
{
    tt_buf out = {0};
    uint8_t *row[64];
    png_structp png = png_create_write_struct(PNG_LIBPNG_VER_STRING, NULL, NULL, NULL);
    png_infop info = png_create_info_struct(png);
    png_set_write_fn(png, &out, append, NULL);
    png_set_IHDR(png, info, (png_uint_32)f->width, (png_uint_32)f->height, f->depth, f->type,
                 f->interlace, PNG_COMPRESSION_TYPE_DEFAULT, PNG_FILTER_TYPE_DEFAULT);
    set_colours(png, info, f);
    for (int y = 0; y < f->height; y++) {
        row[y] = malloc((size_t)f->width * 8 + 8);
        fill_row(f, y, row[y]);
    }
    png_write_info(png, info);
    png_write_image(png, row);
    png_write_end(png, info);
    png_destroy_write_struct(&png, &info);
    for (int y = 0; y < f->height; y++)
        free(row[y]);
    return out;
}

/* --- files by hand --- */

static uint32_t crc(const uint8_t *p, size_t n)
{
    uint32_t c = ~0u;
    for (size_t i = 0; i < n; i++) {
        c ^= p[i];
        for (int k = 0; k < 8; k++)
            c = c >> 1 ^ (c & 1 ? 0xEDB88320u : 0);
    }
    return ~c;
}

static void put32(tt_buf *b, uint32_t v)
{
    for (int k = 24; k >= 0; k -= 8)
        tt_buf_putc(b, (char)(v >> k));
}

static void chunk(tt_buf *b, const char *type, const void *data, size_t n)
{
    put32(b, (uint32_t)n);
    size_t at = b->size;
    tt_buf_add(b, type, 4);
    tt_buf_add(b, data, n);
    put32(b, crc((const uint8_t *)b->data + at, n + 4));
}

static void begin(tt_buf *b, uint32_t w, uint32_t h, int depth, int type, int interlace)
{
    tt_buf head = {0};
    put32(&head, w);
    put32(&head, h);
    const char rest[5] = {(char)depth, (char)type, 0, 0, (char)interlace};
    tt_buf_add(&head, rest, 5);
    tt_buf_add(b, "\x89PNG\r\n\x1A\n", 8);
    chunk(b, "IHDR", head.data, head.size);
    tt_buf_free(&head);
}

/* Decodes with the file's last byte right before memory that cannot be read. */
static tt_status decode_guarded(const char *data, size_t n, tt_picture *p, tt_err *e)
{
    size_t page = (size_t)sysconf(_SC_PAGESIZE), room = (n / page + 2) * page;
    char *map = mmap(NULL, room, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
    assert_ptr_not_equal(map, MAP_FAILED);
    assert_int_equal(mprotect(map + room - page, page, PROT_NONE), 0);
    char *at = map + room - page - n;
    if (n)
        memcpy(at, data, n);
    tt_status s = tt_png_decode(p, at, n, 64, "mask", e);
    munmap(map, room);
    return s;
}

static void refuses(const void *data, size_t n, const char *says)
{
    tt_picture p;
    tt_err e = {0};
    assert_int_equal(decode_guarded(data, n, &p, &e), TT_EINVAL);
    assert_null(p.rgba);
    assert_string_equal(e.code, "invalid_image");
    assert_string_equal(e.param, "mask");
    if (!strstr(e.text, says))
        fail_msg("'%s' does not say '%s'", e.text, says);
}

/* --- tests --- */

static void check_pixel(const form *f, const tt_picture *p, int x, int y)
{
    const uint8_t *at = p->rgba + 4 * (y * p->width + x);
    int s = samples(f->type), depth = f->depth < 8 ? f->depth : 8, most = (1 << depth) - 1;
    int v[4], want[4];
    for (int i = 0; i < s; i++)
        v[i] = (x * s + i + y) & most;
    bool palette = f->type == PNG_COLOR_TYPE_PALETTE, grey = s < 3 && !palette;
    want[0] = palette ? v[0] : v[0] * 255 / most;
    want[1] = palette ? 255 - v[0] : grey ? want[0] : v[1];
    want[2] = palette ? 7 : grey ? want[0] : v[2];
    want[3] = s == 2 ? v[1] : s == 4 ? v[3] : 255;
    if (f->key && palette)
        want[3] = v[0] ? 255 : 0;
    if (f->key && grey)
        want[3] = v[0] == 1 ? 0 : 255;
    for (int i = 0; i < 4; i++)
        if (at[i] != want[i])
            fail_msg("depth %d type %d interlace %d pixel %d,%d sample %d is %d, should be %d",
                     f->depth, f->type, f->interlace, x, y, i, at[i], want[i]);
}

static void every_form_becomes_the_same_rgba(void **state)
{
    (void)state;
    static const struct {
        int depth, type;
        bool key;
    } forms[] = {
        {1, PNG_COLOR_TYPE_GRAY, false},        {2, PNG_COLOR_TYPE_GRAY, true},
        {4, PNG_COLOR_TYPE_GRAY, false},        {8, PNG_COLOR_TYPE_GRAY, true},
        {16, PNG_COLOR_TYPE_GRAY, false},       {8, PNG_COLOR_TYPE_GRAY_ALPHA, false},
        {16, PNG_COLOR_TYPE_GRAY_ALPHA, false}, {1, PNG_COLOR_TYPE_PALETTE, false},
        {2, PNG_COLOR_TYPE_PALETTE, true},      {4, PNG_COLOR_TYPE_PALETTE, false},
        {8, PNG_COLOR_TYPE_PALETTE, true},      {8, PNG_COLOR_TYPE_RGB, false},
        {16, PNG_COLOR_TYPE_RGB, false},        {8, PNG_COLOR_TYPE_RGB_ALPHA, false},
        {16, PNG_COLOR_TYPE_RGB_ALPHA, false},
    };
    for (size_t i = 0; i < sizeof forms / sizeof *forms; i++)
        for (int interlace = 0; interlace < 2; interlace++) {
            form f = {13, 9, forms[i].depth, forms[i].type, interlace, forms[i].key};
            tt_buf file = make(&f);
            tt_picture p;
            tt_err e = {0};
            if (decode_guarded(file.data, file.size, &p, &e))
                fail_msg("depth %d type %d: %s", f.depth, f.type, e.text);
            assert_int_equal(p.width, 13);
            assert_int_equal(p.height, 9);
            for (int y = 0; y < 9; y++)
                for (int x = 0; x < 13; x++)
                    check_pixel(&f, &p, x, y);
            assert_int_equal(p.transparent, f.key || (f.type & PNG_COLOR_MASK_ALPHA));
            tt_picture_free(&p);
            tt_buf_free(&file);
        }
}

static void other_files_are_named(void **state)
{
    (void)state;
    refuses("", 0, "empty");
    refuses("\xFF\xD8\xFF\xE0 JFIF ", 10, "JPEG");
    refuses("GIF89a    ", 10, "GIF");
    refuses("RIFF....WEBPVP8 ", 16, "WebP");
    refuses("BM              ", 16, "BMP");
    refuses("hello, world", 12, "not a PNG");
    refuses("\x89PNG\r\n\x1A", 7, "not a PNG");
    refuses("\x89PNG\r\n\x1A\n", 8, "ends too early");
}

/* A header of 2 GiB pixels costs nothing: it is refused before memory is taken for them. */
static void a_bomb_is_refused_by_its_size(void **state)
{
    (void)state;
    static const struct {
        uint32_t w, h;
        const char *says;
    } bad[] = {
        {65, 1, "65 x 1 pixels, at most 64 x 64"}, {1, 65, "1 x 65"}, {1000000, 1000000, "1000000"},
        {0x7FFFFFFF, 0x7FFFFFFF, "IHDR"},          {0, 5, "IHDR"},    {0xFFFFFFFF, 1, "IHDR"},
    };
    for (size_t i = 0; i < sizeof bad / sizeof *bad; i++) {
        tt_buf b = {0};
        begin(&b, bad[i].w, bad[i].h, 8, PNG_COLOR_TYPE_RGB_ALPHA, PNG_INTERLACE_ADAM7);
        chunk(&b, "IDAT", "\x78\x9C\x03\x00\x00\x00\x00\x01", 8);
        chunk(&b, "IEND", "", 0);
        tt_picture p;
        tt_err e = {0};
        assert_int_equal(tt_png_decode(&p, b.data, b.size, 64, "mask", &e), TT_EINVAL);
        assert_null(p.rgba);
        assert_string_equal(e.code, "invalid_image");
        assert_non_null(strstr(e.text, "mask"));
        tt_buf_free(&b);
    }
}

static void bad_forms_are_refused(void **state)
{
    (void)state;
    static const int bad[][3] = {{3, 0, 0}, {16, 3, 0}, {4, 2, 0}, {8, 5, 0}, {8, 2, 9}};
    for (size_t i = 0; i < sizeof bad / sizeof *bad; i++) {
        tt_buf b = {0};
        begin(&b, 4, 4, bad[i][0], bad[i][1], bad[i][2]);
        chunk(&b, "IDAT", "", 0);
        refuses(b.data, b.size, "not a usable PNG");
        tt_buf_free(&b);
    }
    tt_buf b = {0};
    begin(&b, 4, 4, 8, PNG_COLOR_TYPE_PALETTE, 0); /* no palette */
    chunk(&b, "IDAT", "\x78\x9C\x03\x00\x00\x00\x00\x01", 8);
    chunk(&b, "IEND", "", 0);
    refuses(b.data, b.size, "not a usable PNG");
    tt_buf_free(&b);
}

/* Cut anywhere before its rows are complete, a file is refused; one flipped byte does no harm. */
static void truncated_and_damaged_files_are_refused_or_read(void **state)
{
    (void)state;
    form f = {13, 9, 8, PNG_COLOR_TYPE_RGB, 1, false};
    tt_buf file = make(&f);
    for (size_t n = 0; n + 16 < file.size; n++) { /* IEND and the last checksum may be missing */
        tt_picture p;
        tt_err e = {0};
        assert_int_equal(decode_guarded(file.data, n, &p, &e), TT_EINVAL);
        assert_null(p.rgba);
        assert_true(*e.text != '\0');
    }
    for (size_t n = 0; n < file.size; n++) {
        tt_picture p;
        file.data[n] ^= 0x55;
        decode_guarded(file.data, file.size, &p, NULL);
        tt_picture_free(&p);
        file.data[n] ^= 0x55;
    }
    tt_buf_free(&file);
}

/* A text chunk that would expand to gigabytes is not even looked at. */
static void text_and_trailing_bytes_are_not_read(void **state)
{
    (void)state;
    form f = {4, 4, 8, PNG_COLOR_TYPE_RGB, 0, false};
    tt_buf file = make(&f), more = {0};
    size_t head = 8 + 25;
    tt_buf_add(&more, file.data, head);
    chunk(&more, "zTXt", "Comment\0\0this is not what zlib writes", 37);
    chunk(&more, "iCCP", "x\0\0garbage", 10);
    chunk(&more, "gAMA", "\0\0\0\0", 4);
    tt_buf_add(&more, file.data + head, file.size - head);
    tt_buf_puts(&more, "and so on");
    tt_picture p;
    tt_err e = {0};
    if (decode_guarded(more.data, more.size, &p, &e))
        fail_msg("%s", e.text);
    for (int y = 0; y < 4; y++)
        for (int x = 0; x < 4; x++)
            check_pixel(&f, &p, x, y);
    tt_picture_free(&p);
    tt_buf_free(&file);
    tt_buf_free(&more);
}

static void what_is_written_reads_back(void **state)
{
    (void)state;
    enum { W = 33, H = 17 };
    static uint8_t pixels[H * W * 4];
    srand(3);
    for (size_t i = 0; i < sizeof pixels; i++)
        pixels[i] = (uint8_t)rand();
    const tt_png_text text[] = {{"Software", "tutti"}, {"Comment", "\xC3\xBC"}};
    for (int channels = 3; channels <= 4; channels++)
        for (int level = TT_PNG_FAST; level <= TT_PNG_SMALL; level += TT_PNG_SMALL - TT_PNG_FAST) {
            tt_buf a = {0}, b = {0};
            tt_picture p;
            assert_int_equal(tt_png_encode(&a, pixels, W, H, channels, level, text, 2, NULL), 0);
            assert_int_equal(tt_png_encode(&b, pixels, W, H, channels, level, text, 2, NULL), 0);
            assert_int_equal(a.size, b.size);
            assert_memory_equal(a.data, b.data, a.size);
            assert_non_null(memmem(a.data, a.size, "Software", 8));
            assert_int_equal(decode_guarded(a.data, a.size, &p, NULL), TT_OK);
            for (size_t i = 0; i < (size_t)W * H; i++) {
                assert_memory_equal(p.rgba + 4 * i, pixels + (size_t)channels * i, 3);
                assert_int_equal(p.rgba[4 * i + 3], channels == 4 ? pixels[4 * i + 3] : 255);
            }
            tt_picture_free(&p);
            tt_buf_free(&a);
            tt_buf_free(&b);
        }
    tt_buf out = {0};
    assert_int_equal(tt_png_encode(&out, pixels, 0, 1, 3, 1, NULL, 0, NULL), TT_EINVAL);
    assert_int_equal(tt_png_encode(&out, pixels, 1, 1, 2, 1, NULL, 0, NULL), TT_EINVAL);
    tt_buf_free(&out);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(every_form_becomes_the_same_rgba),
        cmocka_unit_test(other_files_are_named),
        cmocka_unit_test(a_bomb_is_refused_by_its_size),
        cmocka_unit_test(bad_forms_are_refused),
        cmocka_unit_test(truncated_and_damaged_files_are_refused_or_read),
        cmocka_unit_test(text_and_trailing_bytes_are_not_read),
        cmocka_unit_test(what_is_written_reads_back),
    };
    return cmocka_run_group_tests_name("png", tests, NULL, NULL);
}
