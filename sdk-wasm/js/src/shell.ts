//! The shell around the engine: sockets, requests, storage, tabs, page life, and the page's own calls.
//! Invariant: nothing here throws into the host page, and nothing is decided here that the engine can decide.

import type { Events, InitOptions, Metadata, Rivulet, TrackOptions } from '../index.js';
import { parse, retryAfter, verdicts, word } from './answers.js';
import { load, type Core, type Path, type Step } from './core.js';
import { canonical, mint, words } from './ids.js';
import { LEASE, leadership, type Leadership } from './leader.js';

const FIELD = '\x1f';
const COMMAND = '\x1e';
const PREFIX = 'rv:';
const SDK = 'rivulet-js/' + VERSION;
const REQUEST_MS = 30_000;
/** Calls made before the engine runs; more are dropped. */
const EARLY = 1000;
/** A body of so many characters is worth compressing. */
const GZIP_LENGTH = 1024;

declare const VERSION: string;

type Input = (string | number)[];
/** When a call was made, and the id that its event has already, if any. */
type When = [at: number, id: string];
/** A call made before the engine runs, with the id of its event as 32 hexadecimal digits. */
export type Call = [name: keyof Rivulet, args: ArrayLike<unknown>, at: number, id: string];

const GRANTED = 0;
const DENIED = 2;
const UUID = /^[\da-f]{8}(-[\da-f]{4}){3}-[\da-f]{12}$/i;
const PRIORITY = { best_effort: 0, normal: 1, critical: 2 };
const CONSENT = { granted: GRANTED, pending: 1, denied: DENIED };

/** `early` are the calls that the stub has recorded; the list is in use until the engine runs. */
export function create(home: string, core: Core, early: Call[] = []): Rivulet {
  const listeners: { [K in keyof Events]?: ((value: Events[K]) => void)[] } = {};
  const last: Partial<Events> = {};
  let options: InitOptions | undefined;
  let step: Step | undefined;
  let path: Path | undefined;
  let store: Storage | undefined;
  let roles: Leadership | undefined;
  let socket: WebSocket | undefined;
  let timer: ReturnType<typeof setTimeout> | undefined;
  let channel: BroadcastChannel | undefined;
  let leading = false;
  let consent = DENIED;
  let paged = false;
  let session: unknown;
  let started: () => void;
  const ready = new Promise<void>((resolve) => (started = resolve));

  function emit<K extends keyof Events>(name: K, value: Events[K]): void {
    last[name] = value;
    for (const listener of listeners[name] ?? []) {
      try {
        listener(value);
      } catch (reason) {
        console.error(reason);
      }
    }
    if (name === 'decision') {
      for (const element of document.querySelectorAll('[data-rivulet-slot]')) {
        if (element.getAttribute('data-rivulet-slot') === (value as Events['decision']).slot) {
          element.dispatchEvent(new CustomEvent('rivulet:decision', { detail: value, bubbles: true }));
        }
      }
    }
  }

  /** Gives the engine an input and does what it says. */
  function run(input: Input, at = Date.now()): void {
    try {
      const commands = step!(input.join(FIELD), at, words(1)[0]!);
      if (commands) for (const command of commands.split(COMMAND)) obey(command.split(FIELD) as [string, string, string, string]);
    } catch (reason) {
      emit('error', { code: 'sdk.internal', message: String(reason) });
    }
  }

  function obey([op, first, second, third]: [string, string, string, string]): void {
    switch (op) {
      case 'P':
        try {
          store!.setItem(PREFIX + first, second);
        } catch {
          run(['P', first]);
        }
        break;
      case 'D':
        try {
          store?.removeItem(PREFIX + first);
        } catch {
          // The server knows the event by its id if it is sent again.
        }
        break;
      case 'Z':
        for (const key of keys('.')) store?.removeItem(key);
        break;
      case 'O':
        open();
        break;
      case 'S':
        socket?.send(first);
        break;
      case 'X':
        close();
        break;
      case 'H':
        send(first, second === '1', third);
        break;
      case 'T':
        clearTimeout(timer);
        timer = setTimeout(() => run(['t']), Number(first));
        break;
      case 'V':
        deliver(first as keyof Events, second);
    }
  }

  function deliver(name: keyof Events, json: string): void {
    const value = JSON.parse(json);
    if (name === 'state') value.engine = path;
    emit(name, value);
    // The tab that sends hears what the other tabs wait for.
    if (leading && (name === 'verdict' || name === 'decision')) channel?.postMessage([name, value]);
  }

  function url(of: string): string {
    return options!.host!.replace(/\/$/, '') + '/v1/' + of;
  }

  function open(): void {
    let mine: WebSocket;
    try {
      mine = socket = new WebSocket(url('stream').replace(/^http/, 'ws'), 'rivulet.v1');
      mine.onopen = () => {
        if (socket !== mine) return;
        mine.send(JSON.stringify({ type: 'hello', key: options!.key, sdk: SDK, resume: session }));
        run(['o']);
      };
      mine.onmessage = (message) => socket === mine && run(frame(message.data));
      mine.onclose = () => {
        if (socket === mine) {
          socket = undefined;
          run(['c']);
        }
      };
    } catch {
      socket = undefined;
      run(['c']);
    }
  }

  /** A frame's facts, as the engine takes them. */
  function frame(text: string): Input {
    const told = parse(text);
    const { limits = {}, decision } = told;
    switch (told.type) {
      case 'hello':
        session = told.session;
        return ['g', ...[told.resumed, told.credit, limits.event_bytes, limits.batch_bytes, limits.batch_events].map(word)];
      case 'ack':
        return ['a', ...[told.seq, told.cumulative, told.credit].map(word), ...verdicts(told)];
      case 'decision':
        return ['d', word(decision?.decision_id), JSON.stringify(decision)];
      case 'pace':
        return ['w', word(told.retry_after_ms)];
      case 'error':
        return ['e', word(told.code)];
    }
    return ['y'];
  }

  function close(): void {
    const old = socket;
    socket = undefined;
    old?.close();
  }

  /** Text without headers of its own needs no preflight, which a page that goes has no time for. */
  function send(request: string, parting: boolean, body: string): void {
    const to = url('events?key=') + encodeURIComponent(options!.key);
    const beacon = (): void => {
      let taken = false;
      try {
        taken = navigator.sendBeacon(to, body);
      } catch {
        // Same as refused.
      }
      // Nobody hears a beacon's answer: the engine waits its time and then asks again for the verdict.
      if (!taken) run(['A', request, 0, '', '']);
    };
    if (parting && !('keepalive' in Request.prototype)) return beacon();
    const abort = new AbortController();
    const limit = setTimeout(() => abort.abort(), REQUEST_MS);
    const done = (status: number, retry: number | '', text: string): void => {
      clearTimeout(limit);
      const told = parse(text);
      run(['A', request, status, retry, word(told.error?.code), ...verdicts(told)]);
    };
    const failed = (): void => {
      clearTimeout(limit);
      parting ? beacon() : done(0, '', '');
    };
    const post = (content: BodyInit): void => {
      fetch(to, { method: 'POST', body: content, keepalive: parting, credentials: 'omit', redirect: 'error', cache: 'no-store', signal: abort.signal })
        .then(async (answer) => done(answer.status, retryAfter(answer.headers.get('retry-after')), await answer.text()))
        .catch(failed);
    };
    try {
      // A page that goes has no time to compress. The server knows compressed bytes when it sees them: a header would need a preflight.
      if (parting || body.length < GZIP_LENGTH || !('CompressionStream' in window)) post(body);
      else new Response(new Blob([body]).stream().pipeThrough(new CompressionStream('gzip'))).blob().then(post).catch(failed);
    } catch {
      failed();
    }
  }

  /** Keys of ours, in order; none if storage was taken away. */
  function keys(which: string): string[] {
    try {
      return Object.keys(store!).filter((key) => new RegExp('^' + PREFIX + which).test(key)).sort();
    } catch {
      return [];
    }
  }

  /** What stands under a key, unless somebody has put in what would be taken for separators. */
  function read(key: string): string | null {
    const value = store!.getItem(key);
    return value && /[\x1e\x1f]/.test(value) ? '' : value;
  }

  /** Every event that any tab has stored and that found no verdict, and what was lost. */
  function scan(): void {
    for (const key of keys('[de]:')) {
      const value = read(key);
      if (value) run(['R', key.slice(PREFIX.length), value]);
    }
  }

  async function start(): Promise<void> {
    if ((document as { prerendering?: boolean }).prerendering) {
      await new Promise((resolve) => document.addEventListener('prerenderingchange', resolve, { once: true }));
    }
    if (options!.autoPage) follow();
    const [loaded, how] = await load(core, options!.assets);
    path = how;
    step = loaded;
    try {
      store = window.localStorage;
      for (const key of ['a', 'u', 's']) {
        const value = read(PREFIX + key);
        if (value) run(['R', key, value]);
      }
    } catch {
      store = undefined;
    }
    consent = options!.gpc !== false && (navigator as { globalPrivacyControl?: boolean }).globalPrivacyControl ? DENIED : CONSENT[options!.consent ?? 'granted'];
    run(['n', navigator.onLine === false ? 0 : 1]);
    run(['I', options!.transport !== 'http' && 'WebSocket' in window ? 1 : 0, consent]);
    live();
    for (const [name, args, at, id] of early.splice(0)) if (name !== 'init' && name !== 'on') call(name, args, at, canonical(id));
    started();
  }

  /** Page life, network and other tabs. No `unload` handler: it keeps a page out of the back-forward cache. */
  function live(): void {
    const lead = (yes: boolean): void => {
      leading = yes;
      run(['L', yes ? 1 : 0]);
      if (yes && store) scan();
    };
    roles = leadership(store, lead, () => consent === GRANTED);
    const visible = (): boolean => document.visibilityState !== 'hidden';
    roles.claim(visible());
    try {
      channel = new BroadcastChannel('rivulet');
      // The engine knows which decisions were told; a verdict has one sender.
      channel.onmessage = ({ data: [name, value] }) => leading || (name === 'decision' ? run(['d', value.decision_id, JSON.stringify(value)]) : emit(name, value));
    } catch {
      // Other tabs then hear nothing of their verdicts.
    }
    addEventListener('storage', (change) => {
      if (change.storageArea !== store) return;
      if (change.key === null) run(['X']);
      else if (change.key === LEASE) roles!.changed(change.newValue);
      else if (change.key.startsWith(PREFIX)) {
        const key = change.key.slice(PREFIX.length);
        run(change.newValue === null ? ['S', key] : ['S', key, change.newValue.replace(/[\x1e\x1f]/g, '')]);
      }
    });
    document.addEventListener('visibilitychange', () => {
      if (visible()) {
        run(['v']);
        roles!.claim(true);
      } else run(['h', 0]);
    });
    addEventListener('pagehide', () => {
      run(['h', 1]);
      roles!.release();
    });
    addEventListener('pageshow', (event) => {
      if (!event.persisted) return;
      run(['v']);
      roles!.claim(true);
      if (paged) api.page();
    });
    addEventListener('online', () => run(['n', 1]));
    addEventListener('offline', () => run(['n', 0]));
  }

  /** A page view at each change of route. */
  function follow(): void {
    let shown = location.href;
    const check = (): void => {
      if (location.href === shown) return;
      shown = location.href;
      api.page();
    };
    const navigation = (window as { navigation?: EventTarget }).navigation;
    if (navigation) navigation.addEventListener('navigatesuccess', check);
    else {
      for (const name of ['pushState', 'replaceState'] as const) {
        const original = history[name];
        history[name] = function (...args) {
          original.apply(this, args);
          check();
        };
      }
      addEventListener('popstate', check);
    }
    api.page();
  }

  /** An event, as JSON made now: what the page changes later is not the event. */
  function event(op: Input, type: string, metadata: Metadata, choice: TrackOptions | undefined, [at, made]: When): string | undefined {
    const json = JSON.stringify({
      event_type: String(type),
      timestamp: new Date(at),
      metadata,
      context: {
        page: { url: location.href, path: location.pathname, referrer: document.referrer, title: document.title },
        library: { name: 'rivulet-js', version: VERSION },
        locale: navigator.language,
        screen: { width: screen.width, height: screen.height },
      },
    });
    const own = choice?.eventId;
    const id = own && UUID.test(own) ? own.toLowerCase() : made || mint(at);
    run([...op, PRIORITY[choice?.priority ?? 'normal'] ?? 1, id, json.slice(1, -1)], at);
    return consent === DENIED ? undefined : id;
  }

  const calls: { [K in keyof Rivulet]?: (when: When, ...args: never[]) => unknown } = {
    init(_when, given: InitOptions) {
      if (options) return;
      options = { ...given, host: given.host ?? new URL(home, location.href).origin };
      start().catch((reason) => emit('error', { code: 'sdk.not_loaded', message: String(reason) }));
    },
    track: (when, type: string, metadata?: Metadata, choice?: TrackOptions) => event(['T'], type, metadata ?? {}, choice, when),
    page(when, metadata?: Metadata, choice?: TrackOptions) {
      paged = true;
      const here = { url: location.href, path: location.pathname, search: location.search, title: document.title, referrer: document.referrer };
      return event(['T'], 'page_view', { ...here, ...metadata }, choice, when);
    },
    identify: (when, user: string, traits?: Metadata, choice?: TrackOptions) =>
      event(['U', JSON.stringify(String(user))], 'identify', { traits: traits ?? {} }, choice, when),
    reset: ([at]) => run(['Z', mint(at)]),
    flush: () => run(['F']),
    consent(_when, yes: boolean) {
      run(['C', (consent = yes ? GRANTED : DENIED)]);
    },
    on(_when, name: keyof Events, listener: (value: never) => void) {
      const all = (listeners[name] ??= []) as ((value: never) => void)[];
      all.push(listener);
      if (name === 'queue' || name === 'state') if (name in last) listener(last[name] as never);
      return () => void all.splice(all.indexOf(listener) >>> 0, 1);
    },
  };

  function call(name: keyof Rivulet, args: ArrayLike<unknown>, at = Date.now(), id = ''): unknown {
    try {
      return (calls[name] as (when: When, ...args: unknown[]) => unknown)([at, id], ...Array.from(args));
    } catch (reason) {
      emit('error', { code: 'sdk.call', message: name + ': ' + reason });
      return undefined;
    }
  }

  /** As the stub does: listed until the engine runs, and for the stub to beacon if the page goes before. */
  function record(name: keyof Rivulet, args: unknown[]): unknown {
    const at = Date.now();
    const id = mint(at);
    if (early.length < EARLY) early.push([name, args, at, id]);
    return name === 'init' || name === 'on' ? call(name, args) : id;
  }

  const api = { ready } as Rivulet;
  for (const name of Object.keys(calls) as (keyof Rivulet)[]) {
    (api as unknown as Record<string, unknown>)[name] = (...args: unknown[]) => (step ? call : record)(name, args);
  }
  Object.defineProperty(api, 'path', { get: () => path });
  for (const [name, args] of early) if (name === 'init' || name === 'on') call(name, args);
  return api;
}
