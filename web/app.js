// app.js - wires the form, the stream and the canvas together.

import * as api from './api.js';
import { Board, BoardView, drawScore } from './board.js';
import { examples } from './examples.js';
import { columns, holes } from './holes.js';
import { ParameterForm, fromAddress, markInvalid, parametersOf, toAddress } from './settings.js';

const $ = id => document.getElementById(id);

let served = [];   // as in GET /v1/models
let chat = false;  // which tab
let turns = [];    // of the conversation
let run = null;    // the request shown: { board, view, frames, ... }
let wanted = {};   // parameter values from the address, until the form exists

const form = new ParameterForm($('params'), $('changed'), remember);
const model = () => served.find(m => m.id === $('model').value);
const can = what => (model()?.tutti?.capabilities ?? []).includes(what);

// --- the request ---

function request() {
  const m = model();
  const options = { sampler: $('sampler').value, stream_mode: 'delta', ...form.changed() };
  const body = { model: m.id, seed: Number($('seed').value), stream: true, tutti: options };
  const text = $('prompt').value, length = Number($('max-tokens').value);
  if (chat) {
    const messages = [...turns, { role: 'user', content: text }];
    return { path: 'v1/chat/completions', parts: [{ open: length }],
             body: { ...body, messages, max_completion_tokens: length } };
  }
  const segments = holes(text);
  if (segments) {
    return { path: 'v1/infill',
             parts: segments.map(s => s.hole ? { open: s.hole } : s),
             body: { ...body, segments: segments.map(s => s.hole ? { hole: { max: s.hole } } : s) } };
  }
  return { path: 'v1/completions', parts: [{ text }, { open: length }],
           body: { ...body, prompt: text, max_tokens: length } };
}

function curl({ path, body }) {
  const json = JSON.stringify(body, null, 1).replaceAll("'", "'\\''");
  return `curl -N ${new URL(path, location.href).href} \\\n  -H 'Content-Type: application/json' \\\n  -d '${json}'`;
}

// --- playing what came ---

class Run {
  constructor(ask) {
    this.ask = ask;
    this.board = new Board(ask.parts);
    this.view = new BoardView($('canvas'), this.board, c => c.special || c.text === '');
    this.steps = 1;
    this.live = true;    // the stream goes on
    this.playing = true; // the view moves towards the newest frame by itself
    this.started = performance.now();
    this.abort = new AbortController();
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
    $('step').textContent = `step ${frame?.step ?? 0} of ${Math.max(this.steps, frame?.of ?? 0)}, ${board.open} open`;
    drawScore($('score'), board, Math.max(this.steps, frame?.of ?? 0));
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
