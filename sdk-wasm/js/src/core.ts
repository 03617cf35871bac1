//! Loads the engine: WebAssembly, or where a page's policy or the browser forbids it, the same binary as JavaScript.
//! Invariant: nothing is loaded but the two files that are built with this one.

import { bind, type Exports, type Step } from './glue.js';

export type { Step };
export type Path = 'wasm' | 'fallback';

async function compile(url: string): Promise<Exports> {
  let made: WebAssembly.WebAssemblyInstantiatedSource;
  try {
    made = await WebAssembly.instantiateStreaming(fetch(url));
  } catch (reason) {
    // A wrong content type is no reason to give up; a policy is.
    if (reason instanceof WebAssembly.CompileError) throw reason;
    made = await WebAssembly.instantiate(await (await fetch(url)).arrayBuffer());
  }
  return made.instance.exports as unknown as Exports;
}

/** Where the engine is: the address of the module, and what imports the fallback. */
export interface Core {
  wasm: string;
  fallback: () => Promise<Fallback>;
}

export interface Fallback {
  default: () => Exports;
}

/** The files beside each other at an address that ends with a slash. */
export function at(base: string): Core {
  return { wasm: base + 'core.wasm', fallback: () => import(/* @vite-ignore */ base + 'core.fallback.js') };
}

export async function load(core: Core, base?: string): Promise<[Step, Path]> {
  const { wasm, fallback } = base ? at(base) : core;
  try {
    return [bind(await compile(wasm)), 'wasm'];
  } catch (reason) {
    console.info('rivulet: WebAssembly cannot run here, the JavaScript build of the same engine does. ' + reason);
    return [bind((await fallback()).default()), 'fallback'];
  }
}
