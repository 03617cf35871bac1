//! Server-sent events over `fetch`, since `EventSource` cannot carry a key in a header.
//!
//! Invariant: bounded memory whatever the server sends; an event is handed on only when its blank line has come.

export interface Message {
  event: string;
  data: string;
}

/** Longest event taken; a longer one is skipped. */
const LONGEST_EVENT = 1 << 20;

/** Splits a stream of text into messages. */
export class SseParser {
  private rest = '';
  private event = '';
  private data: string[] = [];
  private size = 0;

  push(text: string): Message[] {
    const messages: Message[] = [];
    const lines = (this.rest + text).split(/\r\n|\n|\r(?!$)/);
    this.rest = lines.pop() ?? '';
    if (this.rest.length > LONGEST_EVENT) this.rest = '';
    for (const line of lines) {
      if (line === '') {
        if (this.data.length > 0 && this.size <= LONGEST_EVENT) messages.push({ event: this.event || 'message', data: this.data.join('\n') });
        this.event = '';
        this.data = [];
        this.size = 0;
      } else {
        this.field(line);
      }
    }
    return messages;
  }

  private field(line: string): void {
    const colon = line.indexOf(':');
    const name = colon < 0 ? line : line.slice(0, colon);
    const value = colon < 0 ? '' : line.slice(colon + 1).replace(/^ /, '');
    if (name === 'event') this.event = value;
    if (name !== 'data') return;
    this.size += value.length;
    if (this.size <= LONGEST_EVENT) this.data.push(value);
  }
}
