//! Fills places on the page with decisions. Invariant: shown in the very call that brings the decision; never after it expires.

import { h, replace, safeLink, visible } from '../lib/dom';
import { icon } from '../lib/icon';
import type { Decision } from '../lib/sdk';
import { category, inCategory } from './catalog';
import { send } from './track';

const KEY = 'demo.decisions';

/** A place that a decision may fill, for a view; empty until then. */
export function slot(name: string): HTMLElement {
  return h('div', { class: 'notice-slot', role: 'status', data: { slot: name }, hidden: true });
}

export function show(decision: Decision): void {
  if (expired(decision)) return;
  fill(decision);
  store([...remembered().filter((each) => each.slot !== decision.slot), decision]);
}

function fill(decision: Decision): void {
  for (const slot of document.querySelectorAll<HTMLElement>('[data-slot]')) {
    if (slot.dataset['slot'] !== decision.slot) continue;
    replace(slot, banner(decision, () => hide(slot, decision)));
    slot.hidden = false;
  }
}

/** Fills the places of a view just drawn with what this tab was told before, also before a reload. */
export function refill(): void {
  for (const decision of remembered()) if (!expired(decision)) fill(decision);
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
  const link = target(payload);
  const body = text(payload['body']) ?? text(payload['text']) ?? (text(payload['code']) && `Use the code ${text(payload['code'])}.`);
  const about = category(text(payload['category']) ?? '');
  const picture = about ? inCategory(about.id)[0]?.art : undefined;
  return h('div', { class: 'banner', data: { decisionId: decision.decision_id } },
    picture && h('img', { src: picture, alt: '', width: 72, height: 72 }),
    h('div', { class: 'banner-text' },
      h('p', { class: 'banner-title' }, h('bdi', {}, visible(text(payload['title']) ?? 'Picked for you'))),
      body !== undefined && h('p', {}, h('bdi', {}, visible(body)))),
    link && h('a', { class: 'button', href: link, on: { click: () => send('click', { element: 'a', slot: decision.slot, decision_id: decision.decision_id }) } }, h('bdi', {}, visible(text(payload['cta']) ?? 'Have a look'))),
    h('button', { type: 'button', class: 'icon-button', 'aria-label': 'Dismiss this offer', on: { click: dismiss } }, icon('close')));
}

/** Where the offer leads: a page of the shop if it names one, else an address that may be a link. */
function target(payload: Record<string, unknown>): string | undefined {
  const about = category(text(payload['category']) ?? '');
  if (about) return `#/c/${about.id}`;
  const link = safeLink(payload['href']);
  if (link === undefined) return undefined;
  const { origin, pathname } = new URL(link);
  return origin === location.origin ? `#${pathname}` : link;
}

function text(value: unknown): string | undefined {
  return typeof value === 'string' && value !== '' ? value.slice(0, 300) : undefined;
}

function expired(decision: Decision): boolean {
  if (decision.expires_at === undefined) return false;
  return new Date(decision.expires_at).getTime() <= Date.now();
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
