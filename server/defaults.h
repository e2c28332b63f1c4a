/* defaults.h - the sampler and parameters a model uses unless a request says otherwise. */
#ifndef TT_DEFAULTS_H
#define TT_DEFAULTS_H

#include "models/model.h"
#include "samplers/sampler.h"

/* What the family sets, and over it generation_config.json of the folder, which may name any
 * sampling parameter and `sampler`. None counts as given: what a sampler does not read is no
 * mistake. info: of a text model; NULL for an image model, which has no sampler to name. TT_EFORMAT
 * or TT_EUNSUP naming the key. */
tt_status tt_defaults_read(const char *folder, const tt_model_info *info,
                           const tt_sampler **sampler, tt_params *out, tt_err *e);

#endif
