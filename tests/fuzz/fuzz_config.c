/* Any bytes as a config.json over an empty checkpoint: of an image generator or codec that it
 * names, else of a text model, LLaDA unless it names another. */
#include <stddef.h>
#include <stdint.h>
#include <string.h>

#include "models/generator.h"
#include "tokenizers/image.h"

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    static const char none[] = "\x02\0\0\0\0\0\0\0{}";
    static tt_stream *stream;
    static tt_weights *weights;
    tt_err e;
    if (!stream && (tt_stream_open(&stream, "twin", 1, &e) ||
                    tt_weights_open_memory(&weights, none, 10, &e)))
        __builtin_trap();
    tt_config *c;
    if (tt_config_open_text(&c, (const char *)data, size, &e))
        return 0;
    const char *name = tt_config_architecture(c);
    const tt_model_def *def = tt_model_find(name);
    const tt_generator_def *generator = tt_generator_find(name);
    const tt_codec_def *codec = tt_codec_find(name);
    tt_model *m = NULL;
    tt_generator *g = NULL;
    tt_codec *i = NULL;
    tt_status s;
    def = def ? def : tt_model_find("LLaDAModelLM");
    if (generator)
        s = generator->open(&g, stream, weights, c, TT_WEIGHTS_F32, &e);
    else if (codec)
        s = codec->open(&i, stream, weights, c, TT_WEIGHTS_F32, &e);
    else
        s = def->open(&m, stream, weights, c, TT_WEIGHTS_F32, NULL, NULL, &e);
    if (!s)
        __builtin_trap(); /* there are no tensors */
    tt_buf unread = {0};
    tt_config_unread(c, &unread);
    tt_buf_free(&unread);
    tt_config_close(c);
    return 0;
}
