//! The readiness strip, from `/ready`. Invariant: an answer of any shape, or none, shows as words.

import { byId, foreign, h, replace } from '../lib/dom';

const EVERY_MS = 5_000;
const DEADLINE_MS = 4_000;

export function watch(): void {
  void look();
  setInterval(() => {
    if (!document.hidden) void look();
  }, EVERY_MS);
}

async function look(): Promise<void> {
  const place = byId('ready');
  try {
    const answer = await fetch('/ready', { cache: 'no-store', signal: AbortSignal.timeout(DEADLINE_MS) });
    const body: unknown = await answer.json().catch(() => ({}));
    const parts = typeof body === 'object' && body !== null ? Object.entries(body).slice(0, 8) : [];
    replace(place,
      h('span', { class: `connection ${answer.ok ? 'on' : 'off'}` }, h('span', { class: 'dot', 'aria-hidden': 'true' }), answer.ok ? 'Taking events' : 'Not taking events'),
      ...parts.map(([name, value]) => h('span', { class: 'part' }, foreign(name, 'part-name'), ' ', foreign(words(value)))));
  } catch {
    replace(place, h('span', { class: 'connection off' }, h('span', { class: 'dot', 'aria-hidden': 'true' }), 'The server cannot be reached'));
  }
}

/** A component's state in a few words: its own, or each of its members. */
function words(value: unknown): string {
  if (typeof value !== 'object' || value === null) return String(value);
  return Object.entries(value).slice(0, 4).map(([name, member]) => (typeof member === 'string' ? member : `${name.replaceAll('_', ' ')} ${typeof member === 'number' ? sized(name, member) : JSON.stringify(member)}`)).join(', ');
}

function sized(name: string, value: number): string {
  return name.endsWith('bytes') ? `${(value / 1e9).toFixed(value < 1e10 ? 2 : 0)} GB` : String(value);
}
