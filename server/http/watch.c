/* watch.c - see watch.h. Tickets are indexes of a table; an event carries index and generation,
 * so that one meant for a former holder of the index is recognised and dropped. */
#include "server/http/watch.h"

#include <pthread.h>
#include <stdbool.h>
#include <stdlib.h>
#include <sys/epoll.h>
#include <sys/eventfd.h>
#include <unistd.h>

#include "kernels/base/clock.h"

typedef struct {
    bool used, lost;
    uint32_t generation;
    int fd;
    int64_t when_ms; /* 0: never */
    tt_watch_calls calls;
    void *arg;
    int next_free;
} entry;

struct tt_watch {
    pthread_mutex_t lock;
    pthread_t thread;
    int epoll, poke; /* poke: an eventfd that ends a wait early */
    bool started, stop;
    entry *entry;
    int entries, first_free; /* -1: none */
    int64_t next_ms;         /* when the thread means to wake up */
};

#define POKE UINT64_MAX

static void poke(tt_watch *w)
{
    uint64_t one = 1;
    ssize_t n = write(w->poke, &one, sizeof one);
    (void)n; /* a full counter wakes as well */
}

static void lost(tt_watch *w, uint64_t data)
{
    uint32_t index = (uint32_t)data, generation = (uint32_t)(data >> 32);
    entry *x = &w->entry[index];
    if (!x->used || x->generation != generation || x->lost)
        return;
    x->lost = true;
    epoll_ctl(w->epoll, EPOLL_CTL_DEL, x->fd, NULL);
    x->calls.lost(x->arg);
}

/* Calls what is due; returns the next time something will be, or 0. */
static int64_t run_due(tt_watch *w, int64_t now)
{
    int64_t next = 0;
    for (int i = 0; i < w->entries; i++) {
        entry *x = &w->entry[i];
        if (!x->used || !x->when_ms)
            continue;
        if (x->when_ms <= now) {
            x->when_ms = 0;
            x->calls.due(x->arg);
        } else if (!next || x->when_ms < next) {
            next = x->when_ms;
        }
    }
    return next;
}

static void *run(void *arg)
{
    tt_watch *w = arg;
    pthread_setname_np(pthread_self(), "tutti-watch");
    pthread_mutex_lock(&w->lock);
    while (!w->stop) {
        int64_t now = tt_now_ms();
        w->next_ms = run_due(w, now);
        int64_t wait = w->next_ms ? w->next_ms - now : 60000;
        struct epoll_event event[64];
        pthread_mutex_unlock(&w->lock);
        int n = epoll_wait(w->epoll, event, 64, (int)(wait < 60000 ? wait : 60000));
        pthread_mutex_lock(&w->lock);
        for (int i = 0; i < n; i++) {
            uint64_t count;
            if (event[i].data.u64 != POKE)
                lost(w, event[i].data.u64);
            else if (read(w->poke, &count, sizeof count) < 0)
                continue; /* somebody else emptied it */
        }
    }
    pthread_mutex_unlock(&w->lock);
    return NULL;
}

tt_status tt_watch_open(tt_watch **out, tt_err *e)
{
    tt_watch *w = *out = calloc(1, sizeof *w);
    if (!w)
        return tt_fail(e, TT_ENOMEM, "no memory for the watch thread");
    pthread_mutex_init(&w->lock, NULL);
    w->first_free = -1;
    w->epoll = epoll_create1(EPOLL_CLOEXEC);
    w->poke = eventfd(0, EFD_CLOEXEC | EFD_NONBLOCK);
    struct epoll_event ev = {.events = EPOLLIN, .data.u64 = POKE};
    if (w->epoll >= 0 && w->poke >= 0 && !epoll_ctl(w->epoll, EPOLL_CTL_ADD, w->poke, &ev))
        w->started = !pthread_create(&w->thread, NULL, run, w);
    if (w->started)
        return TT_OK;
    tt_watch_close(w);
    *out = NULL;
    return tt_fail(e, TT_EIO, "cannot start the watch thread");
}

void tt_watch_close(tt_watch *w)
{
    if (!w)
        return;
    if (w->started) {
        pthread_mutex_lock(&w->lock);
        w->stop = true;
        pthread_mutex_unlock(&w->lock);
        poke(w);
        pthread_join(w->thread, NULL);
    }
    if (w->epoll >= 0)
        close(w->epoll);
    if (w->poke >= 0)
        close(w->poke);
    pthread_mutex_destroy(&w->lock);
    free(w->entry);
    free(w);
}

/* Makes room for more entries, all of them free. */
static bool grow(tt_watch *w)
{
    int more = w->entries ? 2 * w->entries : 64;
    entry *grown = realloc(w->entry, (size_t)more * sizeof *grown);
    if (!grown)
        return false;
    w->entry = grown;
    for (int i = w->entries; i < more; i++) {
        grown[i] = (entry){.next_free = w->first_free};
        w->first_free = i;
    }
    w->entries = more;
    return true;
}

int tt_watch_add(tt_watch *w, int fd, const tt_watch_calls *calls, void *arg)
{
    pthread_mutex_lock(&w->lock);
    int i = -1;
    if (w->first_free >= 0 || grow(w)) {
        i = w->first_free;
        entry *x = &w->entry[i];
        w->first_free = x->next_free;
        uint32_t generation = x->generation + 1;
        *x = (entry){.used = true, .generation = generation, .fd = fd, .calls = *calls, .arg = arg};
        struct epoll_event ev = {.events = EPOLLRDHUP | EPOLLHUP | EPOLLERR,
                                 .data.u64 = (uint64_t)generation << 32 | (uint32_t)i};
        x->lost = epoll_ctl(w->epoll, EPOLL_CTL_ADD, fd, &ev) != 0; /* then: not watched */
    }
    pthread_mutex_unlock(&w->lock);
    return i;
}

void tt_watch_at(tt_watch *w, int ticket, int64_t when_ms)
{
    if (ticket < 0)
        return;
    pthread_mutex_lock(&w->lock);
    w->entry[ticket].when_ms = when_ms;
    bool sooner = when_ms && (!w->next_ms || when_ms < w->next_ms);
    if (sooner)
        w->next_ms = when_ms;
    pthread_mutex_unlock(&w->lock);
    if (sooner)
        poke(w);
}

void tt_watch_remove(tt_watch *w, int ticket)
{
    if (ticket < 0)
        return;
    pthread_mutex_lock(&w->lock);
    entry *x = &w->entry[ticket];
    if (!x->lost)
        epoll_ctl(w->epoll, EPOLL_CTL_DEL, x->fd, NULL);
    x->used = false;
    x->when_ms = 0;
    x->next_free = w->first_free;
    w->first_free = ticket;
    pthread_mutex_unlock(&w->lock);
}

void tt_watch_rouse(tt_watch *w)
{
    pthread_mutex_lock(&w->lock);
    for (int i = 0; i < w->entries; i++)
        if (w->entry[i].used)
            w->entry[i].calls.due(w->entry[i].arg);
    pthread_mutex_unlock(&w->lock);
}
