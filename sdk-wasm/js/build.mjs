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

/** The engine as JavaScript: a function that takes the imports, instead of a module that names them. */
function fallback(module) {
  const lowered = join(build, 'lowered.wasm');
  const script = join(build, 'core.wasm2js.js');
  tool('wasm-opt', ...FEATURES, ...LOWER, '-Oz', ...STRIP, module, '-o', lowered);
  tool('wasm2js', '-Oz', lowered, '-o', script);
  const text = readFileSync(script, 'utf8');
  const imports = [...text.matchAll(/^import \* as (\w+) from '(.*)';$/gm)];
  const body = text.replace(/^import .*$/gm, '').replace(/^export var (\w+) = (\w+)\.(\w+);$/gm, '');
  const instance = /^var (\w+) = asmFunc\(/m.exec(body);
  if (!instance) throw new Error('wasm2js writes another form than this script knows');
  for (const [, , from] of imports) if (from !== './core_bg.js') throw new Error(`the engine imports ${from}`);
  // The glue notices that memory has grown by its old buffer being detached, which WebAssembly does and wasm2js does not.
  const grown = body.replace('buffer = newBuffer;', 'new MessageChannel().port1.postMessage(0, [buffer]); buffer = newBuffer;');
  if (grown === body) throw new Error('wasm2js grows memory in another way than this script knows');
  const names = imports.map(([, name]) => `var ${name} = glue;`).join('');
  return `export default function (glue) {${names}${grown}\nreturn ${instance[1]};}`;
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
const module = join(bindgen, 'core_bg.wasm');
copyFileSync(join(bindgen, 'core_bg.js'), join(build, 'core_bg.js'));
tool('wasm-opt', ...FEATURES, '-Oz', '--converge', ...STRIP, module, '-o', join(dist, 'core.wasm'));
const { code } = await esbuild.transform(fallback(module), { minify: true, format: 'esm', target: 'es2021', legalComments: 'none' });
writeFileSync(join(dist, 'core.fallback.js'), code);
await bundle('script.ts', 'rivulet.js', { format: 'iife' });
await bundle('module.ts', 'rivulet.mjs', { format: 'esm', external: ['./core.fallback.js'] });
// Without a bundler's prologue: the snippet's bytes stand in every page.
const stub = await esbuild.transform(readFileSync(join(here, 'src/stub.js'), 'utf8'), { minify: true, target: 'es2019', legalComments: 'none' });
writeFileSync(join(dist, 'stub.js'), stub.code.trim());
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
