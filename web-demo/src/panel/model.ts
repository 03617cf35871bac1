//! What the panel knows: events sent, verdicts, decisions, state. Invariant: bounded; a view is told of each change once a frame.

import type { Decision, State, Verdict } from '../lib/sdk';

/** Rows kept; older ones fall off. */
const EVENTS_SHOWN = 60;
const DECISIONS_SHOWN = 8;
/** Verdict times that the median is taken of. */
const LATENCIES_KEPT = 101;

export interface Row {
  /** Absent until the SDK has loaded and named it. */
  id: string | undefined;
  type: string;
  sentAt: number;
  verdict?: Verdict;
  /** Milliseconds from the call to the verdict. */
  took?: number;
}

export interface ShownDecision {
  decision: Decision;
  at: number;
  /** Milliseconds from the triggering call to the decision, if the call was made by this page. */
  took?: number;
}

export interface Profile {
  profile?: string;
  score?: number;
  counters?: Record<string, number>;
  categories?: Record<string, number>;
  sums?: Record<string, number>;
  traits?: Record<string, unknown>;
  session?: { id?: string; events?: number } | null;
  as_of?: { partition?: number; offset?: number };
}

export class Model {
  rows: Row[] = [];
  decisions: ShownDecision[] = [];
  queue: { events: number } = { events: 0 };
  state: Partial<State> = {};
  profile: Profile | undefined;
  profileNote = 'No profile yet: nothing has been counted.';
  problem = '';
  accepted = 0;
  refused = 0;
  private latencies: number[] = [];
  private pending = false;
  private readonly listeners: (() => void)[] = [];

  onChange(listener: () => void): void {
    this.listeners.push(listener);
  }

  changed(): void {
    if (this.pending) return;
    this.pending = true;
    queueMicrotask(() => {
      this.pending = false;
      for (const listener of this.listeners) listener();
    });
  }

  sent(id: string | undefined, type: string, at = performance.now()): void {
    this.add({ id, type, sentAt: at });
    this.changed();
  }

  judged(verdict: Verdict): void {
    if (verdict.status === 'accepted') this.accepted += 1;
    if (verdict.status === 'rejected' || verdict.status === 'quarantined') this.refused += 1;
    const row = this.rowOf(verdict);
    if (row) {
      row.id = verdict.event_id;
      row.verdict = verdict;
      row.took = performance.now() - row.sentAt;
      if (verdict.status !== 'retry') this.latencies = [...this.latencies, row.took].slice(-LATENCIES_KEPT);
    } else {
      // Sent by an earlier page or another tab.
      this.add({ id: verdict.event_id, type: verdict.event_type ?? 'from an earlier page', sentAt: performance.now(), verdict });
    }
    this.changed();
  }

  /** The oldest unanswered call of that id (the same event may have been sent twice), else of that type before ids were known. */
  private rowOf(verdict: Verdict): Row | undefined {
    const waits = (row: Row): boolean => !row.verdict || row.verdict.status === 'retry';
    return this.rows.findLast((row) => waits(row) && row.id !== undefined && row.id === verdict.event_id)
      ?? this.rows.findLast((row) => waits(row) && row.id === undefined && row.type === verdict.event_type);
  }

  private add(row: Row): void {
    this.rows.unshift(row);
    this.rows.length = Math.min(this.rows.length, EVENTS_SHOWN);
  }

  decided(decision: Decision): void {
    const trigger = this.rows.find((row) => row.id === decision.trigger);
    const at = performance.now();
    this.decisions.unshift({ decision, at: Date.now(), ...(trigger ? { took: at - trigger.sentAt } : {}) });
    this.decisions.length = Math.min(this.decisions.length, DECISIONS_SHOWN);
    this.changed();
  }

  median(): number | undefined {
    const sorted = this.latencies.toSorted((a, b) => a - b);
    return sorted[sorted.length >> 1];
  }

  clear(): void {
    this.rows = [];
    this.decisions = [];
    this.profile = undefined;
    this.profileNote = 'No profile yet: nothing has been counted.';
    this.accepted = 0;
    this.refused = 0;
    this.latencies = [];
    this.changed();
  }
}
