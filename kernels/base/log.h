/* log.h - one line per event on stderr: time, level, event, key=value.
 *
 * Thread-safe; a line is written with one call. Under a service manager (JOURNAL_STREAM set) the
 * time is left out and the line starts with <3>..<7>. Prompts and answers are never logged. */
#ifndef TT_LOG_H
#define TT_LOG_H

typedef enum { TT_LOG_ERROR, TT_LOG_WARN, TT_LOG_INFO, TT_LOG_DEBUG } tt_log_level;

void tt_log_set_level(tt_log_level level); /* default TT_LOG_INFO */
/* event: one word; fmt: "key=value key=value". */
void tt_log(tt_log_level level, const char *event, const char *fmt, ...)
    __attribute__((format(printf, 3, 4)));

#endif
