#!/usr/bin/env node
'use strict';
/* The first blocks of the Inception-v3 that is bundled in the npm package nsfwjs (4.3.0, MIT), for
 * image_features.py.  They measure pictures while a model is made; nothing of them is shipped.
 *
 * usage: inception_weights.js PACKAGE OUT [LAST=mixed6]
 * PACKAGE is the unpacked package.  Writes OUT.json, the layers up to LAST and where their tensors
 * are, and OUT.bin, the tensors as they are stored: bytes q of values min + scale * q.
 * The package keeps them as base64 text in browser bundles; joined they follow the manifest's order. */
const fs = require('fs'), path = require('path'), vm = require('vm');
const [root, out, last = 'mixed6'] = process.argv.slice(2);
if (!root || !out) { console.error('usage: inception_weights.js PACKAGE OUT [LAST]'); process.exit(2); }
const dir = path.join(root, 'dist/models/inception_v3');

function load(file) {
  const m = { exports: {} };
  vm.runInNewContext(fs.readFileSync(file, 'utf8'), { module: m, exports: m.exports });
  const v = m.exports.default || m.exports;
  return typeof v === 'string' ? v : Object.values(v).find(x => typeof x === 'string') || v;
}
const number = f => parseInt(f.match(/shard(\d+)/)[1]);
const shards = fs.readdirSync(dir).filter(f => /^group1-shard.*\.js$/.test(f)).sort((a, b) => number(a) - number(b));
const all = Buffer.concat(shards.map(f => Buffer.from(load(path.join(dir, f)), 'base64')));

const model = {};
{
  const m = { exports: {} };
  vm.runInNewContext(fs.readFileSync(path.join(dir, 'model.min.js'), 'utf8'), { module: m, exports: m.exports });
  Object.assign(model, m.exports.default || m.exports);
}
const layers = model.modelTopology.model_config.config.layers;
const kept = layers.slice(0, layers.findIndex(l => l.config.name === last) + 1);
if (!kept.length) throw new Error('no layer ' + last);
const wanted = new Set(kept.map(l => l.config.name));

let at = 0, to = 0;
const tensors = {}, parts = [];
for (const t of model.weightsManifest.flatMap(g => g.weights)) {
  const size = t.shape.reduce((a, b) => a * b, 1);
  if (!t.quantization || t.quantization.dtype !== 'uint8') throw new Error(t.name + ' is not stored in bytes');
  if (wanted.has(t.name.split('/')[0])) {
    tensors[t.name] = { shape: t.shape, at: to, min: t.quantization.min, scale: t.quantization.scale };
    parts.push(all.subarray(at, at + size));
    to += size;
  }
  at += size;
}
if (at !== all.length) throw new Error('read ' + at + ' of ' + all.length + ' bytes');
fs.writeFileSync(out + '.bin', Buffer.concat(parts));
fs.writeFileSync(out + '.json', JSON.stringify({ tensors, layers: kept.map(l => ({
  type: l.class_name, name: l.config.name, from: l.inbound_nodes.length ? l.inbound_nodes[0].map(i => i[0]) : [],
  padding: l.config.padding, strides: l.config.strides, size: l.config.pool_size, epsilon: l.config.epsilon })) }));
console.log(kept.length + ' layers, ' + Object.keys(tensors).length + ' tensors, ' + to + ' bytes');
