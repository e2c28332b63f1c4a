#!/usr/bin/env node
'use strict';
/* emoji_render.js -- rasterise several openly licensed emoji styles to one raw file.
 *
 * usage: emoji_render.js PACKAGES OUTDIR [SIZE=64] [STYLES]
 * PACKAGES holds the unpacked npm packages, as fetch_sources.sh leaves them; STYLES is a list with
 * commas, all when it is left out. @resvg/resvg-js must be found (NODE_PATH, or a node_modules here).
 * Writes OUTDIR/STYLE.rgba, SIZE * SIZE * 4 bytes a picture, alpha not multiplied in, and
 * OUTDIR/STYLE.jsonl, a record a picture in the same order.
 *
 * A few pictures make the rasteriser abort the process. So every style is drawn by a child, which
 * notes in OUTDIR/current what it draws; after an abort that picture goes to OUTDIR/skip.txt and the
 * style starts again. */
const fs = require('fs'), path = require('path');
const [PKG, OUT, SZ, ST] = process.argv.slice(2);
if (!PKG || !OUT) { console.error('usage: emoji_render.js PACKAGES OUTDIR [SIZE] [STYLES]'); process.exit(2); }
const SIZE = +(SZ || 64);
const STYLES = (ST || 'noto,noto-v1,twemoji,fluent-emoji,fluent-emoji-flat,emojione,fxemoji').split(',');
if (!process.env.EMOJI_CHILD) {
  const { spawnSync } = require('child_process');
  fs.mkdirSync(OUT, { recursive: true });
  for (const st of STYLES) for (let tries = 0; tries < 40; tries++) {
    const r = spawnSync(process.execPath, [...process.execArgv, __filename, PKG, OUT, String(SIZE), st],
      { env: { ...process.env, EMOJI_CHILD: '1' }, stdio: ['ignore', 'ignore', 'pipe'] });
    if (r.status === 0) { process.stderr.write(r.stderr); break; }
    fs.appendFileSync(path.join(OUT, 'skip.txt'), fs.readFileSync(path.join(OUT, 'current'), 'utf8') + '\n');
  }
  process.exit(0);
}
const { Resvg } = require('@resvg/resvg-js');
let skip = new Set();
try { skip = new Set(fs.readFileSync(path.join(OUT, 'skip.txt'), 'utf8').split('\n')); } catch (e) { /* none yet */ }

const key = s => s.toLowerCase().normalize('NFKD').replace(/[\u0300-\u036f'’.]/g, '')
  .replace(/[^a-z0-9]+/g, '-').replace(/^-|-$/g, '');

const base = JSON.parse(fs.readFileSync(path.join(PKG, 'unicode-emoji-json/data-by-emoji.json'), 'utf8'));
let tags = {};
try { tags = JSON.parse(fs.readFileSync(path.join(PKG, 'emojilib/dist/emoji-en-US.json'), 'utf8')); } catch (e) { /* optional */ }
const concepts = new Map();                       // key -> {emoji,name,group,tags}
for (const [emoji, o] of Object.entries(base)) {
  const c = { emoji, name: o.name.replace(/’/g, "'"), group: o.group, tags: (tags[emoji] || []).map(t => t.replace(/_/g, ' ')) };
  concepts.set(key(o.name), c);
  if (/^flag /.test(o.name)) concepts.set(key('flag for flag ' + o.name.slice(5)), c); // older naming
}

let n = 0, bad = 0;
for (const style of STYLES) {
  const raw = fs.openSync(path.join(OUT, style + '.rgba'), 'w');
  const meta = fs.openSync(path.join(OUT, style + '.jsonl'), 'w');
  const set = JSON.parse(fs.readFileSync(path.join(PKG, style, 'icons.json'), 'utf8'));
  const seen = new Set();
  const names = Object.keys(set.icons).concat(Object.keys(set.aliases || {})).sort();
  for (const nm of names) {
    const c = concepts.get(key(nm));
    if (!c || seen.has(c.emoji) || skip.has(style + '/' + nm)) continue;
    let o = set.icons[nm], hop = 0, a = nm, tf = false;
    while (!o && set.aliases && set.aliases[a] && hop++ < 5) {
      if (set.aliases[a].hFlip || set.aliases[a].vFlip || set.aliases[a].rotate) tf = true;
      a = set.aliases[a].parent; o = set.icons[a];
    }
    if (!o || tf) continue;
    const w = o.width || set.width || 16, h = o.height || set.height || 16, l = o.left || 0, t = o.top || 0;
    const side = Math.max(w, h), x = l - (side - w) / 2, y = t - (side - h) / 2;
    const svg = `<svg xmlns="http://www.w3.org/2000/svg" xmlns:xlink="http://www.w3.org/1999/xlink" viewBox="${x} ${y} ${side} ${side}" width="${side}" height="${side}">${o.body}</svg>`;
    fs.writeFileSync(path.join(OUT, 'current'), style + '/' + nm);
    let px;
    try { px = new Resvg(svg, { fitTo: { mode: 'width', value: SIZE } }).render().pixels; } catch (e) { bad++; continue; }
    if (px.length !== SIZE * SIZE * 4) { bad++; continue; }
    /* resvg hands back premultiplied RGBA; undo it */
    const b = Buffer.from(px); let vis = 0;
    for (let i = 0; i < b.length; i += 4) {
      const al = b[i + 3]; if (al > 16) vis++;
      if (al && al < 255) for (let k = 0; k < 3; k++) b[i + k] = Math.min(255, Math.round(b[i + k] * 255 / al));
    }
    if (vis < SIZE * SIZE / 100) { bad++; continue; }    /* empty render: drop */
    seen.add(c.emoji);
    fs.writeSync(raw, b);
    fs.writeSync(meta, JSON.stringify({ i: n++, style, name: c.name, group: c.group, emoji: c.emoji, tags: c.tags }) + '\n');
  }
  console.error(style, seen.size);
}
console.error('images', n, 'dropped', bad);
