// crops.js - a picture read crop by crop: which squares were looked at, the message as it stood after
// each, and what the model would paint from it. States can be walked through.

import * as api from './api.js';
import { bitmapOf } from './picture.js';

const element = (name, members = {}) => Object.assign(document.createElement(name), members);

export class CropReader {
  /** box: the element it is drawn into. say: shows a sentence about the state shown. */
  constructor(box, say) {
    this.box = box;
    this.say = say;
    this.strip = element('div', { className: 'gallery levels' });
    this.look = element('canvas', { width: 192, height: 192, className: 'look' });
    this.message = element('div', { className: 'message' });
    this.look.setAttribute('role', 'img');
    this.strip.setAttribute('role', 'group');
    this.strip.setAttribute('aria-label', 'After each crop');
    this.message.setAttribute('role', 'img');
  }

  /** Reads the picture with a model that has crops, the whole of it first. */
  async read(model, picture, signal) {
    this.states = [];
    this.model = model;
    this.source = picture.frames.at(-1).bitmap;
    this.strip.replaceChildren();
    this.box.replaceChildren(this.look, this.message, this.strip);
    let queue = Promise.resolve();
    const body = { model: model.id, image: { image_url: picture.dataUrl() }, stream: true,
      tutti: { crops: { policy: 'raster', global_crop: true, preview: true } } };
    await api.stream('v1/images/tokenize', body, {
      signal, onFrame: event => { queue = queue.then(() => this.take(event)); },
    });
    await queue;
  }

  async take(event) {
    if (event.type.endsWith('.crop')) this.states.push({ crop: event.crop, tokens: event.tokens, of: event.of });
    const state = this.states[event.tutti?.step ? event.tutti.step - 1 : this.states.length - 1];
    if (!state || event.type.endsWith('.completed')) return;
    if (event.b64_json) state.bitmap = await bitmapOf(event.b64_json);
    if (!state.button) this.add(state);
    if (state.bitmap) state.canvas.getContext('2d').drawImage(state.bitmap, 0, 0, 64, 64);
    this.show(this.states.indexOf(state));
  }

  add(state) {
    const name = state.crop ? `${state.crop}` : 'all', at = this.states.indexOf(state);
    state.canvas = element('canvas', { width: 64, height: 64 });
    state.button = element('button', { type: 'button' });
    state.button.setAttribute('aria-label', state.crop ? `after crop ${state.crop}` : 'after the whole picture');
    state.button.append(state.canvas, element('span', { textContent: name }));
    state.button.addEventListener('click', () => this.show(at));
    this.strip.append(state.button);
  }

  show(at) {
    const { tokens, crop, of } = this.states[at], before = this.states[at - 1]?.tokens ?? [];
    const moved = tokens.filter((t, i) => before.length && t !== before[i]).length;
    this.states.forEach((s, i) => s.button?.setAttribute('aria-pressed', String(i === at)));
    this.message.replaceChildren(...tokens.map((t, i) => {
      const cell = element('i', { title: String(t), className: before.length && t !== before[i] ? 'moved' : '' });
      cell.style.background = `hsl(${Math.round(360 * t / this.model.tutti.codes)} 55% 60%)`;
      return cell;
    }));
    this.message.setAttribute('aria-label', `Message: ${tokens.join(' ')}`);
    this.drawLook(at);
    this.say(`${at + 1} of ${of}, ${crop ? `crop ${crop}` : 'the whole picture'}: ` +
      (at ? `${moved} of ${tokens.length} tokens changed` : `a message of ${tokens.length} tokens`));
  }

  /** The picture, dark where no crop has looked yet, the last crop framed. Crops overlap an eighth. */
  drawLook(at) {
    const g = this.look.getContext('2d'), side = this.look.width;
    const grid = Math.round(Math.sqrt(this.model.tutti.crops)), share = grid > 1 ? 1.125 / grid : 1;
    const square = crop => {
      const gap = grid > 1 ? (1 - share) / (grid - 1) : 0, place = crop - 1;
      return crop ? [(place % grid) * gap, Math.floor(place / grid) * gap, share, share].map(v => v * side)
        : [0, 0, side, side];
    };
    const style = getComputedStyle(this.look);
    g.imageSmoothingEnabled = false;
    g.globalAlpha = 0.25;
    g.clearRect(0, 0, side, side);
    g.drawImage(this.source, 0, 0, side, side);
    g.globalAlpha = 1;
    for (const { crop } of this.states.slice(0, at + 1)) {
      const [x, y, w, h] = square(crop), k = this.source.width / side;
      if (crop || at === 0) g.drawImage(this.source, x * k, y * k, w * k, h * k, x, y, w, h);
    }
    g.strokeStyle = style.getPropertyValue('--accent');
    g.lineWidth = 3;
    const [x, y, w, h] = square(this.states[at].crop);
    g.strokeRect(x + 1.5, y + 1.5, w - 3, h - 3);
  }
}
