//! The SDK as a page sees it: `window.rivulet`, put there by the snippet. Invariant: the only file that names that global.

import type { Rivulet } from '../../../sdk-wasm/js/index';

export type { Decision, Events, Metadata, QueueState, Reason, Rivulet, State, TrackOptions, Verdict } from '../../../sdk-wasm/js/index';

/** The object that the snippet made; the SDK takes it over, the same object, when it has loaded. */
export function rivulet(): Rivulet {
  // A page whose policy forbids the inline snippet has none, whatever the types say.
  const sdk = window.rivulet as Rivulet | undefined;
  if (!sdk) throw new Error('window.rivulet is missing: the snippet in <head> did not run');
  return sdk;
}
