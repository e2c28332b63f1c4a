#include "server/api/gen_parts.h"
tt_status tt_fit_submit(tt_gen *g, int64_t *r, tt_err *e) { (void)g; (void)r; (void)e; return TT_OK; }
void tt_fit_advance(tt_gen *g) { (void)g; }
bool tt_fit_pending(const tt_gen *g) { (void)g; return false; }
void tt_fit_cancel(tt_fit *f) { (void)f; }
void tt_fit_free(tt_fit *f) { (void)f; }
