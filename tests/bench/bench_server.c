/* bench_server.c - what the server costs beside the model.
 *
 *   bench_server [PROGRAM]        (build/release/tutti)
 *
 * Starts `tutti serve` on a free port and asks it as clients do. Prints one JSON line per figure:
 *   first_forward  from the request's arrival to its first forward pass: reading, checking,
 *                  tokenizing, queueing (the server's own clock)
 *   overhead       what a client waits beyond the forwards: connection, request, answer
 *   health         GET /health on a kept connection
 *   idle_streams   memory of the process with 1000 streams that wait in the queue */
#include <arpa/inet.h>
#include <netinet/tcp.h>
#include <signal.h>
#include <stdbool.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/resource.h>
#include <sys/socket.h>
#include <sys/wait.h>
#include <unistd.h>

#include "kernels/base/buf.h"
#include "kernels/base/clock.h"

enum { REQUESTS = 400, HEALTH = 4000, STREAMS = 1000, MAX_SAMPLES = 4096 };

typedef struct {
    pid_t pid;
    int port;
} child;

static void die(const char *what)
{
    perror(what);
    exit(1);
}

/* Starts the program and reads its output up to the line that says it is ready. */
static child start(const char *program)
{
    int out[2];
    child c = {0};
    if (pipe(out))
        die("pipe");
    c.pid = fork();
    if (!c.pid) {
        dup2(out[1], 1);
        freopen("/dev/null", "w", stderr);
        execl(program, program, "serve", "--port", "0", "--model", "tutti-text", "--max-running",
              "1", "--max-queue", "2000", (char *)NULL);
        _exit(127);
    }
    close(out[1]);
    FILE *f = fdopen(out[0], "r");
    char line[512];
    while (fgets(line, sizeof line, f)) {
        const char *at = strstr(line, "listens at http://127.0.0.1:");
        if (at)
            c.port = atoi(at + 28);
        if (!strncmp(line, "ready:", 6))
            return c;
    }
    fprintf(stderr, "bench_server: %s did not start\n", program);
    exit(1);
}

static int dial(const child *c)
{
    int fd = socket(AF_INET, SOCK_STREAM | SOCK_CLOEXEC, 0), one = 1;
    struct sockaddr_in to = {.sin_family = AF_INET, .sin_port = htons((uint16_t)c->port),
                             .sin_addr.s_addr = htonl(INADDR_LOOPBACK)};
    setsockopt(fd, IPPROTO_TCP, TCP_NODELAY, &one, sizeof one);
    if (fd < 0 || connect(fd, (struct sockaddr *)&to, sizeof to))
        die("connect");
    return fd;
}

static void put(int fd, const char *method, const char *path, const char *body)
{
    char text[1024];
    int n = snprintf(text, sizeof text,
                     "%s %s HTTP/1.1\r\nHost: b\r\nContent-Type: application/json\r\n"
                     "Content-Length: %zu\r\n\r\n%s",
                     method, path, strlen(body), body);
    if (send(fd, text, (size_t)n, 0) != n)
        die("send");
}

/* Reads one answer with a length into `in`. */
static void get(int fd, tt_buf *in)
{
    tt_buf_clear(in);
    for (;;) {
        const char *end = in->size ? strstr(in->data, "\r\n\r\n") : NULL;
        const char *length = end ? strcasestr(in->data, "content-length:") : NULL;
        if (length && in->size >= (size_t)(end + 4 - in->data) + strtoul(length + 15, NULL, 10))
            return;
        char piece[4096];
        ssize_t n = recv(fd, piece, sizeof piece, 0);
        if (n <= 0)
            die("recv");
        tt_buf_add(in, piece, (size_t)n);
    }
}

static double member(const tt_buf *in, const char *name)
{
    const char *at = strstr(in->data, name);
    if (!at) {
        fprintf(stderr, "bench_server: no %s in %s\n", name, in->data);
        exit(1);
    }
    return strtod(at + strlen(name), NULL);
}

/* --- figures --- */

static int ascending(const void *a, const void *b)
{
    double x = *(const double *)a, y = *(const double *)b;
    return (x > y) - (x < y);
}

static void print_times(const char *name, double *ms, int n)
{
    qsort(ms, (size_t)n, sizeof *ms, ascending);
    printf("{\"figure\":\"%s\",\"unit\":\"ms\",\"n\":%d,\"median\":%.4f,\"p90\":%.4f,"
           "\"p99\":%.4f}\n",
           name, n, ms[n / 2], ms[n * 9 / 10], ms[n * 99 / 100]);
}

static void measure_requests(const child *c, bool keep)
{
    static double first[REQUESTS], beyond[REQUESTS];
    tt_buf in = {0};
    int fd = dial(c);
    for (int i = 0; i < REQUESTS + 20; i++) {
        int64_t start = tt_now_ns();
        if (!keep && i) {
            close(fd);
            fd = dial(c);
        }
        put(fd, "POST", "/v1/completions",
            "{\"model\":\"tutti-text\",\"prompt\":\"Once upon a time\",\"max_tokens\":1}");
        get(fd, &in);
        double all = (double)(tt_now_ns() - start) * 1e-6;
        if (i < 20) /* warm */
            continue;
        first[i - 20] = member(&in, "\"read_ms\":") + member(&in, "\"queue_ms\":");
        beyond[i - 20] = all - member(&in, "\"run_ms\":");
    }
    close(fd);
    tt_buf_free(&in);
    if (keep)
        print_times("first_forward", first, REQUESTS);
    print_times(keep ? "overhead_kept_connection" : "overhead_new_connection", beyond, REQUESTS);
}

static void measure_health(const child *c)
{
    static double ms[HEALTH];
    tt_buf in = {0};
    int fd = dial(c);
    for (int i = 0; i < HEALTH; i++) {
        int64_t start = tt_now_ns();
        put(fd, "GET", "/health", "");
        get(fd, &in);
        ms[i] = (double)(tt_now_ns() - start) * 1e-6;
    }
    close(fd);
    tt_buf_free(&in);
    print_times("health", ms, HEALTH);
}

static double resident_mb(const child *c)
{
    char path[64];
    long long pages = 0;
    snprintf(path, sizeof path, "/proc/%d/statm", (int)c->pid);
    FILE *f = fopen(path, "r");
    if (!f || fscanf(f, "%*s %lld", &pages) != 1)
        die(path);
    fclose(f);
    return (double)pages * (double)sysconf(_SC_PAGESIZE) / 1e6;
}

/* Reads until the headers of a stream have come. */
static void await_headers(int fd)
{
    char piece[2048];
    if (recv(fd, piece, sizeof piece, 0) <= 0 || strncmp(piece, "HTTP/1.1 200", 12))
        die("a stream was refused");
}

/* One long request keeps the only place; the streams wait behind it. */
static void measure_streams(const child *c)
{
    static int fd[STREAMS];
    int long_one = dial(c);
    put(long_one, "POST", "/v1/completions",
        "{\"model\":\"tutti-text\",\"prompt\":\"x\",\"max_tokens\":500,\"n\":64,\"stream\":true}");
    await_headers(long_one);
    usleep(300000); /* the engine's own buffers have grown */
    double before = resident_mb(c);
    int64_t start = tt_now_ns();
    for (int i = 0; i < STREAMS; i++) {
        fd[i] = dial(c);
        put(fd[i], "POST", "/v1/chat/completions",
            "{\"model\":\"tutti-text\",\"messages\":[{\"role\":\"user\",\"content\":\"hi\"}],"
            "\"stream\":true}");
    }
    for (int i = 0; i < STREAMS; i++)
        await_headers(fd[i]);
    double seconds = (double)(tt_now_ns() - start) * 1e-9, after = resident_mb(c);
    printf("{\"figure\":\"idle_streams\",\"unit\":\"MB\",\"n\":%d,\"resident\":%.1f,"
           "\"before\":%.1f,\"per_stream_kb\":%.1f,\"open_seconds\":%.3f}\n",
           STREAMS, after, before, (after - before) * 1000 / STREAMS, seconds);
    for (int i = 0; i < STREAMS; i++)
        close(fd[i]);
    close(long_one);
}

int main(int argc, char **argv)
{
    const char *program = argc > 1 ? argv[1] : "build/release/tutti";
    struct rlimit files = {4096, 4096};
    setrlimit(RLIMIT_NOFILE, &files);
    child c = start(program);
    measure_requests(&c, true);
    measure_requests(&c, false);
    measure_health(&c);
    measure_streams(&c);
    kill(c.pid, SIGINT);
    usleep(200000);
    kill(c.pid, SIGINT); /* no draining */
    int status;
    waitpid(c.pid, &status, 0);
    return status != 0;
}
