/* watch.h - one thread that looks after requests while nobody else does: it notices clients that
 * went away and calls back at given times.
 *
 * libmicrohttpd does not watch the socket of a suspended connection, so a lost client would go
 * unnoticed until its answer is complete. The watch has its own epoll set of those sockets; it
 * never reads from them. */
#ifndef TT_WATCH_H
#define TT_WATCH_H

#include <stdint.h>

#include "kernels/base/err.h"

typedef struct tt_watch tt_watch;

tt_status tt_watch_open(tt_watch **out, tt_err *e);
void tt_watch_close(tt_watch *w); /* NULL is fine; nothing may be watched any more */

/* Called on the watch's thread with its lock held: must not call the watch. */
typedef struct {
    void (*lost)(void *arg); /* the peer closed; at most once */
    void (*due)(void *arg);  /* the time set by tt_watch_at() has come */
} tt_watch_calls;

/* Starts to look after a socket. Returns a ticket, or -1 when memory is out. */
int tt_watch_add(tt_watch *w, int fd, const tt_watch_calls *calls, void *arg);
/* Call due() once at this time (tt_now_ms()); 0: not at all. Replaces the time set before. */
void tt_watch_at(tt_watch *w, int ticket, int64_t when_ms);
/* Neither callback runs or will run after this returns. -1 is fine. */
void tt_watch_remove(tt_watch *w, int ticket);
/* Calls due() of everything watched, now. */
void tt_watch_rouse(tt_watch *w);

#endif
