/* http_help.h - a server over the fake engine and a client made of bare sockets, which can do what
 * polite clients never do. One test program includes this once. */
#ifndef TT_HTTP_HELP_H
#define TT_HTTP_HELP_H

#include <arpa/inet.h>
#include <netinet/tcp.h>
#include <sys/socket.h>
#include <unistd.h>

#include "kernels/base/log.h"
#include "server/http/server.h"
#include "tests/server/api_help.h"

static tt_server *server;

static inline void open_server(const tt_server_options *o)
{
    tt_err e = {0};
    api.state = TT_API_READY;
    tt_server_options options = o ? *o : (tt_server_options){0};
    if (tt_server_open(&server, &api, &options, &e))
        fail_msg("%s", e.text);
}

static inline void close_server(void)
{
    tt_server_close(server);
    server = NULL;
    api.state = TT_API_READY;
}

static inline int setup(void **state)
{
    tt_log_set_level(TT_LOG_ERROR);
    fresh(state);
    open_server(NULL);
    return 0;
}

static inline int teardown(void **state)
{
    (void)state;
    if (server)
        close_server();
    return tt_fake_engine.live == 0 ? 0 : -1;
}

/* --- client --- */

static inline int dial(void)
{
    int fd = socket(AF_INET, SOCK_STREAM | SOCK_CLOEXEC, 0), one = 1;
    struct sockaddr_in to = {.sin_family = AF_INET,
                             .sin_port = htons((uint16_t)tt_server_port(server)),
                             .sin_addr.s_addr = htonl(INADDR_LOOPBACK)};
    struct timeval patience = {.tv_sec = 20};
    setsockopt(fd, SOL_SOCKET, SO_RCVTIMEO, &patience, sizeof patience);
    setsockopt(fd, IPPROTO_TCP, TCP_NODELAY, &one, sizeof one);
    if (connect(fd, (struct sockaddr *)&to, sizeof to))
        fail_msg("cannot connect");
    return fd;
}

static inline void put(int fd, const char *bytes, size_t n)
{
    while (n) {
        ssize_t sent = send(fd, bytes, n, MSG_NOSIGNAL);
        if (sent <= 0)
            return; /* the server closed: what it said can still be read */
        bytes += sent;
        n -= (size_t)sent;
    }
}

static inline void puts_to(int fd, const char *text) { put(fd, text, strlen(text)); }

/* Reads until `until` has come, or the end of the connection when it is NULL. */
static inline bool read_until(int fd, tt_buf *in, const char *until)
{
    for (;;) {
        if (until && in->size && memmem(in->data, in->size, until, strlen(until)))
            return true;
        char piece[4096];
        ssize_t n = recv(fd, piece, sizeof piece, 0);
        if (n <= 0)
            return !until && n == 0;
        tt_buf_add(in, piece, (size_t)n);
    }
}

/* A POST of JSON; more: further header lines. */
static inline void send_post(int fd, const char *path, const char *more, const char *body)
{
    tt_buf b = {0};
    tt_buf_printf(&b,
                  "POST %s HTTP/1.1\r\nHost: t\r\nContent-Type: application/json\r\n%s"
                  "Content-Length: %zu\r\n\r\n%s",
                  path, more, strlen(body), body);
    put(fd, b.data, b.size);
    tt_buf_free(&b);
}

/* One request on a connection of its own; the whole answer as it came. Free it. */
static inline char *roundtrip(const char *request)
{
    int fd = dial();
    tt_buf in = {0};
    puts_to(fd, request);
    read_until(fd, &in, NULL);
    close(fd);
    tt_buf_putc(&in, '\0');
    return in.data;
}

static inline char *post_once(const char *path, const char *more, const char *body)
{
    char headers[512];
    snprintf(headers, sizeof headers, "Connection: close\r\n%s", more);
    int fd = dial();
    tt_buf in = {0};
    send_post(fd, path, headers, body);
    read_until(fd, &in, NULL);
    close(fd);
    tt_buf_putc(&in, '\0');
    return in.data;
}

static inline int status_in(const char *answer)
{
    int status = 0;
    if (sscanf(answer, "HTTP/1.%*d %d", &status) != 1)
        fail_msg("no status in '%.80s'", answer);
    return status;
}

static inline void has(const char *answer, const char *text)
{
    if (!strcasestr(answer, text))
        fail_msg("'%s' is not in\n%.1500s", text, answer);
}

static inline void lacks(const char *answer, const char *text)
{
    if (strcasestr(answer, text))
        fail_msg("'%s' is in\n%.1500s", text, answer);
}

/* Waits until the condition holds, at most 10 seconds. */
#define EVENTUALLY(condition)                                                                      \
    do {                                                                                           \
        for (int ms_ = 0; !(condition) && ms_ < 10000; ms_++)                                      \
            nap_ms(1);                                                                             \
        assert_true(condition);                                                                    \
    } while (0)

#endif
