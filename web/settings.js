// settings.js - the form of parameters, made from what GET /v1/models says, and the page's address
// as a record of every setting.

const byId = id => document.getElementById(id);

/** What a request may set for this model and sampler, as the server lists it. */
export function parametersOf(model, samplerName) {
  const sampler = (model.tutti?.samplers ?? []).find(s => s.name === samplerName);
  return sampler?.parameters ?? [];
}

function field(p) {
  if (p.type === 'bool') {
    const box = document.createElement('input');
    box.type = 'checkbox';
    return box;
  }
  if (p.type === 'choice') {
    const list = document.createElement('select');
    list.append(...p.choices.map(c => new Option(c, c)));
    return list;
  }
  const input = document.createElement('input');
  input.type = 'number';
  input.min = p.min;
  input.max = p.max;
  input.step = p.type === 'int' ? 1 : 'any';
  input.inputMode = p.type === 'int' ? 'numeric' : 'decimal';
  return input;
}

const read = (input, p) =>
  p.type === 'bool' ? input.checked : p.type === 'choice' ? input.value
    : input.value === '' ? p.default : Number(input.value);

function write(input, p, value) {
  if (p.type === 'bool') input.checked = value === true || value === 'true';
  else input.value = value;
}

/** The inputs of one sampler's parameters. Values that differ from the default are what is sent. */
export class ParameterForm {
  constructor(box, badge, onChange) {
    this.box = box;
    this.badge = badge;
    this.onChange = onChange;
    this.rows = [];
  }

  build(parameters, values = {}) {
    this.rows = parameters.map(p => {
      const label = document.createElement('label');
      const input = field(p);
      input.id = `param-${p.name}`;
      input.name = p.name;
      const help = document.createElement('span');
      help.id = `help-${p.name}`;
      help.className = 'unseen';
      help.textContent = p.help;
      label.className = 'param';
      label.title = p.help;
      label.append(p.name, input, help);
      input.setAttribute('aria-describedby', help.id);
      write(input, p, values[p.name] ?? p.default);
      input.addEventListener('input', () => { this.mark(); this.onChange(); });
      return { p, input, label };
    });
    this.box.replaceChildren(...this.rows.map(r => r.label));
    this.mark();
  }

  mark() {
    const changed = this.changed();
    for (const { p, label } of this.rows) label.classList.toggle('changed', p.name in changed);
    const n = Object.keys(changed).length;
    this.badge.hidden = n === 0;
    this.badge.textContent = `${n} changed`;
  }

  changed() {
    const out = {};
    for (const { p, input } of this.rows) {
      const v = read(input, p);
      if (v !== p.default) out[p.name] = v;
    }
    return out;
  }

  reset() {
    for (const { p, input } of this.rows) write(input, p, p.default);
    this.mark();
    this.onChange();
  }
}

/** The address's part after '#', as an object of strings. */
export const fromAddress = () => Object.fromEntries(new URLSearchParams(location.hash.slice(1)));

export function toAddress(settings) {
  const p = new URLSearchParams();
  for (const [k, v] of Object.entries(settings))
    if (v !== '' && v !== undefined && v !== null) p.set(k, v);
  const url = new URL(location.href);
  url.hash = p.toString();
  return url.href;
}

/** Marks the input a refused request names ("tutti.threshold", "max_tokens", "messages[0].content",
 *  "segments[1].hole"). Returns it, or null. */
export function markInvalid(param) {
  for (const el of document.querySelectorAll('[aria-invalid]')) el.removeAttribute('aria-invalid');
  if (!param) return null;
  const name = param.replace(/^tutti\./, '');
  const alias = { max_completion_tokens: 'max-tokens', max_tokens: 'max-tokens' }[name] ??
    (/^(prompt|messages|segments)/.test(name) ? 'prompt' : name);
  const el = byId(`param-${alias}`) ?? byId(alias);
  if (!el || !('value' in el)) return null;
  el.setAttribute('aria-invalid', 'true');
  el.closest('details')?.setAttribute('open', '');
  return el;
}
