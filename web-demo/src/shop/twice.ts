//! "Send one event twice": what a sender does whose answer got lost. By plain HTTP, as any server or `curl` would send it.
//!
//! Invariant: both requests carry the same bytes, so the second verdict is `duplicate`.

import type { Verdict } from '../lib/sdk';
import type { Model } from '../panel/model';

const KEY = 'wk_dev';
const TYPE = 'category_view';

export async function sendTwice(model: Model): Promise<void> {
  const { anonymous_id: device, user_id: user } = model.state;
  if (!device) return;
  const id = randomUuid();
  const event = {
    event_id: id,
    event_type: TYPE,
    anonymous_id: device,
    ...(user ? { user_id: user } : {}),
    timestamp: new Date().toISOString(),
    metadata: { category: 'coffee', name: 'Coffee' },
  };
  const body = JSON.stringify(event);
  try {
    for (let time = 0; time < 2; time += 1) {
      model.sent(id, TYPE);
      const answer = await fetch('/v1/events', { method: 'POST', headers: { authorization: `Bearer ${KEY}`, 'content-type': 'application/json' }, body });
      const { events } = (await answer.json()) as { events?: Verdict[] };
      for (const verdict of events ?? []) model.judged(verdict);
    }
    model.problem = '';
  } catch {
    model.problem = 'Sending one event twice needs the network: unlike the SDK, this button has no queue.';
  }
  model.changed();
}

/** Also where the page is not in a secure context, which `crypto.randomUUID` asks for. */
function randomUuid(): string {
  const bytes = crypto.getRandomValues(new Uint8Array(16));
  bytes[6] = ((bytes[6] ?? 0) & 0x0f) | 0x40;
  bytes[8] = ((bytes[8] ?? 0) & 0x3f) | 0x80;
  const hex = Array.from(bytes, (byte) => byte.toString(16).padStart(2, '0')).join('');
  return [hex.slice(0, 8), hex.slice(8, 12), hex.slice(12, 16), hex.slice(16, 20), hex.slice(20)].join('-');
}
