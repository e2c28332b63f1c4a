// levels.js - the strip of an image that came coarse to fine: what its first 1, 2, 4 ... tokens are.

const powerOfTwo = n => n > 0 && (n & (n - 1)) === 0;

/** [frame's place, tokens] of the pictures worth a look. */
function levelsOf(picture) {
  const all = picture.frames.flatMap((f, i) => f.own ? [[i, picture.tokens - f.open.size]] : []);
  return all.filter(([i, tokens]) => i === picture.frames.length - 1 || powerOfTwo(tokens));
}

/** show(i): called with the number of the frame whose picture was pressed. */
export function drawLevels(box, picture, show) {
  const levels = picture && !picture.grid && !picture.search ? levelsOf(picture) : [];
  box.hidden = levels.length < 2;
  if (box.hidden) return;
  const had = [...box.querySelectorAll('button')].indexOf(document.activeElement);
  const heading = Object.assign(document.createElement('span'), { textContent: 'tokens' });
  box.replaceChildren(heading, ...levels.map(([i, tokens]) => {
    const button = document.createElement('button'), canvas = document.createElement('canvas');
    const label = document.createElement('span');
    button.type = 'button';
    button.setAttribute('aria-pressed', String(i === picture.shown - 1));
    button.setAttribute('aria-label', `after ${tokens} token${tokens === 1 ? '' : 's'}`);
    label.textContent = tokens;
    canvas.width = canvas.height = 64;
    picture.paint(canvas, i + 1);
    button.append(canvas, label);
    button.addEventListener('click', () => show(i + 1));
    return button;
  }));
  box.querySelectorAll('button')[had]?.focus();
}
