/* plug.h - opening optional plug-ins (tutti-onednn.so, tutti-cuda.so) at run time.
 *
 * Looked for in this order: TUTTI_PLUGIN_DIR, the program's own folder, ../lib/tutti beside it.
 * A plug-in exports one function, `const void *tutti_plugin(void)`, that returns its table; the
 * caller checks abi and size. A missing file or library is TT_ENODEV with the loader's words. */
#ifndef TT_PLUG_H
#define TT_PLUG_H

#include "kernels/base/err.h"

/* file: "tutti-onednn.so". *table stays valid for the life of the process. */
tt_status tt_plug_open(const char *file, const void **table, tt_err *e);

#endif
