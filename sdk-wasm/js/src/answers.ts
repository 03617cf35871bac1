//! What the server said, taken apart. Invariant: nothing that is handed on could be taken for a separator.

/** What a stranger wrote, as an object. */
export function parse(text: string): any {
  try {
    return Object(JSON.parse(text));
  } catch {
    return {};
  }
}

/** A number, an id or a code that somebody else wrote, without anything that could be taken for a separator. */
export function word(value: unknown): string {
  return String(value ?? '').replace(/[^\w.-]/g, '');
}

/** Of each verdict: the letter of a final status, id, JSON. */
export function verdicts(told: { events?: unknown }): string[] {
  if (!Array.isArray(told.events)) return [];
  return told.events.flatMap((verdict) => [/^(accepted|duplicate|rejected|quarantined)$/.exec(verdict?.status)?.[0][0] ?? '', word(verdict?.event_id), JSON.stringify(verdict)]);
}

/** `Retry-After` is seconds or a date; in milliseconds. */
export function retryAfter(header: string | null): number | '' {
  if (!header) return '';
  const wait = /^\d+$/.test(header) ? Number(header) * 1000 : Date.parse(header) - Date.now();
  return wait > 0 ? Math.ceil(wait) : '';
}
