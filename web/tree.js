// tree.js - a search as it grows: a column per step, a node per candidate in the order of scores,
// lines to those they came from. Lines are SVG; nodes are buttons above them, so that keys, touch
// and screen readers reach every one. Pixels are drawn on canvases: the page loads no addresses.

const SVG = 'http://www.w3.org/2000/svg';
const WIDE = 78, BETWEEN = 54, TOP = 26, GAP = 3; // pixels: of a node, between columns, of headings
const PICTURE = 48, KEPT = 20, LOST = 7;         // heights of nodes
const MOST_LOST = 24;                            // drawn of a column; more are counted

function line(from, to, kind) {
  const path = document.createElementNS(SVG, 'path');
  const [x0, y0] = [from.x + WIDE, from.y + from.height / 2], [x1, y1] = [to.x, to.y + to.height / 2];
  const half = (x0 + x1) / 2;
  path.setAttribute('d', `M${x0} ${y0}C${half} ${y0} ${half} ${y1} ${x1} ${y1}`);
  path.setAttribute('class', kind);
  return path;
}

export class SearchTree {
  /** box: the element it is drawn into. say: shows a sentence about the node under the pointer or
   *  the focus. pick: called with the node that was pressed. */
  constructor(box, { say, pick }) {
    this.box = box;
    this.say = say;
    this.pick = pick;
    this.clear();
    box.addEventListener('keydown', e => this.key(e));
  }

  clear() {
    this.columns = []; // { step, tokens, nodes by falling score, index -> node, more }
    this.best = new Set(); // candidates of the best path
    this.results = new Map(); // candidate -> place among the results, from 1
    this.low = Infinity; // of all scores
    this.high = -Infinity;
    this.current = null;
    this.box.replaceChildren();
  }

  /** Takes what one step of the search says; bitmaps: of some candidates, by their numbers, and that
   *  of the best under 'best'. Returns a sentence about it. */
  step(event, bitmaps) {
    const nodes = event.candidates.map((c, i) => ({ ...c, order: i, bitmap: bitmaps.get(c.index) ?? null }));
    nodes.sort((a, b) => b.score - a.score || a.order - b.order);
    nodes[0].bitmap ??= bitmaps.get('best') ?? null;
    const before = this.columns.at(-1), column = { step: this.columns.length + 1, tokens: event.tokens };
    column.index = new Map(nodes.map(n => [n.index, n]));
    const lost = nodes.filter(n => !n.kept && !n.bitmap);
    column.nodes = nodes.filter(n => n.kept || n.bitmap || lost.indexOf(n) < MOST_LOST);
    column.more = nodes.length - column.nodes.length;
    for (const n of nodes) { // a candidate that stayed as it was comes from itself
      n.column = column;
      n.from = before?.index.get(n.index) ?? before?.index.get(n.parent) ?? null;
    }
    const scores = nodes.map(n => n.score).filter(Number.isFinite);
    this.low = Math.min(this.low, ...scores);
    this.high = Math.max(this.high, ...scores);
    this.columns.push(column);
    this.draw();
    return `Step ${column.step}, ${column.tokens} tokens: ${nodes.filter(n => n.kept).length} of ` +
      `${nodes.length} kept, best score ${this.number(nodes[0].score)}`;
  }

  /** A score with as many places as tell the others apart. */
  number(score) {
    const places = 2 - Math.floor(Math.log10(this.high - this.low || 1));
    return Number.isFinite(score) ? score.toFixed(Math.min(4, Math.max(2, places))) : '–';
  }

  /** The place-th result (from 0) is this candidate. */
  result(candidate, place, bitmap) {
    const node = this.columns.at(-1)?.index.get(candidate);
    this.results.set(candidate, place + 1);
    if (node) {
      node.bitmap = bitmap ?? node.bitmap;
      if (!node.column.nodes.includes(node)) node.column.nodes.push(node);
    }
    if (place === 0)
      for (let n = node; n; n = n.from) this.best.add(n);
    this.draw();
  }

  /** "Step 2, candidate 17, from 4: score 0.213, kept". */
  describe(n) {
    const place = n.column === this.columns.at(-1) ? this.results.get(n.index) : 0;
    const from = n.parent === null || n.parent === undefined ? '' : `, from ${n.parent}`;
    return `Step ${n.column.step}, candidate ${n.index}${from}: score ${this.number(n.score)}, ` +
      (place ? `result ${place}` : n.kept ? 'kept' : 'dropped') + (this.best.has(n) ? ', best path' : '');
  }

  /** Places of all nodes; the size of it all. */
  arrange() {
    let height = 0;
    this.columns.forEach((column, i) => {
      let y = TOP;
      for (const n of column.nodes) {
        n.x = i * (WIDE + BETWEEN);
        n.y = y;
        n.height = n.bitmap ? PICTURE : n.kept ? KEPT : LOST;
        y += n.height + GAP;
      }
      column.end = y;
      height = Math.max(height, y + (column.more ? 18 : 0));
    });
    return { width: this.columns.length * (WIDE + BETWEEN) - BETWEEN, height };
  }

  draw() {
    const { width, height } = this.arrange(), svg = document.createElementNS(SVG, 'svg');
    const span = this.high - this.low || 1;
    const all = this.columns.flatMap(c => c.nodes), had = document.activeElement?.node;
    svg.setAttribute('width', Math.max(0, width));
    svg.setAttribute('height', height);
    svg.setAttribute('aria-hidden', 'true');
    const kind = n => this.best.has(n) ? 'best' : n.kept ? 'kept' : '';
    for (const rank of ['', 'kept', 'best']) // the best above all others
      for (const n of all) if (n.from?.x >= 0 && kind(n) === rank) svg.append(line(n.from, n, rank));
    this.current = all.includes(this.current) ? this.current : this.columns.at(-1)?.nodes[0];
    this.box.style.width = `${Math.max(0, width)}px`;
    this.box.style.height = `${height}px`;
    this.box.replaceChildren(svg, ...this.columns.flatMap((c, i) => this.heading(c, i)),
      ...all.map(n => this.button(n, (n.score - this.low) / span)));
    if (had) this.focus(had);
  }

  heading(column, i) {
    const at = (text, y, name) => {
      const p = document.createElement('p');
      p.className = name;
      p.textContent = text;
      p.style.left = `${i * (WIDE + BETWEEN)}px`;
      p.style.top = `${y}px`;
      return p;
    };
    const head = at(`${column.tokens} token${column.tokens === 1 ? '' : 's'}`, 0, 'head');
    return column.more ? [head, at(`+ ${column.more} more`, column.end, 'more')] : [head];
  }

  button(n, share) {
    const b = document.createElement('button'), bar = document.createElement('i');
    b.type = 'button';
    b.node = n;
    b.className = `node ${n.kept ? 'kept' : 'lost'}${this.best.has(n) ? ' best' : ''}`;
    b.tabIndex = n === this.current ? 0 : -1;
    b.setAttribute('aria-label', this.describe(n));
    Object.assign(b.style, { left: `${n.x}px`, top: `${n.y}px`, width: `${WIDE}px`, height: `${n.height}px` });
    bar.style.setProperty('--share', Number.isFinite(share) ? share : 0);
    if (n.bitmap) b.append(this.thumbnail(n));
    if (n.height > LOST) bar.textContent = this.number(n.score);
    b.append(bar);
    b.addEventListener('pointerenter', () => this.say(this.describe(n)));
    b.addEventListener('focus', () => this.say(this.describe(n)));
    b.addEventListener('click', () => { this.focus(n); this.pick(n); });
    return b;
  }

  thumbnail(n) {
    const canvas = document.createElement('canvas');
    canvas.width = n.bitmap.width;
    canvas.height = n.bitmap.height;
    canvas.getContext('2d').drawImage(n.bitmap, 0, 0);
    return canvas;
  }

  focus(n) {
    const buttons = [...this.box.querySelectorAll('button')];
    const to = buttons.find(b => b.node === n);
    if (!to) return;
    for (const b of buttons) b.tabIndex = b === to ? 0 : -1;
    this.current = n;
    to.focus();
  }

  key(event) {
    const n = event.target.node, at = this.columns.indexOf(n?.column);
    if (at < 0) return;
    const next = this.columns[at + 1], i = n.column.nodes.indexOf(n);
    const to = {
      ArrowUp: () => n.column.nodes[i - 1],
      ArrowDown: () => n.column.nodes[i + 1],
      ArrowLeft: () => n.from ?? this.columns[at - 1]?.nodes[0],
      ArrowRight: () => next?.nodes.find(m => m.from === n) ?? next?.nodes[0],
      Home: () => this.columns[0].nodes[0],
      End: () => this.columns.at(-1).nodes[0],
    }[event.key];
    if (!to) return;
    event.preventDefault();
    if (to()) this.focus(to());
  }
}
