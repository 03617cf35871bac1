//! What a page may call, and what it is told.

/** Values that JSON can hold. */
export type Json = string | number | boolean | null | undefined | Json[] | { [name: string]: Json };
export type Metadata = { [name: string]: unknown };

export interface InitOptions {
  /** The public write key. */
  key: string;
  /** Where the gateway is; by default the origin of the script's own address. */
  host?: string;
  /** `http` never opens a socket. */
  transport?: 'auto' | 'http';
  /** `pending` holds events in memory until `consent()` is called; `denied` keeps nothing. Default `granted`. */
  consent?: 'granted' | 'pending' | 'denied';
  /** Whether Global Privacy Control counts as `denied`. Default true. */
  gpc?: boolean;
  /** Sends a page view at the start and at each change of route. Default false. */
  autoPage?: boolean;
  /** Where `core.wasm` and `core.fallback.js` are; by default beside the script. */
  assets?: string;
}

export interface TrackOptions {
  /** The event's own id, a UUID; by default one is made. */
  eventId?: string;
  /** What is shed first, and last, when there is no room. Default `normal`. */
  priority?: 'best_effort' | 'normal' | 'critical';
}

export interface Reason {
  code: string;
  pointer?: string;
  keyword?: string;
  expected?: string;
  schema?: string;
}

/** What became of an event at the gateway. */
export interface Verdict {
  event_id?: string;
  event_type?: string;
  status: 'accepted' | 'duplicate' | 'quarantined' | 'rejected' | 'retry';
  acked?: 'received' | 'disk' | 'broker';
  reason?: Reason;
  warnings?: { code: string; pointer?: string }[];
}

/** Something to show. Elements with `data-rivulet-slot="<slot>"` get it too, as the event `rivulet:decision`. */
export interface Decision {
  decision_id: string;
  rule: string;
  version: string;
  subject: string;
  slot: string;
  trigger: string;
  score: number;
  payload: Record<string, unknown>;
  facts?: { name: string; value: unknown; events?: string[] }[];
  decided_at?: string;
  expires_at?: string;
}

/** What waits in this tab, and what was discarded for lack of room, age or size. */
export interface QueueState {
  events: number;
  bytes: number;
  discarded: number;
}

export interface State {
  /** How events travel at present. */
  connection: 'connecting' | 'socket' | 'http' | 'waiting' | 'blocked' | 'offline' | 'follower' | 'held';
  /** What runs the engine. */
  engine: 'wasm' | 'fallback';
  anonymous_id?: string;
  user_id?: string;
}

export interface Failure {
  code: string;
  message?: string;
  event_id?: string;
}

export interface Events {
  verdict: Verdict;
  decision: Decision;
  queue: QueueState;
  state: State;
  error: Failure;
}

export interface Rivulet {
  /** Starts; further calls do nothing. */
  init(options: InitOptions): void;
  /** Something happened. Returns the event's id; `undefined` where it is the snippet's stub that records the call. */
  track(type: string, metadata?: Metadata, options?: TrackOptions): string | undefined;
  /** A page was shown. */
  page(metadata?: Metadata, options?: TrackOptions): string | undefined;
  /** The visitor is known from now on. */
  identify(userId: string, traits?: Metadata, options?: TrackOptions): string | undefined;
  /** The visitor has signed out: another device id, no person. */
  reset(): void;
  /** Sends what waits, if the server does not want a pause. */
  flush(): void;
  /** The visitor's choice. */
  consent(granted: boolean): void;
  /** Calls back at each event of the name; returns how to stop that. */
  on<K extends keyof Events>(name: K, listener: (value: Events[K]) => void): () => void;
  /** Settles when the engine runs. */
  readonly ready: Promise<void>;
  /** What runs the engine; `undefined` until it does. */
  readonly path: 'wasm' | 'fallback' | undefined;
}

declare const rivulet: Rivulet;
export default rivulet;

declare global {
  interface Window {
    rivulet: Rivulet;
  }
}
