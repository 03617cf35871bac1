//! The live tail: every verdict as the gateway gives it. Invariant: rows and the pause buffer are bounded; the stream is reopened with back-off.

import { byId, foreign, h, replace } from '../lib/dom';
import { timeOfDay } from '../lib/format';
import type { Reason } from '../lib/sdk';
import { call, explain } from './api';
import { SseParser, type Message } from './sse';

/** Rows kept, shown or filtered away. */
const ROWS_KEPT = 500;
const FIRST_WAIT_MS = 500;
const LONGEST_WAIT_MS = 15_000;

export interface Entry {
  at: number | string | undefined;
  source: string;
  type: string;
  id: string;
  status: string;
  acked: string;
  reason: Reason | undefined;
}

export class Tail {
  private entries: Entry[] = [];
  private held: Entry[] = [];
  private paused = false;
  private abort: AbortController | undefined;
  private wait = FIRST_WAIT_MS;
  private missed = 0;
  private drawing = false;

  constructor() {
    byId('pause').addEventListener('click', () => this.pause(!this.paused));
    byId('clear').addEventListener('click', () => {
      this.entries = [];
      this.held = [];
      this.draw();
    });
    for (const id of ['filter-status', 'filter-type']) byId(id).addEventListener('input', () => this.draw());
    this.draw();
  }

  /** Opens the stream anew, with the key that now stands in the field. */
  connect(): void {
    this.abort?.abort();
    const abort = new AbortController();
    this.abort = abort;
    this.wait = FIRST_WAIT_MS;
    void this.follow(abort.signal);
  }

  private async follow(signal: AbortSignal): Promise<void> {
    while (!signal.aborted) {
      let note: string;
      try {
        this.say('wait', 'Connecting …');
        const answer = await call('/v1/tail', signal);
        if (!answer.ok) {
          const refused = answer.status === 401 || answer.status === 403;
          this.say('off', await explain(answer));
          // Asking again with the same key would not help.
          if (refused) return;
          note = `The server answered ${answer.status}`;
        } else {
          await this.read(answer);
          note = 'The stream ended';
        }
      } catch (error) {
        if (signal.aborted) return;
        if (error instanceof Error && !(error instanceof TypeError)) {
          this.say('off', error.message);
          return;
        }
        note = 'The server cannot be reached';
      }
      const wait = this.wait * (0.75 + Math.random() / 2);
      this.wait = Math.min(this.wait * 2, LONGEST_WAIT_MS);
      this.say('off', `${note}. Trying again in ${Math.max(1, Math.round(wait / 1000))} s.`);
      await pause(wait, signal);
    }
  }

  private async read(answer: Response): Promise<void> {
    if (!answer.body) return;
    this.say('on', 'Live');
    this.wait = FIRST_WAIT_MS;
    const parser = new SseParser();
    const decoder = new TextDecoder();
    const reader = answer.body.getReader();
    for (;;) {
      const { value, done } = await reader.read();
      if (done) return;
      for (const message of parser.push(decoder.decode(value, { stream: true }))) this.take(message);
    }
  }

  private take(message: Message): void {
    if (message.event === 'lost') {
      this.missed += Number(/\d+/.exec(message.data)?.[0] ?? 0);
      this.drawSoon();
      return;
    }
    const entry = readEntry(message.data);
    if (!entry) return;
    const list = this.paused ? this.held : this.entries;
    list.unshift(entry);
    list.length = Math.min(list.length, ROWS_KEPT);
    this.drawSoon();
  }

  private pause(paused: boolean): void {
    this.paused = paused;
    if (!paused) {
      this.entries = [...this.held, ...this.entries].slice(0, ROWS_KEPT);
      this.held = [];
    }
    this.draw();
  }

  /** Draws once a frame, however many rows come. */
  private drawSoon(): void {
    if (this.drawing) return;
    this.drawing = true;
    requestAnimationFrame(() => {
      this.drawing = false;
      this.draw();
    });
  }

  private draw(): void {
    const status = byId<HTMLSelectElement>('filter-status').value;
    const type = byId<HTMLInputElement>('filter-type').value.trim().toLowerCase();
    const shown = this.entries.filter((entry) => (status === '' || entry.status === status) && entry.type.toLowerCase().includes(type));
    replace(byId('rows'), ...shown.map(drawEntry));
    byId('no-rows').hidden = shown.length > 0;
    byId('no-rows').textContent = this.entries.length === 0 ? 'Nothing yet. Click around the shop in another tab, or send an event with curl.' : 'No event matches the filter.';
    byId('pause').textContent = this.paused ? `Resume (${this.held.length} waiting)` : 'Pause';
    byId('missed').textContent = this.missed > 0 ? `${this.missed} not shown: this page fell behind.` : '';
  }

  private say(tone: 'on' | 'off' | 'wait', words: string): void {
    const place = byId('tail-state');
    place.className = `connection ${tone}`;
    replace(place, h('span', { class: 'dot', 'aria-hidden': 'true' }), foreign(words));
  }
}

function pause(ms: number, signal: AbortSignal): Promise<void> {
  return new Promise((resolve) => {
    const timer = setTimeout(resolve, ms);
    signal.addEventListener('abort', () => {
      clearTimeout(timer);
      resolve();
    }, { once: true });
  });
}

/** An entry of the tail; absent if it is none. */
export function readEntry(data: string): Entry | undefined {
  let value: unknown;
  try {
    value = JSON.parse(data);
  } catch {
    return undefined;
  }
  if (typeof value !== 'object' || value === null) return undefined;
  const all = value as Record<string, unknown>;
  const nested = typeof all['verdict'] === 'object' && all['verdict'] !== null ? (all['verdict'] as Record<string, unknown>) : all;
  const text = (...candidates: unknown[]): string => candidates.find((each): each is string => typeof each === 'string') ?? '';
  const at = all['received_at'] ?? all['at'];
  return {
    at: typeof at === 'number' || typeof at === 'string' ? at : undefined,
    source: text(all['source']),
    type: text(all['event_type'], all['type']),
    id: text(nested['event_id'], all['event_id'], all['id']),
    status: text(nested['status']),
    acked: text(nested['acked']),
    reason: typeof nested['reason'] === 'object' && nested['reason'] !== null ? (nested['reason'] as Reason) : undefined,
  };
}

const KNOWN_STATUS = new Set(['accepted', 'duplicate', 'quarantined', 'rejected', 'retry']);

function drawEntry(entry: Entry): HTMLElement {
  const cell = (className: string, ...content: (Node | string | false | undefined)[]): HTMLElement => h('td', { role: 'cell', class: className }, ...content);
  const { reason } = entry;
  return h('tr', { role: 'row', data: { eventId: entry.id } },
    cell('c-time', timeOfDay(entry.at, true)),
    cell('c-source', foreign(entry.source)),
    cell('c-event', foreign(entry.type === '' ? '–' : entry.type, 'event-type'), ' ', foreign(entry.id === '' ? '–' : entry.id, 'mono')),
    cell('c-status', h('span', { class: `badge ${KNOWN_STATUS.has(entry.status) ? entry.status : ''}` }, foreign(entry.acked ? `${entry.status} · ${entry.acked}` : entry.status))),
    cell('c-reason', reason && h('span', { class: 'why' }, foreign(reason.code, 'mono'), ' ', reason.pointer !== undefined && foreign(reason.pointer, 'mono pointer'), ' ', reason.keyword !== undefined && foreign(reason.keyword, 'mono')),
      reason?.expected !== undefined && h('span', { class: 'expected' }, foreign(reason.expected))));
}
