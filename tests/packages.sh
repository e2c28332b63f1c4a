#!/bin/sh
# Installs what is missing on a Debian machine: packages.sh build | test | fuzz
# Prints what it installs; asks through sudo unless root; says nothing when all is there.
set -eu

# PACKAGE, or PACKAGE:PROGRAM where the program being on the path is enough.
build='gcc:gcc libc6-dev make:make pkg-config:pkg-config libmicrohttpd-dev libcjson-dev libpng-dev
       libdnnl-dev libpcre2-dev libutf8proc-dev libxxhash-dev'
test="$build libcmocka-dev curl:curl nodejs:node npm:npm ca-certificates chromium:chromium
      fonts-dejavu-core python3:python3"
fuzz="$build clang-14:clang-14 libclang-rt-14-dev"

present() {
    case $1 in *:*) command -v "${1#*:}" >/dev/null 2>&1 && return 0 ;; esac
    [ "$(dpkg-query -W -f '${db:Status-Status}' "${1%%:*}" 2>/dev/null)" = installed ]
}

case ${1:-} in
build) list=$build ;;
test) list=$test ;;
fuzz) list=$fuzz ;;
*) echo "usage: $0 build|test|fuzz" >&2; exit 64 ;;
esac

missing=
for entry in $list; do
    present "$entry" || missing="$missing ${entry%%:*}"
done
[ -n "$missing" ] || exit 0

if ! command -v apt-get >/dev/null 2>&1; then
    echo "missing:$missing; this is not Debian, so install what matches them, then run again" >&2
    exit 1
fi
root=
if [ "$(id -u)" -ne 0 ]; then
    root=sudo
    if ! command -v sudo >/dev/null 2>&1; then
        echo "missing:$missing; as root, run: apt-get install$missing" >&2
        exit 1
    fi
fi
echo "installing with apt-get:$missing"
$root apt-get -qq update
# shellcheck disable=SC2086 # a list of words
$root env DEBIAN_FRONTEND=noninteractive \
    apt-get -qq -y --no-install-recommends install $missing </dev/null >/dev/null
