//! Loads the engine: WebAssembly, or where a page's policy or the browser forbids it, the same binary as JavaScript.
//! Invariant: nothing is loaded but the two files that are built with this one.

import * as glue from '../build/core_bg.js';

export type Step = typeof glue.step;
export type Path = 'wasm' | 'fallback';

interface Exports {
  __wbindgen_start?: () => void;
}

function use(exports: Exports): void {
  glue.__wbg_set_wasm(exports);
  exports.__wbindgen_start?.();
}

async function compile(url: string): Promise<Exports> {
  const imports = { './core_bg.js': glue as unknown as WebAssembly.ModuleImports };
  try {
    return (await WebAssembly.instantiateStreaming(fetch(url), imports)).instance.exports;
  } catch (reason) {
    // A wrong content type is no reason to give up; a policy is.
    if (reason instanceof WebAssembly.CompileError) throw reason;
    const bytes = await (await fetch(url)).arrayBuffer();
    return (await WebAssembly.instantiate(bytes, imports)).instance.exports;
  }
}

/** Where the engine is: the address of the module, and what imports the fallback. */
export interface Core {
  wasm: string;
  fallback: () => Promise<Fallback>;
}

export interface Fallback {
  default: (imports: unknown) => Exports;
}

/** The files beside each other at an address that ends with a slash. */
export function at(base: string): Core {
  return { wasm: base + 'core.wasm', fallback: () => import(/* @vite-ignore */ base + 'core.fallback.js') };
}

export async function load(core: Core, base?: string): Promise<[Step, Path]> {
  const { wasm, fallback } = base ? at(base) : core;
  let path: Path = 'wasm';
  try {
    use(await compile(wasm));
  } catch (reason) {
    path = 'fallback';
    console.info('rivulet: WebAssembly cannot run here, the JavaScript build of the same engine does. ' + reason);
    use((await fallback()).default(glue));
  }
  return [glue.step, path];
}
