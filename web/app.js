// app.js - wires the form, the stream and the canvas together.

import * as api from './api.js';
import { Board, BoardView, drawScore } from './board.js';
import { examples } from './examples.js';
import { columns, holes } from './holes.js';
import { drawWave } from './wave.js';
import { ParameterForm, fromAddress, markInvalid, parametersOf, toAddress } from './settings.js';

const $ = id => document.getElementById(id);

let served = [];   // as in GET /v1/models
let chat = false;  // which tab
let turns = [];    // of the conversation
let run = null;    // the request shown: { board, view, frames, ... }
const lengths = { text: 32, chat: 64 }; // of the tab that is not shown
let picked = '';   // who chose the sampler: '' nobody, 'example' until its prompt is changed, 'user'
let lent = {};     // parameter values an example set; they go with it

const form = new ParameterForm($('params'), $('changed'), remember);
const model = () => served.find(m => m.id === $('model').value);
/** Whether tokens are inserted instead of filled in. */
const inserts = () => model()?.tutti?.family === 'insertion';
const can = what => (model()?.tutti?.capabilities ?? []).includes(what);

// --- the request ---

function request() {
  const m = model();
  const options = { sampler: $('sampler').value, stream_mode: 'delta', ...form.changed() };
  if (options.sampler === 'guided') options.guide = m.tutti.guides[0];
  if ($('special').checked && !chat) options.special_tokens = true;
  const body = { model: m.id, seed: Number($('seed').value), stream: true,
    stream_options: { include_usage: true }, tutti: options };
  const text = $('prompt').value, length = Number($('max-tokens').value), grows = inserts();
  if (chat) {
    const messages = [...turns, { role: 'user', content: text }];
    return { path: 'v1/chat/completions', grows, parts: [{ open: length }],
             body: { ...body, messages, max_completion_tokens: length } };
  }
  const segments = holes(text);
  if (segments) {
    return { path: 'v1/infill', grows,
             parts: segments.map(s => s.hole ? { open: s.hole.max ?? 1, hole: true } : s),
             body: { ...body, segments } };
  }
  return { path: 'v1/completions', grows, parts: [{ text }, { open: length }],
           body: { ...body, prompt: text, max_tokens: length } };
}

function curl({ path, body }) {
  const json = JSON.stringify(body, null, 1).replaceAll("'", "'\\''");
  const key = api.hasKey() ? " \\\n  -H \"Authorization: Bearer $KEY\"" : '';
  return `curl -N ${new URL(path, location.href).href}${key} \\\n  -H 'Content-Type: application/json' \\\n  -d '${json}'`;
}

// --- playing what came ---

/** Control tokens, as models write them: <|endoftext|>, </s>, [PAD]. */
const isSpecial = c => c.text === '' || /^(<\|.*\|>|<\/?[a-z_]+>|\[[A-Z]+\])$/.test(c.text);

class Run {
  constructor(ask) {
    this.ask = ask;
    this.board = new Board(ask.parts, ask.grows);
    this.view = new BoardView($('canvas'), this.board, isSpecial);
    this.steps = 1;
    this.live = true;    // the stream goes on
    this.playing = true; // the view moves towards the newest frame by itself
    this.started = performance.now();
    this.abort = new AbortController();
  }

  /** Holes of unknown length got one. */
  fit(holes) {
    if (this.board.grows) return;
    this.board.fit(holes);
    this.view.rebuild();
  }

  add(frame) {
    this.board.add(frame);
    this.steps = Math.max(this.steps, frame.step);
    this.tick();
  }

  /** Shows the next frame now and again after the pace chosen, until the newest is shown. */
  tick() {
    if (this.timer || !this.playing) return;
    const left = this.board.frames.length - this.board.shown;
    if (left <= 0) return this.settle();
    const pace = Number($('pace').value);
    this.view.show(pace === 0 ? this.board.frames.length : this.board.shown + 1);
    this.draw();
    this.timer = setTimeout(() => { this.timer = 0; this.tick(); }, pace);
  }

  settle() {
    if (!this.live) {
      this.playing = false;
      controls();
    }
    this.draw();
  }

  jump(n) {
    clearTimeout(this.timer);
    this.timer = 0;
    this.playing = false;
    this.view.show(n);
    this.draw();
    controls();
  }

  play() {
    if (this.board.shown >= this.board.frames.length) this.view.show(0);
    this.playing = true;
    controls();
    this.tick();
  }

  pause() {
    clearTimeout(this.timer);
    this.timer = 0;
    this.playing = false;
    controls();
  }

  draw() {
    const { board } = this;
    const frame = board.frames[board.shown - 1];
    $('scrub').max = board.frames.length;
    $('scrub').value = board.shown;
    const over = !this.live && board.shown === board.frames.length;
    const left = board.grows ? `, ${board.columns.length} inserted`
      : board.open ? `, ${board.open} ${over ? 'unused' : 'open'}` : '';
    // What was expected of insertions is their room; in the end it is known.
    const of = board.grows && !this.live ? this.steps : Math.max(this.steps, frame?.of ?? 0);
    $('step').textContent = `step ${frame?.step ?? 0} of ${of}${left}`;
    drawScore($('score'), board, of);
    const wave = drawWave($('wave'), board.columns);
    $('wave-box').hidden = !wave;
    $('wave-says').textContent = wave;
  }
}

function controls() {
  const busy = Boolean(run?.live);
  $('go').disabled = busy;
  $('stop').disabled = !busy;
  $('play').textContent = run?.playing ? '❚❚' : '▶';
  $('play').setAttribute('aria-label', run?.playing ? 'Pause' : 'Play again');
  $('canvas').setAttribute('aria-busy', String(busy));
  for (const id of ['player', 'score-box', 'stats', 'curl-box']) $(id).hidden = !run;
  if (!run) $('wave-box').hidden = true;
}

function stat(name, value) { $(`stat-${name}`).textContent = value ?? '–'; }

function showError(error) {
  const el = $('error');
  el.hidden = !error;
  el.replaceChildren();
  markInvalid(null);
  if (!error) return;
  if (error.param) {
    const field = document.createElement('code');
    field.textContent = error.param;
    el.append(field, ': ');
  }
  el.append(error.message);
  markInvalid(error.param)?.focus();
}

// --- asking ---

const ENDS = { stop: 'end token', length: 'full canvas', cancelled: 'you', error: 'an error' };
const GROWN = { ...ENDS, stop: 'completeness', length: 'lack of room' };

/** What one chunk of the stream says, whatever its endpoint. */
function take(chunk) {
  const choice = chunk.choices?.[0];
  const t = choice?.tutti ?? chunk.tutti;
  if (t?.holes) run.fit(t.holes);
  if (t?.events?.length || t?.wave) run.add({ step: t.step, of: t.of, events: t.events, wave: t.wave });
  if (choice?.finish_reason) run.finish = choice.finish_reason;
  if (t?.text !== undefined) run.text = t.text;
  if (chunk.usage) run.usage = chunk.usage;
  if (t?.nfe !== undefined) run.result = t;
}

function report() {
  const r = run.result ?? {}, seconds = (r.time?.run_ms ?? performance.now() - run.started) / 1000;
  const tokens = run.usage?.completion_tokens ?? run.board.columns.length - run.board.open;
  stat('steps', r.steps ?? run.steps);
  stat('tokens', tokens);
  stat('tpf', r.tokens_per_forward?.toFixed(2));
  stat('time', seconds < 1 ? `${Math.round(seconds * 1000)} ms` : `${seconds.toFixed(2)} s`);
  stat('core', r.depth?.core_passes_per_token.toFixed(1));
  $('stat-core').parentElement.hidden = !r.depth;
  stat('end', (run.board.grows ? GROWN : ENDS)[run.finish] ?? run.finish);
  stat('seed', r.seed ?? run.ask.body.seed);
}

async function generate() {
  if (run?.live || !model()) return;
  showError(null);
  let ask;
  try { ask = request(); } catch (e) { return showError(e); }
  run?.pause();
  run = new Run(ask);
  const mine = run;
  for (const id of ['steps', 'tokens', 'tpf', 'core', 'time', 'end', 'seed']) stat(id, null);
  $('curl').textContent = curl(ask);
  $('say').textContent = 'Generating.';
  run.draw();
  controls();
  remember();
  if (innerWidth <= 860) $('stage').scrollIntoView();
  try {
    await api.stream(ask.path, ask.body, { signal: mine.abort.signal, onFrame: take });
  } catch (e) {
    mine.finish = e.name === 'AbortError' ? 'cancelled' : 'error';
    if (mine.finish === 'error') showError(e);
  }
  mine.live = false;
  if (mine.finish === 'error' && !mine.board.frames.length) return showIntro();
  mine.tick();
  report();
  controls();
  if (chat && mine.finish !== 'error' && mine.finish !== 'cancelled') answered(mine);
  $('say').textContent = mine.finish === 'error' ? 'Failed.' : `Done: ${mine.text ?? ''}`;
}

/** The state before any result, and after a request that was refused. */
function showIntro() {
  run = null;
  $('canvas').replaceChildren($('intro').content.cloneNode(true));
  controls();
}

/** Chat: the question and its answer become part of the conversation. */
function answered({ ask, text }) {
  turns = [...ask.body.messages, { role: 'assistant', content: text ?? '' }];
  $('prompt').value = '';
  showTurns();
}

function showTurns() {
  $('talk').replaceChildren(...turns.map(t => {
    const li = document.createElement('li');
    li.className = t.role;
    li.textContent = t.content;
    return li;
  }));
  $('talk').hidden = !chat || !turns.length;
  $('forget').hidden = !chat || !turns.length;
  $('talk').scrollTop = $('talk').scrollHeight;
}

// --- the form ---

function hint() {
  const segments = chat ? null : holes($('prompt').value);
  $('max-tokens').disabled = Boolean(segments);
  const n = segments?.filter(s => s.hole).length;
  if (!picked) useSampler(segments ? 'infill' : model()?.tutti?.default_sampler);
  $('prompt-hint').textContent = segments
    ? `${n} ${n > 1 ? 'holes' : 'hole'}, ${columns(segments)} tokens to fill${inserts() || segments.some(s => s.hole?.min) ? ' at most' : ''}`
    : chat ? '' : 'no hole: the text is continued';
}

function showTab(isChat) {
  if (isChat !== chat) {
    lengths[chat ? 'chat' : 'text'] = $('max-tokens').value;
    $('max-tokens').value = lengths[isChat ? 'chat' : 'text'];
  }
  chat = isChat;
  for (const [id, on] of [['tab-text', !chat], ['tab-chat', chat]]) {
    $(id).setAttribute('aria-selected', String(on));
    $(id).tabIndex = on ? 0 : -1;
  }
  $('panel').setAttribute('aria-labelledby', chat ? 'tab-chat' : 'tab-text');
  $('prompt-label').textContent = chat ? 'Message' : 'Prompt';
  $('hole').hidden = chat;
  showTurns();
  showExamples();
  hint();
}

function useExample(x) {
  const kept = own();
  $('prompt').value = x.prompt;
  $('special').checked = Boolean(x.special);
  if (x.tokens) $('max-tokens').value = x.tokens;
  picked = x.sampler ? 'example' : '';
  if (x.sampler) $('sampler').value = x.sampler;
  lent = x.set ?? {};
  showSampler({ ...kept, ...lent });
  hint();
}

function showExamples() {
  const list = (examples[model()?.id] ?? []).filter(x => Boolean(x.chat) === chat);
  $('examples-box').hidden = !list.length;
  $('examples').replaceChildren(...list.map(x => {
    const b = document.createElement('button');
    b.type = 'button';
    b.textContent = x.name;
    b.title = x.prompt;
    b.addEventListener('click', () => { useExample(x); generate(); });
    return b;
  }));
}

/** What the user changed: it stays when the sampler changes, as far as that one reads it. */
const own = () => Object.fromEntries(Object.entries(form.changed()).filter(([k, v]) => lent[k] !== v));

function showSampler(values = own()) {
  const s = model()?.tutti?.samplers?.find(x => x.name === $('sampler').value);
  $('sampler-about').textContent = s?.summary ?? '';
  form.build(parametersOf(model(), $('sampler').value), values);
}

/** Switches the sampler if the model has that one. */
function useSampler(name, values) {
  if ($('sampler').value === name || ![...$('sampler').options].some(o => o.value === name)) return;
  $('sampler').value = name;
  showSampler(values);
}

function showModel(values) {
  const t = model()?.tutti ?? {};
  $('sampler').replaceChildren(...(t.samplers ?? []).map(s => new Option(s.name, s.name)));
  if (t.default_sampler) $('sampler').value = t.default_sampler;
  picked = '';
  $('tab-chat').disabled = !can('chat');
  $('tab-chat').title = can('chat') ? '' : 'this model has no chat format';
  if (chat && !can('chat')) showTab(false);
  showSampler(values);
  showExamples();
}

function settings() {
  return {
    model: $('model').value, sampler: picked ? $('sampler').value : '', seed: $('seed').value,
    max_tokens: $('max-tokens').value, mode: chat ? 'chat' : '', prompt: $('prompt').value,
    special: $('special').checked && !chat ? 1 : '',
    ...form.changed(),
  };
}

/** Keeps the address in step with the form, so that reloading loses nothing. */
function remember() { history.replaceState(null, '', toAddress(settings())); }

function restore(from) {
  if (from.model && served.some(m => m.id === from.model)) $('model').value = from.model;
  lent = {};
  showModel(from);
  if (from.sampler) useSampler(from.sampler, from);
  picked = from.sampler ? 'user' : '';
  showTab(from.mode === 'chat' && can('chat'));
  if (from.seed) $('seed').value = from.seed;
  if (from.max_tokens) $('max-tokens').value = from.max_tokens;
  $('prompt').value = from.prompt ?? '';
  $('special').checked = Boolean(from.special);
  hint();
  const first = examples[model()?.id]?.find(x => !x.chat);
  if (first && !chat && !('prompt' in from)) useExample(first);
}

function insertHole() {
  const box = $('prompt');
  box.focus();
  box.setRangeText('[[8]]', box.selectionStart, box.selectionEnd, 'end');
  hint();
}

async function copyLink() {
  const url = toAddress(settings());
  remember();
  let copied = true;
  try { await navigator.clipboard.writeText(url); } catch { copied = false; }
  $('link').textContent = copied ? 'Copied' : 'It is in the address bar';
  $('say').textContent = $('link').textContent;
  setTimeout(() => { $('link').textContent = 'Copy link'; }, 1500);
}

function listen() {
  $('ask').addEventListener('submit', e => { e.preventDefault(); generate(); });
  $('ask').addEventListener('keydown', e => {
    if (e.key === 'Enter' && (e.ctrlKey || e.metaKey)) { e.preventDefault(); generate(); }
  });
  document.addEventListener('keydown', e => { if (e.key === 'Escape') run?.abort.abort(); });
  $('stop').addEventListener('click', () => run?.abort.abort());
  $('link').addEventListener('click', copyLink);
  $('hole').addEventListener('click', insertHole);
  $('forget').addEventListener('click', () => { turns = []; showTurns(); $('prompt').focus(); });
  $('dice').addEventListener('click', () => {
    $('seed').value = crypto.getRandomValues(new Uint32Array(1))[0];
    remember();
  });
  $('prompt').addEventListener('input', () => {
    if (picked === 'example') picked = '';
    hint();
  });
  $('model').addEventListener('change', () => { showModel(); remember(); });
  $('sampler').addEventListener('change', () => { picked = 'user'; showSampler(); remember(); });
  $('reset').addEventListener('click', () => form.reset());
  $('scrub').addEventListener('input', e => run?.jump(Number(e.target.value)));
  $('play').addEventListener('click', () => run?.playing ? run.pause() : run?.play());
  $('tab-text').addEventListener('click', () => showTab(false));
  $('tab-chat').addEventListener('click', () => showTab(true));
  document.querySelector('[role=tablist]').addEventListener('keydown', e => {
    if (e.key !== 'ArrowLeft' && e.key !== 'ArrowRight') return;
    const other = $(chat ? 'tab-text' : 'tab-chat');
    if (!other.disabled) { other.click(); other.focus(); }
  });
  addEventListener('hashchange', () => restore(fromAddress()));
}

/** Models load while the server answers already: ask again until they are there. */
async function waitForModels() {
  for (;;) {
    try {
      const all = await api.models();
      served = all.filter(m => m.tutti?.capabilities?.includes('completion'));
      $('to-images').hidden = !all.some(m => m.tutti?.capabilities?.includes('image_generation'));
      if (served.length) return;
      $('server').textContent = 'loading a model…';
    } catch (e) {
      $('server').textContent = e.message;
      $('server').className = 'server down';
      if (e.status === 401) await askForKey();
    }
    await new Promise(r => setTimeout(r, 1000));
  }
}

/** Resolves when a key was entered. */
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
  await waitForModels();
  $('key-box').hidden = true;
  $('model').replaceChildren(...served.map(m => new Option(m.id, m.id)));
  $('server').textContent = `${served.length} model${served.length > 1 ? 's' : ''} ready`;
  $('server').className = 'server up';
  restore(fromAddress());
}

showIntro();
boot();
