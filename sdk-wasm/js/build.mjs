//! Makes `dist/` from what wasm-bindgen wrote: `node build.mjs BINDGEN_DIR DIST_DIR VERSION`. Prints the sizes as JSON.
//!
//! Invariant: WebAssembly features are listed one by one. `--all-features` lets binaryen write forms that no browser reads yet.

import { execFileSync } from 'node:child_process';
import { copyFileSync, mkdirSync, readFileSync, rmSync, writeFileSync } from 'node:fs';
import { createRequire } from 'node:module';
import { dirname, join } from 'node:path';
import { fileURLToPath } from 'node:url';
import { brotliCompressSync, constants, gzipSync } from 'node:zlib';
import * as esbuild from 'esbuild';

const [bindgen, dist, version] = process.argv.slice(2);
if (!bindgen || !dist || !version) throw new Error('usage: node build.mjs BINDGEN_DIR DIST_DIR VERSION');

const here = dirname(fileURLToPath(import.meta.url));
const binaryen = dirname(createRequire(import.meta.url).resolve('binaryen/package.json'));
const build = join(here, 'build');

/** What every browser of the last years has. */
const FEATURES = ['--mvp-features', '--enable-mutable-globals', '--enable-bulk-memory', '--enable-bulk-memory-opt', '--enable-nontrapping-float-to-int', '--enable-sign-ext', '--enable-multivalue', '--enable-reference-types'];
const STRIP = ['--strip-debug', '--strip-producers', '--strip-target-features'];
/** wasm2js knows none of these. */
const LOWER = ['--llvm-memory-copy-fill-lowering', '--llvm-nontrapping-fptoint-lowering', '--signext-lowering'];

function tool(name, ...args) {
  execFileSync(process.execPath, [join(binaryen, 'bin', name), ...args], { stdio: ['ignore', 'inherit', 'inherit'] });
}

/** wasm-bindgen's names of what `src/glue.ts` uses, found by what its own glue does with them. */
function exportsOf(glue) {
  const find = (pattern) => {
    const name = pattern.exec(glue)?.[1];
    if (!name) throw new Error(`wasm-bindgen passes strings in another way than src/glue.ts: no ${pattern}`);
    return name;
  };
  return {
    memory: 'memory',
    step: find(/wasm\.(step)\(retptr, ptr0, len0, val2, val3\);/),
    stack: find(/const retptr = wasm\.(\w+)\(-16\)/),
    malloc: find(/passStringToWasm0\(input, wasm\.(\w+), wasm\.\w+\)/),
    free: find(/wasm\.(\w+)\(deferred\w+, deferred\w+, 1\);/),
  };
}

/** Renames the exports, and leaves out what is reached by none of them. */
function prune(module, exports, out) {
  const graph = join(build, 'exports.json');
  const roots = Object.entries(exports).map(([name, old]) => ({ name, root: true, export: old }));
  writeFileSync(graph, JSON.stringify(roots));
  tool('wasm-metadce', ...FEATURES, module, '--graph-file', graph, '-o', out);
  const text = join(build, 'pruned.wat');
  tool('wasm-dis', ...FEATURES, out, '-o', text);
  let wat = readFileSync(text, 'utf8');
  for (const [name, old] of Object.entries(exports)) wat = wat.replace(`(export "${old}"`, `(export "${name}"`);
  if (/\(import /.test(wat)) throw new Error('the engine imports something');
  writeFileSync(text, wat);
  tool('wasm-as', ...FEATURES, text, '-o', out);
}

/** The engine as JavaScript: a function that gives the exports. */
function fallback(module) {
  const lowered = join(build, 'lowered.wasm');
  const script = join(build, 'core.wasm2js.js');
  tool('wasm-opt', ...FEATURES, ...LOWER, '-Oz', '--converge', ...STRIP, module, '-o', lowered);
  tool('wasm2js', '-Oz', lowered, '-o', script);
  const text = readFileSync(script, 'utf8');
  const body = text.replace(/^import .*$/gm, '').replace(/^export var (\w+) = (\w+)\.(\w+);$/gm, '');
  const instance = /^var (\w+) = asmFunc\(/m.exec(body);
  if (!instance) throw new Error('wasm2js writes another form than this script knows');
  return `export default function () {${body}\nreturn ${instance[1]};}`;
}

async function bundle(entry, outfile, options) {
  await esbuild.build({
    entryPoints: [join(here, 'src', entry)],
    outfile: join(dist, outfile),
    bundle: true,
    minify: true,
    target: 'es2021',
    legalComments: 'none',
    define: { VERSION: JSON.stringify(version) },
    logLevel: 'warning',
    ...options,
  });
}

function size(...files) {
  const sum = { raw: 0, gzip: 0, brotli: 0 };
  for (const file of files) {
    const bytes = readFileSync(join(dist, file));
    sum.raw += bytes.length;
    sum.gzip += gzipSync(bytes, { level: 9 }).length;
    sum.brotli += brotliCompressSync(bytes, { params: { [constants.BROTLI_PARAM_QUALITY]: 11 } }).length;
  }
  return sum;
}

rmSync(build, { recursive: true, force: true });
mkdirSync(build, { recursive: true });
mkdirSync(dist, { recursive: true });
const module = join(build, 'pruned.wasm');
prune(join(bindgen, 'core_bg.wasm'), exportsOf(readFileSync(join(bindgen, 'core_bg.js'), 'utf8')), module);
tool('wasm-opt', ...FEATURES, '-Oz', '--converge', ...STRIP, module, '-o', join(dist, 'core.wasm'));
const { code } = await esbuild.transform(fallback(module), { minify: true, format: 'esm', target: 'es2021', legalComments: 'none' });
writeFileSync(join(dist, 'core.fallback.js'), code);
await bundle('script.ts', 'rivulet.js', { format: 'iife' });
await bundle('module.ts', 'rivulet.mjs', { format: 'esm', external: ['./core.fallback.js'] });
// Without a bundler's prologue: the snippet's bytes stand in every page.
const stub = await esbuild.transform(readFileSync(join(here, 'src/stub.js'), 'utf8'), { minify: true, target: 'es2019', legalComments: 'none' });
writeFileSync(join(dist, 'stub.js'), stub.code.trim());
// For the tests in Node.
await bundle('glue.ts', '../js/build/glue.mjs', { format: 'esm' });
copyFileSync(join(here, 'index.d.ts'), join(dist, 'index.d.ts'));
const manifest = JSON.parse(readFileSync(join(here, 'browser.package.json'), 'utf8'));
writeFileSync(join(dist, 'package.json'), JSON.stringify({ ...manifest, version }, null, 2) + '\n');

console.log(JSON.stringify({
  stub: size('stub.js'),
  core: size('rivulet.js', 'core.wasm'),
  fallback: size('rivulet.js', 'core.fallback.js'),
  shell: size('rivulet.js'),
  module: size('core.wasm'),
}));
