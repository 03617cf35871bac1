//! Fills places on the page with decisions. Invariant: shown in the very call that brings the decision; never after it expires.

import { h, replace, safeLink, visible } from '../lib/dom';
import { icon } from '../lib/icon';
import type { Decision } from '../lib/sdk';
import { category, inCategory } from './catalog';
import { send } from './track';

const KEY = 'demo.decisions';

export function show(decision: Decision): void {
  if (expired(decision)) return;
  for (const slot of document.querySelectorAll<HTMLElement>('[data-slot]')) {
    if (slot.dataset['slot'] !== decision.slot) continue;
    replace(slot, banner(decision, () => hide(slot, decision)));
    slot.hidden = false;
  }
  remember(decision);
}

/** Shows again what this tab had when it was reloaded. */
export function restore(): void {
  for (const decision of remembered()) show(decision);
}

export function clearSlots(): void {
  for (const slot of document.querySelectorAll<HTMLElement>('[data-slot]')) {
    slot.hidden = true;
    slot.replaceChildren();
  }
  store([]);
}

function hide(slot: HTMLElement, decision: Decision): void {
  slot.hidden = true;
  slot.replaceChildren();
  store(remembered().filter((each) => each.decision_id !== decision.decision_id));
}

function banner(decision: Decision, dismiss: () => void): HTMLElement {
  const { payload } = decision;
  const about = category(text(payload['category']) ?? '');
  const link = about ? `#/c/${about.id}` : safeLink(payload['href'] ?? payload['url']);
  const picture = about ? inCategory(about.id)[0]?.art : undefined;
  return h('div', { class: 'banner', data: { decisionId: decision.decision_id } },
    picture && h('img', { src: picture, alt: '', width: 72, height: 72 }),
    h('div', { class: 'banner-text' },
      h('p', { class: 'banner-title' }, h('bdi', {}, visible(text(payload['title']) ?? 'Picked for you'))),
      text(payload['body'] ?? payload['text']) !== undefined && h('p', {}, h('bdi', {}, visible(text(payload['body'] ?? payload['text']) ?? '')))),
    link && h('a', { class: 'button', href: link, on: { click: () => send('click', { element: 'a', slot: decision.slot, decision_id: decision.decision_id }) } }, h('bdi', {}, visible(text(payload['cta'] ?? payload['button']) ?? 'Have a look'))),
    h('button', { type: 'button', class: 'icon-button', 'aria-label': 'Dismiss this offer', on: { click: dismiss } }, icon('close')));
}

function text(value: unknown): string | undefined {
  return typeof value === 'string' && value !== '' ? value.slice(0, 300) : undefined;
}

function expired(decision: Decision): boolean {
  if (decision.expires_at === undefined) return false;
  return new Date(decision.expires_at).getTime() <= Date.now();
}

function remember(decision: Decision): void {
  store([...remembered().filter((each) => each.slot !== decision.slot), decision]);
}

function remembered(): Decision[] {
  try {
    const stored: unknown = JSON.parse(sessionStorage.getItem(KEY) ?? '[]');
    return Array.isArray(stored) ? (stored as Decision[]) : [];
  } catch {
    return [];
  }
}

function store(decisions: Decision[]): void {
  try {
    sessionStorage.setItem(KEY, JSON.stringify(decisions));
  } catch {
    // Without storage a reload forgets the banner.
  }
}
