// test_page.mjs - what could go wrong with the page: nothing streams, tokens only come from left to
// right, given text is lost, a setting is not sent, an error is not shown, a link forgets, a button
// does nothing, the page overflows a phone.
import { check, desk, phone, run, shot, test, url } from './harness.mjs';
import './images.mjs';
import './levels.mjs';
import './search.mjs';

const open = async (page, hash = '') => {
  await page.goto(`${url}/${hash}`);
  await page.waitForSelector('.server.up');
};
const value = (page, id) => page.inputValue(`#${id}`);
const done = page => page.waitForFunction(() =>
  !document.querySelector('#go').disabled &&
  document.querySelector('#play').textContent !== '❚❚', null, { timeout: 60000 });
const canvasText = page => page.locator('#canvas').innerText();

/** Notes every state of the canvas as a string: 'o' an open column, 'x' a filled one. */
const watch = page => page.evaluate(() => {
  const canvas = document.querySelector('#canvas');
  const states = window.seenStates = [];
  new MutationObserver(() => {
    const cells = [...canvas.querySelectorAll('.cell')];
    const state = cells.map(c => c.classList.contains('open') ? 'o' : 'x').join('');
    if (state !== states.at(-1)) states.push(state);
  }).observe(canvas, { childList: true, subtree: true, attributes: true });
});
const seen = page => page.evaluate(() => window.seenStates);

async function generate(page, prompt, { tokens, seed = 7, pace = '60' } = {}) {
  await page.fill('#prompt', prompt);
  if (tokens) await page.fill('#max-tokens', String(tokens));
  await page.fill('#seed', String(seed));
  await page.selectOption('#pace', pace, { force: true }).catch(() => {});
  await page.click('#go');
}

test('the page loads with a model, its samplers and parameters', async page => {
  await open(page);
  await shot(page, 'start');
  check((await value(page, 'model')).length > 0, 'no model is chosen');
  check(await page.locator('#sampler option').count() > 1, 'fewer than two samplers');
  await page.click('#more summary');
  check(await page.locator('#params .param').count() > 3, 'fewer than four parameters');
  check(await page.locator('#examples button').count() > 3, 'fewer than four examples');
  const help = await page.locator('#params .param').first().getAttribute('title');
  check(help.length > 10, `the first parameter says '${help}' about itself`);
  await shot(page, 'parameters');
});

test('a completion fills in out of order', async page => {
  await open(page);
  await watch(page);
  await page.evaluate(() => { document.querySelector('#pace').value = '60'; });
  await page.selectOption('#sampler', 'low_confidence'); // a token a pass, anywhere in its block
  await page.click('#examples button:has-text("JSON")');
  await page.waitForFunction(() => window.seenStates.some(s => s.match(/x/g)?.length > 12));
  await shot(page, 'filling');
  await done(page);
  await shot(page, 'done');
  const states = await seen(page);
  check(states.some(s => s.includes('o') && s.includes('x')), `no state in between: ${states}`);
  check(states.some(s => /ox/.test(s)), `never a token after an open column: ${states}`);
  check((await page.textContent('#stat-tokens')).match(/^\d+$/), 'no count of tokens');
  check((await page.textContent('#stat-end')) !== '–', 'no reason of ending');
  const text = await canvasText(page);
  const prompt = await value(page, 'prompt');
  check(text.length > prompt.length, `nothing was added: ${text}`);
});

test('the model\'s own sampler places several tokens a pass', async page => {
  await open(page);
  await page.click('#examples button:has-text("few passes")');
  await done(page);
  check(await value(page, 'sampler') !== 'low_confidence', 'the example before left its sampler');
  check((await canvasText(page)).includes('"Lima"'), `it says ${await canvasText(page)}`);
  const rate = Number(await page.textContent('#stat-tpf'));
  check(rate > 1, `${rate} tokens a forward`);
});

test('holes are filled and the given text stays', async page => {
  await open(page);
  await page.fill('#prompt', '');
  await page.focus('#prompt');
  await page.keyboard.type('In the beginning ');
  await page.click('#hole');
  await page.keyboard.type(' the earth.');
  check((await value(page, 'prompt')) === 'In the beginning [[8]] the earth.',
    `the button made '${await value(page, 'prompt')}'`);
  check(await value(page, 'sampler') === 'infill', `holes are for '${await value(page, 'sampler')}'`);
  check(await page.isDisabled('#max-tokens'), 'a length is asked for though the holes have theirs');
  await watch(page);
  await page.keyboard.press('Control+Enter');
  await page.waitForFunction(() => window.seenStates?.some(s => s.includes('x')));
  await done(page);
  await shot(page, 'holes');
  const text = await canvasText(page);
  check(text.startsWith('In the beginning '), `the beginning is lost: ${text}`);
  check(text.endsWith(' the earth.'), `the end is lost: ${text}`);
  check(await page.locator('#canvas .cell').count() === 8, 'not eight cells');
  check(await page.locator('#canvas .cell.open').count() === 0, 'cells are still open');
});

test('a hole finds its length, and another its text', async page => {
  await open(page);
  await page.click('#examples button:has-text("A hole of 1 to 7")');
  await done(page);
  await shot(page, 'length');
  check((await canvasText(page)).trim() === 'roman: 1994 = MCMXCIV', `it says ${await canvasText(page)}`);
  check(await page.locator('#canvas .cell').count() < 7, 'the hole kept its greatest length');
  await page.click('#examples button:has-text("One of three")');
  await done(page);
  check((await canvasText(page)).trim() === 'roman: 1994 = MCMXCIV', `it says ${await canvasText(page)}`);
  check(await page.locator('#error').isHidden(), 'an error is shown');
});

test('a model for puzzles has its own examples, and solves one', async page => {
  await open(page);
  check(await value(page, 'model') === 'tutti-text', 'the default model is not chosen first');
  await page.selectOption('#model', 'tutti-sudoku');
  await page.click('#examples button:has-text("few passes")');
  await done(page);
  await shot(page, 'sudoku');
  check(await page.locator('#error').isHidden(), await page.textContent('#error'));
  const digits = (await canvasText(page)).replace(/\D/g, '');
  check(digits === '937148625428765913156329487843512769571693248269874531685437192794281356312956874',
    `it says ${digits}`);
});

test('a guide that is open is used by the sampler that needs one', async page => {
  await open(page);
  await page.selectOption('#sampler', 'guided');
  await generate(page, 'Genesis 1:1', { tokens: 24, pace: '0' });
  await done(page);
  check(await page.locator('#error').isHidden(), await page.textContent('#error'));
  check((await canvasText(page)).includes('God created'), `it says ${await canvasText(page)}`);
});

test('a wave of states freezes from left to right', async page => {
  await page.goto(`${process.env.DEPTH}/#prompt=${encodeURIComponent('24 27 31 34 38 41 ')}` +
    '&max_tokens=40&seed=3&exit_threshold=0.0005&inner_recurrence=2');
  await page.waitForSelector('.server.up');
  await page.click('#go');
  await done(page);
  const last = Number(await page.getAttribute('#scrub', 'max'));
  let before = 0, wide = 0;
  for (let n = 1; n <= last; n++) {
    await page.evaluate(k => {
      const s = document.querySelector('#scrub');
      s.value = k;
      s.dispatchEvent(new Event('input'));
    }, n);
    const bars = await page.$$eval('#wave rect', all => all.map(r => r.classList.contains('draft')));
    const frozen = bars.indexOf(true) < 0 ? bars.length : bars.indexOf(true);
    check(frozen >= before, `frozen positions went from ${before} to ${frozen} at frame ${n}`);
    check(bars.slice(frozen).every(draft => draft), `an open position left of a frozen one: ${bars}`);
    before = frozen;
    if (bars.length - frozen > wide) {
      wide = bars.length - frozen;
      await shot(page, 'wave');
    }
  }
  check(before === 40, `${before} positions stand in the end`);
  check(wide > 2, `the wave was ${wide} positions at most`);
  check(/\b40 frozen after [\d.]+ recurrences/.test(await page.textContent('#wave-says')), 'no count');
  check(/45 48 52 55/.test(await page.textContent('#canvas')), await page.textContent('#canvas'));
});

test('a sampler that was chosen stays', async page => {
  await open(page);
  await page.fill('#prompt', 'a [[2]]');
  check(await value(page, 'sampler') === 'infill', 'a hole changes nothing');
  await page.fill('#prompt', 'a');
  check(await value(page, 'sampler') !== 'infill', 'without the hole it is still infill');
  await page.selectOption('#sampler', 'threshold');
  await page.click('#more summary');
  check(await page.locator('#param-threshold').isVisible(), 'its parameter is not shown');
  await page.fill('#param-threshold', '0.5');
  check(await page.textContent('#changed') === '1 changed', 'the change is not counted');
  await page.fill('#prompt', 'a [[2]] b');
  check(await value(page, 'sampler') === 'threshold', 'the choice was overruled');
  await page.click('#go');
  await done(page);
  check(await page.locator('#error').isHidden(), await page.textContent('#error'));
  await page.click('#reset');
  check(await value(page, 'param-threshold') === '0.9', 'the default did not come back');
});

test('the same seed gives the same text, through a link too', async (page, { context }) => {
  await open(page);
  await page.click('#more summary');
  await page.fill('#param-temperature', '0.7');
  await generate(page, 'verse: ', { tokens: 24, seed: 11, pace: '0' });
  await done(page);
  const first = await canvasText(page);
  await page.click('#go');
  await done(page);
  check(await canvasText(page) === first, 'the second run differs');
  const other = await context.newPage();
  await other.goto(page.url());
  await other.waitForSelector('.server.up');
  check(await other.inputValue('#param-temperature') === '0.7', 'the link lost the temperature');
  check(await other.inputValue('#seed') === '11', 'the link lost the seed');
  await other.click('#go');
  await done(other);
  check(await canvasText(other) === first, 'the link gives another text');
});

test('a refused request is shown with its field', async (page, { expectNoise }) => {
  await open(page);
  await generate(page, 'x', { tokens: 4000 });
  await page.waitForSelector('#error:not([hidden])');
  check((await page.textContent('#error')).includes('max_tokens'), 'the field is not named');
  check(await page.getAttribute('#max-tokens', 'aria-invalid') === 'true', 'it is not marked');
  check(!await page.isDisabled('#go'), 'the form is stuck');
  await shot(page, 'refused');
  expectNoise(/status of 400/); // the browser's own note about the answer
});

test('stop ends a request', async page => {
  await open(page);
  await page.evaluate(() => { document.querySelector('#pace').value = '0'; });
  await page.evaluate(() => { // no end token: only who stops it ends it early
    const input = document.querySelector('#param-logits_eos_inf');
    input.checked = true;
    input.dispatchEvent(new Event('input', { bubbles: true }));
  });
  const room = await page.evaluate(async () =>
    (await (await fetch('v1/models')).json()).data[0].tutti.context);
  await generate(page, 'a', { tokens: room - 16 });
  await page.waitForSelector('#canvas .cell:not(.open)');
  if (await page.isEnabled('#stop')) await page.keyboard.press('Escape');
  await done(page);
  const end = await page.textContent('#stat-end');
  check(end === 'you', `it ended by '${end}'`);
  await page.waitForFunction(async () =>
    /tutti_requests_running\S* 0\b|num_requests_running\S* 0\b/.test(
      await (await fetch('metrics')).text()));
});

test('the history can be walked back and forth', async page => {
  await open(page);
  await generate(page, 'the sea [[12]] the sky', { pace: '0' });
  await done(page);
  const text = await canvasText(page);
  await page.locator('#scrub').fill('1');
  check(await page.locator('#canvas .cell.open').count() > 0, 'step 1 shows no open column');
  await page.locator('#scrub').fill(await page.getAttribute('#scrub', 'max'));
  check(await canvasText(page) === text, 'the last step shows another text');
  await page.click('#play');
  await done(page);
  check(await canvasText(page) === text, 'playing again ends in another text');
  check(await page.locator('#score rect').count() === 12, 'the score has not twelve marks');
});

test('chat answers and remembers', async page => {
  await open(page);
  check(await page.isEnabled('#tab-chat'), 'the model cannot chat');
  await page.focus('#tab-text');
  await page.keyboard.press('ArrowRight');
  check(await page.getAttribute('#tab-chat', 'aria-selected') === 'true', 'arrow keys do nothing');
  await page.fill('#prompt', 'Hello');
  await page.click('#go');
  await page.waitForFunction(() => document.querySelectorAll('#talk li').length === 2);
  await done(page);
  await shot(page, 'chat');
  const answer = await page.locator('#talk li').nth(1).innerText();
  check(answer.trim().length > 1, 'the answer is empty');
  await page.click('#forget');
  check(await page.locator('#talk li').count() === 0, 'the conversation is still there');
});

test('a server that wants a key gets it', async (page, { expectNoise }) => {
  await page.goto(`${process.env.LOCKED}/`);
  await page.waitForSelector('#key-box:not([hidden])');
  await page.fill('#key', 'wrong');
  await page.keyboard.press('Enter');
  await page.waitForTimeout(1500);
  check(await page.isVisible('#key-box'), 'a wrong key is enough');
  await page.fill('#key', 'secret');
  await page.keyboard.press('Enter');
  await page.waitForSelector('.server.up');
  await generate(page, 'roman: 1994 =', { tokens: 16, pace: '0' });
  await done(page);
  check((await canvasText(page)).includes('MCMXCIV'), `it says ${await canvasText(page)}`);
  check(!(await page.textContent('#curl')).includes('secret'), 'the key is shown');
  expectNoise(/status of 401/);
});

test('insertions land between the tokens that are there', async page => {
  await page.goto(`${process.env.INSERTING}/`);
  await page.waitForSelector('.server.up');
  await page.evaluate(() => {
    document.querySelector('#pace').value = '200';
    const texts = window.seenTexts = [], canvas = document.querySelector('#canvas');
    new MutationObserver(() => {
      const text = canvas.innerText;
      if (text !== texts.at(-1)) texts.push(text);
    }).observe(canvas, { childList: true, subtree: true });
  });
  await page.fill('#prompt', '14 3 0[[8]] 2 3 11[[6]]');
  check((await page.textContent('#prompt-hint')).includes('at most'), 'the holes do not grow');
  await page.click('#more summary');
  await page.fill('#param-stopping_threshold', '0.99');
  await page.click('#go');
  await page.waitForFunction(() => window.seenTexts.length > 5);
  await shot(page, 'inserting');
  check(await page.locator('#canvas .cell.landed').count() > 0, 'no insertion is highlighted');
  check(await page.locator('#canvas .cell.open').count() === 0, 'room is shown as open columns');
  await done(page);
  await shot(page, 'inserted');
  const texts = await page.evaluate(() => window.seenTexts);
  const words = texts.map(t => t.trim().split(/\s+/));
  const kept = (a, b) => a.reduce((n, w) => n + (n < b.length && b[n] === w), 0) === b.length;
  const grew = words.every((w, i) => !i || w.length < words[i - 1].length || kept(w, words[i - 1]));
  check(grew, `a token was lost: ${texts.join(' | ')}`);
  check(words.some((w, i) => i && w.length > words[i - 1].length &&
    w.at(-1) === words[i - 1].at(-1) && w[0] === words[i - 1][0]), 'all came at the ends');
  const n = await page.locator('#canvas .cell').count();
  check((await page.textContent('#step')).includes(`${n} inserted`), 'the count is wrong');
  check(await page.locator('#score rect').count() === n, 'the score has other marks');
  await page.locator('#scrub').fill('2');
  check(await page.locator('#canvas .cell').count() === 2, 'step 2 has not two tokens');
  await page.locator('#scrub').fill(String(n));
  check(await canvasText(page) === texts.at(-1), 'the last step shows another text');
});

test('dark', async page => {
  await open(page);
  await page.click('#examples button:has-text("JSON")');
  await done(page);
  await shot(page, 'dark');
  const dark = await page.evaluate(() => getComputedStyle(document.documentElement).backgroundColor);
  check(dark.match(/\d+/g).slice(0, 3).every(c => Number(c) < 60), `the background is ${dark}`);
}, { ...desk, colorScheme: 'dark' });

test('a phone needs no sideways scrolling', async page => {
  await open(page);
  await shot(page, 'phone-start');
  await page.click('#examples button:has-text("JSON")');
  await done(page);
  const [wide, has] = await page.evaluate(() => [document.documentElement.scrollWidth, innerWidth]);
  check(wide <= has, `${wide} pixels on a screen of ${has}`);
  const top = await page.evaluate(() => document.querySelector('#canvas').getBoundingClientRect().top);
  check(top < 844, 'the canvas is out of sight after asking');
  await shot(page, 'phone');
}, phone);

await run();
