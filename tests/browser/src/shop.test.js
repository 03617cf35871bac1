//! The demo shop and the console against the real program: what a newcomer sees.

import assert from 'node:assert/strict';
import { after, before, describe, test } from 'node:test';
import { Rivulet, axe, launch, until } from './harness.js';

/** Runs of the banner measurement: 10 in CI, 50 for the figure in the documents. */
const BANNER_RUNS = Number(process.env.RIVULET_BANNER_RUNS ?? 10);
const BANNER_LIMIT_MS = 200;

let rivulet;
let browser;
before(async () => {
  [rivulet, browser] = await Promise.all([Rivulet.start(), launch()]);
});
after(async () => {
  await browser?.close();
  await rivulet?.stop();
});

/** The shop in a context of its own, so for a visitor of its own; `errors` gathers what the page threw. */
async function shop({ width = 1280, height = 860, path = '/', scheme = 'light' } = {}) {
  const context = await browser.newContext({ viewport: { width, height }, colorScheme: scheme });
  context.setDefaultTimeout(10_000);
  const page = await context.newPage();
  const errors = [];
  page.on('pageerror', (error) => errors.push(error.message));
  await page.goto(rivulet.url + path);
  return { context, page, errors };
}

const badge = (page, type, status) => page.locator(`#panel-events .event.${status}`, { has: page.locator('.event-type', { hasText: new RegExp(`^${type}$`) }) });

async function connected(page) {
  // Attached, not visible: on a phone the panel is a sheet that is closed at first.
  await page.locator('.runs .connection.on').waitFor({ state: 'attached' });
  await badge(page, 'page_view', 'accepted').first().waitFor({ state: 'attached' });
}

/** Sends the third product view by a click, and gives the milliseconds from that click to the banner's being laid out in the page. */
async function bannerAfterThirdClick() {
  const { context, page } = await shop({ path: '/#/c/shoes' });
  await connected(page);
  for (const product of ['shoe_runner', 'shoe_boot']) {
    await page.click(`main [data-product=${product}]`);
    await page.locator('#add-to-cart').waitFor();
    await page.click('.crumbs a >> nth=1');
  }
  await until('both views have their verdicts', async () => (await badge(page, 'product_view', 'accepted').count()) === 2);
  await page.evaluate(() => {
    const slot = document.querySelector('[data-slot=home_banner]');
    window.banner = new Promise((resolve) => {
      let clicked;
      addEventListener('click', () => (clicked = performance.now()), { capture: true, once: true });
      new MutationObserver(() => {
        if (slot.hidden || slot.getBoundingClientRect().height === 0) return;
        resolve(performance.now() - clicked);
      }).observe(slot, { attributes: true, childList: true });
    });
  });
  await page.click('main [data-product=shoe_loafer]');
  const took = await until('the banner', () => page.evaluate(() => Promise.race([window.banner, new Promise((resolve) => setTimeout(resolve, 10_000))])));
  assert.match(await page.locator('[data-slot=home_banner] .banner-title').innerText(), /shoes/i);
  await context.close();
  return took;
}

test(`the banner shows within ${BANNER_LIMIT_MS} ms of the third click on a product of one category`, async (t) => {
  const runs = [];
  for (let run = 0; run < BANNER_RUNS; run += 1) runs.push(await bannerAfterThirdClick());
  runs.sort((a, b) => a - b);
  const median = runs[runs.length >> 1];
  t.diagnostic(`banner after the third click: median ${median.toFixed(1)} ms, fastest ${runs[0].toFixed(1)}, slowest ${runs.at(-1).toFixed(1)}, of ${runs.length}`);
  assert.ok(median <= BANNER_LIMIT_MS, `median ${median} ms`);
});

test('two product views of a category show no banner', async () => {
  const { context, page } = await shop({ path: '/#/p/lamp_desk' });
  await connected(page);
  await page.goto(`${rivulet.url}/#/p/lamp_pendant`);
  await until('both views are in the profile', async () => (await page.locator('.bars [data-category=lamps] .bar-count').textContent({ timeout: 5_000 })) === '2');
  assert.equal(await page.locator('[data-slot=home_banner]').isHidden(), true);
  await context.close();
});

test('the profile panel follows what the visitor does', async () => {
  const { context, page, errors } = await shop({ path: '/#/p/plant_olive' });
  await connected(page);
  const counter = (name) => page.locator(`.chips [data-name=${name}] dd`).textContent({ timeout: 5_000 });
  await until('the product view is counted', async () => (await counter('product_view')) === '1');
  await page.click('#add-to-cart');
  await until('the cart is counted', async () => (await counter('add_to_cart')) === '1');
  assert.match(await page.locator('#profile-score').innerText(), /^[01]\.\d\d$/);
  await page.click('#cart-link');
  await page.click('#to-checkout');
  await page.click('#place-order');
  await until('the revenue is summed', async () => (await page.locator('.chips [data-name=revenue] dd').textContent({ timeout: 5_000 })).startsWith('68'));
  assert.deepEqual(errors, []);
  await context.close();
});

test('signing in moves what the device did to the person', async () => {
  const { context, page } = await shop({ path: '/#/p/coffee_cup' });
  await connected(page);
  await page.goto(`${rivulet.url}/#/account`);
  await page.fill('#customer', 'customer_77');
  await page.click('#sign-in');
  await page.locator('.who', { hasText: 'user:customer_77' }).waitFor();
  await until('the view before the sign-in is the person’s', async () => (await page.locator('.bars [data-category=coffee] .bar-count').textContent({ timeout: 5_000 })) === '1');
  await context.close();
});

test('the button for an invalid event shows the pointer and the keyword', async () => {
  const { context, page } = await shop();
  await connected(page);
  await page.click('#tool-invalid');
  const row = badge(page, 'add_to_cart', 'rejected');
  await row.locator('.pointer', { hasText: /^\/metadata\/quantity$/ }).waitFor();
  assert.equal(await row.locator('.keyword').innerText(), 'type');
  await context.close();
});

test('the button for one event twice shows one accepted and one duplicate', async () => {
  const { context, page } = await shop();
  await connected(page);
  await page.click('#tool-twice');
  await badge(page, 'category_view', 'duplicate').waitFor();
  const [first, second] = await Promise.all([badge(page, 'category_view', 'accepted'), badge(page, 'category_view', 'duplicate')].map((row) => row.getAttribute('data-event-id')));
  assert.equal(first, second);
  await context.close();
});

test('offline events wait, survive a reload, and are accepted once back', async () => {
  const { context, page } = await shop();
  await connected(page);
  await page.click('#tool-network');
  await page.locator('.runs .connection.off', { hasText: 'Offline' }).waitFor();
  await page.click('#nav a >> nth=1');
  await until('both events wait', async () => Number(await page.locator('#stat-queue').innerText()) >= 2);
  await page.reload();
  await until('they wait after the reload too', async () => Number(await page.locator('#stat-queue').innerText()) >= 3);
  await page.click('#tool-network');
  await until('the queue is empty', async () => (await page.locator('#stat-queue').innerText()) === '0');
  await badge(page, 'category_view', 'accepted').first().waitFor();
  await context.close();
});

test('starting over makes another device of the visitor', async () => {
  const { context, page } = await shop({ path: '/#/p/lamp_desk' });
  await connected(page);
  await page.locator('.who').waitFor();
  const before = await page.locator('.who').innerText();
  await page.click('#tool-reset');
  await until('another id', async () => ![before, ''].includes(await page.locator('.who').innerText()));
  await context.close();
});

test('the console shows each verdict with its reason, filters and looks a profile up', async () => {
  const { context, page } = await shop();
  const tail = await context.newPage();
  await tail.goto(`${rivulet.url}/console/`);
  await tail.locator('#tail-state.on').waitFor();
  await tail.locator('#ready .connection.on').waitFor();
  await page.bringToFront();
  await connected(page);
  await page.click('#tool-invalid');
  await page.click('#tool-twice');
  await tail.bringToFront();
  const refused = tail.locator('#rows tr', { has: tail.locator('.badge.rejected') });
  await refused.locator('.pointer', { hasText: '/metadata/quantity' }).waitFor();
  await tail.locator('#rows .badge.duplicate').waitFor();
  await tail.selectOption('#filter-status', 'rejected');
  assert.equal(await tail.locator('#rows tr').count(), 1);
  const who = await page.locator('.who').innerText();
  await tail.fill('#profile-id', who);
  await tail.click('#lookup button');
  await tail.locator('#profile .tree', { hasText: who }).waitFor();
  await tail.fill('#key', 'no_such_key');
  await tail.click('#key-form button');
  await tail.locator('#tail-state.off', { hasText: 'key' }).waitFor();
  await context.close();
});

// Markup, addresses, templates, direction overrides, a long word and terminal escapes in everything that a sender can write.
const HOSTILE = ['<img src=x onerror=alert(1)>', 'javascript:alert(1)', '{{7*7}}', '\u202Eevil', 'w'.repeat(10_000), '\u001b[2J'];

test('what a sender writes is text on every page, and breaks no layout', async () => {
  const { context, page, errors } = await shop({ width: 390, height: 844 });
  const dialogs = [];
  const strays = [];
  for (const each of [page, await context.newPage()]) {
    each.on('dialog', (dialog) => {
      dialogs.push(dialog.message());
      void dialog.dismiss();
    });
    each.on('request', (request) => {
      if (request.url().endsWith('/x')) strays.push(request.url());
    });
  }
  const tail = context.pages()[1];
  await tail.goto(`${rivulet.url}/console/`);
  await tail.locator('#tail-state.on').waitFor();
  await page.bringToFront();
  await connected(page);
  await page.evaluate((texts) => {
    for (const text of texts) {
      rivulet.track(text.slice(0, 100), { title: text, referrer: text });
      rivulet.track('add_to_cart', { product_id: text, quantity: text });
      // A name with a control character is refused as a whole, so one trait an event.
      rivulet.identify('hostile', { [text.slice(0, 100)]: text.slice(0, 250) });
    }
  }, HOSTILE);
  await until('all have verdicts', () => page.evaluate(() => document.querySelectorAll('#panel-events .event').length >= 19 && !document.querySelector('#panel-events .event.queued')));
  await page.click('.panel-toggle');
  await tail.bringToFront();
  await tail.locator('#rows .event-type', { hasText: '<img src=x' }).first().waitFor();
  await tail.fill('#profile-id', 'user:hostile');
  await until('the profile shows', async () => {
    await tail.click('#lookup button');
    return tail.locator('#profile .tree', { hasText: '<img src=x' }).first().isVisible();
  });
  for (const each of [page, tail]) {
    assert.equal(await each.evaluate(() => document.querySelectorAll('#panel img, #rows img, #profile img, [onerror]').length), 0);
    assert.equal(await each.evaluate(() => document.documentElement.scrollWidth <= innerWidth), true, 'no sideways scrolling');
    assert.equal(await each.evaluate(() => /[\u202a-\u202e\u2066-\u2069\u001b]/.test(document.body.innerText)), false, 'control characters are made visible');
  }
  assert.deepEqual([dialogs, strays, errors], [[], [], []]);
  await context.close();
});

describe('axe finds nothing', () => {
  for (const [width, height, scheme] of [[1280, 860, 'light'], [390, 844, 'dark'], [1280, 860, 'dark'], [390, 844, 'light']]) {
    test(`at ${width} px, ${scheme}`, async () => {
      const { context, page } = await shop({ width, height, scheme, path: '/#/p/shoe_runner' });
      await connected(page);
      for (const product of ['shoe_boot', 'shoe_loafer']) await page.goto(`${rivulet.url}/#/p/${product}`);
      await page.locator('[data-slot=home_banner] .banner').waitFor();
      if (width < 1000) await page.click('.panel-toggle');
      await page.click('#tool-invalid');
      await badge(page, 'add_to_cart', 'rejected').waitFor();
      assert.deepEqual(await axe(page), [], 'product page with the panel open');
      if (width < 1000) await page.click('.panel-toggle');
      for (const path of ['', 'c/plants', 'search?q=lamp', 'account']) {
        await page.goto(`${rivulet.url}/#/${path}`);
        assert.deepEqual(await axe(page), [], `/${path}`);
      }
      await page.goto(`${rivulet.url}/#/p/lamp_desk`);
      await page.click('#add-to-cart');
      for (const path of ['cart', 'checkout']) {
        await page.goto(`${rivulet.url}/#/${path}`);
        assert.deepEqual(await axe(page), [], `/${path}`);
      }
      await page.goto(`${rivulet.url}/console/`);
      await page.locator('#tail-state.on').waitFor();
      await fetch(`${rivulet.url}/v1/events`, { method: 'POST', headers: { authorization: 'Bearer wk_dev' }, body: JSON.stringify({ event_type: 'add_to_cart', anonymous_id: 'axe', timestamp: Date.now(), metadata: { product_id: 'p', quantity: 'two' } }) });
      await page.locator('#rows .badge.rejected').first().waitFor();
      assert.deepEqual(await axe(page), [], 'console');
      await context.close();
    });
  }
});

test('the shop can be used by keyboard alone', async () => {
  const { context, page } = await shop();
  await connected(page);
  await page.keyboard.press('Tab');
  assert.equal(await page.evaluate(() => document.activeElement.className), 'skip');
  await page.keyboard.press('Enter');
  assert.equal(await page.evaluate(() => document.activeElement.id), 'view');
  await page.keyboard.press('Tab');
  await page.keyboard.press('Enter');
  await page.locator('h1', { hasText: 'Lamps' }).waitFor();
  assert.equal(await page.evaluate(() => document.activeElement.tagName), 'H1');
  await page.keyboard.press('Tab');
  await page.keyboard.press('Enter');
  await page.locator('#add-to-cart').focus();
  await page.keyboard.press('Enter');
  await page.locator('#cart-count', { hasText: '1' }).waitFor();
  await context.close();
});
