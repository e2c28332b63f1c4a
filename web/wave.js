// wave.js - recurrent depth: how often each position's state has been refined, and where the text
// stands. A frame's wave is { frozen, from, recurrences }: so many positions stand, and the counts
// of the positions from `from` on.

const SVG = 'http://www.w3.org/2000/svg';

/** Puts a frame's wave into the columns; adds the positions whose look changes to touched, as { pos }. */
export function applyWave(columns, wave, touched) {
  wave.recurrences.forEach((n, i) => {
    const pos = wave.from + i, column = columns[pos];
    if (!column) return;
    columns[pos] = { ...column, recurrences: n, draft: pos >= wave.frozen };
    touched.push({ pos });
  });
}

function bar(pos, column, most, cell) {
  const height = column.recurrences / most;
  const rect = document.createElementNS(SVG, 'rect');
  rect.setAttribute('x', pos + .08);
  rect.setAttribute('y', 1 - height);
  rect.setAttribute('width', .84);
  rect.setAttribute('height', height);
  rect.classList.toggle('draft', Boolean(column.draft));
  const title = document.createElementNS(SVG, 'title');
  title.textContent = cell;
  rect.append(title);
  return rect;
}

/** One bar per position: its recurrences so far; those still refined are marked. Returns what can be
 *  said about it in a line, or '' when the run is of another kind. */
export function drawWave(svg, columns) {
  const counts = columns.map(c => c.recurrences ?? 0), most = Math.max(...counts, 1);
  svg.replaceChildren();
  if (!counts.some(n => n > 0)) return '';
  svg.setAttribute('viewBox', `0 0 ${Math.max(1, columns.length)} 1`);
  svg.append(...columns.flatMap((c, pos) => c.recurrences
    ? [bar(pos, c, most, `position ${pos}: ${c.recurrences} recurrences${c.draft ? ', open' : ', frozen'}`)]
    : []));
  const open = columns.filter(c => c.recurrences && c.draft).length;
  const done = columns.filter(c => c.recurrences && !c.draft).map(c => c.recurrences);
  const mean = done.length ? done.reduce((a, b) => a + b, 0) / done.length : 0;
  return `${done.length} frozen after ${mean.toFixed(1)} recurrences, ${open} in the wave, ${most} at most`;
}
