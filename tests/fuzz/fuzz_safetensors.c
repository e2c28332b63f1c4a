/* A safetensors file made of any bytes: taken as they are, or (first byte even) as the JSON header
 * of a well-formed file with as many data bytes as the second byte says. Touches the ends of
 * every tensor that is accepted. */
#include <stddef.h>
#include <stdint.h>
#include <stdlib.h>
#include <string.h>

#include "models/weights.h"

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

static volatile unsigned char sink;

static void touch(const void *bytes, size_t size)
{
    tt_weights *w;
    tt_err e;
    if (tt_weights_open_memory(&w, bytes, size, &e))
        return;
    tt_tensor t;
    for (size_t i = 0; tt_weights_name(w, i, &t); i++) {
        size_t n = (size_t)tt_tensor_count(&t) * tt_dtype_size(t.dtype);
        const unsigned char *p = t.data;
        if (n)
            sink = (unsigned char)(p[0] ^ p[n - 1]);
    }
    tt_weights_close(w);
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    if (size < 2 || data[0] & 1) {
        touch(data, size);
        return 0;
    }
    size_t header = size - 2, body = data[1];
    unsigned char *file = calloc(1, 8 + header + body);
    if (!file)
        return 0;
    for (int i = 0; i < 8; i++)
        file[i] = (unsigned char)((uint64_t)header >> (8 * i));
    memcpy(file + 8, data + 2, header);
    touch(file, 8 + header + body);
    free(file);
    return 0;
}
