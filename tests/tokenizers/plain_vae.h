/* plain_vae.h - an autoencoder, attention of wide rows, and quantisation by plain loops in double;
 * see models/plain.h. */
#ifndef TT_TEST_PLAIN_VAE_H
#define TT_TEST_PLAIN_VAE_H

#include "tests/models/plain.h"
#include "tests/tokenizers/comit_tensors.h"

enum { PLAIN_ROWS = 288, PLAIN_WIDTH = 128 };

/* out: rows x d, one head: softmax of scale q k + bias(i, j), -inf where it says so. */
static inline void attend(double (*out)[PLAIN_WIDTH], double (*q)[PLAIN_WIDTH],
                          double (*k)[PLAIN_WIDTH], double (*v)[PLAIN_WIDTH], int rows, int from,
                          int width, double scale, double (*bias)(int i, int j))
{
    for (int i = 0; i < rows; i++) {
        double p[PLAIN_ROWS], sum = 0;
        for (int j = 0; j < rows; j++) {
            p[j] = bias(i, j);
            for (int c = from; c < from + width; c++)
                p[j] += scale * q[i][c] * k[j][c];
            sum += p[j] = exp(p[j]);
        }
        for (int c = from; c < from + width; c++) {
            out[i][c] = 0;
            for (int j = 0; j < rows; j++)
                out[i][c] += p[j] / sum * v[j][c];
        }
    }
}

/* --- the autoencoder of comit_tensors.h --- */

typedef struct {
    int c, side;
    double x[8][C_SIDE][C_SIDE];
} map;

/* 3x3 or 1x1 convolution; stride 2 pads right and below alone. */
static inline map convolve(const map *m, const char *at, const char *name, int out, int kernel,
                           int stride)
{
    static map y;
    const float *w = tensor(at, name, ".weight"), *b = tensor(at, name, ".bias");
    int pad = stride == 2 ? 0 : kernel / 2;
    y = (map){.c = out, .side = m->side / stride};
    for (int o = 0; o < out; o++)
        for (int r = 0; r < y.side; r++)
            for (int c = 0; c < y.side; c++) {
                double sum = b[o];
                for (int i = 0; i < m->c; i++)
                    for (int u = 0; u < kernel; u++)
                        for (int v = 0; v < kernel; v++) {
                            int a = r * stride + u - pad, d = c * stride + v - pad;
                            if (a >= 0 && d >= 0 && a < m->side && d < m->side)
                                sum += w[((o * m->c + i) * kernel + u) * kernel + v] *
                                       m->x[i][a][d];
                        }
                y.x[o][r][c] = sum;
            }
    return y;
}

/* GroupNorm of 4 groups. */
static inline map group_normal(const map *m, const char *at, const char *name, bool active)
{
    static map y;
    const float *w = tensor(at, name, ".weight"), *b = tensor(at, name, ".bias");
    int each = m->c / 4, n = each * m->side * m->side;
    y = *m;
    for (int g = 0; g < 4; g++) {
        double mean = 0, var = 0;
        for (int i = 0; i < n; i++)
            mean += m->x[g * each + i % each][i / each / m->side][i / each % m->side] / n;
        for (int i = 0; i < n; i++) {
            double d = m->x[g * each + i % each][i / each / m->side][i / each % m->side] - mean;
            var += d * d / n;
        }
        for (int i = 0; i < n; i++) {
            int c = g * each + i % each, r = i / each / m->side, k = i / each % m->side;
            double v = (m->x[c][r][k] - mean) / sqrt(var + 1e-6) * w[c] + b[c];
            y.x[c][r][k] = active ? silu(v) : v;
        }
    }
    return y;
}

static inline void add_map(map *m, const map *other)
{
    for (int c = 0; c < m->c; c++)
        for (int r = 0; r < m->side; r++)
            for (int k = 0; k < m->side; k++)
                m->x[c][r][k] += other->x[c][r][k];
}

static inline void residual(map *m, const char *format, const char *side, int i, int k)
{
    char at[100];
    snprintf(at, sizeof at, format, side, i, k);
    map h = group_normal(m, at, "norm1", true);
    h = convolve(&h, at, "conv1", C_VAE, 3, 1);
    h = group_normal(&h, at, "norm2", true);
    h = convolve(&h, at, "conv2", C_VAE, 3, 1);
    add_map(m, &h);
}

static inline double no_bias(int i, int j)
{
    (void)i;
    (void)j;
    return 0;
}

static inline void middle(map *m, const char *side)
{
    char at[100];
    static double q[4][PLAIN_ROWS][PLAIN_WIDTH], out[PLAIN_ROWS][PLAIN_WIDTH];
    static const char *const part[] = {"to_q", "to_k", "to_v"};
    int n = m->side * m->side;
    residual(m, "vae.vae.%s.mid_block.resnets.%d.", side, 0, 0);
    snprintf(at, sizeof at, "vae.vae.%s.mid_block.attentions.0.", side);
    map h = group_normal(m, at, "group_norm", false);
    for (int i = 0; i < n; i++) {
        double x[C_VAE];
        for (int c = 0; c < C_VAE; c++)
            x[c] = h.x[c][i / m->side][i % m->side];
        for (int p = 0; p < 3; p++)
            linear(q[p][i], C_VAE, x, C_VAE, at, part[p]);
    }
    attend(out, q[0], q[1], q[2], n, 0, C_VAE, 1 / sqrt(C_VAE), no_bias);
    for (int i = 0; i < n; i++) {
        double y[C_VAE];
        linear(y, C_VAE, out[i], C_VAE, at, "to_out.0");
        for (int c = 0; c < C_VAE; c++)
            m->x[c][i / m->side][i % m->side] += y[c];
    }
    residual(m, "vae.vae.%s.mid_block.resnets.%d.", side, 1, 0);
}

/* planes: 3 x side x side; scaled means: C_CHANNELS x side / 2 x side / 2. */
static inline void vae_encode(double *latent, const double *planes, int side)
{
    map m = {.c = 3, .side = side};
    for (int i = 0; i < 3 * side * side; i++)
        m.x[i / side / side][i / side % side][i % side] = planes[i];
    m = convolve(&m, "vae.vae.", "encoder.conv_in", C_VAE, 3, 1);
    residual(&m, "vae.vae.%s.down_blocks.%d.resnets.0.", "encoder", 0, 0);
    m = convolve(&m, "vae.vae.", "encoder.down_blocks.0.downsamplers.0.conv", C_VAE, 3, 2);
    residual(&m, "vae.vae.%s.down_blocks.%d.resnets.0.", "encoder", 1, 0);
    middle(&m, "encoder");
    m = group_normal(&m, "vae.vae.", "encoder.conv_norm_out", true);
    m = convolve(&m, "vae.vae.", "encoder.conv_out", 2 * C_CHANNELS, 3, 1);
    m = convolve(&m, "vae.vae.", "quant_conv", 2 * C_CHANNELS, 1, 1);
    for (int i = 0; i < C_CHANNELS * m.side * m.side; i++)
        latent[i] = 0.5 * m.x[i / m.side / m.side][i / m.side % m.side][i % m.side];
}

/* The reverse, planes of twice the side, in about [-1, 1]. */
static inline void vae_decode(double *planes, const double *latent, int cells)
{
    map m = {.c = C_CHANNELS, .side = cells};
    for (int i = 0; i < C_CHANNELS * cells * cells; i++)
        m.x[i / cells / cells][i / cells % cells][i % cells] = latent[i] / 0.5;
    m = convolve(&m, "vae.vae.", "post_quant_conv", C_CHANNELS, 1, 1);
    m = convolve(&m, "vae.vae.", "decoder.conv_in", C_VAE, 3, 1);
    middle(&m, "decoder");
    for (int level = 0; level < 2; level++) {
        for (int k = 0; k < 2; k++)
            residual(&m, "vae.vae.%s.up_blocks.%d.resnets.%d.", "decoder", level, k);
        if (level)
            break;
        map big = {.c = m.c, .side = 2 * m.side};
        for (int c = 0; c < m.c; c++)
            for (int r = 0; r < big.side; r++)
                for (int k = 0; k < big.side; k++)
                    big.x[c][r][k] = m.x[c][r / 2][k / 2];
        m = convolve(&big, "vae.vae.", "decoder.up_blocks.0.upsamplers.0.conv", C_VAE, 3, 1);
    }
    m = group_normal(&m, "vae.vae.", "decoder.conv_norm_out", true);
    m = convolve(&m, "vae.vae.", "decoder.conv_out", 3, 3, 1);
    for (int i = 0; i < 3 * m.side * m.side; i++)
        planes[i] = m.x[i / m.side / m.side][i / m.side % m.side][i % m.side];
}

/* --- quantisation by levels 8, 5, 5 --- */

static const int plain_level[] = {8, 5, 5};

/* margin: least distance of a number to where it would round otherwise. */
static inline int quantise(const double *z, double *margin)
{
    int code = 0, basis = 1;
    for (int i = 0; i < 3; i++) {
        double half = (plain_level[i] - 1) * 1.001 / 2, off = plain_level[i] % 2 ? 0 : 0.5;
        double b = tanh(z[i] + atanh(off / half)) * half - off;
        *margin = fmin(*margin, 0.5 - fabs(b - nearbyint(b)));
        code += ((int)nearbyint(b) + plain_level[i] / 2) * basis;
        basis *= plain_level[i];
    }
    return code;
}

static inline void look_up(double *out, int code)
{
    for (int i = 0; i < 3; i++) {
        int half = plain_level[i] / 2;
        out[i] = (code % plain_level[i] - half) / (double)half;
        code /= plain_level[i];
    }
}

#endif
