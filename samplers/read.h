/* read.h - samplers that fill nothing: they score a text or encode it.
 *
 * They are scheduled like any other, so they share passes with requests that generate, and their
 * results depend on the canvas and the seed alone. No request names them: the routes that score
 * and encode choose one by the model's kind.
 *
 * Scoring: the columns to score are open, and seq->draft holds their tokens; open columns without
 * a draft stay masked. A finished run has, at every column it scored, that token, its
 * log-probability (seq->logprob), and step 1. */
#ifndef TT_READ_H
#define TT_READ_H

#include "samplers/sampler.h"

/* One sample of the Monte-Carlo bound of a masked model (LLaDA, arXiv 2502.09992, equation 6): l
 * of the L columns are masked, uniformly at random, and scored; the others are shown. The sum of
 * the l log-probabilities times L / l is an unbiased estimate of
 *   E_order[ sum_i ln p(x_order(i) | x_order(<i)) ] <= ln p(x).
 * l is drawn from 1..L by systematic sampling: sample i of N takes 1 + floor((i + u) L / N), one u
 * for all, so that few samples cover all mask ratios. */
extern const tt_sampler tt_score_bound;
/* The chain rule from left to right: sample i of L shows the first i columns, masks the others and
 * scores column i alone. The sum over all samples is ln p of the model that generates in this
 * order; nothing is random. */
extern const tt_sampler tt_score_chain, tt_score_chain_blocks; /* the second: block-causal models */
/* A causal model's exact log-probabilities, in one pass of one sample. */
extern const tt_sampler tt_score_causal;

/* One pass; seq->encoding says what of it becomes seq->features. */
extern const tt_sampler tt_encode, tt_encode_blocks, tt_encode_causal;

/* The one that fits a model of these kinds. */
const tt_sampler *tt_encode_for(uint32_t kinds);

/* Noise level of a canvas for models that are told: sigma of MDLM's schedule (ddpm.c) at the share
 * of open columns. */
float tt_canvas_sigma(const tt_seq *q);

/* Columns sample `sample` of `samples` masks for the bound of `targets` columns: l above. */
int32_t tt_score_masked(uint64_t seed, int32_t sample, int32_t samples, int32_t targets);

#endif
