// picture.js - a picture that comes into being step by step, and the easel it is shown and painted
// on. Pixels are decoded from bytes, so that the page loads nothing from addresses.

let count = 0;

const bytesOf = base64 => Uint8Array.from(atob(base64), c => c.charCodeAt(0));

export const bitmapOf = base64 => createImageBitmap(new Blob([bytesOf(base64)], { type: 'image/png' }));

export class Picture {
  /** shape: { rows, columns, tokens } of its model; rows 0 where tokens have no place in the picture.
   *  from: the picture it begins with, shown until the first step. */
  constructor({ rows, columns, tokens }, from) {
    this.id = ++count;
    this.rows = rows;
    this.columns = columns;
    this.tokens = tokens;
    this.grid = rows * columns > 0;
    this.search = false; // its frames are the best of a search's steps
    this.frames = []; // { step, of, open: Set of places, bitmap or null, own: made at this step }
    this.shown = 0;   // frames counted from the start
    this.stepOf = new Array(tokens).fill(Infinity); // 0: given
    this.open = new Set(this.stepOf.keys());
    this.start = from?.frames.at(-1)?.bitmap ?? null;
    this.done = false;
    this.png = null;  // base64 of the finished file
    this.name = '';
  }

  /** A picture that was not made here, as PNG of the model's size. */
  static async of(bitmap, side, shape, name) {
    const canvas = Object.assign(document.createElement('canvas'), { width: side, height: side });
    const least = Math.min(bitmap.width, bitmap.height), g = canvas.getContext('2d');
    g.fillStyle = '#fff';
    g.fillRect(0, 0, side, side);
    g.imageSmoothingQuality = 'high';
    g.drawImage(bitmap, (bitmap.width - least) / 2, (bitmap.height - least) / 2, least, least,
                0, 0, side, side);
    const p = new Picture(shape, null);
    p.open.clear();
    p.frames.push({ step: 0, of: 0, open: new Set(), bitmap: await createImageBitmap(canvas), own: true });
    p.png = canvas.toDataURL('image/png').split(',')[1];
    p.done = true;
    p.shown = 1;
    p.name = name;
    return p;
  }

  /** Takes an event of the stream. */
  async take(event) {
    if (event.type === 'tutti.step') {
      for (const [place, , step] of event.set) this.note(place, step, event.of);
      return;
    }
    if (!event.b64_json) return;
    const bitmap = await bitmapOf(event.b64_json), frame = { open: new Set(), bitmap, own: true };
    const of = this.steps ?? 1;
    if (event.type.endsWith('.completed')) {
      this.png = event.b64_json;
      this.name = Object.values(event.tutti?.labels ?? {}).join(', ') || this.name;
      this.scores = event.scores ?? null;
      this.score = event.score;
      const last = Math.max(1, ...this.stepOf.filter(Number.isFinite)); // fewer when few were open
      this.complete({ ...frame, step: last, of: last });
    } else if (event.type.endsWith('.search_step')) {
      this.frames.push({ ...frame, step: event.step + 1, of: 0 });
    } else {
      this.frames.push({ ...frame, step: event.tutti.step, of, open: this.openAfter(event.tutti.step) });
    }
    this.shown = this.frames.length;
    return bitmap;
  }

  note(place, step, of) {
    this.stepOf[place] = step;
    this.open.delete(place);
    this.steps = of;
  }

  /** Places without a token after so many steps. */
  openAfter(step) {
    return new Set(this.stepOf.flatMap((s, place) => s > step ? [place] : []));
  }

  /** A reader that is slower than the model gets the newest state only: steps it did not see are
   *  shown with the next picture it got. */
  complete(last) {
    const seen = [...this.frames, last];
    this.frames = this.search ? [...this.frames, { ...last, step: seen.length, of: 0 }] : [];
    for (let step = 1; step <= last.step && !this.search; step++) {
      const next = seen.find(f => f.step >= step);
      this.frames.push({ ...next, step, of: last.of, open: this.openAfter(step), own: next.step === step });
    }
    this.open.clear();
    this.done = true;
  }

  caption() { return this.name || 'a picture'; }
  dataUrl() { return `data:image/png;base64,${this.png}`; }
  blobUrl() {
    this.url ??= URL.createObjectURL(new Blob([bytesOf(this.png)], { type: 'image/png' }));
    return this.url;
  }

  /** Draws the state after so many frames onto a canvas, whatever its size. */
  paint(canvas, shown = this.frames.length) {
    const g = canvas.getContext('2d');
    const frame = this.frames[shown - 1];
    const bitmap = frame?.bitmap ?? this.start;
    g.imageSmoothingEnabled = false;
    g.clearRect(0, 0, canvas.width, canvas.height);
    if (bitmap) g.drawImage(bitmap, 0, 0, canvas.width, canvas.height);
    return frame;
  }
}

export class PictureView {
  /** onPaint is called when paint came or went. */
  constructor(canvas, onPaint) {
    this.canvas = canvas;
    this.onPaint = onPaint;
    this.picture = null;
    this.paint = new Set(); // places painted
    this.listen();
  }

  show(picture) {
    if (picture !== this.picture) this.paint.clear();
    this.picture = picture;
  }

  painted() { return this.paint.size; }

  clear() {
    this.paint.clear();
    this.draw();
    this.onPaint();
  }

  /** A mask of the picture's size: transparent where it was painted. */
  maskUrl() {
    const { rows, columns, frames } = this.picture;
    const { width, height } = frames.at(-1).bitmap;
    const canvas = Object.assign(document.createElement('canvas'), { width, height });
    const g = canvas.getContext('2d'), w = width / columns, h = height / rows;
    g.fillRect(0, 0, width, height);
    for (const p of this.paint) g.clearRect((p % columns) * w, Math.floor(p / columns) * h, w, h);
    return canvas.toDataURL('image/png');
  }

  cell(place) {
    const { rows, columns } = this.picture;
    const w = this.canvas.width / columns, h = this.canvas.height / rows;
    return [(place % columns) * w, Math.floor(place / columns) * h, w, h];
  }

  draw() {
    const g = this.canvas.getContext('2d'), p = this.picture;
    if (!p) {
      g.clearRect(0, 0, this.canvas.width, this.canvas.height);
      return;
    }
    const frame = p.paint(this.canvas, p.shown);
    const style = getComputedStyle(this.canvas);
    const open = !p.grid ? [] : frame ? frame.open : p.open;
    for (const place of open) this.hatch(g, this.cell(place), style.getPropertyValue('--hatch'));
    g.fillStyle = style.getPropertyValue('--paint');
    g.strokeStyle = '#fff';
    g.lineWidth = 2;
    for (const [x, y, w, h] of [...this.paint].map(p => this.cell(p))) {
      g.fillRect(x, y, w, h);
      g.strokeRect(x + 1, y + 1, w - 2, h - 2);
    }
  }

  /** A place whose token is not there yet: its guess behind bars. */
  hatch(g, [x, y, w, h], colour) {
    g.save();
    g.beginPath();
    g.rect(x + 1, y + 1, w - 2, h - 2);
    g.clip();
    g.strokeStyle = colour;
    g.lineWidth = 2;
    g.globalAlpha = 0.8;
    g.beginPath();
    for (let i = -h; i < w; i += 7) {
      g.moveTo(x + i, y + h);
      g.lineTo(x + i + h, y);
    }
    g.stroke();
    g.strokeRect(x + 1, y + 1, w - 2, h - 2);
    g.restore();
  }

  /** Paints, or wipes, the place under the pointer. */
  touch(event) {
    const { rows, columns } = this.picture, box = this.canvas.getBoundingClientRect();
    const x = Math.floor((event.clientX - box.left) / box.width * columns);
    const y = Math.floor((event.clientY - box.top) / box.height * rows);
    if (x < 0 || y < 0 || x >= columns || y >= rows) return;
    const place = y * columns + x;
    this.wipes ??= this.paint.has(place);
    if (this.wipes) this.paint.delete(place); else this.paint.add(place);
    this.draw();
  }

  listen() {
    const stop = () => { this.wipes = undefined; this.down = false; };
    this.canvas.addEventListener('pointerdown', e => {
      if (!this.picture?.done || !this.picture.grid || e.button) return;
      this.canvas.setPointerCapture(e.pointerId);
      this.down = true;
      this.touch(e);
      this.onPaint();
    });
    this.canvas.addEventListener('pointermove', e => {
      if (!this.down) return;
      this.touch(e);
      this.onPaint();
    });
    this.canvas.addEventListener('pointerup', stop);
    this.canvas.addEventListener('pointercancel', stop);
  }
}
