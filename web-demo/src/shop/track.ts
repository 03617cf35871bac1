//! Sends the shop's events and tells the panel. Invariant: every call to the SDK that the shop makes passes here.

import { rivulet, type Metadata } from '../lib/sdk';
import type { Model } from '../panel/model';

let panel: Model | undefined;

export function observe(model: Model): void {
  panel = model;
}

export function send(type: string, metadata: Metadata = {}): void {
  noted(type, () => rivulet().track(type, metadata));
}

export function page(metadata: Metadata): void {
  noted('page_view', () => rivulet().page(metadata));
}

export function identify(userId: string, traits: Metadata): void {
  noted('identify', () => rivulet().identify(userId, traits));
}

/** The call answers with the event's id; while the snippet's stub records it, there is none yet. */
function noted(type: string, call: () => string | undefined): void {
  const at = performance.now();
  panel?.sent(call(), type, at);
}
