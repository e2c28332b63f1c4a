/* What can go wrong: several threads use one tokenizer, and one sees what another left half done.
 */
#include "tests/tokenizers/tok_test.h"

#include <pthread.h>

enum { THREADS = 4, ROUNDS = 300 };

typedef struct {
    const tt_tok *t;
    unsigned seed;
    tt_ids ids;
    tt_buf text;
} job;

static const char *const words[] = {"ab", "abc", "bca", " ", "cab", "aa", "\n", "bcbcbc"};

static void *work(void *arg)
{
    job *j = arg;
    unsigned x = j->seed;
    for (int i = 0; i < ROUNDS; i++) {
        char text[400] = "";
        for (int k = 0; k < 40; k++) {
            x = x * 1664525u + 1013904223u;
            strcat(text, words[x >> 29]);
        }
        if (tt_tok_encode(j->t, text, strlen(text), 0, &j->ids, NULL))
            return NULL;
    }
    return tt_tok_decode(j->t, j->ids.id, j->ids.count, false, &j->text, NULL) ? NULL : j;
}

static void threads_find_what_one_finds(void **state)
{
    (void)state;
    const char *file =
        "{'pre_tokenizer':{'type':'Sequence','pretokenizers':[{'type':'Split','pattern':{'Regex':"
        "'\\\\s|[a-c]{1,3}'},'behavior':'Isolated'},{'type':'ByteLevel','add_prefix_space':false,"
        "'use_regex':false}]},'decoder':{'type':'ByteLevel'},'model':{'type':'BPE','vocab':{'a':0,"
        "'b':1,'c':2,'\xC4\xA0':3,'\xC4\x8A':4,'ab':5,'bc':6,'abc':7,'ca':8},'merges':['b c','a b',"
        "'a bc','c a']}}";
    tt_tok *shared = open_ok(file);
    job j[THREADS] = {{0}};
    pthread_t id[THREADS];
    for (unsigned i = 0; i < THREADS; i++) {
        j[i] = (job){.t = shared, .seed = i / 2}; /* two by two the same work */
        assert_int_equal(pthread_create(&id[i], NULL, work, &j[i]), 0);
    }
    for (int i = 0; i < THREADS; i++) {
        void *done;
        pthread_join(id[i], &done);
        assert_ptr_equal(done, &j[i]);
    }
    for (int i = 0; i < THREADS; i++) {
        tt_tok *own = open_ok(file);
        job alone = {.t = own, .seed = (unsigned)i / 2};
        assert_ptr_equal(work(&alone), &alone);
        assert_int_equal(alone.ids.count, j[i].ids.count);
        assert_memory_equal(alone.ids.id, j[i].ids.id, alone.ids.count * sizeof(int32_t));
        assert_string_equal(tt_buf_text(&alone.text), tt_buf_text(&j[i].text));
        tt_ids_free(&alone.ids);
        tt_buf_free(&alone.text);
        tt_ids_free(&j[i].ids);
        tt_buf_free(&j[i].text);
        tt_tok_close(own);
    }
    tt_tok_close(shared);
}

int main(void)
{
    const struct CMUnitTest tests[] = {cmocka_unit_test(threads_find_what_one_finds)};
    return cmocka_run_group_tests_name("threads", tests, NULL, NULL);
}
