/* gen_parts.h - the inside of a tt_gen, shared by the files that read and write it.
 *
 * A canvas is one prompt's row of columns, submitted as one job with n samples. Its text is a
 * list of parts, literal text and holes. A choice is one sample of one canvas: an answer, or for
 * endpoints that read, one view of what was measured.
 *
 * Before a canvas is final, its ranged holes may need fitting (fit.c): then jobs of another kind
 * run first, and the choices are opened when they are done. */
#ifndef TT_GEN_PARTS_H
#define TT_GEN_PARTS_H

#include <pthread.h>

#include "server/api/fields.h"
#include "server/api/gen.h"
#include "server/json_write.h"
#include "server/text_out.h"

typedef struct {
    bool hole;
    const char *text; /* literal */
    size_t bytes;
    int32_t begin, end; /* hole: its columns */
    const char *id;     /* hole of an infill request */
} tt_part;

typedef struct {
    tt_ids ids;
    tt_buf open;    /* a byte per column */
    int32_t prompt; /* as in tt_job_spec */
    int32_t given;  /* fixed columns */
    int32_t chosen; /* of them, those of holes that took one of several texts */
    tt_part *part;
    int parts, holes;
    const tt_sampler *sampler; /* NULL: the request's */
    int32_t samples;           /* 0: the request's n */
    tt_buf draft;              /* an int32_t per column, as in tt_job_spec; or empty */
    tt_encoding encoding;      /* its terms live as long as the request */
    tt_column_rule *rule;      /* ids live as long as the request */
    int32_t rules;
    tt_constraint *constraint; /* each with a reference to its grammar */
    int32_t constraints;
    tt_job *job; /* NULL until it is submitted */
} tt_canvas;

typedef struct {
    tt_canvas *canvas;
    int32_t sample; /* of the canvas */
    int index;      /* in the answer */
    tt_view view;
    tt_text_out *out; /* one per hole, in order */
    tt_finish finish; /* TT_FINISH_NONE while its text may grow */

    /* streaming */
    int part;            /* first part not sent completely */
    size_t sent;         /* bytes of that part sent */
    int32_t told;        /* tokens of that part reported with their log-probabilities */
    size_t text_sent;    /* bytes sent in all */
    bool begun, closed;  /* first and last chunk were sent */
    int64_t next_ms;     /* not before this time: stream_interval_ms */
    int64_t emitted_ns;  /* time of the last emission of committed text */
    uint64_t shown_version;
    int32_t *shown; /* delta mode: ids the client knows, by column */
    size_t told_changes; /* with a trace: changes the client knows */
    int32_t told_frozen; /* recurrent depth: positions it knows to stand */
} tt_choice;

typedef enum { TT_STREAM_COMMITTED, TT_STREAM_SNAPSHOT, TT_STREAM_DELTA } tt_stream_mode;

typedef struct tt_fit tt_fit;     /* fit.c */
typedef struct tt_text_search tt_text_search; /* text_search.c */
typedef struct tt_owned tt_owned; /* memory that lives as long as the request */

typedef enum { TT_SCORE_MONTE_CARLO, TT_SCORE_LEFT_TO_RIGHT, TT_SCORE_EXACT } tt_score_method;

/* How a model is asked for the words of a text; NULL: as DiffRetriever does. */
typedef struct {
    const char *system, *query, *passage, *start;
} tt_wording;

/* What endpoints that read were asked for. */
typedef struct {
    /* likelihood */
    tt_score_method method;
    bool choices;   /* the texts are choices of one continuation */
    int64_t values; /* samples times tokens, over all texts */
    /* encoding */
    tt_pooling pool;
    bool add_end;               /* an end token behind the text */
    int32_t k_query, k_passage; /* vectors of a text; 0: pooling */
    tt_wording wording;
    bool dense, sparse;
    int32_t sparse_top;
    bool raw; /* vectors as they are, not of length 1 */
    bool base64, documents;
    int64_t dimensions;
    int32_t top_n, queries; /* the first canvases are the queries */
    const char **text;      /* of the documents */
} tt_reading;

struct tt_gen {
    tt_work work; /* first: a tt_work is cast back */
    tt_api *api;
    const tt_endpoint *endpoint;
    const tt_served *model;
    tt_owned *owned;
    char id[48];
    int64_t created, arrived_ns, read_ns; /* read_ns: when reading was done */

    /* request */
    const tt_sampler *sampler;
    const tt_served *guide;
    tt_params params;
    int32_t n, made; /* answers a prompt gets, and how many are made to choose them from */
    int64_t seed;
    const char *stop[4];
    int stops;
    tt_id_value *bias;
    int32_t n_bias;
    bool logprobs, echo, trace, special_tokens;
    int32_t n_top;
    bool stop_early, ban_stops, shrink;
    tt_grammar *form; /* what answers match (constrain.h), or NULL; read once for all prompts */
    const char *form_path;
    bool form_read;
    tt_ids negative;   /* negative prompt */
    int32_t predicted; /* tokens of the prediction */
    int64_t deadline_ms;
    int32_t priority;
    bool stream, include_usage;
    tt_stream_mode mode;
    int64_t interval_ms;
    const char *placeholder;
    const char *warning[8];
    int warnings;

    tt_reading reading;
    tt_text_search *search; /* who chooses among the answers made; NULL: their likelihood */

    /* work */
    tt_canvas *canvas;
    int canvases;
    tt_choice *choice;
    int choices;
    tt_fit *fit; /* what must be found out before the canvas is final; NULL: nothing */
    int submitted; /* canvases that have a job */
    void (*wake)(void *arg);
    void *wake_arg;
    pthread_mutex_t lock; /* of the jobs' pointers and cancelled */
    bool cancelled;
    tt_err failure; /* status TT_OK while all is well */
    double first_draft, first_text;
    int64_t ended_ns;
};

/* What a chunk of a stream carries for one choice. */
typedef struct {
    const char *text;
    size_t bytes;
    bool first; /* opens the choice (chat: the role) */
    bool last;  /* closes it; no text */
    const tt_text_out *tokens; /* with log-probabilities: tokens [from, to) of this hole */
    int32_t from, to;
    size_t offset; /* where that hole's text begins in the whole */
} tt_piece;

struct tt_endpoint {
    unsigned on; /* TT_ON_ */
    bool reads;  /* measures texts instead of generating: no streams, the answer is its own */
    const char *id_prefix, *object, *chunk_object;
    /* Makes the canvases from what only this endpoint has in its body. */
    tt_status (*read)(tt_gen *g, const cJSON *body, tt_err *e);
    /* Writes the members of a finished choice, and of a piece of one. */
    void (*choice)(const tt_gen *g, const tt_choice *c, tt_json *w);
    void (*delta)(const tt_gen *g, const tt_choice *c, const tt_piece *p, tt_json *w);
    /* Writes the whole answer when its shape is not OpenAI's; may be NULL. */
    void (*answer)(const tt_gen *g, tt_json *w);
};

/* --- gen_read.c: what all endpoints have in common --- */

tt_status tt_gen_read_common(tt_gen *g, const cJSON *body, tt_err *e);
/* The part of it that endpoints which read have. */
tt_status tt_gen_read_reading(tt_gen *g, const cJSON *body, tt_err *e);
/* A copy that lives as long as the request; NULL when memory is out. */
char *tt_gen_keep(tt_gen *g, const char *bytes, size_t n);
void tt_gen_owned_free(tt_gen *g);
void tt_gen_warn(tt_gen *g, const char *text);

/* --- canvas.c: building canvases --- */

enum { TT_MAX_READ = 2048 }; /* texts of one request that reads, as in OpenAI's interface */

/* A new, empty canvas; NULL with *e set when there are too many or memory is out. */
tt_canvas *tt_gen_add_canvas(tt_gen *g, tt_err *e);
/* Fixed columns: the ids of a text; TT_TOK_ADD_SPECIAL may be among the flags. path: the field the
 * text came from. */
tt_status tt_canvas_add_text(const tt_gen *g, tt_canvas *c, const char *text, unsigned flags,
                             const char *path, tt_err *e);
tt_status tt_canvas_add_ids(const tt_gen *g, tt_canvas *c, const int32_t *id, size_t n,
                            const char *path, tt_err *e);
/* Open columns. */
tt_status tt_canvas_add_hole(const tt_gen *g, tt_canvas *c, int64_t tokens, const char *id,
                             const char *path, tt_err *e);
/* Of a hole that begins there so many columns must be filled, where the sampler may leave some. */
void tt_canvas_demand(tt_canvas *c, int32_t begin, int32_t tokens);
/* Text of the answer that has no columns of its own, or whose columns were added already. */
tt_status tt_canvas_add_literal(tt_canvas *c, const char *text, size_t bytes, tt_err *e);
/* Columns the model's context has left. */
int64_t tt_canvas_room(const tt_gen *g, const tt_canvas *c);
void tt_canvas_free(tt_canvas *c);

/* One canvas per prompt of a `prompt` member: only the fixed columns. echo: a literal of the same
 * text comes first. */
tt_status tt_gen_read_prompts(tt_gen *g, const cJSON *prompt, bool echo, tt_err *e);

/* --- write.c: answers --- */

/* "stop", "length"; NULL while running. */
const char *tt_finish_text(tt_finish f);
/* Mean log-probability of the tokens of an answer; of an empty one 0. */
double tt_choice_likelihood(const tt_choice *c);
/* The whole text of a finished choice. */
void tt_choice_text(const tt_choice *c, tt_buf *out);
void tt_gen_write_answer(const tt_gen *g, tt_json *w);
void tt_gen_write_usage(const tt_gen *g, tt_json *w);         /* the value */
void tt_gen_write_extras(const tt_gen *g, tt_json *w);        /* members of `tutti` */
/* A column's position: columns to fill, counted over all holes; -1: none. */
int32_t tt_choice_pos(const tt_choice *c, int32_t column);
/* All changes of the canvas in order, as a value; and one of them. known: the position held
 * another token before. */
void tt_choice_write_trace(const tt_gen *g, const tt_choice *c, tt_json *w);
void tt_choice_write_change(const tt_gen *g, const tt_choice *c, const tt_change *x, bool known,
                            tt_json *w);
/* Member "recurrences": of the states of positions [from, to). */
void tt_choice_write_recurrences(const tt_choice *c, int32_t from, int32_t to, tt_json *w);
bool tt_choice_held(const tt_gen *g, const tt_choice *c, size_t i);

/* --- logprobs.c --- */

/* Tokens [from, to) of a hole as the legacy object and as chat's. offset: as in tt_piece. */
void tt_write_legacy_logprobs(const tt_gen *g, const tt_choice *c, const tt_text_out *o,
                              int32_t from, int32_t to, size_t offset, tt_json *w);
void tt_write_chat_logprobs(const tt_gen *g, const tt_choice *c, const tt_text_out *o,
                            int32_t from, int32_t to, tt_json *w);

/* --- steer.c: what is said about the tokens of an answer --- */

/* Forced, banned and allowed tokens of `tutti`, and min_tokens, for the canvas's last hole. */
tt_status tt_gen_steer(tt_gen *g, tt_canvas *c, const cJSON *body, tt_err *e);
/* The tokens of `prediction`, if there is one. */
tt_status tt_gen_read_prediction(tt_gen *g, const cJSON *body, tt_ids *out, tt_err *e);
/* Makes them the draft of the canvas's last hole; ids beyond its end are left out. With none, the
 * columns added since have no draft. */
tt_status tt_canvas_predict(tt_canvas *c, const tt_ids *ids, tt_err *e);
/* Predicted tokens that are in the answers, at their place. */
int64_t tt_gen_accepted(const tt_gen *g);
tt_status tt_gen_read_negative(tt_gen *g, const cJSON *body, tt_err *e);

/* --- submit.c: jobs --- */

/* Submits a canvas that is not in g->canvas: its job goes on with a request that was taken in. */
tt_status tt_canvas_submit(tt_gen *g, tt_canvas *c, bool continues, int64_t *retry_after_ms,
                           tt_err *e);
/* Submits what is to be submitted by now: all canvases, or of an endpoint that reads so many that
 * it does not crowd out others. */
tt_status tt_gen_submit_more(tt_gen *g, int64_t *retry_after_ms, tt_err *e);

/* --- fit.c: holes whose length or text is chosen first --- */

/* Begins fitting; g->canvas[0] is then made when the last hole is fitted. */
tt_status tt_fit_submit(tt_gen *g, int64_t *retry_after_ms, tt_err *e);
/* Takes the next step when its jobs are done. Failures become the request's. */
void tt_fit_advance(tt_gen *g);
bool tt_fit_pending(const tt_gen *g);
void tt_fit_cancel(tt_fit *f);
void tt_fit_free(tt_fit *f); /* NULL is fine */

/* --- gen.c --- */

/* Makes the choices of all canvases. */
tt_status tt_gen_open_choices(tt_gen *g, tt_err *e);
/* Does what became possible since the last call: before looking at choices. */
void tt_gen_advance(tt_gen *g);
/* Passes the parts a run failed with on to the request. */
void tt_gen_fail_by(tt_gen *g, const tt_view *v);

/* Brings a choice up to date with its job. */
void tt_choice_update(tt_gen *g, tt_choice *c);

#endif
