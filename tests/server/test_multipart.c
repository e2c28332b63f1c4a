/* What can go wrong: boundaries that nearly match, names that end the wrong way, parts cut off, a
 * byte read behind the end; base64 that is none. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <unistd.h>

#include <cmocka.h>

#include "server/base64.h"
#include "server/multipart.h"

#define TYPE "multipart/form-data; boundary=xYz"

/* Reads a body placed right before memory that cannot be read; parts lead into `map`. */
static tt_status read_guarded(const char *type, const char *body, size_t n, tt_multipart *out,
                              char **map, size_t *room, tt_err *e)
{
    size_t page = (size_t)sysconf(_SC_PAGESIZE);
    *room = (n / page + 2) * page;
    *map = mmap(NULL, *room, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
    assert_ptr_not_equal(*map, MAP_FAILED);
    assert_int_equal(mprotect(*map + *room - page, page, PROT_NONE), 0);
    char *at = *map + *room - page - n;
    memcpy(at, body, n);
    return tt_multipart_read(out, type, at, n, e);
}

static void refuses(const char *type, const char *body, const char *says)
{
    tt_multipart form;
    tt_err e = {0};
    char *map;
    size_t room;
    assert_int_equal(read_guarded(type, body, strlen(body), &form, &map, &room, &e), TT_EINVAL);
    assert_string_equal(e.code, "invalid_form");
    if (!strstr(e.text, says))
        fail_msg("for '%s': '%s' does not say '%s'", body, e.text, says);
    munmap(map, room);
}

static void parts_come_in_order_with_their_bytes(void **state)
{
    (void)state;
    static const char body[] =
        "--xYz\r\nContent-Disposition: form-data; name=\"prompt\"\r\n\r\na\r\n--xY\r\n"
        "\r\n--xYz\r\ncontent-disposition:form-data; filename=\"a;name=x.png\"; name=image[]\r\n"
        "Content-Type: image/png\r\n\r\n\0\1\r\n--xYz\r\n"
        "Content-Disposition: form-data; name=\"tutti[\\\"q]\"\r\n\r\n\r\n--xYz--\r\nepilogue";
    tt_multipart f;
    tt_err e = {0};
    char *map;
    size_t room;
    if (read_guarded(TYPE, body, sizeof body - 1, &f, &map, &room, &e))
        fail_msg("%s", e.text);
    assert_int_equal(f.parts, 3);
    assert_string_equal(f.part[0].name, "prompt");
    assert_int_equal(f.part[0].bytes, 9);
    assert_memory_equal(f.part[0].data, "a\r\n--xY\r\n", 9);
    assert_false(f.part[0].file);
    assert_string_equal(f.part[1].name, "image[]");
    assert_true(f.part[1].file);
    assert_int_equal(f.part[1].bytes, 2);
    assert_memory_equal(f.part[1].data, "\0\1", 2);
    assert_string_equal(f.part[2].name, "tutti[\"q]");
    assert_int_equal(f.part[2].bytes, 0);
    munmap(map, room);
}

static void forms_that_are_none_are_refused(void **state)
{
    (void)state;
    refuses("multipart/form-data", "--xYz--\r\n", "boundary of 1 to 70");
    refuses("multipart/form-data; boundary=\"", "--xYz--\r\n", "boundary of 1 to 70");
    refuses(TYPE, "", "does not begin");
    refuses(TYPE, "--xYq\r\n", "does not begin");
    refuses(TYPE, "--xYzz\r\n", "something else");
    refuses(TYPE, "--xYz\r\n", "headers do not end");
    refuses(TYPE, "--xYz\r\n\r\ndata\r\n--xYz--", "no name");
    refuses(TYPE, "--xYz\r\nContent-Disposition: form-data\r\n\r\nx\r\n--xYz--", "no name");
    refuses(TYPE, "--xYz\r\nContent-Disposition: form-data; name=\"a\r\n\r\nx\r\n--xYz--",
            "no name");
    refuses(TYPE, "--xYz\r\nContent-Disposition: form-data; name=a\r\n\r\nx", "closing boundary");
    refuses(TYPE, "--xYz\r\nContent-Disposition: form-data; name=a\r\n\r\nx\r\n--xYz", "something");
    refuses(TYPE,
            "--xYz\r\nContent-Disposition: form-data; name=a\r\n"
            "Content-Disposition: form-data; name=b\r\n\r\nx\r\n--xYz--",
            "two names");
}

static void names_and_parts_have_their_limits(void **state)
{
    (void)state;
    tt_buf b = {0};
    for (int i = 0; i < 65; i++)
        tt_buf_printf(&b, "%s--xYz\r\nContent-Disposition: form-data; name=a\r\n\r\nx",
                      i ? "\r\n" : "");
    tt_buf_puts(&b, "\r\n--xYz--");
    refuses(TYPE, tt_buf_text(&b), "more than 64");
    tt_buf_clear(&b);
    tt_buf_puts(&b, "--xYz\r\nContent-Disposition: form-data; name=");
    for (int i = 0; i < 200; i++)
        tt_buf_putc(&b, 'n');
    tt_buf_puts(&b, "\r\n\r\nx\r\n--xYz--");
    refuses(TYPE, tt_buf_text(&b), "no name, or one of more");
    tt_buf_clear(&b);
    tt_buf_puts(&b, "--xYz\r\nX: ");
    for (int i = 0; i < 5000; i++)
        tt_buf_putc(&b, 'n');
    tt_buf_puts(&b, "\r\nContent-Disposition: form-data; name=a\r\n\r\nx\r\n--xYz--");
    refuses(TYPE, tt_buf_text(&b), "headers do not end");
    tt_buf_free(&b);
}

static void a_form_cut_anywhere_is_refused(void **state)
{
    (void)state;
    static const char body[] = "--xYz\r\nContent-Disposition: form-data; name=\"a\"; "
                               "filename=\"b\"\r\n\r\n123\r\n--xYz--";
    for (size_t n = 0; n + 1 < sizeof body; n++) {
        tt_multipart f;
        char *map;
        size_t room;
        assert_int_equal(read_guarded(TYPE, body, n, &f, &map, &room, NULL), TT_EINVAL);
        munmap(map, room);
    }
}

static void base64_goes_there_and_back(void **state)
{
    (void)state;
    uint8_t bytes[256];
    for (int i = 0; i < 256; i++)
        bytes[i] = (uint8_t)(i * 167 + 13);
    for (size_t n = 0; n < 256; n++) {
        tt_buf text = {0}, back = {0};
        tt_base64_put(&text, bytes, n);
        assert_int_equal(text.size, (n + 2) / 3 * 4);
        assert_true(tt_base64_take(&back, tt_buf_text(&text), text.size));
        assert_int_equal(back.size, n);
        assert_memory_equal(tt_buf_text(&back), bytes, n);
        tt_buf_free(&text);
        tt_buf_free(&back);
    }
    static const char *const bad[] = {"A",    "AA=",  "A===", "AAAAA",   "AA\nA",
                                      "AA-_", "AB==", "=AAA", "AA==AA=="};
    for (size_t i = 0; i < sizeof bad / sizeof *bad; i++) {
        tt_buf out = {0};
        if (tt_base64_take(&out, bad[i], strlen(bad[i])))
            fail_msg("'%s' is taken for base64", bad[i]);
        tt_buf_free(&out);
    }
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(parts_come_in_order_with_their_bytes),
        cmocka_unit_test(forms_that_are_none_are_refused),
        cmocka_unit_test(names_and_parts_have_their_limits),
        cmocka_unit_test(a_form_cut_anywhere_is_refused),
        cmocka_unit_test(base64_goes_there_and_back),
    };
    return cmocka_run_group_tests_name("multipart", tests, NULL, NULL);
}
