/* bench.h - one golden folder of a text model under test: its model, expected tensors, counts. */
#ifndef TT_GOLDEN_BENCH_H
#define TT_GOLDEN_BENCH_H

#include "models/kv.h"

typedef struct {
    const char *dir, *glob;
    const char *model_dir; /* where the model lies; NULL: dir */
    tt_stream *stream;
    tt_model *model;
    tt_weights *weights, *expected;
    tt_config *config;
    /* Further models of traces, or NULL; they belong to the replayer. */
    tt_model *guide; /* of guided traces */
    tt_model *timed; /* conditioned on the noise level */
    bool routes; /* has experts: where rounded, a route chosen by a hair may be another one */
    int passed, failed;
} bench;

/* How models are opened, and how far their tensors may lie off, as a relative L2 distance: float32
 * and 1e-5, or bfloat16 and 2e-2, three times as much with experts (`replay --weights bf16`). */
extern tt_weights_mode bench_weights;
extern double bench_tolerance;

/* Opens dir's model on the device; a failure is reported as a failed case. */
bool bench_open(bench *b, const char *device);
/* Opens DIR/expected.safetensors. */
bool bench_expect(bench *b);
void bench_close(bench *b);

/* Counts one case. */
void report(bench *b, const char *name, bool ok, const char *why);
/* An expected tensor, or NULL. */
const float *expect(bench *b, const char *name, int64_t *n);
const int64_t *integers(bench *b, const char *name, int64_t *n);
/* One case: distance to the expected tensor of this name within what is allowed. */
void compare(bench *b, const char *name, const float *have);

/* One pass over columns [begin, end) of a sequence, with every row's logits. */
typedef struct {
    const int64_t *ids; /* of the whole sequence */
    int32_t begin, end, see_begin, see_end;
    tt_see see;
    int32_t block; /* for TT_SEE_BLOCK */
    float sigma;   /* for models conditioned on the noise level */
    tt_kv *kv;
    const int64_t *position; /* NULL: the column */
} forward_spec;
tt_status forward(bench *b, const forward_spec *f, float *logits, float *hidden, tt_err *e);

/* Cases full.logits and full.hidden.N of full.input_ids. */
void full_tensors(bench *b);
/* The same under TT_SEE_BLOCK. */
void full_block_tensors(bench *b, int32_t block);
/* Cases cache.prefix_logits and cache.dual_logits; filled (may be NULL) sees the store after the
 * full pass. */
void cache_tensors(bench *b, void (*filled)(bench *b, const tt_kv *kv));

/* A JSON file of the folder, or NULL. */
struct cJSON *read_json(const bench *b, const char *file);
/* Pictures that searches decoded, by the FlexTok beside the folder (replay_flextok.c). */
void tt_replay_search_pictures(bench *b, const struct cJSON *trace, const char *device);
/* Replays a trace file (traces.c); one that is not required may be absent. */
void replay_traces(bench *b, const char *file, bool required);

#endif
