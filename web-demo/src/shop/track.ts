//! Sends the shop's events and tells the panel. Invariant: every call to the SDK that the shop makes passes here.

import { newId, rivulet, type Metadata } from '../lib/sdk';
import type { Model } from '../panel/model';

let panel: Model | undefined;

export function observe(model: Model): void {
  panel = model;
}

/** Sends an event; the id is made here so that the panel can show the event before its verdict, even before the SDK has loaded. */
export function send(type: string, metadata: Metadata = {}, eventId = newId()): string {
  panel?.sent(eventId, type);
  rivulet().track(type, metadata, { eventId });
  return eventId;
}

export function page(metadata: Metadata): void {
  const eventId = newId();
  panel?.sent(eventId, 'page_view');
  rivulet().page(metadata, { eventId });
}

export function identify(userId: string, traits: Metadata): void {
  const eventId = newId();
  panel?.sent(eventId, 'identify');
  rivulet().identify(userId, traits, { eventId });
}
