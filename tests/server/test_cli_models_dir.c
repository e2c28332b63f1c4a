/* What can go wrong: names that are paths, ids or neither; folders without a model; '=' in paths;
 * the same id in two places. */
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

#include "server/models_dir.h"

static char root[] = "/tmp/tutti-test-XXXXXX", path[512];

static const char *in_root(const char *name)
{
    snprintf(path, sizeof path, "%s/%s", root, name);
    return path;
}

static void make_folder(const char *name)
{
    assert_int_equal(mkdir(in_root(name), 0700), 0);
}

static void make_model(const char *name)
{
    char file[600];
    make_folder(name);
    snprintf(file, sizeof file, "%s/%s/config.json", root, name);
    FILE *f = fopen(file, "w");
    assert_non_null(f);
    fputs("{}", f);
    fclose(f);
}

static int set_up(void **state)
{
    (void)state;
    if (!mkdtemp(root) || chdir(root))
        return -1;
    make_folder("first");
    make_folder("second");
    make_folder("second/empty");
    make_model("first/alpha");
    make_model("second/alpha");
    make_model("second/beta");
    make_model("second/" TT_DEFAULT_MODEL);
    make_model("a=b");
    char list[512];
    snprintf(list, sizeof list, "%s/absent:%s/first:%s/second", root, root, root);
    return setenv("TUTTI_MODELS", list, 1);
}

static int tear_down(void **state)
{
    (void)state;
    char command[64];
    snprintf(command, sizeof command, "rm -rf '%s'", root);
    return chdir("/") || system(command);
}

static void finds_ids_first_match_wins(void **state)
{
    (void)state;
    tt_model_place p;
    assert_int_equal(tt_models_dir_find("alpha", &p, NULL), TT_OK);
    assert_string_equal(p.id, "alpha");
    assert_string_equal(p.folder, in_root("first/alpha"));
    assert_int_equal(tt_models_dir_find("beta", &p, NULL), TT_OK);
    assert_string_equal(p.folder, in_root("second/beta"));
}

static void lists_each_id_once_the_default_first_then_sorted(void **state)
{
    (void)state;
    tt_model_place *p;
    size_t n;
    int alphas = 0, empties = 0;
    assert_int_equal(tt_models_dir_list(&p, &n, NULL), TT_OK);
    for (size_t i = 0; i < n; i++) {
        alphas += !strcmp(p[i].id, "alpha");
        empties += !strcmp(p[i].id, "empty");
        assert_true(i < 2 || strcmp(p[i - 1].id, p[i].id) < 0);
    }
    assert_true(n >= 3);
    assert_string_equal(p[0].id, TT_DEFAULT_MODEL);
    assert_int_equal(alphas, 1);
    assert_int_equal(empties, 0);
    free(p);
}

static void finds_folders_and_names_them(void **state)
{
    (void)state;
    tt_model_place p;
    assert_int_equal(tt_models_dir_find("./second/beta/", &p, NULL), TT_OK);
    assert_string_equal(p.id, "beta");
    assert_string_equal(p.folder, in_root("second/beta"));
    assert_int_equal(tt_models_dir_find("org/mine=second/beta", &p, NULL), TT_OK);
    assert_string_equal(p.id, "org/mine");
    assert_string_equal(p.folder, in_root("second/beta"));
    assert_int_equal(tt_models_dir_find("a=b", &p, NULL), TT_OK);
    assert_string_equal(p.id, "a=b");
}

static void refuses_the_rest_by_name(void **state)
{
    (void)state;
    tt_model_place p;
    tt_err e;
    assert_int_equal(tt_models_dir_find("gamma", &p, &e), TT_EINVAL);
    assert_non_null(strstr(e.text, "'gamma'"));
    assert_non_null(strstr(e.text, "'alpha'"));
    assert_string_equal(e.param, "model");
    assert_int_equal(tt_models_dir_find("./nowhere", &p, &e), TT_EINVAL);
    assert_non_null(strstr(e.text, "./nowhere"));
    assert_int_equal(tt_models_dir_find("./second/empty", &p, &e), TT_EINVAL);
    assert_non_null(strstr(e.text, "config.json"));
    assert_int_equal(tt_models_dir_find("=second/beta", &p, &e), TT_EINVAL);
    assert_int_equal(tt_models_dir_find("", &p, &e), TT_EINVAL);
    char longer[400];
    memset(longer, 'x', sizeof longer);
    snprintf(longer + 300, 100, "=second/beta");
    assert_int_equal(tt_models_dir_find(longer, &p, &e), TT_EINVAL);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(finds_ids_first_match_wins),
        cmocka_unit_test(lists_each_id_once_the_default_first_then_sorted),
        cmocka_unit_test(finds_folders_and_names_them),
        cmocka_unit_test(refuses_the_rest_by_name),
    };
    return cmocka_run_group_tests_name("models_dir", tests, set_up, tear_down);
}
