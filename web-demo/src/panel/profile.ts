//! Keeps the panel's profile fresh: a token from the shop's own backend (`/demo/token`), then `/v1/profiles/{id}`.
//!
//! Invariant: at most one request at a time, debounced; a failure is shown in words and retried with the next verdict.

import { isOffline } from './network';
import type { Model, Profile } from './model';

/** The processor needs a moment after the verdict; the second look catches a slow one. */
const LOOKS_AFTER_VERDICT_MS = [60, 600] as const;
/** A token is renewed so long before it ends. */
const TOKEN_MARGIN_MS = 30_000;

interface Token {
  subject: string;
  token: string;
  expires: number;
}

export class ProfileReader {
  private timers: ReturnType<typeof setTimeout>[] = [];
  private token: Token | undefined;
  private busy = false;
  private again = false;

  constructor(private readonly model: Model) {}

  /** Looks soon, once for a burst of calls. */
  refresh(): void {
    for (const timer of this.timers) clearTimeout(timer);
    this.timers = LOOKS_AFTER_VERDICT_MS.map((delay) => setTimeout(() => void this.look(), delay));
  }

  private async look(): Promise<void> {
    if (this.busy) {
      this.again = true;
      return;
    }
    const subject = this.subject();
    if (!subject || isOffline()) return;
    this.busy = true;
    try {
      await this.read(subject);
    } catch (error) {
      this.model.profileNote = error instanceof Error ? error.message : 'The profile cannot be read.';
    } finally {
      this.busy = false;
      this.model.changed();
    }
    if (this.again) {
      this.again = false;
      this.refresh();
    }
  }

  private subject(): string | undefined {
    const { user_id: user, anonymous_id: anonymous } = this.model.state;
    return user ? `user:${user}` : anonymous ? `anonymous:${anonymous}` : undefined;
  }

  private async read(subject: string): Promise<void> {
    const token = await this.tokenFor(subject);
    const answer = await fetch(`/v1/profiles/${encodeURIComponent(subject)}`, { headers: { authorization: `Bearer ${token}` } });
    if (subject !== this.subject()) return;
    if (answer.status === 404) {
      this.model.profile = undefined;
      this.model.profileNote = 'No profile yet: nothing has been counted.';
      return;
    }
    if (answer.status === 401 || answer.status === 403) this.token = undefined;
    if (!answer.ok) throw new Error(`The profile cannot be read: the server answered ${answer.status}.`);
    this.model.profile = (await answer.json()) as Profile;
    this.model.profileNote = '';
  }

  private async tokenFor(subject: string): Promise<string> {
    if (this.token?.subject === subject && this.token.expires - TOKEN_MARGIN_MS > Date.now()) return this.token.token;
    const [kind, id] = [subject.slice(0, subject.indexOf(':')), subject.slice(subject.indexOf(':') + 1)];
    const answer = await fetch('/demo/token', {
      method: 'POST',
      headers: { 'content-type': 'application/json' },
      body: JSON.stringify({ [`${kind}_id`]: id }),
    });
    if (!answer.ok) throw new Error(`The demo's backend gave no token (status ${answer.status}): is the demo switched on?`);
    const body = (await answer.json()) as { token: string; expires_at: number | string };
    this.token = { subject, token: body.token, expires: instant(body.expires_at) };
    return body.token;
  }
}

/** Milliseconds since 1970 of seconds, milliseconds or RFC 3339. */
function instant(value: number | string): number {
  if (typeof value === 'string') return Date.parse(value);
  return value < 1e11 ? value * 1000 : value;
}
