/* Insertion models. What can go wrong: a config that contradicts itself, a classifier or norm that
 * is not there, rows classified by a model that has no classes, rounded weights, logits that depend
 * on the rows of other sequences. */
#include <math.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include <cmocka.h>

#include "models/model.h"

#define FOLDER "tests/golden/insertion-lm/model_"

typedef struct {
    tt_stream *stream;
    tt_weights *weights[2];
    tt_config *config[2];
    tt_model *model[2]; /* stopping, length */
    char text[2][2048]; /* config.json */
} world;

static int setup(void **state)
{
    static world w;
    static const char *const folder[] = {FOLDER "stopping", FOLDER "length"};
    tt_err e = {0};
    if (tt_stream_open(&w.stream, "plain", 2, &e))
        return -1;
    for (int i = 0; i < 2; i++) {
        char path[100];
        snprintf(path, sizeof path, "%s/config.json", folder[i]);
        FILE *f = fopen(path, "rb");
        if (!f)
            return -1;
        w.text[i][fread(w.text[i], 1, sizeof w.text[i] - 1, f)] = '\0';
        fclose(f);
        if (tt_model_open(&w.model[i], &w.weights[i], &w.config[i], w.stream, folder[i],
                          TT_WEIGHTS_F32, NULL, NULL, &e)) {
            print_error("%s\n", e.text);
            return -1;
        }
    }
    *state = &w;
    return 0;
}

static int teardown(void **state)
{
    world *w = *state;
    for (int i = 0; i < 2; i++) {
        tt_model_close(w->model[i]);
        tt_weights_close(w->weights[i]);
        tt_config_close(w->config[i]);
    }
    tt_stream_close(w->stream);
    return 0;
}

/* Opens golden weights with a part of their config replaced; *out and *c are the caller's. */
static tt_status open_with(const world *w, int i, const char *from, const char *to,
                           tt_weights_mode mode, tt_model **out, tt_config **c, tt_err *e)
{
    char text[2400];
    const char *at = strstr(w->text[i], from);
    assert_non_null(at);
    snprintf(text, sizeof text, "%.*s%s%s", (int)(at - w->text[i]), w->text[i], to,
             at + strlen(from));
    *out = NULL;
    tt_status s = tt_config_open_text(c, text, strlen(text), e);
    return s ? s
             : w->model[0]->def->open(out, w->stream, w->weights[i], *c, mode, NULL, NULL, e);
}

static void bad_configs_name_the_key(void **state)
{
    const world *w = *state;
    static const struct {
        int model;
        const char *from, *to, *says;
    } bad[] = {
        {0, "\"d_model\": 48", "\"d_model\": 50", "nhead"},
        {0, "\"nhead\": 3", "\"nhead\": 4", "rotary_emb_dim"}, /* the head is 12 wide, below 16 */
        {0, "\"nhead\": 3", "\"nhead\": 0", "nhead"},
        {0, "\"rotary_emb_dim\": 8", "\"rotary_emb_dim\": 18", "rotary_emb_dim"},
        {0, "\"rotary_emb_dim\": 8", "\"rotary_emb_dim\": 7", "rotary_emb_dim"},
        {0, "\"activation\": \"relu\"", "\"activation\": \"swish\"", "activation"},
        {0, "\"head\": \"stopping\"", "\"head\": \"both\"", "head"},
        {0, "\"num_classes\": 2", "\"num_classes\": 3", "num_classes"},
        {0, "\"max_length\": 40", "\"max_length\": 2", "max_length"},
        {0, "\"cls_token_id\": 20", "\"cls_token_id\": 28", "cls_token_id"},
        {0, "\"bos_token_id\": 21", "\"no_bos\": 21", "bos_token_id"},
        {0, "\"mask_token_id\": 25", "\"mask_token_id\": 99", "99"},
        {0, "\"dropout\": 0.0", "\"tokens_to_suppress\": [3, 28]", "tokens_to_suppress"},
        {0, "\"dropout\": 0.0",
         "\"tokens_to_suppress\": [0, 1, 2, 3, 4, 5, 6, 7, 8, 9, 10, 11, 12, 13, 14, 15, 16]",
         "tokens_to_suppress"},
        {0, "\"num_layers\": 3", "\"num_layers\": 4", "encoder.3."},
        {0, "\"dim_feedforward\": 96", "\"dim_feedforward\": 97", "mlp.0.weight"},
        {0, "\"num_embeddings\": 28", "\"num_embeddings\": 29", "embed_tokens.weight"},
        {0, "\"final_layer_without_normalization\": true",
         "\"final_layer_without_normalization\": false", "output_layer.norm_final.weight"},
        {1, "\"num_classes\": 12", "\"num_classes\": 13", "length_output_layer.linear.weight"},
    };
    for (size_t i = 0; i < sizeof bad / sizeof *bad; i++) {
        tt_err e = {0};
        tt_model *m;
        tt_config *c;
        tt_status s = open_with(w, bad[i].model, bad[i].from, bad[i].to, TT_WEIGHTS_F32, &m, &c,
                                &e);
        bool unhappy = s == TT_EFORMAT || s == TT_EUNSUP;
        if (!strcmp(bad[i].to, "\"nhead\": 4")) { /* 12 channels rotate 8: that is possible */
            assert_int_equal(s, TT_OK);
            tt_model_close(m);
        } else if (!unhappy || !strstr(e.text, bad[i].says)) {
            fail_msg("%s: status %d, \"%s\"", bad[i].to, s, e.text);
        }
        tt_config_close(c);
    }
}

/* The golden file with its classifier's tensors under another name of the same length. */
static void a_missing_classifier_is_named(void **state)
{
    const world *w = *state;
    static char image[400000];
    FILE *f = fopen(FOLDER "stopping/model.safetensors", "rb");
    assert_non_null(f);
    size_t n = fread(image, 1, sizeof image, f);
    fclose(f);
    uint64_t header;
    memcpy(&header, image, 8);
    char *p = image;
    while ((p = memmem(p, header - (size_t)(p - image), "\"length_out", 11)))
        p[1] = 'L';
    tt_weights *renamed;
    tt_config *c;
    tt_model *m = NULL;
    tt_err e = {0};
    assert_int_equal(tt_weights_open_memory(&renamed, image, n, &e), TT_OK);
    assert_int_equal(tt_config_open_text(&c, w->text[0], strlen(w->text[0]), &e), TT_OK);
    assert_int_equal(w->model[0]->def->open(&m, w->stream, renamed, c, TT_WEIGHTS_F32, NULL, NULL,
                                            &e),
                     TT_EFORMAT);
    assert_non_null(strstr(e.text, "classifier: tensor 'length_output_layer.norm_final.weight'"));
    tt_config_close(c);
    tt_weights_close(renamed);
}

static void what_is_known_is_told(void **state)
{
    const world *w = *state;
    const tt_model_info *a = &w->model[0]->info, *b = &w->model[1]->info;
    assert_int_equal(a->kinds, TT_KIND_INSERTION);
    assert_int_equal(a->context, 38);
    assert_int_equal(a->classes, 2);
    assert_int_equal(b->classes, 12);
    assert_float_equal(a->stopping_threshold, 0.9, 0);
    assert_float_equal(b->stopping_threshold, 0.5, 0);
    assert_int_equal(a->nevers, 5); /* cls, bos, eos, mask, pad */
    assert_string_equal(b->architecture, "RotaryTransformerILMModelWithLengthClassification");
    assert_string_equal(a->sampler, "insertion");
    tt_buf unread = {0};
    assert_int_equal(tt_config_unread(w->config[0], &unread), 0);
    tt_buf_free(&unread);
}

enum { ROWS = 23, VOCAB = 28 };

typedef struct {
    float logits[ROWS * VOCAB], classes[3 * 12];
} outcome;

static tt_status run(tt_model *m, const int32_t *id, const int64_t *length, int seqs, outcome *out,
                     tt_err *e)
{
    static tt_want want[ROWS];
    static tt_row_stats stats[ROWS];
    int32_t position[ROWS];
    int64_t rows = 0, class_row[8];
    tt_pass_seq seq[8];
    for (int s = 0; s < seqs; s++) {
        seq[s] = (tt_pass_seq){.row = rows, .rows = length[s], .see_end = (int32_t)length[s]};
        class_row[s] = rows;
        for (int64_t i = 0; i < length[s]; i++, rows++) {
            position[rows] = (int32_t)i;
            want[rows] = (tt_want){.row = rows, .uncond = -1, .draw = {.top_p = 1, .target = -1}};
        }
    }
    tt_pass p = {.rows = rows, .id = id, .position = position, .column = position, .seqs = seqs,
                 .seq = seq, .wants = rows, .want = want, .stats = stats, .logits = out->logits,
                 .classified = seqs, .class_row = class_row, .classes = out->classes};
    return tt_model_run(m, &p, e);
}

static const int32_t ids[ROWS] = {20, 21, 4,  6, 8, 20, 11, 6, 2,  11, 21, 3,
                                  3,  20, 21, 1, 2, 3,  4,  5, 18, 7,  0};
static const int64_t lengths[3] = {5, 8, 10};

static void a_sequence_is_its_own(void **state)
{
    const world *w = *state;
    for (int i = 0; i < 2; i++) {
        static outcome all, one;
        tt_err e = {0};
        assert_int_equal(run(w->model[i], ids, lengths, 3, &all, &e), TT_OK);
        for (int s = 0, row = 0; s < 3; row += (int)lengths[s++]) {
            int classes = w->model[i]->info.classes;
            assert_int_equal(run(w->model[i], ids + row, &lengths[s], 1, &one, &e), TT_OK);
            assert_memory_equal(one.logits, all.logits + row * VOCAB,
                                (size_t)(lengths[s] * VOCAB) * sizeof(float));
            assert_memory_equal(one.classes, all.classes + s * classes,
                                (size_t)classes * sizeof(float));
        }
    }
}

/* But for the rows of [CLS], which nothing is ever inserted after: their logits are untrained. */
static void rounded_weights_stay_near(void **state)
{
    const world *w = *state;
    static outcome exact, rounded;
    for (int i = 0; i < 2; i++) {
        tt_err e = {0};
        tt_model *m;
        tt_config *c;
        assert_int_equal(open_with(w, i, "\"dropout\"", "\"dropout\"", TT_WEIGHTS_INT8, &m, &c, &e),
                         TT_OK);
        assert_int_equal(run(w->model[i], ids, lengths, 3, &exact, &e), TT_OK);
        assert_int_equal(run(m, ids, lengths, 3, &rounded, &e), TT_OK);
        double off = 0, norm = 0;
        for (int k = 0; k < ROWS * VOCAB; k++) {
            if (ids[k / VOCAB] == 20)
                continue;
            off += pow((double)rounded.logits[k] - exact.logits[k], 2);
            norm += pow((double)exact.logits[k], 2);
        }
        if (!(off > 0 && sqrt(off / norm) < 0.05))
            fail_msg("model %d: the logits differ by %g", i, sqrt(off / norm));
        for (int k = 0; k < 3 * m->info.classes; k++)
            assert_float_equal(rounded.classes[k], exact.classes[k], 0.5);
        tt_model_close(m);
        tt_config_close(c);
    }
}

static void only_classifiers_classify(void **state)
{
    const world *w = *state;
    static outcome out, before;
    tt_err e = {0};
    tt_model *m;
    tt_config *c;
    assert_int_equal(open_with(w, 0, "\"head\": \"stopping\"", "\"head\": \"none\"",
                               TT_WEIGHTS_F32, &m, &c, &e), TT_OK);
    assert_int_equal(m->info.nevers, 4); /* without a classifier padding is possible */
    assert_int_equal(run(m, ids, lengths, 3, &out, &e), TT_EINVAL);
    assert_non_null(strstr(e.text, "classified"));
    assert_int_equal(run(w->model[0], ids, lengths, 3, &before, &e), TT_OK);
    tt_model_close(m);
    tt_config_close(c);
}

static void a_shape_without_weights_runs(void **state)
{
    const world *w = *state;
    tt_weights *weights;
    tt_config *config;
    tt_model *m;
    tt_err e = {0};
    static outcome out;
    if (tt_model_open_random(&m, &weights, &config, w->stream, FOLDER "length", TT_WEIGHTS_F32,
                             NULL, NULL, &e))
        fail_msg("%s", e.text);
    assert_int_equal(run(m, ids, lengths, 3, &out, &e), TT_OK);
    for (int k = 0; k < ROWS * VOCAB; k++)
        assert_true(isfinite(out.logits[k]));
    tt_model_close(m);
    tt_weights_close(weights);
    tt_config_close(config);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(bad_configs_name_the_key),
        cmocka_unit_test(a_missing_classifier_is_named),
        cmocka_unit_test(what_is_known_is_told),
        cmocka_unit_test(a_sequence_is_its_own),
        cmocka_unit_test(rounded_weights_stay_near),
        cmocka_unit_test(only_classifiers_classify),
        cmocka_unit_test(a_shape_without_weights_runs),
    };
    return cmocka_run_group_tests_name("insertion models", tests, setup, teardown);
}
