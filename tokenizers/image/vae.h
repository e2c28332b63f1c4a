/* vae.h - the image autoencoder of Stable Diffusion (AutoencoderKL of diffusers; arXiv 2112.10752):
 * pictures to a few channels of latents and back. COMiT and FlexTok work on its latents.
 *
 * Calls belong to the stream's thread and return when the result is there; what a picture gets does
 * not depend on those beside it. Pixels here are in [-1, 1], planes of three colours. */
#ifndef TT_VAE_H
#define TT_VAE_H

#include "models/model.h"

typedef struct tt_vae tt_vae;

typedef struct {
    int32_t factor;   /* pixels per cell of latents, along a side */
    int32_t channels; /* of latents */
    float scale;      /* latents as others see them are multiplied by this */
} tt_vae_info;

/* prefix: before the tensor names ("vae.vae."). c: the autoencoder's config. mode: of decoding;
 * encoding is always float32. */
tt_status tt_vae_open(tt_vae **out, tt_stream *s, const tt_weights *w, tt_config *c,
                      const char *prefix, tt_weights_mode mode, tt_err *e);
void tt_vae_close(tt_vae *v); /* NULL is fine */
const tt_vae_info *tt_vae_about(const tt_vae *v);

/* mean, logvar: images x channels x height/factor x width/factor, unscaled; logvar is clamped to
 * [-30, 20] and may be NULL. planes: images x 3 x height x width; sides are multiples of factor,
 * else TT_EINVAL. */
tt_status tt_vae_encode(tt_vae *v, float *mean, float *logvar, const float *planes, int64_t images,
                        int32_t height, int32_t width, tt_err *e);
/* planes: images x 3 x (h factor) x (w factor), not clamped. latent: unscaled. */
tt_status tt_vae_decode(tt_vae *v, float *planes, const float *latent, int64_t images, int32_t h,
                        int32_t w, tt_err *e);
/* Multiply-adds of encoding or decoding a picture of `pixels`. */
double tt_vae_macs(const tt_vae *v, double pixels, bool decode);
/* Device memory of a call with pictures whose latents have so many cells a side. */
size_t tt_vae_bytes(const tt_vae *v, int64_t images, int32_t cells);

#endif
