/* What can go wrong: headers that lie about sizes, offsets, names, counts; reading one byte too
 * far (images end at a protected page); shards that point elsewhere. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/stat.h>
#include <unistd.h>

#include <cmocka.h>

#include "models/weights.h"

/* A file image of this header and this much data whose last byte borders on forbidden memory. */
static char *image(const char *header, size_t claimed, size_t data, size_t *size)
{
    size_t page = 4096, n = strlen(header);
    *size = 8 + n + data;
    size_t pages = (*size + page - 1) / page;
    char *map = mmap(NULL, (pages + 1) * page, PROT_READ | PROT_WRITE,
                     MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
    assert_true(map != MAP_FAILED);
    mprotect(map + pages * page, page, PROT_NONE);
    char *at = map + pages * page - *size;
    for (int i = 0; i < 8; i++)
        at[i] = (char)(claimed >> (8 * i));
    memcpy(at + 8, header, n);
    for (size_t i = 0; i < data; i++)
        at[8 + n + i] = (char)i;
    return at;
}

static tt_status open_image(const char *header, size_t data, tt_weights **w, tt_err *e)
{
    size_t size;
    char *bytes = image(header, strlen(header), data, &size);
    return tt_weights_open_memory(w, bytes, size, e);
}

static void refuse(const char *header, size_t data, const char *says)
{
    tt_weights *w;
    tt_err e = {0};
    assert_int_equal(open_image(header, data, &w, &e), TT_EFORMAT);
    assert_null(w);
    if (!strstr(e.text, says))
        fail_msg("\"%s\" does not say \"%s\"", e.text, says);
}

static void reads_what_is_there(void **state)
{
    (void)state;
    tt_weights *w;
    tt_err e;
    tt_tensor t;
    assert_int_equal(open_image("{\"__metadata__\":{\"format\":\"pt\"},"
                                "\"a\":{\"dtype\":\"F32\",\"shape\":[2,3],\"data_offsets\":[0,24]},"
                                "\"b\":{\"dtype\":\"F32\",\"shape\":[],\"data_offsets\":[24,28]}}",
                                28, &w, &e), TT_OK);
    assert_int_equal(tt_weights_count(w), 2);
    assert_int_equal(tt_weights_get(w, "a", 2, (int64_t[]){2, -1}, &t, &e), TT_OK);
    assert_int_equal(((const unsigned char *)t.data)[23], 23);
    assert_int_equal(tt_weights_get(w, "b", 0, NULL, &t, &e), TT_OK);
    assert_int_equal(tt_weights_elements(w), 7);
    tt_weights_close(w);
}

static void names_both_shapes(void **state)
{
    (void)state;
    tt_weights *w;
    tt_err e;
    tt_tensor t;
    assert_int_equal(open_image("{\"q\":{\"dtype\":\"F32\",\"shape\":[2,1],"
                                "\"data_offsets\":[0,8]}}", 8, &w, &e), TT_OK);
    assert_int_equal(tt_weights_get(w, "q", 2, (int64_t[]){2, 2}, &t, &e), TT_EFORMAT);
    assert_string_equal(e.text, "tensor 'q' has shape [2, 1], expected [2, 2]");
    assert_int_equal(tt_weights_get(w, "k", 1, (int64_t[]){2}, &t, &e), TT_EFORMAT);
    assert_string_equal(e.text, "tensor 'k' is missing");
    tt_weights_close(w);
}

static void lying_headers_are_refused(void **state)
{
    (void)state;
    refuse("[]", 0, "not a JSON object");
    refuse("{\"a\":", 0, "not JSON");
    refuse("{} {}", 0, "not JSON");
    refuse("{\"a\":7}", 0, "dtype");
    refuse("{\"a\":{\"dtype\":\"F33\",\"shape\":[1],\"data_offsets\":[0,4]}}", 4, "F33");
    refuse("{\"a\":{\"dtype\":\"F32\",\"data_offsets\":[0,4]}}", 4, "shape");
    refuse("{\"a\":{\"dtype\":\"F32\",\"shape\":[-1],\"data_offsets\":[0,4]}}", 4, "dimension");
    refuse("{\"a\":{\"dtype\":\"F32\",\"shape\":[0.5],\"data_offsets\":[0,4]}}", 4, "dimension");
    refuse("{\"a\":{\"dtype\":\"F32\",\"shape\":[1e300],\"data_offsets\":[0,4]}}", 4, "dimension");
    refuse("{\"a\":{\"dtype\":\"F32\",\"shape\":[1,1,1,1,1,1,1,1,1],\"data_offsets\":[0,4]}}", 4,
           "dimensions");
    refuse("{\"a\":{\"dtype\":\"F32\",\"shape\":[4294967296,4294967296],\"data_offsets\":[0,4]}}",
           4, "too large");
    refuse("{\"a\":{\"dtype\":\"F32\",\"shape\":[4611686018427387904],\"data_offsets\":[0,0]}}", 0,
           "'a'");
    refuse("{\"a\":{\"dtype\":\"F32\",\"shape\":[1],\"data_offsets\":[0]}}", 4, "data_offsets");
    refuse("{\"a\":{\"dtype\":\"F32\",\"shape\":[1],\"data_offsets\":[4,0]}}", 4, "'a'");
    refuse("{\"a\":{\"dtype\":\"F32\",\"shape\":[2],\"data_offsets\":[0,8]}}", 4, "truncated");
    refuse("{\"a\":{\"dtype\":\"F32\",\"shape\":[2],\"data_offsets\":[0,4]}}", 4, "needs 8");
}

static void overlaps_gaps_and_doubles_are_refused(void **state)
{
    (void)state;
    refuse("{\"a\":{\"dtype\":\"U8\",\"shape\":[4],\"data_offsets\":[0,4]},"
           "\"b\":{\"dtype\":\"U8\",\"shape\":[4],\"data_offsets\":[2,6]}}", 6, "overlaps");
    refuse("{\"a\":{\"dtype\":\"U8\",\"shape\":[2],\"data_offsets\":[2,4]}}", 4, "unused");
    refuse("{\"a\":{\"dtype\":\"U8\",\"shape\":[2],\"data_offsets\":[0,2]}}", 4, "unused");
    refuse("{\"a\":{\"dtype\":\"U8\",\"shape\":[2],\"data_offsets\":[0,2]},"
           "\"a\":{\"dtype\":\"U8\",\"shape\":[2],\"data_offsets\":[2,4]}}", 4, "twice");
    refuse("{\"\xff\":{\"dtype\":\"U8\",\"shape\":[2],\"data_offsets\":[0,2]}}", 2, "UTF-8");
}

static void header_lengths_beyond_the_file_are_refused(void **state)
{
    (void)state;
    tt_weights *w;
    tt_err e;
    size_t size;
    const size_t lengths[] = {3, 1000, (size_t)1 << 40, SIZE_MAX, SIZE_MAX - 7};
    for (size_t i = 0; i < sizeof lengths / sizeof *lengths; i++) {
        char *bytes = image("{}", lengths[i], 0, &size);
        assert_int_equal(tt_weights_open_memory(&w, bytes, size, &e), TT_EFORMAT);
    }
    char *bytes = image("{}", 2, 0, &size);
    for (size_t n = 0; n < size; n++) /* every truncation */
        assert_int_equal(tt_weights_open_memory(&w, bytes + size - n, n, &e), TT_EFORMAT);
}

static void misaligned_data_is_read(void **state)
{
    (void)state;
    const char *header = "{\"a\":{\"dtype\":\"U8\",\"shape\":[1],\"data_offsets\":[0,1]},"
                         "\"b\":{\"dtype\":\"F32\",\"shape\":[1],\"data_offsets\":[1,5]},"
                         "\"c\":{\"dtype\":\"U8\",\"shape\":[2],\"data_offsets\":[5,7]}}";
    tt_weights *w;
    tt_tensor t;
    tt_err e;
    size_t size;
    char *bytes = image(header, strlen(header), 7, &size);
    float want = 2.5f, have;
    memcpy(bytes + size - 6, &want, sizeof want);
    assert_int_equal(tt_weights_open_memory(&w, bytes, size, &e), TT_OK);
    assert_int_equal(tt_weights_get(w, "b", 1, (int64_t[]){1}, &t, &e), TT_OK);
    assert_int_equal((uintptr_t)t.data % sizeof have, 0);
    memcpy(&have, t.data, sizeof have);
    assert_true(have == want);
    tt_weights_close(w);
}

static void deep_nesting_is_no_crash(void **state)
{
    (void)state;
    enum { DEPTH = 100000 };
    char *text = malloc(DEPTH + 16);
    memcpy(text, "{\"a\":", 5);
    memset(text + 5, '[', DEPTH);
    text[5 + DEPTH] = '\0';
    refuse(text, 0, "not JSON");
    free(text);
}

static void int8_matrices_need_their_scales(void **state)
{
    (void)state;
    tt_weights *w;
    tt_weight m;
    tt_err e;
    assert_int_equal(open_image("{\"w\":{\"dtype\":\"I8\",\"shape\":[2,2],\"data_offsets\":[0,4]},"
                                "\"i\":{\"dtype\":\"I64\",\"shape\":[1,1],"
                                "\"data_offsets\":[4,12]}}", 12, &w, &e), TT_OK);
    assert_int_equal(tt_weights_matrix(w, "w", 2, 2, &m, &e), TT_EFORMAT);
    assert_string_equal(e.text, "tensor 'w_scale' is missing");
    assert_int_equal(tt_weights_matrix(w, "i", 1, 1, &m, &e), TT_EUNSUP);
    tt_weights_close(w);
}

/* --- folders --- */

static char folder[64];

static void write_file(const char *name, const void *bytes, size_t n)
{
    char path[200];
    snprintf(path, sizeof path, "%s/%s", folder, name);
    FILE *f = fopen(path, "wb");
    assert_non_null(f);
    assert_int_equal(fwrite(bytes, 1, n, f), n);
    fclose(f);
}

static void write_shard(const char *file, const char *tensor)
{
    char header[200];
    size_t size;
    snprintf(header, sizeof header,
             "{\"%s\":{\"dtype\":\"U8\",\"shape\":[3],\"data_offsets\":[0,3]}}", tensor);
    char *bytes = image(header, strlen(header), 3, &size);
    write_file(file, bytes, size);
}

static void write_index(const char *text)
{
    write_file("model.safetensors.index.json", text, strlen(text));
}

static int make_folder(void **state)
{
    (void)state;
    strcpy(folder, "/tmp/tutti-weights-XXXXXX");
    return mkdtemp(folder) ? 0 : -1;
}

static int remove_folder(void **state)
{
    (void)state;
    char command[100];
    snprintf(command, sizeof command, "rm -rf %s", folder);
    return system(command);
}

static void shards_are_joined(void **state)
{
    (void)state;
    tt_weights *w;
    tt_err e;
    write_shard("one.safetensors", "a");
    write_shard("two.safetensors", "b");
    write_index("{\"metadata\":{},\"weight_map\":{\"a\":\"one.safetensors\","
                "\"b\":\"two.safetensors\"}}");
    assert_int_equal(tt_weights_open(&w, folder, &e), TT_OK);
    assert_true(tt_weights_has(w, "a") && tt_weights_has(w, "b"));
    tt_weights_close(w);
}

static void bad_indexes_are_refused(void **state)
{
    (void)state;
    static const char *const index[] = {
        "{}", "{\"weight_map\":{\"a\":3}}", "{\"weight_map\":{\"a\":\"../one.safetensors\"}}",
        "{\"weight_map\":{\"a\":\"/etc/passwd\"}}", "{\"weight_map\":{\"c\":\"one.safetensors\"}}",
        "{\"weight_map\":", ""};
    tt_weights *w;
    tt_err e;
    write_shard("one.safetensors", "a");
    for (size_t i = 0; i < sizeof index / sizeof *index; i++) {
        write_index(index[i]);
        assert_int_equal(tt_weights_open(&w, folder, &e), TT_EFORMAT);
        assert_null(w);
    }
    write_index("{\"weight_map\":{\"a\":\"gone.safetensors\"}}");
    assert_int_equal(tt_weights_open(&w, folder, &e), TT_EIO);
}

static void a_missing_folder_is_named(void **state)
{
    (void)state;
    tt_weights *w;
    tt_err e;
    assert_int_equal(tt_weights_open(&w, "/nowhere/at/all", &e), TT_EIO);
    assert_non_null(strstr(e.text, "/nowhere/at/all/model.safetensors"));
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(reads_what_is_there),
        cmocka_unit_test(names_both_shapes),
        cmocka_unit_test(lying_headers_are_refused),
        cmocka_unit_test(overlaps_gaps_and_doubles_are_refused),
        cmocka_unit_test(header_lengths_beyond_the_file_are_refused),
        cmocka_unit_test(misaligned_data_is_read),
        cmocka_unit_test(deep_nesting_is_no_crash),
        cmocka_unit_test(int8_matrices_need_their_scales),
        cmocka_unit_test_setup_teardown(shards_are_joined, make_folder, remove_folder),
        cmocka_unit_test_setup_teardown(bad_indexes_are_refused, make_folder, remove_folder),
        cmocka_unit_test(a_missing_folder_is_named),
    };
    return cmocka_run_group_tests_name("weights", tests, NULL, NULL);
}
