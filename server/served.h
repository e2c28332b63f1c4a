/* served.h - a model of the engine: a folder read, with all that belongs to it.
 *
 * A folder holds a text model with its tokenizer, an image generator whose codec (and text encoder)
 * lie beside or in it, a codec alone, or a verifier. What others see of it is a tt_served
 * (engine.h); what is behind that is for the engine's files. */
#ifndef TT_SERVED_H
#define TT_SERVED_H

#include <pthread.h>

#include "server/engine.h"

/* How models are read. */
typedef struct {
    tt_stream *stream;
    pthread_mutex_t *device; /* held while the stream is used */
    bool random;             /* from config.json alone, with random weights */
    tt_weights_mode mode;
    void (*progress)(void *arg, double done);
    void *arg;
} tt_loading;

/* id and folder are copied. Errors as tt_engine_add_model(). */
tt_status tt_served_open(tt_served **out, const char *id, const char *folder,
                         const tt_loading *how, tt_err *e);
/* With the device held, or when nobody else is left. NULL is fine. */
void tt_served_close(tt_served *m);

/* What is behind it: a text model, or a generator and a codec; else NULL. */
tt_model *tt_served_model(const tt_served *m);
tt_generator *tt_served_generator(const tt_served *m);
tt_codec *tt_served_codec(const tt_served *m);

#endif
