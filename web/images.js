// images.js - the page of images: a form, pictures that fill in step by step, paint for edits, and
// searches among many candidates.

import * as api from './api.js';
import { CropReader } from './crops.js';
import { imageExamples } from './examples.js';
import { drawLevels } from './levels.js';
import { Picture, PictureView, bitmapOf } from './picture.js';
import { SearchPanel, showSpent } from './search.js';
import { ParameterForm, fromAddress, markInvalid, parametersOf, toAddress } from './settings.js';
import { SearchTree } from './tree.js';

const $ = id => document.getElementById(id);

let served = [];   // image models, as in GET /v1/models
let verifiers = []; // models that score
let readers = [];   // models that read pictures crop by crop
let labels = [];   // of the model chosen: [{ name, labels }]
let run = null;    // what is being made: { pictures, abort, ... }
let busy = false;
let pictures = []; // all made so far, newest first

const view = new PictureView($('picture'), tools);
const form = new ParameterForm($('params'), $('changed'), remember);
const panel = new SearchPanel($('search'), $('searching'), remember);
const tree = new SearchTree($('tree'), { say: text => { $('tree-says').textContent = text; }, pick });
const crops = new CropReader($('crops-shown'), text => { $('crops-say').textContent = text; });
const model = () => served.find(m => m.id === $('model').value);

// --- requests ---

/** The labels chosen, as tutti.labels wants them. */
function chosen() {
  const out = {};
  labels.forEach((g, i) => {
    const value = $(`label-${i}`)?.value.trim();
    if (value) out[g.name] = value;
  });
  return out;
}

/** Previews that show every step: models whose tokens come in order have as many as tokens. */
function previews() {
  const { layout, tokens } = model().tutti;
  const steps = form.changed().steps ?? form.rows.find(r => r.p.name === 'steps')?.p.default;
  return Math.max(0, Math.min(64, (layout === 'grid' ? steps || 8 : tokens) - 1));
}

function body(extra = {}, n = Number($('n').value)) {
  return {
    model: model().id, prompt: '', n, seed: Number($('seed').value), stream: true, ...extra,
    tutti: {
      labels: chosen(), stream_mode: 'delta', return_tokens: true, previews: previews(),
      ...form.changed(), ...extra.tutti,
    },
  };
}

const SHOWN = 6; // candidates of a step of a search that come with their pictures

/** The same for a search: no tokens of single candidates, and a text for the verifiers. */
function searchBody(search) {
  const { prompt, tutti: { stream_mode, ...tutti }, ...rest } = body();
  const text = panel.text(), labels = Object.keys(tutti.labels).length > 0;
  return { ...rest, ...(text || !labels ? { prompt: text } : {}), tutti: { ...tutti, previews: SHOWN, search } };
}

/** Asks, and shows what comes as it comes. `from`: the picture it begins with. */
async function ask(path, request, from) {
  if (busy || !model()) return;
  showError(null);
  busy = true;
  const started = performance.now();
  const made = Array.from({ length: request.n }, () => new Picture(model().tutti, from));
  const search = Boolean(request.tutti.search);
  for (const p of made) p.search = search;
  showSearch(search);
  $('crops-box').hidden = true;
  run = { abort: new AbortController() };
  let queue = Promise.resolve(), last = null;
  pictures.unshift(...made);
  showGallery();
  select(made[0]);
  $('say').textContent = 'Generating.';
  if (innerWidth <= 860) $('stage').scrollIntoView();
  try {
    await api.stream(path, request, {
      signal: run.abort.signal,
      onFrame: event => {
        if (event.usage) last = event;
        queue = queue.then(() => take(made, event)); // pictures are decoded one after the other
      },
    });
    await queue;
  } catch (e) {
    await queue;
    if (e.name !== 'AbortError') showError(e);
    if (!tree.columns.length) showSearch(false);
    pictures = pictures.filter(p => !made.includes(p) || p.done);
    if (!pictures.includes(view.picture)) select(pictures[0] ?? null);
    showGallery();
  }
  busy = false;
  report(last, performance.now() - started);
  tools();
  $('say').textContent = last ? 'Done.' : 'Stopped.';
}

async function take(made, event) {
  const picture = made[event.index ?? 0];
  const bitmap = await picture.take(event);
  if (event.type.endsWith('.search_step')) {
    const bitmaps = new Map(bitmap ? [['best', bitmap]] : []);
    for (const other of event.others ?? []) bitmaps.set(other.index, await bitmapOf(other.b64_json));
    $('tree-says').textContent = $('say').textContent = tree.step(event, bitmaps);
  } else if (picture.search && picture.done) {
    tree.result(event.candidate, made.indexOf(picture), bitmap);
    resultOf.set(event.candidate, picture);
  }
  if (picture === view.picture) show();
  thumbnail(picture);
}

function report(event, ms) {
  const t = event?.tutti, set = (name, v) => { $(`stat-${name}`).textContent = v ?? '–'; };
  $('stats').hidden = !event;
  set('steps', t?.steps);
  set('tokens', event?.usage?.output_tokens);
  set('time', `${Math.round(t?.time?.run_ms ?? ms)} ms`);
  set('seed', t?.seed);
  showSpent($('spent'), t?.search);
}

function generate() {
  remember();
  const search = panel.value();
  ask('v1/images/generations', search ? searchBody(search) : body());
}

const resultOf = new Map(); // candidate of the last search -> its picture

function showSearch(search) {
  $('stage').classList.toggle('searching', search);
  $('tree-box').hidden = !search;
  $('spent').hidden = true;
  $('tree-says').textContent = 'No step was scored yet.';
  tree.clear();
  resultOf.clear();
}

/** A node of the tree was pressed. */
function pick(node) {
  const picture = resultOf.get(node.index);
  if (picture) select(picture);
}

const source = () => ({ image: { image_url: view.picture.dataUrl() } });

function edit() {
  ask('v1/images/edits', body({ ...source(), mask: { image_url: view.maskUrl() } }), view.picture);
}

function vary() {
  const tutti = { strength: Number($('strength').value) };
  ask('v1/images/variations', withoutPrompt(body({ ...source(), tutti })), view.picture);
}

function wider() {
  const tutti = { outpaint: { left: 0.125, top: 0.125, right: 0.125, bottom: 0.125 } };
  ask('v1/images/edits', body({ ...source(), tutti }), null);
}

async function readCrops() {
  showError(null);
  busy = true;
  run = { abort: new AbortController() };
  tools();
  $('crops-box').hidden = false;
  $('crops-say').textContent = `${readers[0].id} begins to read.`;
  try {
    await crops.read(readers[0], view.picture, run.abort.signal);
  } catch (e) {
    if (e.name !== 'AbortError') showError(e);
  }
  busy = false;
  tools();
}

/** Variations take labels, but no prompt. */
function withoutPrompt({ prompt, ...rest }) { return rest; }

// --- showing ---

function select(picture) {
  if (picture) picture.shown = picture.frames.length;
  view.show(picture);
  show();
  showGallery();
  tools();
}

function show() {
  const p = view.picture;
  $('player').hidden = !p || p.frames.length < 2;
  if (p) {
    $('scrub').max = p.frames.length;
    $('scrub').value = p.shown;
    $('step').textContent = stepText(p);
    $('picture').setAttribute('aria-label', p.done ? `Picture of ${p.caption()}` : 'Picture being made');
  }
  $('scores').hidden = !p?.scores;
  $('scores').textContent = p?.scores ? scoreText(p) : '';
  drawLevels($('levels'), p, to);
  view.draw();
}

function stepText(p) {
  const frame = p.frames[p.shown - 1];
  if (!frame) return p.frames.length ? 'nothing yet' : '';
  return `step ${frame.step}${frame.of ? ` of ${frame.of}` : ''}`;
}

const scoreText = p => `score ${p.score.toPrecision(4)}` + (Object.keys(p.scores).length < 2 ? ''
  : ` (${Object.entries(p.scores).map(([name, v]) => `${name} ${v?.toPrecision(4) ?? '–'}`).join(', ')})`);

/** Shows the picture after so many of its frames. */
function to(shown) {
  if (playing) play();
  view.picture.shown = shown;
  show();
}

let playing = 0;

function play() {
  const p = view.picture;
  clearInterval(playing);
  if (playing) { playing = 0; $('play').textContent = '▶'; p.shown = p.frames.length; return show(); }
  p.shown = 0;
  $('play').textContent = '❚❚';
  playing = setInterval(() => {
    if (p !== view.picture || p.shown >= p.frames.length) return play();
    p.shown++;
    show();
  }, 220);
}

function thumbnail(picture) {
  const canvas = document.querySelector(`[data-picture="${picture.id}"] canvas`);
  if (canvas) picture.paint(canvas);
}

function showGallery() {
  pictures = pictures.slice(0, 48);
  $('gallery').replaceChildren(...pictures.map(p => {
    const button = document.createElement('button');
    const canvas = document.createElement('canvas');
    button.type = 'button';
    button.dataset.picture = p.id;
    button.setAttribute('role', 'option');
    button.setAttribute('aria-selected', String(p === view.picture));
    button.setAttribute('aria-label', p.caption());
    canvas.width = canvas.height = 64;
    p.paint(canvas);
    button.append(canvas);
    button.addEventListener('click', () => select(p));
    return button;
  }));
}

const edits = () => model()?.tutti.capabilities.includes('image_edit') ?? true;

/** What can be done with the picture shown. */
function tools() {
  const ready = Boolean(view.picture?.done) && !busy;
  $('tools').disabled = !ready;
  $('crops').hidden = !readers.length;
  for (const b of ['edit', 'clear', 'wider', 'paint-hint']) $(b).hidden = !edits();
  $('edit').disabled = $('clear').disabled = !ready || !view.painted();
  $('go').disabled = busy;
  $('stop').disabled = !busy;
  if (ready) $('save').href = view.picture.blobUrl();
}

function showError(error) {
  $('error').hidden = !error;
  $('error').textContent = error ? `${error.param ? `${error.param}: ` : ''}${error.message}` : '';
  const name = error?.param?.replace(/^tutti\.labels\./, '') ?? null;
  const group = labels.findIndex(g => g.name === name);
  const field = error?.param === 'tutti.search.results' ? 'n' : error?.param ?? null;
  markInvalid(group >= 0 ? `label-${group}` : field)?.focus();
}

// --- the form ---

function labelField(group, i) {
  const label = document.createElement('label');
  const few = group.labels.length <= 16;
  const input = document.createElement(few ? 'select' : 'input');
  input.id = `label-${i}`;
  if (few) {
    input.append(new Option('any', ''), ...group.labels.map(l => new Option(l, l)));
  } else {
    const list = document.createElement('datalist');
    list.id = `list-${i}`;
    list.append(...group.labels.map(l => new Option(l)));
    input.setAttribute('list', list.id);
    input.placeholder = `any of ${group.labels.length}`;
    label.append(list);
  }
  label.className = few ? '' : 'whole';
  label.prepend(group.name[0].toUpperCase() + group.name.slice(1), input);
  return label;
}

/** 'red apple, noto' as a value of every group; null if a part is no label of the model. */
function valuesOf(example) {
  const parts = example.split(', ');
  const values = labels.map(g => parts.find(p => g.labels.includes(p)) ?? '');
  return values.filter(Boolean).length === parts.length ? values : null;
}

/** A few to begin with, as [text, value per group]: those known to work well, or some spread over
 *  the whole list of the first group. */
function someLabels() {
  const list = labels[0]?.labels ?? [], n = Math.min(8, list.length);
  const good = (imageExamples[model().id] ?? []).map(e => [e, valuesOf(e)]).filter(e => e[1]);
  const spread = (_, i) => list[Math.floor((i + 0.5) * list.length / n)];
  return good.length ? good : Array.from({ length: n }, spread).map(l => [l, [l]]);
}

function showExamples() {
  const list = someLabels();
  $('examples-box').hidden = !list.length;
  $('examples').replaceChildren(...list.map(([name, values]) => {
    const b = document.createElement('button');
    b.type = 'button';
    b.textContent = name;
    b.addEventListener('click', () => {
      values.forEach((v, i) => { $(`label-${i}`).value = v; });
      generate();
    });
    return b;
  }));
}

async function showModel(values = {}) {
  const all = await api.imageLabels();
  labels = (all.find(m => m.model === model().id)?.groups ?? []).filter(g => g.labels);
  $('labels').replaceChildren(...labels.map(labelField));
  labels.forEach((g, i) => { if (values[g.name]) $(`label-${i}`).value = values[g.name]; });
  form.build(parametersOf(model(), model().tutti.default_sampler), values);
  panel.build(verifiers, values);
  $('search-box').open ||= Boolean(panel.on());
  showExamples();
}

function remember() {
  const settings = { model: $('model').value, seed: $('seed').value, n: $('n').value, ...chosen(),
    ...form.changed(), ...panel.settings() };
  history.replaceState(null, '', toAddress(settings));
}

/** A picture of the reader's own: cut to a square of the model's size. */
async function open(file) {
  showError(null);
  try {
    const bitmap = await createImageBitmap(file);
    const side = Number(model().tutti.sizes[0].split('x')[0]);
    const picture = await Picture.of(bitmap, side, model().tutti, file.name);
    pictures.unshift(picture);
    select(picture);
  } catch {
    showError({ message: `${file.name} is no picture this browser can read` });
  }
}

function listen() {
  $('ask').addEventListener('submit', e => { e.preventDefault(); generate(); });
  $('ask').addEventListener('keydown', e => {
    if (e.key === 'Enter' && (e.ctrlKey || e.metaKey)) { e.preventDefault(); generate(); }
  });
  document.addEventListener('keydown', e => { if (e.key === 'Escape') run?.abort.abort(); });
  $('stop').addEventListener('click', () => run?.abort.abort());
  $('dice').addEventListener('click', () => {
    $('seed').value = crypto.getRandomValues(new Uint32Array(1))[0];
    remember();
  });
  $('reset').addEventListener('click', () => form.reset());
  $('model').addEventListener('change', () => showModel().then(remember));
  $('edit').addEventListener('click', edit);
  $('vary').addEventListener('click', vary);
  $('crops').addEventListener('click', readCrops);
  $('wider').addEventListener('click', wider);
  $('clear').addEventListener('click', () => view.clear());
  $('strength').addEventListener('input', e => {
    $('strength-out').textContent = `${Math.round(e.target.value * 100)} %`;
  });
  $('file').addEventListener('change', e => { if (e.target.files[0]) open(e.target.files[0]); });
  $('play').addEventListener('click', play);
  $('scrub').addEventListener('input', e => to(Number(e.target.value)));
}

async function waitForModels() {
  for (;;) {
    try {
      const all = await api.models();
      served = all.filter(m => m.tutti?.capabilities?.includes('image_generation'));
      verifiers = all.filter(m => m.tutti?.capabilities?.includes('verifier'));
      readers = all.filter(m => m.tutti?.crops);
      if (served.length) return;
      $('server').textContent = all.length ? 'no image model is open' : 'loading a model…';
    } catch (e) {
      $('server').textContent = e.message;
      $('server').className = 'server down';
      if (e.status === 401) await askForKey();
    }
    await new Promise(r => setTimeout(r, 1000));
  }
}

function askForKey() {
  $('key-box').hidden = false;
  $('key').focus();
  return new Promise(resolve => $('key').addEventListener('change', () => {
    api.setKey($('key').value.trim());
    resolve();
  }, { once: true }));
}

async function boot() {
  listen();
  view.draw();
  await waitForModels();
  $('key-box').hidden = true;
  $('model').replaceChildren(...served.map(m => new Option(m.id, m.id)));
  $('model-box').hidden = served.length < 2;
  const from = fromAddress();
  if (from.model && served.some(m => m.id === from.model)) $('model').value = from.model;
  if (from.seed) $('seed').value = from.seed;
  if (from.n) $('n').value = from.n;
  await showModel(from);
  $('server').textContent = `${served.length} image model${served.length > 1 ? 's' : ''} ready`;
  $('server').className = 'server up';
  tools();
}

boot();
