// search.mjs - what could go wrong with searches on the page of images: a field that is not sent, a
// tree without its lines or its best path, nodes that keys do not reach, a link that forgets.
import { check, desk, phone, shot, test, url } from './harness.mjs';

const open = async (page, hash = '') => {
  await page.goto(`${url}/images.html${hash}`);
  await page.waitForSelector('.server.up');
};
const done = page => page.waitForFunction(() => !document.querySelector('#go').disabled &&
  !['', 'Generating.'].includes(document.querySelector('#say').textContent), null, { timeout: 120000 });
const field = (page, name) => page.locator(`[id="param-search.${name}"]`);

/** A beam search of 2 x 3 for 2 images. */
async function beam(page) {
  await page.fill('#n', '2');
  await page.click('#search-box summary');
  await field(page, 'algorithm').selectOption('beam');
  await field(page, 'beam_width').fill('2');
  await field(page, 'candidates').fill('3');
  await page.click('#examples button');
  await done(page);
  check(!await page.isVisible('#error'), await page.textContent('#error'));
}

test('a search draws its tree and ends with the best', async page => {
  let sent;
  page.on('request', r => { if (r.url().endsWith('generations')) sent = r.postDataJSON(); });
  await open(page);
  await beam(page);
  await shot(page, 'search-beam');
  check(sent.tutti.search.beam_width === 2 && sent.tutti.search.candidates === 3, JSON.stringify(sent.tutti.search));
  check(!('samples' in sent.tutti.search), 'a field that beams do not read was sent');
  const tree = await page.evaluate(() => {
    const nodes = [...document.querySelectorAll('#tree .node')].map(b => ({
      label: b.getAttribute('aria-label'), x: b.offsetLeft, best: b.classList.contains('best') }));
    return { nodes, lines: document.querySelectorAll('#tree path').length,
      best: document.querySelectorAll('#tree path.best').length,
      steps: document.querySelectorAll('#tree .head').length,
      shown: document.querySelectorAll('#tree canvas').length };
  });
  check(tree.steps >= 3, `${tree.steps} steps`);
  check(tree.nodes.length === 3 + 6 * (tree.steps - 1), `${tree.nodes.length} nodes of ${tree.steps} steps`);
  check(tree.lines === 6 * (tree.steps - 1), `${tree.lines} lines: a node hangs in the air`);
  check(tree.best === tree.steps - 1, `the best path has ${tree.best} lines`);
  const path = tree.nodes.filter(n => n.best);
  check(new Set(path.map(n => n.x)).size === tree.steps, 'the best path is not one node a step');
  check(tree.shown >= 2, 'the results have no pictures in the tree');
  check(await page.locator('#gallery button').count() === 2, 'not two pictures');
  check(new RegExp(`Candidates\\s*${tree.nodes.length}`).test(await page.textContent('#spent')),
    await page.textContent('#spent'));
  const scores = [];
  for (const i of [0, 1]) {
    await page.locator('#gallery button').nth(i).click();
    scores.push(Number((await page.textContent('#scores')).match(/-?[\d.]+/)[0]));
  }
  check(scores[0] >= scores[1], `scores ${scores}`);
});

test('keys lead through the tree', async page => {
  await open(page);
  await beam(page);
  check(await page.locator('#tree button[tabindex="0"]').count() === 1, 'more than one stop for the tab key');
  await page.locator('#tree button[tabindex="0"]').focus();
  await page.keyboard.press('End');
  const says = () => page.textContent('#tree-says');
  const last = await says(), parent = last.match(/from (\d+)/)?.[1];
  check(/result 1/.test(last) && parent, `the end is '${last}'`);
  await page.keyboard.press('ArrowLeft');
  check((await says()).includes(`candidate ${parent},`), `left of '${last}' is '${await says()}'`);
  await page.keyboard.press('ArrowRight');
  check((await says()).includes(`from ${parent}`), `back again is '${await says()}'`);
  await page.keyboard.press('End');
  await page.keyboard.press('ArrowDown');
  await page.keyboard.press('Enter');
  check(await page.locator('#gallery button').nth(1).getAttribute('aria-selected') === 'true',
    'the second result was not shown');
  await page.keyboard.press('Home');
  check(/^Step 1,/.test(await says()), `home is '${await says()}'`);
});

test('a link knows the search, and an error its field', async (page, { expectNoise }) => {
  await open(page, '#search.algorithm=best_of&search.samples=3&search.role.likelihood=decides&n=5');
  check(await field(page, 'samples').inputValue() === '3', 'the samples were forgotten');
  check(await field(page, 'role.likelihood').inputValue() === 'decides', 'the verifier was forgotten');
  check(!await field(page, 'beam_width').isVisible(), 'a field is shown that is not read');
  await page.click('#go');
  await page.waitForSelector('#error:not([hidden])');
  check(await page.getAttribute('#n', 'aria-invalid') === 'true', await page.textContent('#error'));
  check(!await page.isVisible('#tree-box'), 'a tree of nothing');
  await page.fill('#n', '1');
  await page.click('#go');
  await done(page);
  check(await page.locator('#tree .node').count() === 3, 'not three samples');
  expectNoise(/status of 400/);
});

test('a search on a phone', async page => {
  await open(page);
  await beam(page);
  const [wide, has] = await page.evaluate(() => [document.documentElement.scrollWidth, innerWidth]);
  check(wide <= has, `${wide} pixels on a screen of ${has}`);
  await page.locator('#tree-box').scrollIntoViewIfNeeded();
  await shot(page, 'search-phone');
}, phone);

test('a search in the dark', async page => {
  await open(page);
  await beam(page);
  await shot(page, 'search-dark');
}, { ...desk, colorScheme: 'dark' });
