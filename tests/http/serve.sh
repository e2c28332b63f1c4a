# serve.sh - functions for scripts that need a running server; to be sourced.
# start OPTION...: starts `tutti serve --port 0`, sets pid and url when it is ready; the program's
# output goes to $log. stop [SIGNAL]: ends it, sets rc to its exit status.

program=${B:-build/release}/tutti

start() {
    : >"$log"
    "$program" serve --port 0 "$@" >>"$log" 2>&1 &
    pid=$!
    url=
    for _ in $(seq 600); do
        url=$(sed -n 's/^tutti .* listens at \(http:[^,]*\)\/, .*/\1/p' "$log")
        [ -n "$url" ] && grep -q '^ready: ' "$log" && return 0
        kill -0 "$pid" 2>/dev/null || break
        sleep 0.05
    done
    cat "$log"
    return 1
}

stop() {
    kill "-${1:-TERM}" "$pid" 2>/dev/null
    wait "$pid"
    rc=$?
    pid=
}
