/* scorer.c - see scorer.h. The request says HTTP/1.0, so that answers come in one piece. */
#include "server/scorer.h"

#include <errno.h>
#include <fcntl.h>
#include <math.h>
#include <poll.h>
#include <pthread.h>
#include <stdatomic.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <unistd.h>

#include "kernels/base/clock.h"
#include "server/json_read.h"

enum { MAX_ANSWER = 4 << 20 };
enum { LOOK_MS = 20 }; /* how often a waiting thread looks whether it may end */

struct tt_scoring {
    const tt_scorer *scorer;
    tt_question question;
    int32_t n;
    float *score;
    void (*wake)(void *arg);
    void *wake_arg;
    pthread_t thread;
    atomic_bool done, abandoned;
    int64_t deadline_ms;
    tt_err error;
};

/* --- where it is --- */

static tt_status bad_address(tt_err *e, const char *text)
{
    return tt_fail(e, TT_EINVAL, "'%.100s' is not NAME=http://HOST[:PORT][/PATH]", text);
}

static tt_status resolve(tt_scorer *s, const char *port, tt_err *e)
{
    struct addrinfo want = {.ai_socktype = SOCK_STREAM}, *found;
    int rc = getaddrinfo(s->host, port, &want, &found);
    if (rc)
        return tt_fail(e, TT_EIO, "verifier '%s': host '%.100s': %s", s->name, s->host,
                       gai_strerror(rc));
    memcpy(&s->address, found->ai_addr, found->ai_addrlen);
    s->address_bytes = found->ai_addrlen;
    freeaddrinfo(found);
    return TT_OK;
}

tt_status tt_scorer_open(tt_scorer *out, const char *text, int timeout_ms, tt_err *e)
{
    const char *equals = strchr(text, '='), scheme[] = "http://";
    *out = (tt_scorer){.timeout_ms = timeout_ms};
    if (!equals || equals == text || equals - text >= (int)sizeof out->name ||
        strncmp(equals + 1, scheme, strlen(scheme)))
        return bad_address(e, text);
    snprintf(out->name, sizeof out->name, "%.*s", (int)(equals - text), text);
    const char *host = equals + 1 + strlen(scheme);
    size_t n = strcspn(host, "/");
    snprintf(out->path, sizeof out->path, "%s", host[n] ? host + n : "/");
    if (n == 0 || n >= sizeof out->host || strlen(host + n) >= sizeof out->path ||
        strpbrk(text, " \r\n@"))
        return bad_address(e, text);
    snprintf(out->host, sizeof out->host, "%.*s", (int)n, host);
    char *port = strrchr(out->host, ':');
    if (port && !port[1])
        return bad_address(e, text);
    if (port)
        *port = 0;
    return resolve(out, port ? port + 1 : "80", e);
}

/* --- one question, on its thread --- */

static tt_status failed(tt_scoring *s, const char *what)
{
    tt_fail(&s->error, TT_EIO, "verifier '%s' failed: %s", s->scorer->name, what);
    snprintf(s->error.code, sizeof s->error.code, "verifier_failed");
    return TT_EIO;
}

/* Until the socket can be written to or read from, in short looks. */
static tt_status wait_for(tt_scoring *s, int fd, short events)
{
    for (;;) {
        struct pollfd p = {.fd = fd, .events = events};
        if (atomic_load(&s->abandoned))
            return failed(s, "it was no longer wanted");
        if (tt_now_ms() > s->deadline_ms)
            return failed(s, "it did not answer in time");
        int rc = poll(&p, 1, LOOK_MS);
        if (rc > 0)
            return TT_OK;
        if (rc < 0 && errno != EINTR)
            return failed(s, strerror(errno));
    }
}

static tt_status connect_to(tt_scoring *s, int fd)
{
    int error = 0;
    socklen_t size = sizeof error;
    const struct sockaddr *a = (const struct sockaddr *)(const void *)&s->scorer->address;
    if (!connect(fd, a, s->scorer->address_bytes))
        return TT_OK;
    if (errno != EINPROGRESS)
        return failed(s, strerror(errno));
    tt_status st = wait_for(s, fd, POLLOUT);
    if (!st && (getsockopt(fd, SOL_SOCKET, SO_ERROR, &error, &size) || error))
        return failed(s, strerror(error ? error : errno));
    return st;
}

static tt_status send_all(tt_scoring *s, int fd, const tt_buf *b)
{
    for (size_t at = 0; at < b->size;) {
        ssize_t n = send(fd, (const char *)b->data + at, b->size - at, MSG_NOSIGNAL);
        if (n > 0)
            at += (size_t)n;
        else if (errno != EAGAIN && errno != EINTR)
            return failed(s, strerror(errno));
        tt_status st = n > 0 ? TT_OK : wait_for(s, fd, POLLOUT);
        if (st)
            return st;
    }
    return TT_OK;
}

/* Until the other side closes. */
static tt_status receive_all(tt_scoring *s, int fd, tt_buf *b)
{
    char piece[8192];
    for (;;) {
        ssize_t n = recv(fd, piece, sizeof piece, 0);
        if (n == 0)
            return TT_OK;
        if (n > 0)
            tt_buf_add(b, piece, (size_t)n);
        else if (errno != EAGAIN && errno != EINTR)
            return failed(s, strerror(errno));
        if (b->failed || b->size > MAX_ANSWER)
            return failed(s, "its answer is too large");
        tt_status st = n > 0 ? TT_OK : wait_for(s, fd, POLLIN);
        if (st)
            return st;
    }
}

static tt_status exchange(tt_scoring *s, const tt_buf *request, tt_buf *answer)
{
    int fd = socket(s->scorer->address.ss_family, SOCK_STREAM | SOCK_NONBLOCK | SOCK_CLOEXEC, 0);
    if (fd < 0)
        return failed(s, strerror(errno));
    tt_status st = connect_to(s, fd);
    if (!st)
        st = send_all(s, fd, request);
    if (!st)
        st = receive_all(s, fd, answer);
    close(fd);
    return st;
}

static tt_status read_scores(tt_scoring *s, const cJSON *tree)
{
    const cJSON *m, *list = tt_json_get(tree, "scores");
    int32_t i = 0;
    if (!cJSON_IsArray(list) || cJSON_GetArraySize(list) != s->n)
        return failed(s, "its answer has no 'scores', one per candidate");
    cJSON_ArrayForEach(m, list)
    {
        if (!cJSON_IsNumber(m) && !cJSON_IsNull(m))
            return failed(s, "a score is neither a number nor null");
        s->score[i++] = cJSON_IsNumber(m) ? (float)m->valuedouble : NAN;
    }
    return TT_OK;
}

static tt_status read_answer(tt_scoring *s, const tt_buf *answer)
{
    const char *text = tt_buf_text(answer), *body = strstr(text, "\r\n\r\n");
    int status = 0;
    char what[40];
    if (sscanf(text, "HTTP/1.%*c %d", &status) != 1 || !body)
        return failed(s, "its answer is not HTTP");
    snprintf(what, sizeof what, "it answered with status %d", status);
    if (status != 200)
        return failed(s, what);
    cJSON *tree = NULL;
    size_t head = (size_t)(body + 4 - text);
    if (tt_json_parse(&tree, body + 4, answer->size - head, NULL))
        return failed(s, "its answer is not JSON");
    tt_status st = read_scores(s, tree);
    cJSON_Delete(tree);
    return st;
}

static void *ask(void *arg)
{
    tt_scoring *s = arg;
    tt_buf body = {0}, request = {0}, answer = {0};
    s->question.write(s->question.arg, &body);
    tt_buf_printf(&request,
                  "POST %s HTTP/1.0\r\nHost: %s\r\nContent-Type: application/json\r\n"
                  "Content-Length: %zu\r\nConnection: close\r\n\r\n",
                  s->scorer->path, s->scorer->host, body.size);
    tt_buf_add(&request, body.data, body.size);
    if (body.failed || request.failed)
        failed(s, "no memory for the question");
    else if (!exchange(s, &request, &answer))
        read_answer(s, &answer);
    tt_buf_free(&body);
    tt_buf_free(&request);
    tt_buf_free(&answer);
    atomic_store(&s->done, true);
    if (s->wake && !atomic_load(&s->abandoned))
        s->wake(s->wake_arg);
    return NULL;
}

tt_status tt_scoring_begin(tt_scoring **out, const tt_scorer *scorer, const tt_question *q,
                           int32_t n, void (*wake)(void *arg), void *arg, tt_err *e)
{
    tt_scoring *s = calloc(1, sizeof *s);
    float *score = calloc((size_t)n + 1, sizeof *score);
    *out = NULL;
    if (s && score) {
        *s = (tt_scoring){.scorer = scorer, .question = *q, .n = n, .score = score, .wake = wake,
                          .wake_arg = arg, .deadline_ms = tt_now_ms() + scorer->timeout_ms};
        if (!pthread_create(&s->thread, NULL, ask, s)) {
            *out = s;
            return TT_OK;
        }
    }
    q->drop(q->arg);
    free(score);
    free(s);
    return tt_fail(e, TT_ENOMEM, "cannot ask verifier '%s'", scorer->name);
}

bool tt_scoring_done(tt_scoring *s)
{
    return atomic_load(&s->done);
}

tt_status tt_scoring_take(tt_scoring *s, float *score, tt_err *e)
{
    if (s->error.status && e)
        *e = s->error;
    if (!s->error.status)
        memcpy(score, s->score, (size_t)s->n * sizeof *score);
    return s->error.status;
}

void tt_scoring_end(tt_scoring *s)
{
    if (!s)
        return;
    atomic_store(&s->abandoned, true);
    pthread_join(s->thread, NULL);
    s->question.drop(s->question.arg);
    free(s->score);
    free(s);
}
