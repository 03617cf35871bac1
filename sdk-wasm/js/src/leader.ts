//! Which tab sends for all: a Web Lock, or over plain HTTP, where there are none, a lease in storage.
//! Invariant: the tab that somebody looks at takes over; a hidden one keeps the role only until then. Two tabs that both
//! believe to lead cost duplicates, never events.

const LEASE_MS = 6000;
const RENEW_MS = 2000;
const NAME = 'rivulet';
export const LEASE = 'rv:lease';

export interface Leadership {
  /** Takes the role now (`steal`), or when its holder ends. */
  claim(steal: boolean): void;
  release(): void;
  /** Storage says that another tab has written the lease. */
  changed(value: string | null): void;
}

/** `stores` says whether the visitor lets anything be stored; until then every tab is its own leader. */
export function leadership(store: Storage | undefined, lead: (yes: boolean) => void, stores: () => boolean): Leadership {
  const locks = globalThis.navigator?.locks;
  let leading = false;
  const set = (yes: boolean): void => {
    if (yes !== leading) lead((leading = yes));
  };
  if (!store) {
    // Without storage nothing is shared, so every tab sends its own.
    return { claim: () => set(true), release() {}, changed() {} };
  }
  if (locks) return byLock(locks, set, () => leading);
  return byLease(store, set, () => leading, stores);
}

function byLock(locks: LockManager, set: (yes: boolean) => void, leading: () => boolean): Leadership {
  let end: (() => void) | undefined;
  let waiting: AbortController | undefined;
  function claim(steal: boolean): void {
    if (leading() || (!steal && waiting)) return;
    waiting?.abort();
    const mine = (waiting = new AbortController());
    locks
      .request(NAME, steal ? { steal } : { signal: mine.signal }, () => {
        waiting = undefined;
        set(true);
        return new Promise<void>((done) => (end = done));
      })
      .catch(() => {
        // Withdrawn by ourselves, or taken by a tab in view: wait in line for its end.
        if (mine.signal.aborted) return;
        set(false);
        claim(false);
      });
  }
  return {
    claim,
    release() {
      waiting?.abort();
      waiting = undefined;
      end?.();
      set(false);
    },
    changed() {},
  };
}

function byLease(store: Storage, set: (yes: boolean) => void, leading: () => boolean, stores: () => boolean): Leadership {
  const me = Math.random().toString(36).slice(2);
  let timer: ReturnType<typeof setInterval> | undefined;
  function claim(steal: boolean): void {
    timer ??= setInterval(() => claim(false), RENEW_MS);
    if (!stores()) return set(true);
    try {
      const [holder, until] = (store.getItem(LEASE) ?? '').split(' ');
      if (steal || !holder || holder === me || !(Number(until) > Date.now())) {
        store.setItem(LEASE, me + ' ' + (Date.now() + LEASE_MS));
        set(true);
      } else {
        set(false);
      }
    } catch {
      set(true);
    }
  }
  return {
    claim,
    release() {
      clearInterval(timer);
      timer = undefined;
      try {
        if (leading()) store.removeItem(LEASE);
      } catch {
        // The lease runs out by itself.
      }
      set(false);
    },
    changed(value) {
      if (value && !value.startsWith(me + ' ')) set(false);
    },
  };
}
