//! The classic script: takes over what the snippet has recorded. Invariant: the object stays the same, so that whoever kept a
//! reference to the stub holds the SDK.

import { at } from './core.js';
import { create, type Call } from './shell.js';

const stub = (window.rivulet ?? {}) as unknown as { q?: Call[]; ready?: unknown };
if (!stub.ready) {
  const own = (document.currentScript as HTMLScriptElement | null)?.src || location.href;
  const home = own.replace(/[^/]*$/, '');
  // The list stays the stub's until the engine runs, so that what is in it is beaconed if the page goes before.
  window.rivulet = Object.defineProperties(stub, Object.getOwnPropertyDescriptors(create(home, at(home), stub.q))) as unknown as typeof window.rivulet;
}
