/* run_rules.h - what columns may hold, as biases and lists of the asks of a plan. */
#ifndef TT_RUN_RULES_H
#define TT_RUN_RULES_H

#include "server/run.h"

enum { TT_SPARE_BIASES = 8 }; /* that a sampler may add to a list */

/* Memory of a step that tt_run_constrain() takes. */
size_t tt_run_rule_bytes(const tt_run_spec *s);
/* Puts the rules into the asks of the pending plan; asks side by side under the same rules share a
 * list. TT_ENOMEM. */
tt_status tt_run_constrain(tt_run *r, tt_err *e);

#endif
