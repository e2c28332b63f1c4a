// board.js - the canvas: columns of tokens, filled by frames of events, at any step of its history.
//
// A frame is what one step did: { step, of, events: [{ pos, id, text, op, logprob }] }, pos counting
// the columns to fill. The board keeps every frame, so it can show the state after any of them.

import { applyWave } from './wave.js';

const OPEN = { open: true };

export class Board {
  /** parts: { text } for text that is no part of the canvas, { open: n } for n columns of it. grows:
   *  those are room for so many tokens, which are inserted one by one and move what is there. */
  constructor(parts, grows = false) {
    this.parts = parts;
    this.grows = grows;
    this.frames = [];
    this.shown = 0; // frames applied
    this.clear();
  }

  clear() {
    this.shown = 0;
    this.gaps = this.grows ? this.parts.filter(p => p.open).map(() => []) : null;
    this.fixed = this.grows ? null : this.parts.flatMap(p => p.open ? Array(p.open).fill(OPEN) : []);
  }

  /** All columns in reading order. */
  get columns() { return this.gaps?.flat() ?? this.fixed; }

  /** A frame of a growing board is a single insertion, however many came at once. */
  add(frame) {
    if (!this.grows) return this.frames.push(frame);
    return this.frames.push(...frame.events.map(e => ({ step: e.step, of: frame.of, events: [e] })));
  }

  /** What became of the holes, before the first frame: [{ tokens: n } or { text }]. */
  fit(holes) {
    let nth = 0;
    this.parts = this.parts.map(p => {
      if (!p.hole) return p;
      const { text, tokens } = holes[nth++] ?? {};
      return text === undefined ? { ...p, open: tokens ?? p.open } : { text };
    });
    this.clear();
  }

  /** Moves to the state after n frames; returns the events that led there (null: begin anew). */
  show(n) {
    n = Math.max(0, Math.min(n, this.frames.length));
    const back = n < this.shown;
    if (back) this.clear();
    const touched = [];
    while (this.shown < n) this.apply(this.frames[this.shown++], touched);
    return back ? null : touched;
  }

  apply(frame, touched) {
    for (const e of frame.events) {
      const token = { id: e.id, text: e.text, logprob: e.logprob, step: frame.step,
        revised: e.op === 'revise', draft: e.committed === false,
        recurrences: this.fixed?.[e.pos]?.recurrences };
      if (this.grows) this.gaps[e.hole].splice(e.position, 0, token);
      else this.fixed[e.pos] = e.op === 'mask' ? OPEN : token;
      touched.push(e);
    }
    if (frame.wave) applyWave(this.columns, frame.wave, touched);
  }

  get open() { return this.columns.filter(c => c.open).length; }

  /** The tokens of all frames where they stand in the end: [{ pos, step, frame, logprob }]. */
  marks() {
    if (!this.grows) {
      const last = new Map();
      this.frames.forEach((f, frame) => f.events.forEach(e => {
        if (e.op !== 'mask') last.set(e.pos, { ...e, step: f.step, frame });
      }));
      return [...last.values()];
    }
    const gaps = this.gaps.map(() => []);
    this.frames.forEach((f, frame) => f.events.forEach(e =>
      gaps[e.hole].splice(e.position, 0, { ...e, step: f.step, frame })));
    return gaps.flat().map((e, pos) => ({ ...e, pos }));
  }
}

/** The tokens that end a text, by the names models give them: <|endoftext|>, <|im_end|>, </s>. */
const ends = column => /end|eos|eot|<\/s>/i.test(column.text);

export const probability = column =>
  typeof column.logprob === 'number' ? Math.exp(Math.min(0, column.logprob)) : 1;

function describe(column, pos) {
  if (column.open) return `position ${pos}: open`;
  const sure = typeof column.logprob === 'number' ? `, ${(100 * probability(column)).toFixed(1)} % sure` : '';
  return `position ${pos}: ${JSON.stringify(column.text)}, token ${column.id}, step ${column.step}${sure}` +
    (column.recurrences ? `, ${column.recurrences} recurrences` : '') +
    (column.draft ? ', a draft' : column.revised ? ', revised' : '');
}

function span(name, text = '') {
  const el = document.createElement('span');
  el.className = name;
  el.textContent = text;
  return el;
}

function fill(cell, column, pos, special) {
  cell.className = 'cell';
  cell.title = describe(column, pos);
  cell.replaceChildren();
  if (column.open) {
    cell.classList.add('open');
    return;
  }
  cell.style.setProperty('--p', probability(column).toFixed(3));
  cell.classList.toggle('draft', Boolean(column.draft));
  if (special(column)) {
    cell.classList.add('special');
    cell.textContent = ends(column) ? '∎' : column.text;
    return;
  }
  // A leading blank stays outside the coloured part, so that lines break before a word.
  const blank = /^ +(?=\S)/.exec(column.text)?.[0] ?? '';
  const ink = span('ink');
  column.text.slice(blank.length).split('\n').forEach((line, i) => {
    if (i) ink.append(span('nl', '↵'), '\n');
    ink.append(line);
  });
  cell.append(blank, ink);
}

/** Draws a board into an element and keeps it up to date. */
export class BoardView {
  constructor(element, board, special) {
    this.element = element;
    this.board = board;
    this.special = special;
    this.rebuild();
  }

  rebuild() {
    this.cells = [];
    this.holes = []; // of a growing board: the elements that hold the cells
    const nodes = [];
    let pos = 0;
    for (const part of this.board.parts) {
      if (!part.open) {
        nodes.push(span('given', part.text));
        continue;
      }
      if (this.board.grows) {
        const hole = span('gap');
        this.board.gaps[this.holes.length].forEach(column => hole.append(this.cell(column, pos++)));
        this.holes.push(hole);
        nodes.push(hole);
        continue;
      }
      for (let i = 0; i < part.open; i++, pos++) {
        const cell = this.cell(this.board.columns[pos], pos);
        this.cells.push(cell);
        nodes.push(cell);
      }
    }
    this.element.replaceChildren(...nodes);
  }

  cell(column, pos) {
    const cell = span('cell');
    fill(cell, column, pos, this.special);
    return cell;
  }

  show(n) {
    const events = this.board.show(n);
    if (this.board.grows) {
      if (events) this.insert(events);
      else this.rebuild();
      return;
    }
    if (events) this.update(events.map(e => e.pos));
    else this.cells.forEach((cell, pos) => fill(cell, this.board.columns[pos], pos, this.special));
    const end = this.board.columns.findIndex(c => !c.open && this.special(c) && ends(c));
    this.cells.forEach((cell, pos) => cell.classList.toggle('after', end >= 0 && pos > end));
  }

  /** Insertions land between the tokens that are there, which make room. */
  insert(events) {
    const old = [...this.element.querySelectorAll('.cell, .given')];
    const before = old.map(cell => cell.getBoundingClientRect());
    for (const e of events) {
      const hole = this.holes[e.hole];
      const cell = this.cell({ ...e }, e.position);
      hole.insertBefore(cell, hole.children[e.position] ?? null);
      cell.classList.add('landed');
    }
    this.holes.forEach((hole, k) => [...hole.children].forEach((cell, i) => {
      cell.title = describe(this.board.gaps[k][i], i);
    }));
    if (matchMedia('(prefers-reduced-motion: reduce)').matches) return;
    old.forEach((cell, i) => {
      const now = cell.getBoundingClientRect(), was = before[i];
      if (Math.abs(now.top - was.top) > 2 || now.left === was.left) return; // another line: no flight
      cell.animate([{ left: `${was.left - now.left}px` }, { left: 0 }],
        { duration: 260, easing: 'ease-out' });
    });
  }

  update(touched) {
    for (const pos of touched) {
      const cell = this.cells[pos], column = this.board.columns[pos];
      if (!cell) continue;
      fill(cell, column, pos, this.special);
      if (column.open) continue;
      void cell.offsetWidth; // restart the animation when a token is revised
      cell.classList.add('set');
    }
  }
}

const SVG = 'http://www.w3.org/2000/svg';

/** The score: one mark per token, position across, step down. */
export function drawScore(svg, board, steps) {
  const marks = board.marks();
  const width = Math.max(1, board.grows ? marks.length : board.columns.length), height = Math.max(1, steps);
  svg.setAttribute('viewBox', `0 0 ${width} ${height}`);
  svg.replaceChildren(...marks.map(e => {
    const mark = document.createElementNS(SVG, 'rect');
    mark.setAttribute('x', e.pos + .06);
    mark.setAttribute('y', e.step - 1 + .1);
    mark.setAttribute('width', .88);
    mark.setAttribute('height', .8);
    mark.style.setProperty('--p', probability(e).toFixed(3));
    if (e.frame >= board.shown) mark.classList.add('later');
    return mark;
  }));
}
