/* bytes.c - see bytes.h. */
#include "tokenizers/text/bytes.h"

#include "kernels/base/utf8.h"

static bool printable(unsigned b)
{
    return (b >= 33 && b <= 126) || (b >= 161 && b != 173);
}

uint32_t tt_bytes_char(unsigned char byte)
{
    if (printable(byte))
        return byte;
    if (byte <= 32)
        return 0x100u + byte;
    return byte == 173 ? 0x143u : 0x121u + (byte - 127u);
}

int tt_bytes_value(uint32_t cp)
{
    if (cp < 256)
        return printable(cp) ? (int)cp : -1;
    if (cp <= 0x120)
        return (int)(cp - 0x100);
    if (cp <= 0x142)
        return (int)(cp - 0x121 + 127);
    return cp == 0x143 ? 173 : -1;
}

void tt_bytes_spell(tt_buf *out, const char *text, size_t n)
{
    for (size_t i = 0; i < n; i++) {
        char c[4];
        tt_buf_add(out, c, tt_utf8_encode(tt_bytes_char((unsigned char)text[i]), c));
    }
}

size_t tt_bytes_read_to(char *out, const char *text, size_t n)
{
    size_t made = 0;
    for (size_t i = 0, k; i < n; i += k) {
        uint32_t cp;
        k = tt_utf8_decode(text + i, n - i, &cp);
        int value = k ? tt_bytes_value(cp) : -1;
        if (value < 0)
            return SIZE_MAX;
        out[made++] = (char)value;
    }
    return made;
}

bool tt_bytes_read(tt_buf *out, const char *text, size_t n)
{
    if (!tt_buf_reserve(out, n))
        return true; /* out says that it failed */
    size_t made = tt_bytes_read_to(out->data + out->size, text, n);
    if (made != SIZE_MAX)
        out->size += made;
    out->data[out->size] = '\0';
    return made != SIZE_MAX;
}
