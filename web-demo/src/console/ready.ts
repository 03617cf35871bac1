//! The readiness strip, from `/ready`. Invariant: an answer of any shape, or none, shows as words.

import { byId, foreign, h, replace } from '../lib/dom';

const EVERY_MS = 5_000;
const DEADLINE_MS = 4_000;
const SAID_BY_THE_DOT = new Set(['status', 'admitting']);

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
    const parts = typeof body === 'object' && body !== null ? Object.entries(body).filter(([name, value]) => value !== null && !SAID_BY_THE_DOT.has(name)).slice(0, 8) : [];
    replace(place,
      h('span', { class: `connection ${answer.ok ? 'on' : 'off'}` }, h('span', { class: 'dot', 'aria-hidden': 'true' }), answer.ok ? 'Taking events' : 'Not taking events'),
      ...parts.map(([name, value]) => h('span', { class: 'part' }, foreign(name.replaceAll('_', ' '), 'part-name'), ' ', foreign(words(name, value)))));
  } catch {
    replace(place, h('span', { class: 'connection off' }, h('span', { class: 'dot', 'aria-hidden': 'true' }), 'The server cannot be reached'));
  }
}

/** A component's state in a few words: its own, or each of its members. */
function words(name: string, value: unknown): string {
  if (typeof value === 'number') return name.endsWith('bytes') ? size(value) : value.toLocaleString('en');
  if (typeof value !== 'object' || value === null) return String(value);
  return Object.entries(value).slice(0, 4).map(([inner, member]) => (inner.endsWith('bytes') ? words(inner, member) : `${words(inner, member)} ${inner.replaceAll('_', ' ')}`)).join(', ');
}

function size(bytes: number): string {
  const unit = bytes >= 1e9 ? 'GB' : bytes >= 1e6 ? 'MB' : bytes >= 1e3 ? 'kB' : 'B';
  const scaled = bytes / { GB: 1e9, MB: 1e6, kB: 1e3, B: 1 }[unit];
  return `${scaled.toLocaleString('en', { maximumSignificantDigits: 3 })} ${unit}`;
}
