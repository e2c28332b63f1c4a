/* engine.h - the library's face: open models, submit jobs, look at them, cancel them.
 *
 * The engine owns the device, the models and one thread that runs the step loop: at every step
 * it takes in new jobs, asks each running sequence's sampler for its rows, runs all of them as
 * one pass, and lets the samplers commit tokens. A job may join or leave at any step. HTTP, batch
 * and the command line use only this header; all functions are thread-safe unless said otherwise.
 *
 * A job's state is published, not queued: readers take a copy of the current canvas whenever they
 * like and compare with what they saw before. So a slow reader costs nobody anything and always
 * gets the newest state. */
#ifndef TT_ENGINE_H
#define TT_ENGINE_H

#include <stdbool.h>

#include "models/model.h"
#include "samplers/constraint.h"
#include "samplers/params.h"
#include "samplers/sampler.h"
#include "server/labels.h"
#include "server/picture_search.h"
#include "tokenizers/text.h"

typedef struct tt_engine tt_engine;
typedef struct tt_job tt_job;

typedef struct {
    const char *device;   /* as tt_stream_open; NULL: "auto" */
    int threads;          /* CPU threads of the operations; 0: cores - 1, at least 1 */
    int max_queue;        /* jobs waiting beyond those running; 0: 256 */
    int max_running;      /* sequences in the step batch; 0: 64 */
    int64_t max_rows;     /* rows of one pass; 0: 4096. A sequence longer than this is refused */
    size_t max_bytes;     /* memory for all admitted jobs; 0: half of the machine's */
    bool random_weights;  /* models are opened from config.json alone, to measure their shape */
} tt_engine_options;

tt_status tt_engine_open(tt_engine **out, const tt_engine_options *o, tt_err *e);
/* Cancels what runs and waits for the engine thread. Jobs must have been released or be released
 * later; their state stays readable. */
void tt_engine_close(tt_engine *g); /* NULL is fine */

/* --- models --- */

/* What an image model is: a generator and the codec of its tokens; or a codec alone, whose
 * generator is a name without labels. */
typedef struct {
    const tt_generator_info *generator;
    const tt_codec *codec; /* for what needs no device: its info, masks */
    const tt_planner *planner; /* NULL: a codec alone */
    const tt_labels *labels; /* NULL: its labels have no names */
    const tt_text_encoder *text; /* of models that read prompts; else NULL */
} tt_image_model;

/* An open model. Read-only; lives as long as the engine. */
typedef struct {
    const char *id; /* as in requests */
    const char *folder;
    const tt_image_model *image; /* of image models; info, tok, chat, sampler and stop ids are then
                                    empty. NULL: a text model */
    tt_verifier *verifier; /* of a verifier, which makes nothing; its device calls are the engine's.
                              Else NULL */
    tt_model_info info;
    const tt_tok *tok;           /* NULL: the folder has no tokenizer; requests must send ids */
    const tt_chat_format *chat;  /* NULL: no chat; why_no_chat says why */
    const char *why_no_chat;
    const tt_sampler *sampler;   /* default */
    tt_params defaults;          /* default parameters of this model */
    int32_t stop_id[8];          /* ids that end an answer: eos, eot, the chat format's */
    int stop_ids;
    int64_t created;             /* Unix seconds: when the weights file was written */
    char digest[33];             /* hex of the XXH3-128 of config and tensor headers */
} tt_served;

/* Loads the folder under this id; sequential, before or while serving. The weights mode is
 * TT_WEIGHTS_AUTO unless asked. progress(arg, 0..1) may be NULL. */
tt_status tt_engine_add_model(tt_engine *g, const char *id, const char *folder,
                              tt_weights_mode mode, void (*progress)(void *arg, double done),
                              void *arg, tt_err *e);
const tt_served *tt_engine_find(const tt_engine *g, const char *id); /* NULL when unknown */
size_t tt_engine_models(const tt_engine *g);
const tt_served *tt_engine_model(const tt_engine *g, size_t i);
/* "onednn: AMD EPYC, avx512+bf16, 1 thread ..." */
void tt_engine_describe(const tt_engine *g, char *text, size_t size);

/* --- jobs --- */

typedef enum {
    TT_FINISH_NONE,     /* not finished */
    TT_FINISH_STOP,     /* a stop id was produced, or tt_job_stop() */
    TT_FINISH_LENGTH,   /* the canvas is full */
    TT_FINISH_CANCELLED,
    TT_FINISH_DEADLINE,
    TT_FINISH_ERROR,    /* tt_view.error says what */
} tt_finish;

/* What to generate. Everything is copied by tt_engine_submit(). */
typedef struct {
    const tt_served *model;
    const tt_sampler *sampler; /* NULL: the model's default */
    const tt_served *guide;    /* causal model of the same vocabulary, or NULL */
    tt_params params;          /* start from model->defaults */
    /* The canvas: columns with open[c] = 1 are to be filled (their id is ignored), the others are
     * fixed. At least one column must be open. Samplers that insert take a run of open columns as
     * room for so many tokens, and open[c] = 2 as a token that must be there. */
    const int32_t *id;
    const uint8_t *open;
    int32_t columns;
    int32_t prompt; /* leading fixed columns that are the prompt; blocks begin after it. 0 for
                       infilling: blocks then partition the whole canvas */
    int32_t samples; /* n: independent generations, at least 1 */
    uint64_t seed;   /* sample i draws from (seed, i) */
    const tt_id_value *bias; /* logit_bias: added to every open column; -inf bans the id */
    int32_t n_bias;
    bool stop_early; /* end a sample when a stop id is committed and no open column lies before
                        it; and never pay for the columns behind */
    bool shrink;     /* with stop_early: once a stop id is committed, the columns behind it are no
                        longer filled nor fed. They would have been padding; but a token before
                        the stop may come out differently than with the padding in sight */
    bool ban_stops;  /* stop ids are impossible (holes inside a text) */
    /* Suggested tokens of open columns, by column; -1: none. Open columns right of those a step
     * decides show theirs to the model; where a step would choose the suggested token itself, the
     * token is committed at once. For samplers that read: the tokens to score. NULL: none. */
    const int32_t *draft;
    const tt_column_rule *rule; /* ids possible or impossible at some columns */
    int32_t rules;
    const tt_constraint *constraint; /* holes whose text matches a grammar, not overlapping;
                                        references are taken */
    int32_t constraints;
    const int32_t *negative; /* another prompt: guidance (cfg_scale) leads away from it */
    int32_t negatives;       /* its ids; 0: away from the prompt masked */
    tt_encoding encoding;    /* of samplers that encode */
    /* Jobs of image models: the canvas is the codec's tokens, and of what follows and stands above
     * only params, samples, seed, continues and the times and wakes count. NULL: text. */
    const tt_picture_spec *picture;
    const tt_picture_search_spec *search; /* of jobs that make images: they come of a search, best
                                             first, as many as samples and search->results */
    bool continues; /* goes on with a request that was taken in before: a full queue is no reason
                       to refuse it */
    bool log;       /* keep every change of the canvas, in order: tt_view.change */
    int32_t n_top;   /* alternatives per committed token to keep, at most TT_MAX_TOP */
    int64_t deadline_ms; /* from submission; 0: none */
    int32_t priority;    /* lower runs first */
    /* Called on the engine's thread after each published change, and once when the job ends; must
     * not block, call back into the engine, or free the job. wake_steps: also call for steps,
     * not only at the end. */
    void (*wake)(void *arg);
    void *wake_arg;
    bool wake_steps;
} tt_job_spec;

/* Queues the job. TT_EBUSY (queue full; retry_after_ms then holds an estimate when not NULL),
 * TT_ENOMEM (would never fit), TT_EINVAL naming the parameter. On success the caller owns one
 * reference. */
tt_status tt_engine_submit(tt_engine *g, const tt_job_spec *spec, tt_job **out,
                           int64_t *retry_after_ms, tt_err *e);

/* State of one sample. Arrays are owned by the view (tt_view_free) and reused when it is passed
 * again. */
typedef struct {
    int32_t columns;
    int32_t *id;      /* -1 for a column still open */
    int32_t *step;    /* at which it was last committed; 0: fixed from the start, else >= 1 */
    float *logprob;   /* of the committed token under the model; 0 for fixed */
    int32_t *recurrences; /* of the column's state so far; NULL but for recurrent depth */
    tt_depth_counts depth; /* and what they cost */
    tt_id_value *top; /* columns x n_top, or NULL */
    int32_t n_top;
    int32_t now, of;  /* steps done, and expected in all (an estimate that may grow) */
    int32_t unsettled; /* so many columns at the end may still be revised once committed */
    int32_t nfe;      /* forward passes this sample took part in */
    int32_t end;      /* first column not part of the answer: after the last fixed column or at
                         the stop id that ended it; columns if none */
    uint64_t version; /* changes whenever anything above does */
    tt_finish finish;
    tt_err error;     /* for TT_FINISH_ERROR */
    tt_features features; /* of an encoding run that has finished */
    tt_change *change;    /* with log: all so far, in order */
    size_t changes;
    uint8_t *picture; /* of images: height x width x 3 of the model's codec, the newest one, once
                         pictures > 0 */
    int32_t pictures; /* so far: previews, and at the end the image itself */
    int32_t picture_step; /* steps done when it was taken */
    /* Of pictures read crop by crop: crops looked at so far, which, and the message after each
     * (looks x columns); and where each message lies (tt_painting). */
    int32_t looks, crop[TT_MAX_CROPS + 1];
    int32_t *trail;
    float offset[TT_MAX_CROPS + 1][2];
    int32_t capacity; /* the view's own, as is the next */
    size_t change_room, picture_bytes, trail_bytes;
} tt_view;

/* How the search of a job went so far: as tt_picture_search_report(). False without a search. */
bool tt_job_search(tt_job *j, tt_search_report *out);

/* Copies the newest state of sample i. Returns false, and leaves *v alone, when version is still
 * v->version (start with a zeroed view). Never blocks for long. */
bool tt_job_view(tt_job *j, int32_t sample, tt_view *v);
void tt_view_free(tt_view *v);

/* Waits until version differs from what `seen` holds for any sample, the job is finished, or
 * timeout_ms passed (-1: no limit). seen: one version per sample. True when something changed.
 * For batch and command line; HTTP uses wake. */
bool tt_job_wait(tt_job *j, const uint64_t *seen, int timeout_ms);

bool tt_job_finished(tt_job *j);
/* Ends sample i as TT_FINISH_STOP (a stop string was seen) or the whole job as cancelled, within
 * one step. Safe to call on finished jobs. */
void tt_job_stop(tt_job *j, int32_t sample);
void tt_job_cancel(tt_job *j);
/* Gives the reference back; cancels first if it still runs. wake is not called afterwards: this
 * waits for a call in progress, so do not hold a lock that wake takes. */
void tt_job_release(tt_job *j);

typedef struct {
    double queue_ms, run_ms; /* submission -> first pass -> end (so far) */
} tt_job_times;
tt_job_times tt_job_get_times(tt_job *j);
/* Jobs ahead of this one in the queue; 0 when running or done. */
int32_t tt_job_ahead(tt_job *j);

/* --- numbers for metrics; counters never go down --- */

typedef struct {
    int64_t running, waiting;           /* sequences in the batch, jobs queued */
    int64_t bytes_used, bytes_limit;    /* of admitted jobs */
    int64_t passes, rows, wants;        /* forward passes, rows in them, head rows */
    int64_t committed, revised;         /* tokens */
    int64_t picture_passes[TT_PICTURE_PASSES], pictures; /* of passes; images in all of them */
    int64_t finished[TT_FINISH_ERROR + 1];
    double pass_seconds;                /* spent in forwards */
    int64_t step_bucket[16];            /* passes of at most 2^i * 0.25 ms; the last: all others */
} tt_engine_stats;
void tt_engine_get_stats(tt_engine *g, tt_engine_stats *out);

#endif
