// harness.mjs - a browser with nothing hidden: every console error and page error fails the test
// it happened in.
import { chromium } from 'playwright-core';

const flags = ['--no-sandbox', '--disable-gpu', '--disable-quic', '--no-first-run',
  '--disable-background-networking', '--disable-component-update', '--disable-sync'];

export const desk = { viewport: { width: 1280, height: 800 } };
export const phone = { viewport: { width: 390, height: 844 }, hasTouch: true, isMobile: true };

const tests = [];
export const test = (name, body, options = desk) => tests.push({ name, body, options });

export function check(condition, message) {
  if (!condition) throw new Error(message);
}

export const url = process.env.URL;
export const shot = (page, name) =>
  page.screenshot({ path: `${process.env.OUT}/${name}.png`, animations: 'disabled' });

async function runOne(browser, { name, body, options }) {
  const context = await browser.newContext({ ...options, locale: 'en-GB' });
  const page = await context.newPage();
  const noise = [];
  page.on('console', m => { if (m.type() === 'error') noise.push(`console: ${m.text()}`); });
  page.on('pageerror', e => noise.push(`page: ${e.message}`));
  page.setDefaultTimeout(30000);
  try {
    await body(page, { context, expectNoise: pattern => {
      for (let i = noise.length - 1; i >= 0; i--) if (pattern.test(noise[i])) noise.splice(i, 1);
    } });
    check(noise.length === 0, noise.join('\n'));
    console.log(`ok   ${name}`);
    return true;
  } catch (e) {
    console.log(`FAIL ${name}: ${e.message}`);
    await shot(page, `failed-${tests.findIndex(t => t.name === name)}`).catch(() => {});
    return false;
  } finally {
    await context.close();
  }
}

export async function run() {
  const browser = await chromium.launch({ executablePath: process.env.BROWSER, args: flags });
  let passed = 0;
  for (const t of tests) passed += await runOne(browser, t);
  await browser.close();
  console.log(`${passed} passed, ${tests.length - passed} failed`);
  process.exitCode = passed === tests.length ? 0 : 1;
}
