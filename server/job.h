/* job.h - a validated job and its published state; shared by the engine's files only.
 *
 * A job has two owners: whoever submitted it and the engine. The engine's thread writes, readers
 * copy under the job's lock. */
#ifndef TT_JOB_H
#define TT_JOB_H

#include <pthread.h>
#include <stdatomic.h>

#include "server/batcher.h"
#include "server/engine.h"

/* One of the n generations of a job. */
typedef struct {
    tt_view seen;       /* what readers get; its arrays belong to the job */
    bool started;       /* engine's thread alone */
    atomic_bool stop;   /* the reader has enough */
} tt_sample;

struct tt_job {
    tt_job_spec spec; /* pointers inside lead to the copies below */
    int32_t *id;
    uint8_t *open;
    tt_id_value *bias;
    int32_t *draft, *negative, *term;
    tt_column_rule *rule; /* its ids lie behind the rules */
    tt_constraint *constraint;        /* each with a reference to its grammar */
    tt_picture_search *search; /* NULL: samples are made one by one */
    tt_picture_spec picture; /* and what it leads to */
    tt_prompt prompt;
    float *pixels;
    uint8_t *mask;
    tt_sample *sample;
    size_t bytes; /* host memory of the whole job while it runs */

    pthread_mutex_t lock;
    pthread_cond_t changed;
    int owners;          /* under lock */
    int32_t unfinished;  /* samples; under lock */
    int64_t submitted_ns, started_ns, ended_ns;
    atomic_bool cancel;

    pthread_mutex_t wake_lock; /* held while wake runs, so that release can wait for it */
    void (*wake)(void *arg);

    /* Engine's: queue order and progress. */
    tt_job *next;
    tt_job *search_next; /* of the searches that have begun */
    uint64_t number;
    int32_t units;    /* samples, or pieces of the search's present order */
    int32_t to_start; /* next of them to start */
    int32_t running;  /* of them in the batch */
    atomic_int ahead;
};

enum { TT_MAX_SAMPLES = 128 }; /* of a job that makes something */

/* Checks the spec against the model and copies it. TT_EINVAL names the field. max_running: samples
 * that run at the same time at most. */
tt_status tt_job_open(tt_job **out, const tt_job_spec *spec, int64_t max_rows, int max_running,
                      tt_err *e);
void tt_job_drop(tt_job *j); /* one owner less; the last one frees */

/* How sample i of the job is run. The spec leads into the job. */
tt_run_spec tt_job_run_spec(const tt_job *j, int32_t i);

/* Ends sample i. end: first column that is no answer. error: for TT_FINISH_ERROR. */
void tt_job_finish(tt_job *j, int32_t i, tt_finish why, int32_t end, const tt_err *error);
void tt_job_wake(tt_job *j);

/* --- what it may ask for (job_check.c) --- */

/* TT_EINVAL naming the field. max_rows: of a pass. */
tt_status tt_job_check(const tt_job_spec *s, int64_t max_rows, tt_err *e);

/* --- what readers see (job_view.c) --- */

/* A sample's state before its first step. False without memory; tt_view_free() in any case. */
bool tt_job_begin_view(tt_view *v, const tt_job_spec *s);
/* Publishes the run's canvas as sample i's state. */
void tt_job_publish(tt_job *j, int32_t i, const tt_run *r);

/* --- jobs of image models (job_picture.c) --- */

tt_status tt_job_check_picture(const tt_job_spec *s, tt_err *e);
/* Copies s->picture into the job. TT_ENOMEM. */
tt_status tt_job_copy_picture(tt_job *j, const tt_job_spec *s);
size_t tt_job_picture_bytes(const tt_job *j); /* of one published picture */
size_t tt_job_trail_bytes(const tt_job *j);   /* of one sample's messages, crop by crop */
tt_picture_run_spec tt_job_picture_spec(const tt_job *j, int32_t i);
/* Room for the sample's pictures, which queued jobs have none for. TT_ENOMEM. */
tt_status tt_job_picture_room(tt_job *j, int32_t i, tt_err *e);
tt_status tt_job_open_search(tt_job *j, tt_err *e);
/* The results of a search that is over as the samples' states. TT_ENOMEM. */
tt_status tt_job_publish_search(tt_job *j, tt_err *e);
void tt_job_publish_picture(tt_job *j, int32_t i, const tt_picture_run *r);

#endif
