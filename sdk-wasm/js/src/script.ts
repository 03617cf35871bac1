//! The classic script: takes over what the snippet has recorded. Invariant: the object stays the same, so that whoever kept a
//! reference to the stub holds the SDK.

import { at } from './core.js';
import { create, type Call } from './shell.js';

const stub = (window.rivulet ?? {}) as unknown as { q?: Call[]; ready?: unknown };
if (!stub.ready) {
  const own = (document.currentScript as HTMLScriptElement | null)?.src || location.href;
  const home = own.replace(/[^/]*$/, '');
  const [api, call] = create(home, at(home));
  const recorded = stub.q ?? [];
  delete stub.q;
  window.rivulet = Object.defineProperties(stub, Object.getOwnPropertyDescriptors(api)) as unknown as typeof api;
  for (const [name, args, when] of recorded) call(name, args, when);
}
