/* What can go wrong: columns out of range, control characters in tokens, holes drawn in the wrong
 * place, frames shown too fast or never, a terminal that is not given back. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include <cmocka.h>

#include "server/show.h"

typedef struct {
    FILE *to;
    char *text;
    size_t size;
    tt_show *show;
} screen;

static void open_screen(screen *s, const char *text, bool with_holes)
{
    memset(s, 0, sizeof *s);
    s->to = open_memstream(&s->text, &s->size);
    assert_non_null(s->to);
    assert_int_equal(tt_show_open(&s->show, s->to, text, with_holes, NULL), TT_OK);
}

static void close_screen(screen *s)
{
    tt_show_close(s->show);
    fclose(s->to);
    free(s->text);
}

static void add(screen *s, const char *json)
{
    cJSON *frame = cJSON_Parse(json);
    assert_non_null(frame);
    assert_int_equal(tt_show_add(s->show, frame, NULL), TT_OK);
    cJSON_Delete(frame);
}

/* What a terminal shows after the newest picture: no escape sequences, '.' for an open column. */
static const char *picture(screen *s)
{
    static char out[512];
    size_t n = 0;
    fflush(s->to);
    const char *home = s->text, *next;
    while ((next = strstr(home + 1, "\033[H")))
        home = next;
    for (const char *p = home; *p && n < sizeof out - 1; p++) {
        if (*p == '\033') {
            while (*p && !strchr("mHJhl", *p))
                p++;
        } else if (!strncmp(p, "\xE2\x96\x91", 3)) {
            out[n++] = '.';
            p += 2;
        } else if (*p != '\r') {
            out[n++] = *p;
        }
    }
    out[n] = '\0';
    return out;
}

static void canvas_comes_after_the_prompt(void **state)
{
    (void)state;
    screen s;
    open_screen(&s, "a [[2]]", false);
    add(&s, "{\"step\":0,\"of\":3,\"canvas\":3,\"events\":[]}");
    add(&s, "{\"step\":1,\"of\":3,\"events\":[{\"pos\":2,\"op\":\"set\",\"text\":\"z\"}]}");
    assert_int_equal(tt_show_tick(s.show, 1000), 45);
    assert_string_equal(picture(&s), "a [[2]]...\n\nstep 0 of 3");
    assert_int_equal(tt_show_tick(s.show, 1044), 1);
    assert_int_equal(tt_show_tick(s.show, 1045), -1);
    assert_string_equal(picture(&s), "a [[2]]..z\n\nstep 1 of 3");
    close_screen(&s);
}

static void columns_fill_the_holes(void **state)
{
    (void)state;
    screen s;
    open_screen(&s, "[[1]]b[[2]]e", true);
    add(&s,
        "{\"step\":1,\"of\":3,\"canvas\":3,\"events\":[{\"pos\":2,\"op\":\"set\",\"text\":\"d\"},"
        "{\"pos\":0,\"op\":\"set\",\"text\":\"a\"}]}");
    tt_show_tick(s.show, 0);
    assert_string_equal(picture(&s), "ab.de\n\nstep 1 of 3");
    add(&s, "{\"step\":2,\"of\":3,\"events\":[{\"pos\":0,\"op\":\"mask\"},"
            "{\"pos\":1,\"op\":\"set\",\"text\":\"c\"}]}");
    tt_show_tick(s.show, 100);
    assert_string_equal(picture(&s), ".bcde\n\nstep 2 of 3");
    close_screen(&s);
}

static void insertions_move_what_is_there(void **state)
{
    (void)state;
    screen s;
    open_screen(&s, "[[3]]x[[2]]", true);
    add(&s, "{\"canvas\":5,\"grows\":true,\"events\":[]}");
    tt_show_tick(s.show, 0);
    assert_string_equal(picture(&s), "x\n\nstep 0 of 0"); /* room is not drawn */
#define INSERT(pos, text) "{\"pos\":" #pos ",\"op\":\"insert\",\"text\":\"" text "\"}"
    add(&s, "{\"step\":3,\"events\":[" INSERT(0, "b") "," INSERT(0, "a") "," INSERT(3, "z") ","
            INSERT(3, "y") "," INSERT(1, "-") "]}");
    tt_show_tick(s.show, 100);
    assert_string_equal(picture(&s), "a-bxyz\n\nstep 3 of 0");
    add(&s, "{\"step\":4,\"events\":[" INSERT(4, "!") "]}"); /* full */
#undef INSERT
    tt_show_tick(s.show, 200);
    assert_string_equal(picture(&s), "a-bxy!\n\nstep 4 of 0");
    close_screen(&s);
}

static void hostile_frames_do_no_harm(void **state)
{
    (void)state;
    screen s;
    open_screen(&s, "", false);
    assert_int_equal(tt_show_add(s.show, NULL, NULL), TT_OK);
    add(&s, "{\"nfe\":3,\"canvas\":7}"); /* the last chunk: no events */
    assert_int_equal(tt_show_tick(s.show, 0), -1);
    add(&s, "{\"canvas\":-5,\"events\":[{\"pos\":0,\"text\":\"x\"}]}");
    add(&s, "{\"canvas\":2,\"events\":[{\"pos\":-1,\"text\":\"x\"},{\"pos\":2,\"text\":\"x\"},{},7,"
            "{\"pos\":1,\"text\":\"\\u001b[2J\\u0007y\\n\"}]}");
    tt_show_tick(s.show, 0);
    tt_show_tick(s.show, 100);
    assert_string_equal(picture(&s), ".[2Jy\n\n\nstep 0 of 0");
    close_screen(&s);
}

static void terminal_is_given_back(void **state)
{
    (void)state;
    screen s;
    open_screen(&s, "", false);
    add(&s, "{\"canvas\":1,\"events\":[]}"); /* queued and never drawn */
    tt_show_close(s.show);
    fclose(s.to);
    assert_non_null(strstr(s.text, "\033[?1049h"));
    assert_non_null(strstr(s.text, "\033[?25h\033[?1049l"));
    free(s.text);
    tt_show_close(NULL);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(canvas_comes_after_the_prompt),
        cmocka_unit_test(columns_fill_the_holes),
        cmocka_unit_test(insertions_move_what_is_there),
        cmocka_unit_test(hostile_frames_do_no_harm),
        cmocka_unit_test(terminal_is_given_back),
    };
    return cmocka_run_group_tests_name("show", tests, NULL, NULL);
}
