//! What a page's own life means for its events: bounced before the SDK is there, prerendered, private, changing its route.

import assert from 'node:assert/strict';
import { test } from 'node:test';
import { drained, eachOnce, sendMany, until } from './harness.js';
import { context, proxy, rivulet, site } from './stage.js';

const loaded = (page) => until('the SDK has loaded', () => page.evaluate(() => window.seen.states.length > 0));
const stored = (page) => page.evaluate(() => Object.keys(localStorage).filter((key) => key.startsWith('rv:')));

/** A page whose engine never comes: `what` of the SDK's files hangs. */
async function bounce(name, what, options = {}) {
  const page = await context.newPage();
  await page.route(what, () => {});
  const errors = [];
  page.on('pageerror', (error) => errors.push(error.message));
  await page.goto(site.page(`/${name}`, proxy.url, options), { waitUntil: 'commit' });
  await until('the calls are recorded', () => page.evaluate(() => Boolean(window.rivulet && window.seen)));
  if (what.endsWith('core.*')) await until('the script has taken over', () => page.evaluate(() => Boolean(rivulet.ready)));
  return { page, errors };
}

for (const [when, what] of [['the script', '**/sdk/*'], ['the engine', '**/sdk/core.*']]) {
  test(`a page that goes before ${when} is there beacons its events, under ids that stay`, async () => {
    const name = `bounce_${when.slice(4)}`;
    const { page, errors } = await bounce(name, what);
    await page.evaluate((name) => {
      rivulet.track(name, { n: 0 });
      rivulet.track(name, { n: 1 }, { eventId: '018F15A3-75A3-47FF-BFFF-FFFFFFFFFF01' });
      rivulet.page({ name });
      const circular = {};
      circular.self = circular;
      rivulet.track('circular', circular);
      rivulet.identify('bouncer');
      rivulet.track(name, { n: 2 });
    }, name);
    await page.goto('about:blank');
    const events = await rivulet.arrived(name, 3);
    eachOnce(assert, events, 3);
    for (const { event_id: id, receipt } of events) assert.match(receipt.event_id, /^[0-9a-f]{8}-[0-9a-f]{4}-[47][0-9a-f]{3}-[89ab][0-9a-f]{3}-[0-9a-f]{12}$/, id);
    assert.ok(events.some((event) => event.receipt.event_id === '018f15a3-75a3-47ff-bfff-ffffffffff01'));
    assert.equal((await rivulet.events('page_view')).filter((event) => event.metadata.name === name).length, 1);
    assert.equal(new Set(events.map((event) => event.anonymous_id)).size, 1);
    assert.deepEqual(errors, []);
  });
}

test('what the stub has beaconed the engine sends again under the same ids, when the page comes back', async () => {
  const page = await context.newPage();
  let release;
  const gate = new Promise((resolve) => (release = resolve));
  await page.route('**/sdk/core.*', async (route) => {
    await gate;
    await route.continue();
  });
  await page.goto(site.page('/same_id', proxy.url), { waitUntil: 'commit' });
  await until('the script has taken over', () => page.evaluate(() => Boolean(window.rivulet?.ready)));
  await sendMany(page, 'same_id', 3);
  await page.evaluate(() => dispatchEvent(new PageTransitionEvent('pagehide', { persisted: true })));
  const beaconed = await rivulet.arrived('same_id', 3);
  release();
  await drained(page);
  const ids = (events) => [...new Set(events.map((event) => event.receipt.event_id))].sort();
  assert.deepEqual(ids(await rivulet.events('same_id')), ids(beaconed));
  assert.equal(await page.evaluate(() => window.seen.verdicts.length), 3);
});

for (const [what, init, before] of [
  ['while consent is pending', "consent: 'pending'", ''],
  ['after consent was denied', "consent: 'denied'", ''],
  ['under Global Privacy Control', '', "Object.defineProperty(navigator, 'globalPrivacyControl', { value: true });"],
]) {
  test(`nothing is stored or sent ${what}`, async () => {
    const name = `private_${what.split(' ').at(-1).toLowerCase()}`;
    const { page } = await bounce(name, '**/sdk/*', { init, before });
    await sendMany(page, name, 2);
    await page.goto('about:blank');
    await page.unroute('**/sdk/*');
    await page.goto(`${site.url}/${name}`);
    await loaded(page);
    await sendMany(page, name, 2);
    await page.evaluate(() => document.dispatchEvent(new Event('visibilitychange')));
    assert.deepEqual(await stored(page), []);
    await page.goto('about:blank');
    await page.goto(`${site.url}/${name}`);
    await loaded(page);
    assert.deepEqual(await stored(page), []);
    assert.equal(proxy.attempts.length, 0);
    if (what.includes('pending')) {
      await sendMany(page, name, 1);
      await page.evaluate(() => rivulet.consent(true));
      await drained(page);
      eachOnce(assert, await rivulet.arrived(name, 1), 1);
    }
  });
}

test('a prerendered page says nothing until somebody sees it', async () => {
  const page = await context.newPage();
  const before = "Object.defineProperty(document, 'prerendering', { get: () => !window.activated, configurable: true });";
  const files = [];
  page.on('request', (request) => files.push(new URL(request.url()).pathname));
  await page.goto(site.page('/prerender', proxy.url, { before, init: 'autoPage: true' }));
  await sendMany(page, 'prerender', 1);
  await until('the script has taken over', () => page.evaluate(() => Boolean(rivulet.ready)));
  assert.deepEqual(await stored(page), []);
  assert.ok(!files.includes('/sdk/core.wasm'), files.join(' '));
  assert.equal(proxy.attempts.length, 0);
  await page.evaluate(() => {
    window.activated = true;
    document.dispatchEvent(new Event('prerenderingchange'));
  });
  await drained(page);
  eachOnce(assert, await rivulet.arrived('prerender', 1), 1);
  const views = await until('the page view', async () => {
    const views = (await rivulet.events('page_view')).filter((event) => event.metadata.path === '/prerender');
    return views.length > 0 && views;
  });
  assert.equal(views.length, 1);
});

test('with autoPage each change of route is one page view', async () => {
  const page = await context.newPage();
  await page.goto(site.page('/auto', rivulet.url, { init: 'autoPage: true' }));
  await loaded(page);
  const viewed = (count) => until(`${count} page views`, () => page.evaluate((count) => window.seen.verdicts.filter((verdict) => verdict.event_type === 'page_view').length >= count, count));
  await viewed(1);
  await page.evaluate(() => history.pushState({}, '', '/auto/one'));
  await viewed(2);
  await page.evaluate(() => history.replaceState({}, '', '/auto/one'));
  await page.evaluate(() => (location.hash = 'two'));
  await viewed(3);
  await page.evaluate(() => history.back());
  await viewed(4);
  await drained(page);
  const views = (await rivulet.events('page_view')).filter((event) => event.metadata.path?.startsWith('/auto'));
  const shown = views.map((event) => event.metadata.url.slice(site.url.length));
  assert.deepEqual(shown, ['/auto', '/auto/one', '/auto/one#two', '/auto/one']);
});

test('an id that the page brings twice is one event with one verdict', async () => {
  const page = await context.newPage();
  await page.goto(site.page('/brought', rivulet.url));
  await loaded(page);
  const track = () => page.evaluate(() => rivulet.track('brought', { n: 0 }, { eventId: '018f15a3-75a3-47ff-bfff-ffffffffff02' }));
  await track();
  await track();
  await until('the verdict', () => page.evaluate(() => window.seen.verdicts.length > 0));
  await track();
  await sendMany(page, 'brought_after', 1);
  await drained(page);
  eachOnce(assert, await rivulet.arrived('brought', 1), 1);
  const types = await page.evaluate(() => window.seen.verdicts.map((verdict) => verdict.event_type));
  assert.deepEqual(types, ['brought', 'brought_after']);
});

test('a large body goes compressed, a small one as it is', async () => {
  const page = await context.newPage();
  await page.goto(site.page('/gzip', proxy.url, { init: "transport: 'http'" }));
  await loaded(page);
  await sendMany(page, 'gzip', 1);
  await drained(page);
  await sendMany(page, 'gzip', 40, { from: 1, bytes: 500 });
  await drained(page);
  eachOnce(assert, await rivulet.arrived('gzip', 41), 41);
  const [small, ...large] = proxy.bodies;
  assert.equal(small[0], '{'.charCodeAt(0));
  assert.ok(large.some((body) => body[0] === 0x1f && body[1] === 0x8b), 'no body is gzip');
  const bytes = large.reduce((sum, body) => sum + body.length, 0);
  assert.ok(bytes < 40 * 500, `${bytes} bytes for 40 events of 500`);
});
