// images.mjs - what could go wrong with the page of images: it shows nothing until the end, paint
// does not become the mask, an edit changes the rest, an error is not shown, it overflows a phone.
import { check, desk, phone, shot, test, url } from './harness.mjs';

const open = async (page, hash = '') => {
  await page.goto(`${url}/images.html${hash}`);
  await page.waitForSelector('.server.up');
};
const done = page => page.waitForFunction(() => !document.querySelector('#go').disabled &&
  document.querySelector('#say').textContent !== 'Generating.', null, { timeout: 120000 });

/** Colours of the picture shown, one per token, drawn from its middle. */
const colours = page => page.evaluate(() => {
  const c = document.querySelector('#picture'), g = c.getContext('2d'), out = [];
  for (let y = 0; y < 8; y++)
    for (let x = 0; x < 8; x++)
      out.push(Array.from(g.getImageData((x + .5) * c.width / 8, (y + .5) * c.height / 8, 1, 1).data).join());
  return out;
});

/** Presses on the picture, from one token to another. */
async function drag(page, from, to) {
  const box = await page.locator('#picture').boundingBox();
  const at = ([x, y]) => [box.x + (x + .5) * box.width / 8, box.y + (y + .5) * box.height / 8];
  await page.mouse.move(...at(from));
  await page.mouse.down();
  await page.mouse.move(...at(to), { steps: 20 });
  await page.mouse.up();
}

test('the text page leads to the images and back', async page => {
  await page.goto(`${url}/`);
  await page.waitForSelector('.server.up');
  await page.click('#to-images');
  await page.waitForSelector('.server.up');
  check(await page.locator('#labels input, #labels select').count() > 0, 'no labels to choose from');
  check(await page.locator('#examples button').count() > 3, 'fewer than four examples');
  await shot(page, 'images-start');
  await page.click('nav a:has-text("Text")');
  await page.waitForSelector('#prompt');
});

test('a picture fills in step by step and can be played again', async page => {
  await open(page);
  await page.fill('#n', '2');
  await page.evaluate(() => {
    window.steps = new Set();
    new MutationObserver(() => window.steps.add(document.querySelector('#step').textContent))
      .observe(document.querySelector('#step'), { childList: true, characterData: true, subtree: true });
  });
  await page.click('#examples button');
  await done(page);
  await shot(page, 'images-done');
  check(await page.locator('#gallery button').count() === 2, 'not two pictures');
  const steps = await page.evaluate(() => [...window.steps]);
  check(steps.length > 1, `seen on the way: ${steps}`);
  check(Number(await page.textContent('#stat-steps')) > 1, 'no count of steps');
  check(Number(await page.getAttribute('#scrub', 'max')) === Number(await page.textContent('#stat-steps')),
    'not every step can be shown');
  const whole = await colours(page);
  await page.evaluate(() => {
    const s = document.querySelector('#scrub');
    s.value = 1;
    s.dispatchEvent(new Event('input'));
  });
  check((await colours(page)).join('|') !== whole.join('|'), 'the first step looks like the last');
  await shot(page, 'images-step');
  await page.click('#play');
  await page.waitForFunction(() => document.querySelector('#play').textContent === '▶');
  check((await colours(page)).join('|') === whole.join('|'), 'playing ends elsewhere');
});

test('what is painted is made anew and the rest stays', async page => {
  await open(page);
  await page.fill('#n', '1');
  await page.click('#examples button');
  await done(page);
  const before = await colours(page);
  await drag(page, [2, 2], [4, 4]);
  await shot(page, 'images-painted');
  const painted = (await colours(page)).map((c, i) => c !== before[i]);
  check(painted[2 * 8 + 2] && painted[4 * 8 + 4] && !painted[0], 'the paint is elsewhere');
  await page.fill('#seed', '12345');
  await page.click('#more summary');
  await page.fill('#param-temperature', '20');
  await page.click('#edit');
  await done(page);
  await shot(page, 'images-edited');
  const after = await colours(page);
  check(after.some((c, i) => painted[i] && c !== before[i]), 'nothing was made anew');
  const lost = after.findIndex((c, i) => !painted[i] && c !== before[i]);
  check(lost < 0, `token ${lost} was not painted and changed: ${before[lost]} to ${after[lost]}`);
});

test('a picture is varied, zoomed out of, saved', async page => {
  await open(page);
  await page.fill('#n', '1');
  await page.click('#examples button');
  await done(page);
  const before = await colours(page);
  await page.click('#vary');
  await done(page);
  check((await colours(page)).join('|') !== before.join('|'), 'the variation is the same picture');
  await page.click('#wider');
  await done(page);
  check(await page.locator('#gallery button').count() === 3, 'not three pictures');
  check((await page.getAttribute('#save', 'href')).startsWith('blob:'), 'nothing to save');
  check(!await page.isVisible('#error'), await page.textContent('#error'));
  await shot(page, 'images-wider');
});

test('an unknown label is an error at its field', async (page, { expectNoise }) => {
  await open(page);
  await page.fill('#label-0', 'the thing that nobody has seen');
  await page.click('#go');
  await page.waitForSelector('#error:not([hidden])');
  check((await page.textContent('#error')).includes('the thing that nobody'), 'the error does not say what');
  check(await page.getAttribute('#label-0', 'aria-invalid') === 'true', 'the field is not marked');
  check(await page.locator('#gallery button').count() === 0, 'a picture is there all the same');
  expectNoise(/status of 400/);
});

test('stopping keeps the page usable', async page => {
  await open(page);
  await page.fill('#n', '8');
  await page.click('#more summary');
  await page.fill('#param-steps', '60');
  await page.click('#go');
  await page.waitForFunction(() => document.querySelectorAll('#gallery button').length === 8);
  await page.click('#stop');
  await done(page);
  await page.fill('#n', '1');
  await page.fill('#param-steps', '2');
  await page.click('#go');
  await done(page);
  check(Number(await page.textContent('#stat-steps')) === 2, 'the next request was not answered');
});

test('images on a phone', async page => {
  await open(page);
  await page.fill('#n', '1');
  await page.click('#examples button');
  await done(page);
  const [wide, has] = await page.evaluate(() => [document.documentElement.scrollWidth, innerWidth]);
  check(wide <= has, `${wide} pixels on a screen of ${has}`);
  await shot(page, 'images-phone');
}, phone);

test('images in the dark', async page => {
  await open(page);
  await page.click('#examples button');
  await done(page);
  await shot(page, 'images-dark');
}, { ...desk, colorScheme: 'dark' });
