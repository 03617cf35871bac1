//! Who is signed in at the shop. Invariant: the SDK is told of each sign-in by `identify`, of a new account by `signup` too.

import { identify, send } from './track';

const KEY = 'demo.user';

export function signedIn(): string | undefined {
  try {
    return localStorage.getItem(KEY) ?? undefined;
  } catch {
    return undefined;
  }
}

export function signIn(userId: string, name: string, isNew: boolean): void {
  if (userId === '') return;
  try {
    localStorage.setItem(KEY, userId);
  } catch {
    // Without storage the shop forgets, the SDK does not.
  }
  identify(userId, { name });
  if (isNew) send('signup', { method: 'form' });
}

export function signOut(): void {
  try {
    localStorage.removeItem(KEY);
  } catch {
    // See above.
  }
}
