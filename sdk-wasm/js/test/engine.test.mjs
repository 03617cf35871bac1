//! The built engine in Node, as WebAssembly and as the JavaScript made from it: same inputs, same commands, byte for byte.
//!
//! Needs `dist/` and `js/build/`, which `cargo xtask sdk` makes.

import assert from 'node:assert/strict';
import { readFileSync, readdirSync } from 'node:fs';
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

/** A generator with a seed, so that both builds get the same random words. */
function words(seed) {
  let state = seed >>> 0;
  return () => Array.from({ length: 4 }, () => (state = (Math.imul(state, 1664525) + 1013904223) >>> 0));
}

// Recorded by the engine's own tests (`tests/engine/traces.rs`), which replay them natively.
const traces = readdirSync(path('../../traces')).filter((name) => name.endsWith('.jsonl'));
for (const kind of ['wasm', 'fallback']) {
  test(`recorded traces are replayed byte for byte by the ${kind === 'wasm' ? 'WebAssembly' : 'JavaScript'} build`, async () => {
    assert.ok(traces.length > 0);
    for (const name of traces) {
      const step = await engine(kind);
      const lines = readFileSync(path('../../traces/' + name), 'utf8').split('\n').filter(Boolean).map((line) => JSON.parse(line));
      for (const [at, [input, now, random, commands]] of lines.entries()) assert.equal(step(input, now, random), commands, `${name}, line ${at + 1}`);
    }
  });
}

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
