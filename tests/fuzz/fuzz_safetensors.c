/* Any bytes as a safetensors file: open it, touch the ends of every tensor it accepts. */
#include <stddef.h>
#include <stdint.h>
#include <stdlib.h>

#include "models/weights.h"

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

static volatile unsigned char sink;

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    tt_weights *w;
    tt_err e;
    if (tt_weights_open_memory(&w, data, size, &e))
        return 0;
    tt_tensor t;
    for (size_t i = 0; tt_weights_name(w, i, &t); i++) {
        size_t bytes = (size_t)tt_tensor_count(&t) * tt_dtype_size(t.dtype);
        const unsigned char *p = t.data;
        if (bytes)
            sink = (unsigned char)(p[0] ^ p[bytes - 1]);
    }
    tt_weights_close(w);
    return 0;
}
