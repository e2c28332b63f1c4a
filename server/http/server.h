/* server.h - the HTTP server: one libmicrohttpd thread that parses, submits and moves bytes; a
 * watch thread for clients that leave; workers for long texts. */
#ifndef TT_SERVER_H
#define TT_SERVER_H

#include "server/api/api.h"

typedef struct tt_server tt_server;

typedef struct {
    const char *host;       /* address or name to listen at; NULL: 127.0.0.1 */
    int port;               /* 0: any free one */
    size_t max_body;        /* bytes of a request body; 0: 4 MiB */
    size_t max_upload;      /* the same where bodies hold pictures; 0: 28 MiB (20 MiB in base64) */
    int idle_seconds;       /* a connection on which nothing moves is closed; 0: 60 */
    int max_connections;    /* 0: 4096 */
    int workers;            /* 0: 2 */
    const char *const *keys; /* NULL-terminated; NULL: none */
    const char *key_file;
    bool open_metrics;      /* /metrics needs no key */
    const char *const *cors; /* origins that may call from a browser, "*": all; NULL: none */
    int heartbeat_ms;       /* between comment lines of a silent stream; 0: 15000 */
} tt_server_options;

/* Starts to answer. options and api must outlive the server. */
tt_status tt_server_open(tt_server **out, tt_api *api, const tt_server_options *o, tt_err *e);
int tt_server_port(const tt_server *s);
/* Reads the key file again. */
tt_status tt_server_reload(tt_server *s, tt_err *e);
/* Generation requests that are not answered yet. */
int tt_server_active(const tt_server *s);
/* Stops: no new connections; what still runs is cancelled and told so. To drain first, set the
 * API's state to TT_API_DRAINING and wait for tt_server_active() to become 0. NULL is fine. */
void tt_server_close(tt_server *s);

#endif
