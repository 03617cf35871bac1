//! The queue against browsers: storage that is full, refused or wiped, blocked gateways, killed renderers, the back-forward cache.

import assert from 'node:assert/strict';
import { test } from 'node:test';
import { drained, eachOnce, launch, sendMany, until } from './harness.js';
import { context, proxy, rivulet, site } from './stage.js';

/** What the SDK says it holds at most (`QUEUE_BYTES`), and what keys and counters may add. */
const QUEUE_BYTES = 1 << 20;

const loaded = (page) => until('the SDK has loaded', () => page.evaluate(() => window.seen?.states.length > 0));

async function open(path, options = {}, visitor = context) {
  const page = await visitor.newPage();
  page.thrown = [];
  page.on('pageerror', (error) => page.thrown.push(error.message));
  await page.goto(site.page(path, proxy.url, options));
  await loaded(page);
  return page;
}

/** A counter of the gateway. */
async function metric(line) {
  const text = await (await fetch(`${rivulet.url}/metrics`)).text();
  const found = text.split('\n').find((other) => other.startsWith(line));
  return Number(found?.split(' ').at(-1) ?? 0);
}

// C25
test('behind a blocker 20,000 events stay within the stated bound, the host page can store, and what was lost is reported', async () => {
  const page = await open('/blocked', { init: "transport: 'http'" });
  await context.route(`${proxy.url}/**`, (route) => route.abort('blockedbyclient'));
  const before = await metric('rivulet_gateway_events_total{source="web",outcome="discarded"}');
  for (let from = 0; from < 20_000; from += 5_000) await sendMany(page, 'blocked', 5_000, { from, bytes: 700 });
  const { bytes, stores, queue } = await page.evaluate(() => {
    let bytes = 0;
    for (const key of Object.keys(localStorage)) if (key.startsWith('rv:')) bytes += key.length + localStorage[key].length;
    localStorage.setItem('host', 'x'.repeat(1 << 20));
    return { bytes, stores: localStorage.host.length, queue: window.seen.queue };
  });
  assert.ok(bytes <= QUEUE_BYTES * 1.02, `${bytes} bytes in storage`);
  assert.equal(stores, 1 << 20);
  assert.equal(queue.events + queue.discarded, 20_000);
  assert.ok(queue.discarded > 15_000 && queue.bytes <= QUEUE_BYTES, JSON.stringify(queue));
  await page.reload();
  await loaded(page);
  await context.unroute(`${proxy.url}/**`);
  await page.reload();
  await loaded(page);
  await drained(page, 60_000);
  const events = await rivulet.arrived('blocked', queue.events, 40_000);
  assert.equal(new Set(events.map((event) => event.event_id)).size, queue.events);
  // The youngest survive.
  assert.equal(Math.max(...events.map((event) => event.metadata.n)), 19_999);
  const discarded = await metric('rivulet_gateway_events_total{source="web",outcome="discarded"}');
  assert.equal(discarded - before, queue.discarded, 'the gateway has counted what the page dropped');
  assert.deepEqual(await page.evaluate(() => Object.keys(localStorage).filter((key) => /^rv:[de]:/.test(key))), []);
  assert.deepEqual(page.thrown, []);
});

// C25, variant
test('a write that fails once loses and repeats nothing', async () => {
  const before = `const write = Storage.prototype.setItem;
    Storage.prototype.setItem = function (key, value) {
      if (window.full && key.startsWith('rv:e:')) { window.full = false; throw new DOMException('full', 'QuotaExceededError'); }
      return write.call(this, key, value);
    };`;
  const page = await open('/once', { before });
  await context.route(`${proxy.url}/**`, (route) => route.abort('blockedbyclient'));
  proxy.cut();
  await sendMany(page, 'once', 10);
  await page.evaluate(() => (window.full = true));
  await sendMany(page, 'once', 5, { from: 10 });
  assert.equal(await page.evaluate(() => window.full), false, 'no write failed');
  await page.reload();
  await loaded(page);
  await context.unroute(`${proxy.url}/**`);
  await page.reload();
  await loaded(page);
  const events = await rivulet.arrived('once', 15, 60_000);
  eachOnce(assert, events, 15);
  await until('nothing waits in storage', () => page.evaluate(() => !Object.keys(localStorage).some((key) => key.startsWith('rv:e:'))), 60_000);
  eachOnce(assert, await rivulet.events('once'), 15);
  assert.deepEqual(page.thrown, []);
});

for (const [what, before] of [
  ['refused', "Object.defineProperty(window, 'localStorage', { get() { throw new DOMException('no', 'SecurityError'); } });"],
  ['full from the start', "Storage.prototype.setItem = () => { throw new DOMException('full', 'QuotaExceededError'); };"],
]) {
  test(`with storage ${what} events are sent from memory and nothing is thrown`, async () => {
    const name = `storage_${what.split(' ')[0]}`;
    const page = await open(`/${name}`, { before });
    await sendMany(page, name, 20);
    await drained(page);
    await sendMany(page, name, 5, { from: 20 });
    await page.goto('about:blank');
    const events = await rivulet.arrived(name, 25);
    assert.equal(new Set(events.map((event) => event.metadata.n)).size, 25);
    assert.deepEqual(page.thrown, []);
  });
}

// C21
test('storage cleared under a living page: what was tracked before and after arrives', async () => {
  const page = await open('/cleared');
  proxy.become('hold');
  proxy.cut();
  await sendMany(page, 'cleared', 2);
  const cdp = await context.newCDPSession(page);
  await cdp.send('Storage.clearDataForOrigin', { origin: site.url, storageTypes: 'all' });
  await sendMany(page, 'cleared', 3, { from: 2 });
  proxy.become('pass');
  await drained(page, 40_000);
  eachOnce(assert, await rivulet.arrived('cleared', 5), 5);
  assert.deepEqual(page.thrown, []);
});

test('storage cleared between two visits: another device, the same person after identify', async () => {
  const page = await open('/weeks');
  await page.evaluate(() => rivulet.identify('person_weeks'));
  await drained(page);
  const first = await page.evaluate(() => window.seen.states.at(-1).anonymous_id);
  await page.evaluate(() => localStorage.clear());
  await page.goto('about:blank');
  await page.goto(`${site.url}/weeks`);
  await loaded(page);
  await page.evaluate(() => {
    rivulet.identify('person_weeks');
    rivulet.track('weeks', { n: 0 });
  });
  const [event] = await rivulet.arrived('weeks', 1);
  assert.equal(event.user_id, 'person_weeks');
  assert.notEqual(event.anonymous_id, first);
  await until('the person’s profile goes on', async () => {
    const answer = await fetch(`${rivulet.url}/v1/profiles/user:person_weeks`, { headers: { authorization: 'Bearer sk_dev' } });
    return (await answer.json()).counters?.weeks === 1;
  });
  const other = await fetch(`${rivulet.url}/v1/profiles/anonymous:${event.anonymous_id}`, { headers: { authorization: 'Bearer sk_dev' } });
  assert.ok(other.status === 404 || !(await other.json()).counters?.weeks, 'a second person is left over with the event');
});

test('the renderer is killed with a full queue: everything arrives once from the next page', async () => {
  const page = await open('/killed');
  proxy.become('hold');
  proxy.cut();
  await sendMany(page, 'killed', 50);
  const crashed = page.waitForEvent('crash');
  page.goto('chrome://crash').catch(() => {});
  await crashed;
  await page.close();
  proxy.become('pass');
  const next = await open('/killed');
  eachOnce(assert, await rivulet.arrived('killed', 50, 40_000), 50);
  await drained(next, 40_000);
  eachOnce(assert, await rivulet.events('killed'), 50);
});

test('without Web Locks two tabs share the role by a lease: each event arrives once, also when the leader closes', async () => {
  const before = "Object.defineProperty(navigator, 'locks', { value: undefined });";
  const [one, two] = [await open('/lease', { before }), await open('/lease', { before })];
  await until('one tab has the lease', () => two.evaluate(() => Boolean(localStorage['rv:lease'])));
  proxy.become('hold');
  proxy.cut();
  await sendMany(one, 'lease', 30);
  await sendMany(two, 'lease', 30, { from: 30 });
  proxy.become('pass');
  const events = await rivulet.arrived('lease', 60, 40_000);
  eachOnce(assert, events, 60);
  await Promise.all([drained(one, 40_000), drained(two, 40_000)]);
  await two.close();
  await sendMany(one, 'lease', 10, { from: 60 });
  await drained(one, 40_000);
  eachOnce(assert, await rivulet.arrived('lease', 70), 70);
});

// C24
test('back from the cache: one page view more, the socket opens again, a decision arrives, and nothing goes twice', async (t) => {
  // Playwright switches the cache off in the browser of the others.
  const caching = await launch({ ignoreDefaultArgs: ['--disable-back-forward-cache'] });
  t.after(() => caching.close());
  site.pages.set('/other', { body: '<!doctype html><title>other</title>', type: 'text/html', headers: {} });
  const handlers = `window.bad = []; const listen = EventTarget.prototype.addEventListener;
    EventTarget.prototype.addEventListener = function (name, ...rest) { if (/^(before)?unload$/.test(name)) bad.push(name); return listen.call(this, name, ...rest); };
    addEventListener('pageshow', (event) => { window.persisted = event.persisted; });`;
  const page = await open('/cached', { init: 'autoPage: true', before: handlers }, await caching.newContext());
  await drained(page);
  const views = async () => (await rivulet.events('page_view')).filter((event) => event.metadata.path === '/cached');
  for (const round of [1, 2]) {
    await until('the socket', () => page.evaluate(() => window.seen.states.at(-1).connection === 'socket'));
    await page.goto(`${site.url}/other`);
    await page.evaluate(() => history.back());
    await until('the page is back', () => page.evaluate(() => window.persisted === true && location.pathname === '/cached'));
    await until('the socket is open again', () => page.evaluate(() => window.seen.states.at(-1).connection === 'socket'));
    await until(`${round + 1} page views`, async () => (await views()).length === round + 1);
    await page.evaluate(() => (window.persisted = undefined));
  }
  await page.evaluate(() => {
    for (const product_id of ['c1', 'c2', 'c3']) rivulet.track('product_view', { product_id, category: 'cached' });
  });
  await until('a decision', () => page.evaluate(() => window.seen.decisions.length === 1));
  await drained(page);
  assert.equal((await views()).length, 3, 'one page view a visit');
  const all = (await rivulet.log()).map((record) => record.value).filter((event) => event.context?.page?.path === '/cached').map((event) => event.event_id);
  assert.equal(new Set(all).size, all.length, 'something was sent twice');
  assert.deepEqual(await page.evaluate(() => window.bad), []);
  assert.deepEqual(page.thrown, []);
});
