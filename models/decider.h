/* decider.h - a learned exit rule's network: after an iteration it says how likely another one is
 * worth its cost (Think-at-Hard: Fu et al., arXiv 2511.08577; the released decider's shape, with
 * the recurrent-depth model's own state in place of hidden layers).
 *
 * With a = the last row's latent as the coda gets it and l = its K largest logits, falling:
 *   x = middle(input(a, logits(l)))
 *   per block:  x = x + down(gelu(up(norm x)))
 *   p = sigmoid(output(norm x))
 * All with biases, norms are LayerNorm with eps 1e-5, gelu is exact. A row at a time on the host: a
 * few million products beside the core's billions. */
#ifndef TT_DECIDER_H
#define TT_DECIDER_H

#include "models/weights.h"

typedef struct tt_decider tt_decider;

/* True when the checkpoint brings one. */
bool tt_decider_in(const tt_weights *w);
/* Reads the tensors exit_decider.{logits,input,middle,output}.{weight,bias},
 * exit_decider.norm.{weight,bias} and exit_decider.blocks.{i}.{norm,up,down}.{weight,bias}, which
 * stay mapped; how many blocks and how wide they are the tensors tell. width: of a. */
tt_status tt_decider_open(tt_decider **out, const tt_weights *w, int64_t width, tt_err *e);
void tt_decider_close(tt_decider *d); /* NULL is fine */
/* p. latent: [width]; logits: [vocab]. Without memory 0: nothing goes on. */
double tt_decider_continue(const tt_decider *d, const float *latent, const float *logits,
                           int64_t vocab);

#endif
