//! Builds elements. Invariant: text enters the page as text nodes only; nothing here, or anywhere else in the demo, parses markup.

export type Child = Node | string | number | null | undefined | false;

export type Props = {
  class?: string;
  on?: { [K in keyof HTMLElementEventMap]?: (event: HTMLElementEventMap[K]) => void };
  data?: Record<string, string>;
} & Record<string, unknown>;

/** An element with attributes, listeners and children. `true` writes an empty attribute, `false`/`undefined` none. */
export function h<K extends keyof HTMLElementTagNameMap>(tag: K, props: Props = {}, ...children: Child[]): HTMLElementTagNameMap[K] {
  const element = document.createElement(tag);
  for (const [name, value] of Object.entries(props)) {
    if (name === 'on') {
      for (const [event, listener] of Object.entries(value as Record<string, EventListener>)) element.addEventListener(event, listener);
    } else if (name === 'data') {
      Object.assign(element.dataset, value);
    } else if (value === true) {
      element.setAttribute(name, '');
    } else if (value !== false && value !== undefined && value !== null) {
      element.setAttribute(name, String(value));
    }
  }
  append(element, children);
  return element;
}

export function append(parent: Node, children: readonly Child[]): void {
  for (const child of children) {
    if (child === null || child === undefined || child === false) continue;
    parent.appendChild(child instanceof Node ? child : document.createTextNode(String(child)));
  }
}

export function replace(parent: Element, ...children: Child[]): void {
  parent.replaceChildren();
  append(parent, children);
}

/** Longest text of a sender that is put into one cell. */
const SHOWN_CHARACTERS = 200;

/**
 * Text that somebody else wrote: isolated, so that its direction cannot reorder the row around it, cut at a length that
 * a row can bear, and with control and direction characters made visible.
 */
export function foreign(text: unknown, className = ''): HTMLElement {
  const whole = typeof text === 'string' ? text : String(text);
  const shown = whole.length > SHOWN_CHARACTERS ? `${whole.slice(0, SHOWN_CHARACTERS)}…` : whole;
  return h('bdi', { class: `foreign ${className}`.trim() }, visible(shown));
}

/** Control, direction and line-separator characters as `\u{…}`: they can be seen and do nothing. */
export function visible(text: string): string {
  return text.replace(/[\u0000-\u001f\u007f-\u009f\u061c\u200e\u200f\u2028\u2029\u202a-\u202e\u2066-\u2069]/g, (character) => `\\u{${(character.codePointAt(0) ?? 0).toString(16)}}`);
}

/** The element with this id, which the page's own HTML holds. */
export function byId<T extends HTMLElement = HTMLElement>(id: string): T {
  const element = document.getElementById(id);
  if (!element) throw new Error(`the page has no #${id}`);
  return element as T;
}

/** An address that may become a link: http and https only, else nothing. */
export function safeLink(address: unknown): string | undefined {
  if (typeof address !== 'string') return undefined;
  try {
    const url = new URL(address, location.href);
    return url.protocol === 'http:' || url.protocol === 'https:' ? url.href : undefined;
  } catch {
    return undefined;
  }
}
