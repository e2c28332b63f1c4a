/* Any bytes as a config.json of the LLaDA family over an empty checkpoint. */
#include <stddef.h>
#include <stdint.h>
#include <string.h>

#include "models/model.h"

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
    const tt_model_def *def = tt_model_find(tt_config_architecture(c));
    tt_model *m = NULL;
    def = def ? def : tt_model_find("LLaDAModelLM");
    if (!def->open(&m, stream, weights, c, TT_WEIGHTS_F32, NULL, NULL, &e))
        __builtin_trap(); /* there are no tensors */
    tt_buf unread = {0};
    tt_config_unread(c, &unread);
    tt_buf_free(&unread);
    tt_config_close(c);
    return 0;
}
