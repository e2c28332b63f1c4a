/* log.c - see log.h. */
#include "kernels/base/log.h"

#include <stdarg.h>
#include <stdatomic.h>
#include <stdio.h>
#include <stdlib.h>
#include <time.h>
#include <unistd.h>

static _Atomic int limit = TT_LOG_INFO;

void tt_log_set_level(tt_log_level level) { limit = (int)level; }

void tt_log(tt_log_level level, const char *event, const char *fmt, ...)
{
    static const char *const name[] = {"error", "warn", "info", "debug"};
    static const int syslog_level[] = {3, 4, 6, 7};
    if ((int)level > limit)
        return;
    char line[1024];
    int n = 0;
    if (getenv("JOURNAL_STREAM")) {
        n = snprintf(line, sizeof line, "<%d>%s ", syslog_level[level], event);
    } else {
        struct timespec t;
        struct tm tm;
        clock_gettime(CLOCK_REALTIME, &t);
        gmtime_r(&t.tv_sec, &tm);
        n = (int)strftime(line, sizeof line, "%Y-%m-%dT%H:%M:%S", &tm);
        n += snprintf(line + n, sizeof line - (size_t)n, ".%03ldZ %-5s %s ", t.tv_nsec / 1000000,
                      name[level], event);
    }
    va_list ap;
    va_start(ap, fmt);
    n += vsnprintf(line + n, sizeof line - (size_t)n, fmt, ap);
    va_end(ap);
    if (n > (int)sizeof line - 2)
        n = (int)sizeof line - 2;
    for (int i = 0; i < n; i++)
        if ((unsigned char)line[i] < 0x20)
            line[i] = ' ';
    line[n++] = '\n';
    if (write(STDERR_FILENO, line, (size_t)n) < 0)
        return; /* nowhere left to complain to */
}
