/* Holes under a grammar: the automaton against PCRE2, then every sampler with every cache it has.
 *
 * What can go wrong: an expression read otherwise than users know it, UTF-8 cut wrongly, a token
 * that crosses from one part of an expression into the next, a text that cannot be finished in the
 * columns left, two tokens of one step that do not go together, a column left open, tokens that
 * depend on who shares the batch, memory counted too small. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include <cmocka.h>
#define PCRE2_CODE_UNIT_WIDTH 8
#include <pcre2.h>

#include "kernels/base/log.h"
#include "kernels/base/utf8.h"
#include "server/batcher.h"

/* --- the automaton --- */

/* Tokens 0..255 are bytes. */
static const char *byte_piece(const void *arg, int32_t id, size_t *n)
{
    static char all[256];
    (void)arg;
    all[id & 255] = (char)id;
    *n = id < 256;
    return id < 256 ? &all[id] : NULL;
}

static tt_grammar *grammar_of(const char *regex, const tt_alphabet *a)
{
    tt_grammar *g;
    tt_err e;
    if (tt_grammar_open(&g, regex, strlen(regex), a, &e))
        fail_msg("%s: %s", regex, e.text);
    return g;
}

/* Whether the ids, put into a canvas, are taken for a text that matches. */
static bool matches(tt_grammar *g, const int32_t *id, int32_t n, bool ends)
{
    static uint8_t memory[1 << 20] __attribute__((aligned(64)));
    tt_arena arena = {.base = memory, .size = sizeof memory};
    int32_t copy[64];
    uint8_t fixed[64];
    tt_err e;
    memcpy(copy, id, (size_t)n * sizeof *id);
    memset(fixed, 1, sizeof fixed);
    tt_seq q = {.columns = n, .id = copy, .fixed = fixed, .mask_id = 1000, .arena = &arena};
    return !tt_reach_begin(&q, &(tt_constraint){0, n, g, ends}, 1, &e);
}

static bool pcre_matches(const pcre2_code *re, const char *text, size_t n)
{
    pcre2_match_data *m = pcre2_match_data_create(1, NULL);
    int rc = pcre2_match(re, (PCRE2_SPTR)text, n, 0, 0, m, NULL);
    pcre2_match_data_free(m);
    return rc >= 0;
}

static pcre2_code *pcre_of(const char *regex)
{
    char whole[2000];
    int code;
    size_t at;
    snprintf(whole, sizeof whole, "\\A(?:%s)\\z", regex);
    pcre2_code *re = pcre2_compile((PCRE2_SPTR)whole, PCRE2_ZERO_TERMINATED,
                                   PCRE2_UTF | PCRE2_NO_AUTO_CAPTURE, &code, &at, NULL);
    assert_non_null(re);
    return re;
}

static uint32_t random_state = 1;
static uint32_t random_below(uint32_t n)
{
    random_state = random_state * 1664525u + 1013904223u;
    return (random_state >> 8) % n;
}

/* Texts near what matches: pieces of the expressions, and characters of every length. */
static size_t random_text(char *out)
{
    static const char *const piece[] = {
        "a", "b", "c", "ab", "0", "1", "12", ".", "-", "\n", "\"", "{", "}", " ", "x", "_", "Z",
        "\xC3\xA9", "\xC3\x9F", "\xCE\xA9", "\xDF\xBF", "\xE2\x82\xAC", "\xEF\xBF\xBD",
        "\xF0\x9F\x98\x80", "\xF4\x8F\xBF\xBF"};
    size_t n = 0, parts = random_below(7);
    for (size_t i = 0; i < parts; i++) {
        const char *p = piece[random_below(sizeof piece / sizeof *piece)];
        memcpy(out + n, p, strlen(p));
        n += strlen(p);
    }
    return n;
}

static void expressions_mean_what_they_mean_elsewhere(void **state)
{
    (void)state;
    static const char *const list[] = {
        "abc", "a|b|", "(a|b)*c", "a{2,3}", "(ab){0,2}c?", "a{2}", "[a-c]+", "[^a-c]*", ".{1,3}",
        ".*", "\\d+(\\.\\d+)?", "\\w+", "\\W", "\\s*[\\d_-]", "[^\\s\\d]{2}", "(?:a|ab)(c|bc)?",
        "[\\x61-\\x63]|Ω", "[à-ÿΩ-€]*", "[^€]{1,2}", "é?ß+", "\"[^\"\\n]*\"", "\\{[ab]*\\}",
        "((a|b){2}){1,2}", "[]a]+", "[a\\]]*", "a*?b+?", "-?(0|[1-9]\\d*)", "[^\\x00-\\x7f]*",
        "(a(b(c)?)?)?", "x{0}a", "[\\n-]|\\.", "(|a)(|b)",
    };
    const tt_alphabet bytes = {.vocab = 256, .piece = byte_piece};
    int yes = 0, no = 0;
    for (size_t i = 0; i < sizeof list / sizeof *list; i++) {
        tt_grammar *g = grammar_of(list[i], &bytes);
        pcre2_code *re = pcre_of(list[i]);
        for (int k = 0; k < 3000; k++) {
            char text[64];
            int32_t id[64];
            size_t n = random_text(text);
            for (size_t c = 0; c < n; c++)
                id[c] = (uint8_t)text[c];
            bool want = pcre_matches(re, text, n);
            if (matches(g, id, (int32_t)n, false) != want)
                fail_msg("'%s' and '%.*s': PCRE2 says %d", list[i], (int)n, text, want);
            *(want ? &yes : &no) += 1;
        }
        pcre2_code_free(re);
        tt_grammar_close(g);
    }
    assert_true(yes > 5000 && no > 5000);
}

/* Every scalar value is one character, and nothing else is. */
static void a_dot_is_a_code_point(void **state)
{
    (void)state;
    const tt_alphabet bytes = {.vocab = 256, .piece = byte_piece};
    tt_grammar *g = grammar_of(".|\\n", &bytes);
    for (uint32_t cp = 0, dense; cp <= 0x10FFFF; cp += dense ? 1 : 97) {
        dense = cp < 0x3000 || (cp > 0xD700 && cp < 0xE010);
        char text[4];
        int32_t id[4];
        bool scalar = cp < 0xD800 || cp > 0xDFFF;
        size_t n = 3;
        if (scalar) {
            n = tt_utf8_encode(cp, text);
        } else {
            text[0] = (char)0xED;
            text[1] = (char)(0x80 | (cp >> 6 & 63));
            text[2] = (char)(0x80 | (cp & 63));
        }
        for (size_t i = 0; i < n; i++)
            id[i] = (uint8_t)text[i];
        if (matches(g, id, (int32_t)n, false) != scalar)
            fail_msg("U+%04X is %s", cp, scalar ? "refused" : "taken");
    }
    tt_grammar_close(g);
}

static void what_is_not_understood_is_refused_with_its_place(void **state)
{
    (void)state;
    static const char *const list[][2] = {
        {"a(b", "byte 3: a ) is missing"},
        {"a)", "byte 1: a ) without ("},
        {"[ab", "byte 3: the class has no ]"},
        {"*a", "byte 0: nothing to repeat"},
        {"a**", "byte 2: a quantifier behind a quantifier"},
        {"a{3,2}", "bounds"},
        {"a{2000}", "bounds"},
        {"a{x}", "bounds"},
        {"(?=a)", "byte 1: only (...) and (?:...) groups"},
        {"(a)\\1", "byte 4: this escape is not supported"},
        {"\\bword", "byte 1: this escape is not supported"},
        {"\\p{L}", "byte 1: this escape is not supported"},
        {"a^b", "byte 1: an anchor inside"},
        {"a$b", "byte 1: an anchor inside"},
        {"[b-a]", "the range runs backwards"},
        {"\\xG0", "a hexadecimal digit is missing"},
        {"a\\", "nothing follows the backslash"},
        {"((a{1000}){1000}){1000}", "too large"},
        {"[ab]*a[ab]{14}", "too large: more than 2048 states"},
        {"\xff", "byte 0: not UTF-8"},
        {"[^\\x00-\\x7f\\x80-\\u07ff\\u0800-\\uffff]a{0}[^\\s\\S]", "matches nothing"},
    };
    const tt_alphabet bytes = {.vocab = 256, .piece = byte_piece};
    for (size_t i = 0; i < sizeof list / sizeof *list; i++) {
        tt_grammar *g;
        tt_err e = {0};
        tt_status s = tt_grammar_open(&g, list[i][0], strlen(list[i][0]), &bytes, &e);
        if (s == TT_OK && strstr(list[i][1], "nothing")) { /* an automaton without an end */
            assert_false(tt_grammar_fits(g, 1, false));
            tt_grammar_close(g);
            continue;
        }
        assert_int_equal(s, TT_EINVAL);
        if (!strstr(e.text, list[i][1]))
            fail_msg("'%s': have '%s', want '%s'", list[i][0], e.text, list[i][1]);
    }
}

/* --- the samplers --- */

enum { COLUMNS = 37, PROMPT = 9, MOST = 512, BEGIN = 11, END = 33, VOCAB = 300 };

/* Tokens: bytes, and pieces that cross the parts of the expression. */
static const char *piece(const void *arg, int32_t id, size_t *n)
{
    static const char *const longer[] = {
        "{\"", "\": ", "ab", "ba", "abc", "12", "7, ", "true",
        "tr", "ue", "\"}", "[1", ", ", "]}", "\": [", "c\": t"};
    if (id < 256)
        return byte_piece(arg, id, n);
    size_t at = (size_t)(id - 256);
    if (at >= sizeof longer / sizeof *longer)
        return NULL;
    *n = strlen(longer[at]);
    return longer[at];
}

static const char expression[] =
    "\\{\"[a-c]{1,3}\": (true|[1-9][0-9]*|\\[(1(, [0-9]+)*)?\\])(, \"[é€]+\": \"[^\"]*\")?\\}";

typedef struct {
    tt_stream *stream;
    tt_model *model[4]; /* the last one is the guide */
    tt_weights *weights[4];
    tt_config *config[4];
    tt_grammar *grammar, *with_end;
    pcre2_code *re;
} world;

static int setup(void **state)
{
    static const char *const folder[] = {
        "tests/golden/masked-diffusion/llada", "tests/golden/masked-diffusion/dream",
        "tests/golden/masked-diffusion/llada2_moe", "models/demo/tutti-text-guide"};
    static world w;
    static const int32_t stop[] = {299};
    tt_err e;
    tt_log_set_level(TT_LOG_WARN);
    tt_status st = tt_stream_open(&w.stream, "plain", 2, &e);
    for (int m = 0; m < 4 && !st; m++)
        st = tt_model_open(&w.model[m], &w.weights[m], &w.config[m], w.stream, folder[m],
                           TT_WEIGHTS_F32, NULL, NULL, &e);
    if (st)
        print_error("%s\n", e.text);
    w.model[2]->info.mask_id = 301;
    w.grammar = grammar_of(expression, &(tt_alphabet){.vocab = VOCAB, .piece = piece});
    w.with_end = grammar_of(expression, &(tt_alphabet){.vocab = VOCAB, .piece = piece,
                                                       .stop = stop, .stops = 1});
    w.re = pcre_of(expression);
    *state = &w;
    return st ? -1 : 0;
}

static int teardown(void **state)
{
    world *w = *state;
    for (int m = 0; m < 4; m++) {
        tt_model_close(w->model[m]);
        tt_weights_close(w->weights[m]);
        tt_config_close(w->config[m]);
    }
    tt_stream_close(w->stream);
    tt_grammar_close(w->grammar);
    tt_grammar_close(w->with_end);
    pcre2_code_free(w->re);
    return 0;
}

typedef struct {
    char name[100];
    tt_params params;
    tt_run_spec spec;
    tt_run run;
    tt_constraint constraint;
    int join;
    int32_t id[COLUMNS], given[COLUMNS], alone[COLUMNS], eos;
    uint8_t open[COLUMNS];
} trial;

static void fill_spec(trial *t, const world *w, int model, const tt_sampler *s, bool hole)
{
    t->constraint = hole ? (tt_constraint){BEGIN, END, w->grammar, false}
                         : (tt_constraint){PROMPT, COLUMNS, w->with_end, true};
    t->spec = (tt_run_spec){.sampler = s, .model = w->model[model], .params = &t->params,
                            .guide = s->needs_guide ? w->model[3] : NULL,
                            .id = t->id, .open = t->open, .columns = COLUMNS,
                            .prompt = hole ? 0 : PROMPT, .vocab = VOCAB,
                            .noise = {.kind = TT_NOISE_PHILOX, .seed = 11},
                            .constraint = &t->constraint, .constraints = 1};
    for (int32_t c = 0; c < COLUMNS; c++) {
        t->given[c] = t->id[c] = (c * 37 + 5) % 290;
        t->open[c] = hole ? c >= BEGIN - 2 && c < END + 2 : c >= PROMPT;
    }
}

static void set(trial *t, const char *name, double value)
{
    tt_err e;
    if (tt_params_set(&t->params, tt_param_find(name), value, &e))
        fail_msg("%s", e.text);
}

static int list_trials(const world *w, trial *list)
{
    int n = 0;
    for (const tt_sampler *const *s = tt_sampler_all(); *s; s++)
        for (int model = 0; model < 3; model++)
            for (int cache = 0; tt_cache_names[cache]; cache++)
                for (int hole = 0; hole < 2; hole++) {
                    const tt_model_info *info = &w->model[model]->info;
                    bool fits = tt_sampler_fits(*s, info->kinds) &&
                                (!hole || (!(*s)->needs_guide && model < 2));
                    if (!fits || ((*s)->caches ? !((*s)->caches >> cache & 1) : cache != 0))
                        continue;
                    trial *t = &list[n];
                    tt_params_default(&t->params);
                    fill_spec(t, w, model, *s, hole);
                    if ((*s)->caches)
                        set(t, "cache", cache);
                    t->params.temperature = 1;
                    t->params.block_length = strcmp((*s)->name, "dream_fast") || cache ? 8 : 0;
                    t->params.threshold = t->params.draft_threshold = 0.05;
                    t->params.steps = 9;
                    if (!strcmp((*s)->name, "dream_fast"))
                        t->params.steps = cache ? 14 : hole ? 13 : 14;
                    t->join = n % 7;
                    snprintf(t->name, sizeof t->name, "%s, cache %s, %s%s", (*s)->name,
                             tt_cache_names[cache], info->family, hole ? ", hole" : "");
                    assert_true(++n < MOST);
                }
    return n;
}

static void start(trial *t)
{
    tt_err e;
    if (tt_run_open(&t->run, &t->spec, &e))
        fail_msg("%s: %s", t->name, e.text);
    t->run.seq.eos_id = 299; /* an id that the grammar knows as a stop */
}

/* The text of the constrained columns matches; behind a stop token come only such. */
static void finish(const world *w, trial *t)
{
    char text[COLUMNS * 8];
    size_t n = 0, bytes = 0;
    bool over = false;
    for (int32_t c = 0; c < COLUMNS; c++)
        if (t->run.seq.id[c] == t->run.seq.mask_id)
            fail_msg("%s: column %d stays open", t->name, c);
    for (int32_t c = t->constraint.begin; c < t->constraint.end; c++) {
        int32_t id = t->run.seq.id[c];
        over |= id == 299;
        const char *p = id == 299 ? "" : piece(NULL, id, &bytes);
        if (!p || (over && id != 299))
            fail_msg("%s: token %d at column %d", t->name, id, c);
        if (!over) {
            memcpy(text + n, p, bytes);
            n += bytes;
        }
    }
    if (!pcre_matches(w->re, text, n))
        fail_msg("%s: '%.*s' does not match", t->name, (int)n, text);
    memcpy(t->id, t->run.seq.id, sizeof t->id);
    tt_run_close(&t->run);
    t->run.sampler = NULL;
}

/* Runs trials of one model together; each enters at its own step. */
static void run_together(const world *w, trial **list, int n, bool stagger)
{
    tt_batch batch = {0};
    tt_run **run = calloc((size_t)n, sizeof *run);
    trial **in = calloc((size_t)n, sizeof *in);
    tt_err e;
    for (int step = 0, left = n; left; step++) {
        int64_t k = 0;
        const tt_model *model = NULL;
        assert_true(step < 4000);
        for (int i = 0; i < n; i++) {
            trial *t = list[i];
            if (step == (stagger ? t->join : 0))
                start(t);
            if (step < (stagger ? t->join : 0) || !t->run.sampler)
                continue;
            tt_run_plan(&t->run);
            if (t->run.failed)
                fail_msg("%s: %s", t->name, t->run.error.text);
            if (model && tt_run_model(&t->run) != model)
                continue; /* the guide's turn comes */
            model = tt_run_model(&t->run);
            in[k] = t;
            run[k++] = &t->run;
        }
        if (tt_batch_step(&batch, run, k, &e))
            fail_msg("%s", e.text);
        for (int64_t i = 0; i < k; i++) {
            if (in[i]->run.failed)
                fail_msg("%s: %s", in[i]->name, in[i]->run.error.text);
            if (in[i]->run.done) {
                finish(w, in[i]);
                left--;
            }
        }
    }
    tt_batch_free(&batch);
    free(run);
    free(in);
}

static void every_sampler_fills_what_matches_alone_and_in_a_batch(void **state)
{
    const world *w = *state;
    trial *all = calloc(MOST, sizeof *all), **list = calloc(MOST, sizeof *list);
    int n = list_trials(w, all), different = 0;
    assert_true(n > 100);
    for (int seed = 0; seed < 3; seed++) {
        for (int i = 0; i < n; i++) {
            all[i].spec.noise.seed = (uint64_t)seed;
            memcpy(all[i].id, all[i].given, sizeof all[i].id);
            list[0] = &all[i];
            run_together(w, list, 1, false);
            different += memcmp(all[i].alone, all[i].id, sizeof all[i].id) != 0;
            memcpy(all[i].alone, all[i].id, sizeof all[i].id);
            memcpy(all[i].id, all[i].given, sizeof all[i].id);
        }
        for (int model = 0; model < 3; model++) {
            int k = 0;
            for (int i = 0; i < n; i++)
                if (all[i].spec.model == w->model[model])
                    list[k++] = &all[i];
            run_together(w, list, k, true);
        }
        for (int i = 0; i < n; i++)
            if (memcmp(all[i].alone, all[i].id, sizeof all[i].id))
                fail_msg("%s: other tokens in a batch than alone", all[i].name);
    }
    assert_true(different > 2 * n); /* seeds differ */
    free(all);
    free(list);
}

static void what_cannot_be_is_refused_before_any_work(void **state)
{
    const world *w = *state;
    static trial t;
    tt_err e = {0};
    tt_params_default(&t.params);
    fill_spec(&t, w, 0, tt_sampler_find("low_confidence"), true);
    assert_false(tt_grammar_fits(w->grammar, 3, false));
    assert_true(tt_grammar_fits(w->grammar, 4, false)); /* {" abc ": [ ]} */
    t.constraint.end = BEGIN + 2;
    assert_int_equal(tt_run_open(&t.run, &t.spec, &e), TT_EINVAL);
    assert_string_equal(e.code, "constraint_unsatisfiable");
    fill_spec(&t, w, 0, tt_sampler_find("low_confidence"), true);
    t.open[BEGIN] = 0; /* a given token that no text begins with */
    t.id[BEGIN] = 'x';
    assert_int_equal(tt_run_open(&t.run, &t.spec, &e), TT_EINVAL);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(expressions_mean_what_they_mean_elsewhere),
        cmocka_unit_test(a_dot_is_a_code_point),
        cmocka_unit_test(what_is_not_understood_is_refused_with_its_place),
        cmocka_unit_test(every_sampler_fills_what_matches_alone_and_in_a_batch),
        cmocka_unit_test(what_cannot_be_is_refused_before_any_work),
    };
    return cmocka_run_group_tests_name("constraints", tests, setup, teardown);
}
