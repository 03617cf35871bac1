//! The built engine in Node, as WebAssembly and as the JavaScript made from it: same inputs, same commands, byte for byte.
//!
//! Needs `dist/` and `js/build/`, which `cargo xtask sdk` makes.

import assert from 'node:assert/strict';
import { readFileSync } from 'node:fs';
import { test } from 'node:test';
import { fileURLToPath, pathToFileURL } from 'node:url';

const path = (relative) => fileURLToPath(new URL(relative, import.meta.url));
const F = '\x1f';
const KEY = 'wk_dev';

/** A fresh copy of the glue: it holds one instance. */
let copies = 0;
async function engine(kind) {
  const glue = await import(pathToFileURL(path('../build/core_bg.js')).href + '?' + copies++);
  let exports;
  if (kind === 'wasm') {
    const bytes = readFileSync(path('../../dist/core.wasm'));
    exports = (await WebAssembly.instantiate(bytes, { './core_bg.js': glue })).instance.exports;
  } else {
    const fallback = await import(pathToFileURL(path('../../dist/core.fallback.js')).href + '?' + copies++);
    exports = fallback.default(glue);
  }
  glue.__wbg_set_wasm(exports);
  exports.__wbindgen_start?.();
  return (input, now, random) => glue.step(input, now, ...random);
}

const track = (type, metadata = '{}') => ['T', 1, '2026-11-25T04:00:00.000Z', JSON.stringify(type), metadata, '{}', ''].join(F);

/** Inputs of one visit: start, socket, acks, a refusal, a request when the socket is gone, leaving. */
function visit() {
  const inputs = ['n' + F + '1', ['I', KEY, 'rivulet-js/test', 1, 0].join(F), 'L' + F + '1', track('page_view'), 'o'];
  inputs.push('f' + F + '{"type":"hello","session":"s1","resumed":0,"credit":2,"server_time":1,"limits":{"event_bytes":65536,"batch_bytes":4194304,"batch_events":2500,"depth":32,"ack":"disk"}}');
  for (let at = 0; at < 40; at++) inputs.push(track('product_view', JSON.stringify({ name: '🐲 ' + 'x'.repeat(at * 37), price: at / 7 })));
  inputs.push('f' + F + '{"type":"ack","seq":1,"cumulative":1,"credit":2,"server_time":2,"events":[]}', 't', 'c', 't', track('purchase'), 't');
  inputs.push(['A', 1, 413, '', '{"error":{"code":"body.too_large"}}'].join(F), ['A', 2, 200, '', '<html>'].join(F), 't', 'h' + F + '1', 'v', 'Z', 'C' + F + '2');
  return inputs;
}

/** A generator with a seed, so that both builds get the same random words. */
function words(seed) {
  let state = seed >>> 0;
  return () => Array.from({ length: 4 }, () => (state = (Math.imul(state, 1664525) + 1013904223) >>> 0));
}

async function replay(kind, inputs) {
  const step = await engine(kind);
  const random = words(7);
  return inputs.map((input, at) => step(input, 1_764_000_000_000 + at * 997, random()));
}

test('WebAssembly and its JavaScript form answer byte for byte alike', async () => {
  const inputs = visit();
  const wasm = await replay('wasm', inputs);
  assert.deepEqual(await replay('fallback', inputs), wasm);
  assert.ok(wasm.some((commands) => commands.includes('S' + F + '{"type":"batch"')), 'no batch was sent on the socket');
  assert.ok(wasm.some((commands) => commands.includes('H' + F)), 'no request was sent');
});

test('an event is stored, sent, and removed by its own verdict only', async () => {
  for (const kind of ['wasm', 'fallback']) {
    const step = await engine(kind);
    const random = words(1);
    const run = (input, now) => step(input, now, random());
    run(['I', KEY, 'rivulet-js/test', 0, 0].join(F), 1_764_000_000_000);
    run('L' + F + '1', 1_764_000_000_000);
    const commands = run(track('page_view'), 1_764_000_000_001).split('\x1e').map((command) => command.split(F));
    const id = commands.find(([op]) => op === 'I')[1];
    assert.match(id, /^[0-9a-f]{8}-[0-9a-f]{4}-7[0-9a-f]{3}-[89ab][0-9a-f]{3}-[0-9a-f]{12}$/);
    const stored = commands.find(([op, key]) => op === 'P' && key === 'e:' + id)[2];
    assert.equal(JSON.parse(stored.slice(1)).event_id, id);
    const [, request, , body] = commands.find(([op]) => op === 'H');
    assert.equal(JSON.parse(body).events[0].event_id, id);
    const other = '018f15a5-ada3-77ff-bfff-ffffffffffff';
    const stranger = run(['A', request, 200, '', JSON.stringify({ events: [{ event_id: other, status: 'accepted' }] })].join(F), 1_764_000_000_100);
    assert.ok(!stranger.includes('D' + F + 'e:'), kind + ': removed by a verdict for another event');
    const again = run('t', 1_764_000_005_000).split('\x1e').map((command) => command.split(F)).find(([op]) => op === 'H');
    const right = run(['A', again[1], 200, '', JSON.stringify({ events: [{ event_id: id, status: 'accepted', acked: 'disk' }] })].join(F), 1_764_000_005_100);
    assert.ok(right.includes('D' + F + 'e:' + id), kind + ': not removed by its own verdict');
    assert.ok(right.includes('"event_type":"page_view"'), kind);
  }
});
