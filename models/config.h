/* config.h - a model folder's JSON: typed reading, every key accounted for.
 *
 * A family reads the keys it knows through tt_config_*; keys that nobody read are reported by
 * tt_config_unread() so that a setting this build does not understand is never passed over in
 * silence. Not thread-safe while being read. */
#ifndef TT_CONFIG_H
#define TT_CONFIG_H

#include <stdbool.h>
#include <stdint.h>

#include "kernels/base/buf.h"
#include "kernels/base/err.h"

typedef struct tt_config tt_config;

/* folder/config.json. TT_EIO, TT_EFORMAT (with line and column). */
tt_status tt_config_open(tt_config **out, const char *folder, tt_err *e);
/* Another JSON file of the folder. */
tt_status tt_config_open_file(tt_config **out, const char *folder, const char *file, tt_err *e);
tt_status tt_config_open_text(tt_config **out, const char *json, size_t bytes, tt_err *e);
void tt_config_close(tt_config *c); /* NULL is fine */

/* Each returns the fallback when the key is absent or null, and records a TT_EFORMAT naming key,
 * value and allowed range otherwise; tt_config_status() returns the first of those. So a family
 * reads all its keys and checks once. */
int64_t tt_config_int(tt_config *c, const char *key, int64_t fallback, int64_t min, int64_t max);
double tt_config_float(tt_config *c, const char *key, double fallback, double min, double max);
bool tt_config_bool(tt_config *c, const char *key, bool fallback);
/* The string stays valid while the config is open; fallback may be NULL. */
const char *tt_config_text(tt_config *c, const char *key, const char *fallback);
/* As above, but absence is an error. */
int64_t tt_config_need_int(tt_config *c, const char *key, int64_t min, int64_t max);
/* The number, or the first of a list of numbers. */
int64_t tt_config_first_int(tt_config *c, const char *key, int64_t fallback, int64_t min,
                            int64_t max);
/* Entry i of a list; the fallback when the list is absent or shorter. */
int64_t tt_config_int_at(tt_config *c, const char *key, int64_t i, int64_t fallback, int64_t min,
                         int64_t max);
double tt_config_float_at(tt_config *c, const char *key, int64_t i, double fallback, double min,
                          double max);
/* A member of the object under key: a number that must be there, or a text. */
double tt_config_member_float(tt_config *c, const char *key, const char *member, double min,
                              double max);
const char *tt_config_member_text(tt_config *c, const char *key, const char *member,
                                  const char *fallback);
/* The object under key as a config of its own, to be closed: all of it counts as read here.
 * TT_EFORMAT when it is absent or no object; *out is NULL then. */
tt_status tt_config_member(tt_config **out, tt_config *c, const char *key, tt_err *e);
/* The i-th key, or NULL behind the last one. */
const char *tt_config_key(const tt_config *c, int i);
/* True when the key is there and not null; does not count as reading it. */
bool tt_config_has(const tt_config *c, const char *key);
/* First entry of "architectures", or the text "architecture"; "" when there is neither. */
const char *tt_config_architecture(tt_config *c);
/* That, or "model_type" where there is none. */
const char *tt_config_family(tt_config *c);
/* Marks keys that are known and have no effect at inference ("dropout", ...). NULL-terminated. */
void tt_config_ignore(tt_config *c, const char *const *keys);

tt_status tt_config_status(const tt_config *c, tt_err *e);
/* Appends the unread top-level keys, comma-separated; returns how many. */
int tt_config_unread(const tt_config *c, tt_buf *out);

#endif
