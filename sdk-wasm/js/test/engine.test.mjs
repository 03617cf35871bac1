//! The built engine in Node, as WebAssembly and as the JavaScript made from it: same inputs, same commands, byte for byte.
//!
//! Needs `dist/` and `js/build/`, which `cargo xtask sdk` makes.

import assert from 'node:assert/strict';
import { readFileSync, readdirSync } from 'node:fs';
import { test } from 'node:test';
import { fileURLToPath, pathToFileURL } from 'node:url';

const path = (relative) => fileURLToPath(new URL(relative, import.meta.url));
const F = '\x1f';

const { bind } = await import(pathToFileURL(path('../build/glue.mjs')).href);

let copies = 0;
async function engine(kind) {
  if (kind === 'wasm') return bind((await WebAssembly.instantiate(readFileSync(path('../../dist/core.wasm')))).instance.exports);
  return bind((await import(pathToFileURL(path('../../dist/core.fallback.js')).href + '?' + copies++)).default());
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
  const id = '018f15a3-75a3-77ff-bfff-ffffffffffff';
  const other = '018f15a5-ada3-77ff-bfff-ffffffffffff';
  const verdict = (id) => ['a', id, JSON.stringify({ event_id: id, status: 'accepted', acked: 'disk' })];
  for (const kind of ['wasm', 'fallback']) {
    const step = await engine(kind);
    const run = (input, now) => step(input.join(F), 1_764_000_000_000 + now, 1).split('\x1e').map((command) => command.split(F));
    run(['I', 0, 0], 0);
    run(['L', 1], 0);
    const commands = run(['T', 1, id, '"event_type":"page_view","metadata":{}'], 1);
    const stored = commands.find(([op, key]) => op === 'P' && key === 'e:' + id)[2];
    assert.match(stored, /^11764000000001\{/);
    assert.equal(JSON.parse(stored.slice(14)).event_id, id);
    const [, request, , body] = commands.find(([op]) => op === 'H');
    assert.equal(JSON.parse(body).events[0].event_id, id);
    const stranger = run(['A', request, 200, '', '', ...verdict(other)], 100);
    assert.ok(!stranger.some(([op, key]) => op === 'D' && key === 'e:' + id), kind + ': removed by a verdict for another event');
    const again = run(['t'], 5_000).find(([op]) => op === 'H');
    const right = run(['A', again[1], 200, '', '', ...verdict(id)], 5_100);
    assert.ok(right.some(([op, key]) => op === 'D' && key === 'e:' + id), kind + ': not removed by its own verdict');
    const told = right.find(([op, name]) => op === 'V' && name === 'verdict')[2];
    assert.deepEqual(JSON.parse(told), { event_type: 'page_view', event_id: id, status: 'accepted', acked: 'disk' });
  }
});
