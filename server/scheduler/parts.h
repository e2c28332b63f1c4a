/* parts.h - the inside of the scheduler (scheduler.h), shared by its files.
 *
 * scheduler.c has the loop. What a turn of it does:
 *
 *   queue.c     jobs come in, in order
 *   admit.c     which of them begin a sample now
 *   active.c    the sequences in flight, texts and images alike
 *   pass.c      which of them run together, and the pass
 *   settle.c    what a pass made of a sequence: published, and whether it is over
 *   searches.c  jobs that are searches go from order to order
 *   ending.c    samples and jobs end
 *
 * Functions of the engine's thread but for tt_scheduler_submit() and the statistics. The lock
 * guards what other threads read or write; the device's own is held while the device is used. */
#ifndef TT_SCHEDULER_PARTS_H
#define TT_SCHEDULER_PARTS_H

#include "server/scheduler.h"
#include "server/share.h"

/* A sample of a job, or a piece of its search, in flight. */
typedef struct {
    tt_run run;             /* of a text, or */
    tt_picture_run picture; /* of an image: job->spec.picture */
    tt_job *job;
    int32_t sample;
    uint64_t turn; /* of the last pass it took part in */
} tt_active;

struct tt_scheduler {
    tt_scheduler_options o;
    pthread_t thread;
    pthread_mutex_t lock; /* queue, quit, stats */
    pthread_cond_t work;
    tt_job *queue; /* by priority, then arrival; jobs leave when their last sample started */
    uint64_t numbers; /* jobs queued so far */
    bool quit;
    tt_engine_stats stats;

    /* The thread's own. */
    tt_active **list;
    int running, room;
    tt_job *searches; /* those that have begun, by search_next */
    bool waits;       /* one of them waits for a program */
    /* The runs of a pass: `pick` of texts, `pictures` of images. */
    tt_active **picked;
    tt_run **pick;
    tt_picture_run **pictures;
    tt_share share;
    double per_image[TT_PICTURE_PASSES]; /* seconds of it in a pass, as last measured */
    tt_batch batch;
    uint64_t turn;
};

/* --- queue.c: all with the lock held --- */

void tt_sched_enqueue(tt_scheduler *s, tt_job *j);
/* Of no effect on a job that is not in the queue. */
void tt_sched_dequeue(tt_scheduler *s, tt_job *j);

/* --- admit.c --- */

/* Begins samples while sequences and memory allow. Queued jobs that were cancelled or ran out of
 * time leave at once. */
void tt_sched_admit(tt_scheduler *s);

/* --- active.c --- */

static inline bool tt_active_is_picture(const tt_active *a)
{
    return a->job->spec.picture != NULL;
}

/* How its run failed; NULL: it did not. */
const tt_err *tt_active_failure(const tt_active *a);
/* Whether both may go through their next pass together. */
bool tt_active_same_pass(const tt_active *a, const tt_active *b);
/* Rows it adds to that. */
int64_t tt_active_rows(const tt_active *a);

/* Makes room in the list for one more; false without memory. */
bool tt_sched_make_room(tt_scheduler *s);
void tt_sched_join(tt_scheduler *s, tt_active *a);
/* The last one takes its place in the list. */
void tt_sched_leave(tt_scheduler *s, const tt_active *a);

/* --- pass.c, settle.c --- */

/* Every sequence without a plan gets one. */
void tt_sched_plan(tt_scheduler *s);
/* One pass of the model whose turn it is, if any sequence waits. */
void tt_sched_run_pass(tt_scheduler *s);
/* Publishes what the pass changed in a sequence that did not fail; true when it is over, with the
 * reason and the first column that is no answer. */
bool tt_sched_settle(tt_active *a, tt_finish *why, int32_t *end);

/* --- searches.c --- */

/* From here on the search goes from order to order. */
void tt_sched_begin_search(tt_scheduler *s, tt_job *j);
/* Searches whose pieces are all done go on, one a turn; those that were cancelled or took too long
 * end. */
void tt_sched_advance_searches(tt_scheduler *s);
/* A search that is over, whatever is left of it. May free the job. */
void tt_sched_end_search(tt_scheduler *s, tt_job *j, tt_finish why, const tt_err *error);

/* --- ending.c --- */

/* Why the job must end now, or TT_FINISH_NONE. */
tt_finish tt_sched_overdue(const tt_job *j, int64_t now_ns);
/* Ends a sample that is not in flight. end: first column that is no answer. May free the job. */
void tt_sched_end_sample(tt_scheduler *s, tt_job *j, int32_t i, tt_finish why, int32_t end,
                         const tt_err *error);
/* The same for all samples from `first` on. */
void tt_sched_end_samples(tt_scheduler *s, tt_job *j, int32_t first, tt_finish why,
                          const tt_err *error);
/* A job that has just left the queue with samples that did not begin. */
void tt_sched_end_queued(tt_scheduler *s, tt_job *j, tt_finish why);
/* Frees the sequence; its sample ends, or the search takes over what came of it. */
void tt_sched_end_active(tt_scheduler *s, tt_active *a, tt_finish why, int32_t end,
                         const tt_err *error);
/* Sequences whose job was cancelled or ran out of time, or that their reader has enough of. */
void tt_sched_drop_ended(tt_scheduler *s);
/* Everything, queued or in flight. */
void tt_sched_cancel_all(tt_scheduler *s);

#endif
