//! Draws the panel from its model. Invariant: everything a sender or server wrote passes `foreign`.

import { foreign, h, replace, type Child } from '../lib/dom';
import { duration, shortId, timeOfDay, titleCase } from '../lib/format';
import { icon } from '../lib/icon';
import type { Verdict } from '../lib/sdk';
import type { Model, Row, ShownDecision } from './model';
import { isOffline } from './network';

export interface Actions {
  toggleNetwork(): void;
  sendInvalid(): void;
  sendTwice(): void;
  reset(): void;
}

/** Counters, categories and traits shown before the rest is summed up. */
const NAMES_SHOWN = 8;

export class PanelView {
  private readonly connection = h('span', { class: 'connection' });
  private readonly engine = h('span', { class: 'engine' });
  private readonly glance = h('span', { class: 'glance' });
  private readonly stats = h('dl', { class: 'stats' });
  private readonly problem = h('p', { class: 'problem', hidden: true });
  private readonly decisions = h('div', { class: 'decisions' });
  private readonly profile = h('div', { class: 'profile' });
  private readonly events = h('ol', { class: 'events', id: 'panel-events' });
  private readonly network = h('button', { type: 'button', class: 'tool', id: 'tool-network' });
  private readonly announcer = h('p', { class: 'sr-only', role: 'status', 'aria-live': 'polite' });
  private readonly toggle: HTMLButtonElement;
  private readonly body: HTMLElement;
  private announced = '';

  constructor(private readonly root: HTMLElement, private readonly model: Model, actions: Actions) {
    this.toggle = h('button', { type: 'button', class: 'panel-toggle', 'aria-expanded': 'false', 'aria-controls': 'panel-body', on: { click: () => this.expand(!this.expanded()) } },
      h('span', { class: 'panel-title' }, 'Live view'), this.glance, icon('chevron'));
    this.network.addEventListener('click', actions.toggleNetwork);
    this.body = h('div', { id: 'panel-body', class: 'panel-body' },
      h('div', { class: 'runs' }, this.connection, this.engine),
      this.problem,
      this.stats,
      h('div', { class: 'tools', role: 'group', 'aria-label': 'Try what goes wrong' },
        this.network,
        tool('tool-invalid', 'Send an invalid event', actions.sendInvalid),
        tool('tool-twice', 'Send one event twice', actions.sendTwice),
        tool('tool-reset', 'Start over', actions.reset)),
      section('panel-decisions', 'Decisions', this.decisions),
      section('panel-profile', 'Profile', this.profile),
      section('panel-log', 'Events and verdicts', this.events));
    replace(root, h('h2', { class: 'panel-heading' }, 'Live view'), this.toggle, this.body, this.announcer);
    model.onChange(() => this.draw());
    this.draw();
  }

  private expanded(): boolean {
    return this.toggle.getAttribute('aria-expanded') === 'true';
  }

  private expand(open: boolean): void {
    this.toggle.setAttribute('aria-expanded', String(open));
    this.root.classList.toggle('open', open);
  }

  private draw(): void {
    this.drawState();
    this.drawStats();
    this.drawDecisions();
    this.drawProfile();
    replace(this.events, ...this.model.rows.map(drawRow));
    if (this.model.rows.length === 0) replace(this.events, h('li', { class: 'empty' }, 'Click around the shop: each event shows here with its verdict.'));
    this.announce();
  }

  private drawState(): void {
    const offline = isOffline();
    const connection = offline ? 'offline' : (this.model.state.connection ?? 'connecting');
    const words = connectionWords[connection] ?? titleCase(connection);
    this.connection.className = `connection ${offline ? 'off' : connectionTone(connection)}`;
    replace(this.connection, h('span', { class: 'dot', 'aria-hidden': 'true' }), words);
    const engine = this.model.state.engine;
    replace(this.engine, engine ? (engineWords[engine] ?? engine) : '');
    replace(this.network, offline ? 'Go online' : 'Go offline');
    this.network.classList.toggle('active', offline);
    replace(this.glance,
      h('span', { class: `connection ${offline ? 'off' : connectionTone(connection)}` }, h('span', { class: 'dot', 'aria-hidden': 'true' }), h('span', { class: 'sr-only' }, `${words}, `)),
      h('span', {}, `${this.model.queue.events} queued, `),
      h('span', {}, `${this.model.accepted} accepted`));
    this.problem.hidden = this.model.problem === '';
    replace(this.problem, foreign(this.model.problem));
  }

  private drawStats(): void {
    const median = this.model.median();
    replace(this.stats,
      stat('Queue', String(this.model.queue.events), 'stat-queue'),
      stat('Accepted', String(this.model.accepted), 'stat-accepted'),
      stat('Refused', String(this.model.refused), 'stat-refused'),
      stat('Verdict in', median === undefined ? '–' : duration(median), 'stat-median'));
  }

  private drawDecisions(): void {
    if (this.model.decisions.length === 0) {
      replace(this.decisions, h('p', { class: 'empty' }, 'None yet. Look at three products of one category.'));
    } else {
      replace(this.decisions, ...this.model.decisions.map(drawDecision));
    }
  }

  private drawProfile(): void {
    const { profile, state, profileNote } = this.model;
    const id = profile?.profile ?? (state.user_id ? `user:${state.user_id}` : state.anonymous_id ? `anonymous:${state.anonymous_id}` : '');
    const parts: Child[] = [];
    if (id) parts.push(h('p', { class: 'who' }, foreign(id, 'mono')));
    if (profileNote) parts.push(h('p', { class: 'empty' }, foreign(profileNote)));
    if (profile) {
      parts.push(score(profile.score));
      parts.push(bars('Viewed by category', profile.categories));
      parts.push(chips('Counted', profile.counters), chips('Summed', profile.sums), chips('Traits', profile.traits));
      const foot = [profile.session?.events !== undefined && `${profile.session.events} ${profile.session.events === 1 ? 'event' : 'events'} this session`, profile.as_of?.offset !== undefined && `as of ${profile.as_of.partition ?? 0}/${profile.as_of.offset}`];
      parts.push(h('p', { class: 'foot' }, foreign(foot.filter(Boolean).join(' · '))));
    }
    replace(this.profile, ...parts);
  }

  /** Says the newest outcome worth interrupting for: a refusal, a duplicate, a decision. */
  private announce(): void {
    const latest = this.model.rows.find((row) => row.verdict && row.verdict.status !== 'accepted');
    const decision = this.model.decisions[0]?.decision;
    const text = [
      decision && `Decision for ${decision.slot}.`,
      latest?.verdict && `${titleCase(latest.type)} ${latest.verdict.status}${latest.verdict.reason?.pointer ? ` at ${latest.verdict.reason.pointer}` : ''}.`,
    ].filter(Boolean).join(' ');
    if (text === this.announced) return;
    this.announced = text;
    this.announcer.textContent = text;
  }
}

const connectionWords: Record<string, string> = {
  connecting: 'Connecting', socket: 'WebSocket', http: 'HTTP', waiting: 'Waiting to try again', blocked: 'Blocked, trying rarely', offline: 'Offline', follower: 'Another tab sends', held: 'Held: no consent yet',
};

const engineWords: Record<string, string> = { wasm: 'WebAssembly engine', fallback: 'JavaScript engine' };

function connectionTone(connection: string): 'on' | 'off' | 'wait' {
  if (connection === 'socket' || connection === 'http' || connection === 'follower') return 'on';
  return connection === 'offline' || connection === 'blocked' ? 'off' : 'wait';
}

function section(id: string, title: string, ...content: Child[]): HTMLElement {
  return h('section', { 'aria-labelledby': id }, h('h3', { id }, title), ...content);
}

function tool(id: string, label: string, action: () => void): HTMLButtonElement {
  return h('button', { type: 'button', class: 'tool', id, on: { click: action } }, label);
}

function stat(label: string, value: string, id: string): HTMLElement {
  return h('div', {}, h('dt', {}, label), h('dd', { id }, value));
}

function drawRow(row: Row): HTMLElement {
  const { verdict } = row;
  const tone = verdict ? verdict.status : 'queued';
  const reason = verdict?.reason;
  return h('li', { class: `event ${tone}`, data: { eventId: row.id ?? '', status: tone } },
    h('div', { class: 'event-line' },
      h('time', {}, timeOfDay(performance.timeOrigin + row.sentAt)),
      foreign(row.type, 'event-type'),
      h('span', { class: `badge ${tone}` }, badgeText(verdict))),
    reason && h('p', { class: 'reason' }, foreign(reason.code, 'mono'),
      reason.pointer !== undefined && foreign(reason.pointer, 'mono pointer'),
      reason.keyword !== undefined && foreign(reason.keyword, 'mono keyword'),
      reason.schema !== undefined && foreign(reason.schema, 'mono')),
    reason?.expected !== undefined && h('p', { class: 'expected' }, foreign(reason.expected)),
    h('p', { class: 'event-id' }, row.id !== undefined && foreign(shortId(row.id), 'mono'), row.took !== undefined && ` · ${duration(row.took)}`));
}

function badgeText(verdict: Verdict | undefined): string {
  if (!verdict) return 'queued';
  return verdict.acked ? `${verdict.status} · ${verdict.acked}` : verdict.status;
}

function drawDecision({ decision, at, took }: ShownDecision): HTMLElement {
  const facts = (decision.facts ?? []).slice(0, 4);
  return h('article', { class: 'decision', data: { decisionId: decision.decision_id } },
    h('p', { class: 'decision-line' }, foreign(decision.rule, 'rule'), h('span', { class: 'arrow', 'aria-hidden': 'true' }, '→'), foreign(decision.slot, 'mono')),
    h('p', { class: 'decision-facts' }, timeOfDay(at), ` · score ${percent(decision.score)}`, took !== undefined && ` · ${duration(took)} after the click`),
    ...facts.map((fact) => h('p', { class: 'decision-facts' }, foreign(fact.name), ' = ', foreign(plain(fact.value)))));
}

function percent(score: unknown): string {
  return typeof score === 'number' && Number.isFinite(score) ? score.toFixed(2) : '–';
}

function score(value: number | undefined): HTMLElement | false {
  if (typeof value !== 'number' || !Number.isFinite(value)) return false;
  const fill = h('span', {});
  fill.style.width = `${Math.min(Math.max(value, 0), 1) * 100}%`;
  return h('div', { class: 'score' }, h('p', {}, h('span', {}, 'Intent score'), h('strong', { id: 'profile-score' }, percent(value))),
    h('div', { class: 'meter', role: 'meter', 'aria-label': 'Intent score', 'aria-valuemin': 0, 'aria-valuemax': 1, 'aria-valuenow': value.toFixed(2) }, fill));
}

function bars(label: string, counts: Record<string, number> | undefined): HTMLElement | false {
  const entries = Object.entries(counts ?? {}).sort((a, b) => b[1] - a[1]).slice(0, NAMES_SHOWN);
  if (entries.length === 0) return false;
  const most = Math.max(...entries.map((entry) => entry[1]), 1);
  return h('div', { class: 'bars' }, h('h4', {}, label), h('ul', {}, ...entries.map(([name, count]) => {
    const fill = h('span', { class: 'fill', 'aria-hidden': 'true' });
    fill.style.width = `${(count / most) * 100}%`;
    return h('li', { data: { category: name } }, foreign(name, 'bar-name'), h('span', { class: 'track' }, fill), h('span', { class: 'bar-count' }, plain(count)));
  })));
}

function chips(label: string, values: Record<string, unknown> | undefined): HTMLElement | false {
  const entries = Object.entries(values ?? {});
  if (entries.length === 0) return false;
  const shown = entries.slice(0, NAMES_SHOWN);
  return h('div', { class: 'chips' }, h('h4', {}, label), h('dl', {}, ...shown.map(([name, value]) => h('div', { data: { name } }, h('dt', {}, foreign(name)), h('dd', {}, foreign(plain(value))))),
    entries.length > shown.length && h('div', {}, h('dt', {}, 'and'), h('dd', {}, `${entries.length - shown.length} more`))));
}

function plain(value: unknown): string {
  return typeof value === 'string' ? value : (JSON.stringify(value) ?? '–');
}
