//! Events reach the log, each once, whatever becomes of page, tab, network and gateway.

import assert from 'node:assert/strict';
import { test } from 'node:test';
import { drained, eachOnce, sendMany, until } from './harness.js';
import { context, proxy, rivulet, site } from './stage.js';

/** Opens a host page; `pass` through the proxy or straight at the program. */
async function open(path, gateway = proxy.url, options = {}) {
  const page = await context.newPage();
  await page.goto(site.page(path, gateway, options));
  await loaded(page);
  return page;
}

/** The engine runs, and has said how much waits. */
function loaded(page) {
  return until('the SDK has loaded', () => page.evaluate(() => window.seen.states.length > 0));
}

const waiting = (page, count) => until(`${count} events wait`, () => page.evaluate((count) => window.seen.queue?.events >= count, count));
const calm = async (page) => assert.deepEqual(await page.evaluate(() => window.pageErrors), []);

test('the engine runs as WebAssembly where that is allowed', async () => {
  const page = await context.newPage();
  const files = [];
  page.on('request', (request) => files.push(new URL(request.url()).pathname));
  await page.goto(site.page('/wasm', rivulet.url));
  await sendMany(page, 'wasm_runs', 3);
  await drained(page);
  eachOnce(assert, await rivulet.arrived('wasm_runs', 3), 3);
  assert.ok(files.includes('/sdk/core.wasm'), files.join(' '));
  assert.ok(!files.includes('/sdk/core.fallback.js'), files.join(' '));
});

test('under a policy without wasm-unsafe-eval the fallback sends, and the console says so', async () => {
  const page = await context.newPage();
  const files = [];
  const said = [];
  page.on('request', (request) => files.push(new URL(request.url()).pathname));
  page.on('console', (message) => said.push(message.text()));
  await page.goto(site.page('/csp', rivulet.url, { headers: { 'content-security-policy': "script-src 'self'" } }));
  await sendMany(page, 'csp_runs', 3);
  await drained(page);
  eachOnce(assert, await rivulet.arrived('csp_runs', 3), 3);
  assert.ok(files.includes('/sdk/core.fallback.js'), files.join(' '));
  assert.ok(said.some((text) => /rivulet/i.test(text) && /wasm|webassembly/i.test(text)), `the console said: ${said.join(' | ')}`);
});

test('calls made before the SDK has loaded are sent, first of all', async () => {
  const page = await context.newPage();
  let release;
  const gate = new Promise((resolve) => (release = resolve));
  await page.route('**/sdk/rivulet.js', async (route) => {
    await gate;
    await route.continue();
  });
  await page.goto(site.page('/early', rivulet.url), { waitUntil: 'commit' });
  await until('the stub is there', () => page.evaluate(() => Boolean(window.rivulet && window.seen)));
  await sendMany(page, 'early', 5);
  release();
  await drained(page);
  eachOnce(assert, await rivulet.arrived('early', 5), 5);
});

test('a full queue survives a reload while the gateway is stopped, and arrives once after its restart', async () => {
  const page = await open('/reload', rivulet.url);
  await rivulet.kill();
  await sendMany(page, 'reload', 200);
  await waiting(page, 200);
  await page.reload();
  await loaded(page);
  await waiting(page, 200);
  await rivulet.resume();
  await drained(page, 40_000);
  eachOnce(assert, await rivulet.arrived('reload', 200), 200);
  await calm(page);
});

test('a full queue survives the closing of its tab while the gateway is stopped, and arrives once', async () => {
  const page = await open('/closed', rivulet.url);
  await rivulet.kill();
  await sendMany(page, 'closed', 200);
  await waiting(page, 200);
  await page.close();
  await rivulet.resume();
  const later = await open('/closed', rivulet.url);
  const events = await rivulet.arrived('closed', 200, 40_000);
  await drained(later);
  eachOnce(assert, events, 200);
  eachOnce(assert, await rivulet.events('closed'), 200);
});

test('two tabs at once send each event once', async () => {
  const [one, two] = [await open('/tabs'), await open('/tabs')];
  proxy.become('hold');
  proxy.cut();
  await Promise.all([sendMany(one, 'tabs', 100), sendMany(two, 'tabs', 100, { from: 100 })]);
  proxy.become('pass');
  const events = await rivulet.arrived('tabs', 200, 40_000);
  eachOnce(assert, events, 200);
  await Promise.all([drained(one), drained(two)]);
  eachOnce(assert, await rivulet.events('tabs'), 200);
});

test('one of two tabs closes with a full queue, and the other sends it', async () => {
  const [one, two] = [await open('/heir'), await open('/heir')];
  proxy.become('hold');
  proxy.cut();
  await sendMany(one, 'heir', 50);
  await sendMany(two, 'heir', 50, { from: 50 });
  await one.close();
  proxy.become('pass');
  const events = await rivulet.arrived('heir', 100, 40_000);
  await drained(two);
  eachOnce(assert, events, 100);
});

test('offline and back: everything arrives once', async () => {
  const page = await open('/offline');
  await context.setOffline(true);
  proxy.cut();
  await sendMany(page, 'offline', 100);
  await waiting(page, 100);
  await context.setOffline(false);
  await drained(page, 40_000);
  eachOnce(assert, await rivulet.arrived('offline', 100), 100);
  await calm(page);
});

test('a connection cut again and again while events flow loses and repeats none', async () => {
  const page = await open('/cut');
  for (let from = 0; from < 100; from += 20) {
    await sendMany(page, 'cut', 20, { from });
    proxy.cut();
  }
  await drained(page, 40_000);
  eachOnce(assert, await rivulet.arrived('cut', 100), 100);
});

/** What a page group may have on the way out at once, by the Fetch standard, bytes. */
const POOL_BYTES = 64 * 1024;
/** Notes the size of each body that is to outlive the page; the tab's own storage keeps it over the navigation. */
const WATCHED = `{
  const note = (body) => { sessionStorage.leaving = (sessionStorage.leaving ?? '') + (body.size ?? new Blob([body]).size) + ' '; };
  const { sendBeacon } = navigator;
  navigator.sendBeacon = (url, body) => { note(body); return sendBeacon.call(navigator, url, body); };
  const { fetch } = window;
  window.fetch = (url, init) => { if (init?.keepalive && url !== '/own') note(init.body); return fetch(url, init); };
}`;

/** No body beyond the pool was tried, and all of them together fit into it. */
async function withinThePool(page) {
  const sizes = (await page.evaluate(() => sessionStorage.leaving ?? '')).split(' ').filter(Boolean).map(Number);
  assert.ok(sizes.reduce((sum, size) => sum + size, 0) <= POOL_BYTES, `tried ${sizes} bytes`);
  return sizes;
}

/** Queues 30 events of 3 kB while the gateway answers nothing, goes away at once, and comes back: C18. */
async function leaveInAHurry(name, before) {
  site.pages.set('/elsewhere', { body: '<!doctype html><title>elsewhere</title>', type: 'text/html', headers: {} });
  const page = await open(`/${name}`, proxy.url, { before: before + WATCHED });
  proxy.become('hold');
  proxy.cut();
  await sendMany(page, name, 30, { bytes: 3_000 });
  const errors = await page.evaluate(() => window.pageErrors);
  await page.goto(`${site.url}/elsewhere`);
  assert.notEqual((await withinThePool(page)).length, 0, 'nothing was tried on the way out');
  proxy.become('pass');
  await page.goto(`${site.url}/${name}`);
  await loaded(page);
  const events = await rivulet.arrived(name, 30, 40_000);
  await drained(page, 40_000);
  eachOnce(assert, events, 30);
  eachOnce(assert, await rivulet.events(name), 30);
  assert.deepEqual(errors, []);
  await calm(page);
}

test('30 events of 3 kB and away at once: all arrive after the next page load, once', () => leaveInAHurry('hurry', ''));
test('the same where beacons are refused', () => leaveInAHurry('refused', 'navigator.sendBeacon = () => false;'));
test('the same where beacons throw', () => leaveInAHurry('throws', "navigator.sendBeacon = () => { throw new Error('no'); };"));
test('the same where the page has used 60 kB of the pool itself', () => leaveInAHurry('pool', "addEventListener('pagehide', () => { fetch('/own', { method: 'POST', keepalive: true, body: 'x'.repeat(60_000) }).catch(() => {}); });"));

test('an event of 62 kB and away at once arrives after the next page load, once', async () => {
  const page = await open('/large', proxy.url, { before: WATCHED });
  proxy.become('hold');
  proxy.cut();
  await sendMany(page, 'large', 1, { bytes: 62_000 });
  await page.goto('about:blank');
  proxy.become('pass');
  await page.goto(`${site.url}/large`);
  eachOnce(assert, await rivulet.arrived('large', 1, 40_000), 1);
  await withinThePool(page);
  await loaded(page);
  await drained(page, 40_000);
  eachOnce(assert, await rivulet.events('large'), 1);
});

// C19: answers that are none of the gateway's.
const foreign = JSON.stringify({ events: [{ event_id: '01890000-0000-7000-8000-000000000001', status: 'accepted', acked: 'disk' }] });
const impostors = {
  'an HTML page with status 200': (response) => response.writeHead(200, { 'content-type': 'text/html', 'access-control-allow-origin': '*' }).end('<!doctype html><title>Welcome to our network</title>'),
  'an empty object': (response) => response.writeHead(200, { 'content-type': 'application/json', 'access-control-allow-origin': '*' }).end('{}'),
  'verdicts for other ids': (response) => response.writeHead(200, { 'content-type': 'application/json', 'access-control-allow-origin': '*' }).end(foreign),
  'nothing, with status 204': (response) => response.writeHead(204, { 'access-control-allow-origin': '*' }).end(),
  'a redirect to a login page': (response, body, request) => response.writeHead(302, { location: `http://${request.headers.host}/console/`, 'access-control-allow-origin': '*' }).end(),
  'status 503': (response) => response.writeHead(503, { 'access-control-allow-origin': '*' }).end(),
};

for (const [index, [what, impostor]] of Object.entries(impostors).entries()) {
  test(`${what} is no delivery: the events stay, the SDK backs off, and they arrive once from the real gateway`, async () => {
    const name = `impostor_${index}`;
    proxy.become(impostor);
    const page = await open(`/${name}`);
    await sendMany(page, name, 5);
    await until('two attempts to post them', () => proxy.bodies.length >= 2);
    assert.equal(await page.evaluate(() => window.seen.queue?.events), 5);
    assert.equal(await page.evaluate(() => window.seen.verdicts.length), 0);
    const [first, last] = [proxy.attempts[0], proxy.attempts.at(-1)];
    assert.ok((last - first) / proxy.attempts.length > 50, `attempts at ${proxy.attempts.map((at) => Math.round(at - first)).join(', ')} ms: a loop`);
    assert.equal((await rivulet.events(name)).length, 0);
    proxy.become('pass');
    await drained(page, 60_000);
    eachOnce(assert, await rivulet.arrived(name, 5), 5);
    await calm(page);
  });
}

test('a 503 for what was sent while leaving loses nothing', async () => {
  const page = await open('/unload');
  proxy.become(impostors['status 503']);
  proxy.cut();
  await sendMany(page, 'unload', 5);
  await page.goto('about:blank');
  proxy.become('pass');
  await page.goto(`${site.url}/unload`);
  await loaded(page);
  eachOnce(assert, await rivulet.arrived('unload', 5, 40_000), 5);
  await drained(page);
  eachOnce(assert, await rivulet.events('unload'), 5);
});
