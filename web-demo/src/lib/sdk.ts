//! The SDK as a page sees it: `window.rivulet`, put there by the snippet. Invariant: the only file that names that global.

export interface Reason {
  code: string;
  pointer?: string;
  keyword?: string;
  expected?: string;
  schema?: string;
}

export interface Verdict {
  event_id?: string;
  event_type?: string;
  status: 'accepted' | 'duplicate' | 'quarantined' | 'rejected' | 'retry';
  acked?: 'received' | 'disk' | 'broker';
  reason?: Reason;
}

export interface Fact {
  name: string;
  value: unknown;
}

export interface Decision {
  decision_id: string;
  rule: string;
  version: string;
  subject: string;
  slot: string;
  trigger: string;
  score: number;
  payload: Record<string, unknown>;
  facts?: Fact[];
  expires_at?: string | number;
}

export interface QueueState {
  events: number;
  bytes?: number;
}

/** How the SDK runs and whom it sends for. */
export interface SdkState {
  connection?: string;
  engine?: string;
  anonymous_id?: string;
  user_id?: string;
}

export interface SdkEvents {
  verdict: Verdict;
  decision: Decision;
  queue: QueueState;
  state: SdkState;
  error: { message?: string; code?: string };
}

export interface TrackOptions {
  eventId?: string;
}

export type Metadata = Record<string, unknown>;

export interface Rivulet {
  track(type: string, metadata?: Metadata, options?: TrackOptions): unknown;
  page(metadata?: Metadata, options?: TrackOptions): unknown;
  identify(userId: string, traits?: Metadata, options?: TrackOptions): unknown;
  reset(): unknown;
  flush(): unknown;
  on<K extends keyof SdkEvents>(name: K, listener: (value: SdkEvents[K]) => void): unknown;
}

/** The object that the snippet made; the SDK takes it over when it has loaded, so it is asked for anew each time. */
export function rivulet(): Rivulet {
  const sdk = (globalThis as { rivulet?: Rivulet }).rivulet;
  if (!sdk) throw new Error('window.rivulet is missing: the snippet in <head> did not run');
  return sdk;
}

/** A random UUID, also where the page is not in a secure context. */
export function newId(): string {
  const bytes = crypto.getRandomValues(new Uint8Array(16));
  bytes[6] = ((bytes[6] ?? 0) & 0x0f) | 0x40;
  bytes[8] = ((bytes[8] ?? 0) & 0x3f) | 0x80;
  const hex = [...bytes].map((byte) => byte.toString(16).padStart(2, '0')).join('');
  return `${hex.slice(0, 8)}-${hex.slice(8, 12)}-${hex.slice(12, 16)}-${hex.slice(16, 20)}-${hex.slice(20)}`;
}
