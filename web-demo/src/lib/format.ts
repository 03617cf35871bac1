//! Numbers, times and ids in words. Invariant: pure, and never throws on what a server sent.

const clock = new Intl.DateTimeFormat(undefined, { hour: '2-digit', minute: '2-digit', second: '2-digit', hour12: false });
const euro = new Intl.NumberFormat('en-IE', { style: 'currency', currency: 'EUR' });

export const CURRENCY = 'EUR';

export function money(amount: number): string {
  return euro.format(amount);
}

/** Time of day, with milliseconds where asked; a dash for what is no time. */
export function timeOfDay(at: Date | number | string | undefined, milliseconds = false): string {
  const date = new Date(at ?? Number.NaN);
  if (Number.isNaN(date.getTime())) return '–';
  const text = clock.format(date);
  return milliseconds ? `${text}.${String(date.getMilliseconds()).padStart(3, '0')}` : text;
}

/** A length of time in at most six characters, so that it fits where it is shown: `94 ms`, `5.3 s`. */
export function duration(milliseconds: number): string {
  const whole = Math.round(milliseconds);
  return whole < 1000 ? `${whole} ms` : `${(whole / 1000).toFixed(whole < 100_000 ? 1 : 0)} s`;
}

/** The last eight characters of an id: enough to tell two apart, since v7 ids begin alike. */
export function shortId(id: string): string {
  return id.length > 8 ? `…${id.slice(-8)}` : id;
}

export function titleCase(text: string): string {
  const words = text.replace(/[_-]+/g, ' ');
  return words.charAt(0).toUpperCase() + words.slice(1);
}

export function round2(amount: number): number {
  return Math.round(amount * 100) / 100;
}

export function newOrderId(): string {
  const digits = crypto.getRandomValues(new Uint32Array(1))[0] ?? 0;
  return `T-${String(digits % 1_000_000).padStart(6, '0')}`;
}
