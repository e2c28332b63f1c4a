/* guide.h - which causal models can guide which diffusion models (sampler 'guided'). */
#ifndef TT_GUIDE_H
#define TT_GUIDE_H

#include "server/engine.h"

/* A guide judges token ids, so model and guide must mean the same by them; special tokens, added to
 * either vocabulary later, may differ. TT_EINVAL says why guide g does not fit model m. */
tt_status tt_guide_check(const tt_served *m, const tt_served *g, tt_err *e);

#endif
