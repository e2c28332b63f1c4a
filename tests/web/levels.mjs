// levels.mjs - what could go wrong with images that come coarse to fine, and with pictures read crop by
// crop: pictures that are all the same, a state that cannot be gone back to. Where the models are there.
import { existsSync } from 'node:fs';
import { check, desk, shot, test, url } from './harness.mjs';

const open = async (page, hash) => {
  await page.goto(`${url}/images.html${hash}`);
  await page.waitForSelector('.server.up');
};
const done = page => page.waitForFunction(() => !document.querySelector('#go').disabled &&
  !['', 'Generating.'].includes(document.querySelector('#say').textContent), null, { timeout: 120000 });

/** What the canvases matching a selector show. */
const drawn = (page, selector) => page.evaluate(
  s => [...document.querySelectorAll(s)].map(c => c.toDataURL()), selector);

for (const model of ['tutti-image-levels', 'tutti-image-next'].filter(m => existsSync(`models/demo/${m}`)))
  test(`images of ${model} come coarse to fine`, async page => {
    await open(page, `#model=${model}&n=1`);
    await page.click('#examples button');
    await done(page);
    check(!await page.isVisible('#error'), await page.textContent('#error'));
    const tokens = await page.locator('#levels button span').allTextContents();
    check(tokens.length > 4 && tokens[0] === '1', `pictures of ${tokens} tokens`);
    check(new Set(await drawn(page, '#levels canvas')).size > 3, 'the levels look the same');
    const [whole] = await drawn(page, '#picture');
    await page.locator('#levels button').first().click();
    check((await drawn(page, '#picture'))[0] !== whole, 'the first token looks like the whole');
    check(await page.locator('#levels button').first().getAttribute('aria-pressed') === 'true', 'not marked');
    check(!await page.isVisible('#edit'), 'tokens without a place can be painted');
    await shot(page, `levels-${model}`);
  });

if (existsSync('models/demo/tutti-comit'))
  test('a message forms crop by crop', async page => {
    await open(page, '#model=tutti-image&n=1');
    await page.click('#examples button');
    await done(page);
    await page.click('#crops');
    await page.waitForFunction(() => /^10 of 10/.test(document.querySelector('#crops-say').textContent));
    await page.waitForFunction(() => !document.querySelector('#go').disabled);
    await shot(page, 'crops');
    check(await page.locator('#crops-shown button').count() === 10, 'not the whole and nine crops');
    const message = await page.getAttribute('.message', 'aria-label');
    await page.locator('#crops-shown button').nth(2).click();
    check(/^3 of 10, crop 2: \d+ of \d+ tokens changed/.test(await page.textContent('#crops-say')),
      await page.textContent('#crops-say'));
    check(await page.getAttribute('.message', 'aria-label') !== message, 'the message never changes');
    check(new Set(await drawn(page, '#crops-shown button canvas')).size > 3, 'the pictures are the same');
  }, desk);
