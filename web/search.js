// search.js - the form of a search: who scores, how many candidates, what it may cost. Its value is
// the request's tutti.search; what was spent is shown as the answer tells it.

const FIELDS = [ // those a kind of search reads; the rest are hidden, and not sent
  { name: 'samples', label: 'Samples', on: ['best_of'], value: 8, min: 1, max: 512 },
  { name: 'beam_width', label: 'Beams kept', on: ['beam', 'lookahead'], value: 3, min: 1, max: 64 },
  { name: 'candidates', label: 'Candidates each', on: ['beam', 'lookahead'], value: 6, min: 1, max: 64 },
  { name: 'schedule', label: 'Scored at', on: ['beam', 'lookahead'], value: 'geometric',
    choices: [['geometric', '1, 2, 4, 8 … tokens'], ['fixed', 'every step']] },
];
const KINDS = [['', 'off'], ['best_of', 'best of N'], ['beam', 'beam'], ['lookahead', 'beam with lookahead']];
const ROLES = [['decides', 'decides'], ['reports', 'only shown'], ['', 'off']];
const SPENT = [['candidates', 'Candidates'], ['forwards', 'Forwards'], ['pictures_decoded', 'Decoded'],
  ['pictures_scored', 'Scored'], ['ms', 'Search time'], ['finish', 'Ended']];

const element = (name, members = {}) => Object.assign(document.createElement(name), members);
const options = list => list.map(([value, text]) => new Option(text, value));

function field(label, input, name) {
  const box = element('label', { textContent: label });
  input.id = `param-search.${name}`; // where errors find it
  input.dataset.name = name;
  box.append(input);
  return box;
}

const counter = f => element('input', { type: 'number', min: f.min, max: f.max ?? '', value: f.value ?? '',
  placeholder: f.placeholder ?? '', inputMode: 'numeric' });

export class SearchPanel {
  constructor(box, badge, onChange) {
    this.box = box;
    this.badge = badge;
    this.onChange = onChange;
    box.addEventListener('input', () => { this.fit(); onChange(); });
  }

  /** verifiers: models of GET /v1/models that score. */
  build(verifiers, values = {}) {
    this.kind = element('select');
    this.kind.append(...options(KINDS));
    this.fields = FIELDS.map(f => {
      const input = f.choices ? element('select') : counter(f);
      if (f.choices) input.append(...options(f.choices));
      return { f, input, label: field(f.label, input, f.name) };
    });
    this.roles = [...verifiers.map(v => [v.id, v.tutti.summary]),
      ['likelihood', 'how likely the model finds its own tokens']].map(([id, help], i) => {
      const select = element('select');
      select.append(...options(ROLES));
      select.value = i || values['search.algorithm'] ? '' : 'decides';
      const label = field(id, select, `role.${id}`);
      label.title = help;
      return { id, select, label };
    });
    this.forwards = counter({ min: 1, placeholder: 'no limit' });
    this.ms = counter({ min: 1, placeholder: 'no limit' });
    this.prompt = element('input', { type: 'text', placeholder: 'the labels', maxLength: 1000 });
    const text = field('Text they read', this.prompt, 'prompt');
    this.prompt.id = 'prompt';
    text.className = 'whole';
    const jury = element('fieldset', { className: 'jury whole' });
    jury.append(element('legend', { textContent: 'Verifiers' }), ...this.roles.map(r => r.label));
    this.rest = [jury, text, field('At most forwards', this.forwards, 'budget.forwards'),
      field('At most ms', this.ms, 'budget.ms')];
    this.box.replaceChildren(field('Search', this.kind, 'algorithm'), ...this.fields.map(r => r.label),
      ...this.rest);
    for (const input of this.inputs()) if (values[`search.${input.dataset.name}`] !== undefined)
      input.value = values[`search.${input.dataset.name}`];
    if (!this.kind.value && this.kind.selectedIndex < 0) this.kind.value = '';
    this.fit();
  }

  inputs() { return [...this.box.querySelectorAll('[data-name]')]; }
  on() { return this.kind?.value ?? ''; }

  /** Shows what the kind of search chosen reads. */
  fit() {
    for (const { f, label } of this.fields) label.hidden = !f.on.includes(this.on());
    for (const part of this.rest) part.hidden = !this.on();
    this.badge.hidden = !this.on();
    this.badge.textContent = this.kind.selectedOptions[0]?.text ?? '';
  }

  /** For the address: what differs from nothing. */
  settings() {
    const out = {};
    if (this.on()) for (const i of this.inputs()) out[`search.${i.dataset.name}`] = i.value;
    return out;
  }

  /** The request's tutti.search, or null. */
  value() {
    if (!this.on()) return null;
    const out = { algorithm: this.on(), verifier: [] };
    for (const { f, input } of this.fields)
      if (f.on.includes(this.on()) && input.value !== '') out[f.name] = f.choices ? input.value : Number(input.value);
    for (const { id, select } of this.roles)
      if (select.value) out.verifier.push({ name: id, weight: select.value === 'decides' ? 1 : 0 });
    const budget = {};
    if (this.forwards.value) budget.forwards = Number(this.forwards.value);
    if (this.ms.value) budget.ms = Number(this.ms.value);
    if (Object.keys(budget).length) out.budget = budget;
    return out;
  }

  /** What verifiers are to read; '' for the names of the labels. */
  text() { return this.prompt.value.trim(); }
}

/** What a search took, as its answer says, into a list of terms. */
export function showSpent(list, search) {
  list.hidden = !search;
  if (!search) return;
  list.replaceChildren(...SPENT.map(([name, label]) => {
    const div = element('div'), value = search[name];
    const text = name === 'ms' ? `${Math.round(value)} ms`
      : name === 'finish' ? (value === 'budget' ? 'by its budget' : 'complete') : String(value);
    div.append(element('dt', { textContent: label }), element('dd', { textContent: text }));
    return div;
  }));
}
