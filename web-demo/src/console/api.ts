//! Calls to the server with the operator's key. Invariant: the key travels in a header only, and is kept for the tab at most.

import { byId } from '../lib/dom';

const KEY = 'console.key';
const LOCAL = new Set(['localhost', '127.0.0.1', '[::1]']);

export function key(): string {
  return byId<HTMLInputElement>('key').value.trim();
}

/** Fills the field: with the tab's last key, or on one's own machine with the key of the demo. */
export function restoreKey(): void {
  let stored: string | null = null;
  try {
    stored = sessionStorage.getItem(KEY);
  } catch {
    // Storage is blocked: the key must be typed.
  }
  byId<HTMLInputElement>('key').value = stored ?? (LOCAL.has(location.hostname) ? 'sk_dev' : '');
}

export function keepKey(): void {
  try {
    sessionStorage.setItem(KEY, key());
  } catch {
    // See above.
  }
}

export function call(path: string, signal?: AbortSignal): Promise<Response> {
  // What a header cannot carry is no key; told here, since `fetch` would throw a riddle.
  if (!/^[\x21-\x7e]+$/.test(key())) throw new Error('Enter a secret key: it is made of plain letters, digits and signs.');
  return fetch(path, { headers: { authorization: `Bearer ${key()}` }, cache: 'no-store', ...(signal ? { signal } : {}) });
}

/** The server's own words for a refusal, else the status. */
export async function explain(answer: Response): Promise<string> {
  try {
    const body = (await answer.json()) as { error?: { code?: unknown; message?: unknown } };
    const { code, message } = body.error ?? {};
    if (typeof message === 'string') return typeof code === 'string' ? `${message} (${code})` : message;
  } catch {
    // No JSON: the status has to do.
  }
  return `The server answered ${answer.status}.`;
}
