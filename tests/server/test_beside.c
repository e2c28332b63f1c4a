/* What config.json may name. What can go wrong: a path out of the folder of models, straight on or
 * through a link, a folder whose name begins as the right one's does, a name that is empty or from
 * the root. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#include <cmocka.h>

#include "server/beside.h"

static char root[64];

static const char *at(const char *name)
{
    static char path[2][256];
    static int i;
    i ^= 1;
    snprintf(path[i], sizeof path[i], "%s/%s", root, name);
    return path[i];
}

static int make(void **state)
{
    static const char *const folder[] = {"", "models", "models/a", "models/a/own", "models/b",
                                         "models/b/codec", "models2", "models2/codec"};
    (void)state;
    snprintf(root, sizeof root, "/tmp/test_beside.%d", (int)getpid());
    for (size_t i = 0; i < sizeof folder / sizeof *folder; i++)
        if (mkdir(at(folder[i]), 0777))
            return -1;
    return symlink("../models2/codec", at("models/out")) || symlink("b", at("models/near")) ||
           symlink("models/a", at("linked"));
}

static int remove_all(void **state)
{
    char command[100];
    (void)state;
    snprintf(command, sizeof command, "rm -r '%s'", root);
    return system(command);
}

static tt_status named(const char *model, const char *name, const char *text)
{
    char out[256];
    tt_err e = {0};
    tt_status s = tt_beside(out, sizeof out, at(model), "codec", name, &e);
    if (s && !strstr(e.text, text))
        fail_msg("'%s' does not say '%s'", e.text, text);
    if (!s)
        assert_int_equal(access(out, F_OK), 0);
    return s;
}

static void folders_of_models_may_be_shared(void **state)
{
    (void)state;
    assert_int_equal(named("models/a", "own", ""), TT_OK);
    assert_int_equal(named("models/a", "../b/codec", ""), TT_OK);
    assert_int_equal(named("models/a", "../near/codec", ""), TT_OK);
    assert_int_equal(named("models/a", "./own", ""), TT_OK);
    assert_int_equal(named("linked", "../b/codec", ""), TT_OK); /* beside what the link means */
}

static void nothing_else_is_reached(void **state)
{
    (void)state;
    assert_int_equal(named("models/a", "", "codec"), TT_EFORMAT);
    assert_int_equal(named("models/a", "/etc", "'/etc'"), TT_EFORMAT);
    assert_int_equal(named("models/a", "..", "outside"), TT_EFORMAT);
    assert_int_equal(named("models/a", "../..", "outside"), TT_EFORMAT);
    assert_int_equal(named("models/a", "../../models2/codec", "outside"), TT_EFORMAT);
    assert_int_equal(named("models/a", "../out", "outside"), TT_EFORMAT);
    assert_int_equal(named("models/a", "../b/nothing", "No such file"), TT_EIO);
    char name[300];
    memset(name, 'n', sizeof name);
    name[299] = 0;
    assert_int_equal(named("models/a", name, "too long"), TT_EFORMAT);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(folders_of_models_may_be_shared),
        cmocka_unit_test(nothing_else_is_reached),
    };
    return cmocka_run_group_tests_name("beside", tests, make, remove_all);
}
