//! The module for bundlers and `<script type="module">`. Invariant: importing it does nothing, so that a server may.

import { create } from './shell.js';

// Bundlers copy what is written so.
const rivulet = create(import.meta.url, {
  wasm: new URL('./core.wasm', import.meta.url).href,
  fallback: () => import('./core.fallback.js'),
});
export default rivulet;
