/* bench.h - the parts of `tutti bench`: what a model reaches on this device, against what the
 * device could do.
 *
 * A part prints a table on stdout as its figures come and adds members to the JSON object that
 * b->json has open. One model is loaded; the engine is idle while forwards are timed, so the model
 * may be run from here. */
#ifndef TT_BENCH_H
#define TT_BENCH_H

#include <stdio.h>

#include "server/engine.h"
#include "server/json_write.h"

enum { TT_BENCH_LIST = 16 };

typedef struct {
    int64_t v[TT_BENCH_LIST];
    int n;
    bool given; /* by an option: what does not fit the model is an error, not left out */
} tt_bench_list;

/* Of what is measured. */
typedef struct {
    double seconds;         /* for each forward figure; three runs at least */
    tt_bench_list rows;     /* of forwards without a store */
    tt_bench_list batch;    /* sequences in forwards of a block over stored columns */
    tt_bench_list streams;  /* generations at the same time */
    int64_t block, cached;  /* columns; cached -1: 1024 or what the context leaves */
    int64_t prompt, tokens; /* of a generation; -1: 256 or half of the context */
    int64_t tokens_per_step;
    tt_cache_kind cache[TT_BENCH_LIST]; /* generations are measured with each */
    int caches;
    int64_t max_rows; /* of a pass */
} tt_bench_sizes;

typedef struct {
    tt_engine *engine;
    const tt_served *served;
    tt_model *model;
    tt_stream *stream;
    tt_bench_sizes sizes;            /* fitted to the model */
    tt_ceilings ceilings;            /* all 0: the backend cannot tell */
    size_t loaded_bytes;             /* device memory once the model was loaded; 0: not known */
    size_t peak_bytes, beyond_bytes; /* the most so far, and beyond model and stores */
    FILE *out;
    tt_json json;
    bool progress;
} tt_bench;

/* Chooses what was left open and checks the rest against the model. TT_EINVAL names the option. */
tt_status tt_bench_fit(tt_bench_sizes *s, const tt_model_info *info, tt_err *e);

/* The parts, in this order: floors need ceilings, the last sums up. */
tt_status tt_bench_ceilings(tt_bench *b, tt_err *e);
tt_status tt_bench_forwards(tt_bench *b, tt_err *e);
tt_status tt_bench_generation(tt_bench *b, tt_err *e);
void tt_bench_memory(tt_bench *b);

/* Instead of them for a folder with an image generator and its codec: images made in a few steps
 * with guidance, with and without reused features, and decoded; batches of b->sizes.batch at a
 * time (1, 8, 64 unless given). It opens the device itself; random: without checkpoints. */
tt_status tt_bench_images(tt_bench *b, const char *folder, const char *device, int threads,
                          tt_weights_mode mode, bool random, tt_err *e);

/* For a folder with a codec alone: pictures read and painted. */
tt_status tt_bench_codec(tt_bench *b, const char *folder, const char *device, int threads,
                         tt_weights_mode mode, bool random, tt_err *e);

/* Takes note of the memory needed since the call before, of which key/value stores of `columns`
 * columns were a part. Returns what lay beyond them and the model, 0 when not known. */
size_t tt_bench_note_memory(tt_bench *b, int64_t columns);

/* What a pass cannot be quicker than: seconds of memory traffic and of arithmetic (0: not known).
 * wants: rows of the head; stored: columns read from stores, all sequences together; seen: sum
 * over rows of the columns they attend to. */
typedef struct {
    double memory, arithmetic;
} tt_bench_floor;
tt_bench_floor tt_bench_floor_of(const tt_bench *b, double bytes, double flops);
tt_bench_floor tt_bench_least(const tt_bench *b, int64_t rows, int64_t wants, int64_t stored,
                              int64_t seen);

/* A line on the terminal that the next one replaces; NULL clears it. */
void tt_bench_say(const tt_bench *b, const char *fmt, ...) __attribute__((format(printf, 2, 3)));

#endif
