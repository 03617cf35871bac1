//! Addresses after `#` to views. Invariant: each change of view sends one page view, sets the title and moves focus to the heading.

import { byId } from '../lib/dom';
import { refill } from './slots';
import { page } from './track';
import type { View } from './views';
import { account, cart, checkout, home, list, missing, product, search, thanks } from './views';

export interface Route {
  name: string;
  argument: string;
  query: URLSearchParams;
}

export function parse(hash: string): Route {
  const [path = '', query = ''] = hash.replace(/^#\/?/, '').split('?', 2);
  const [name = '', argument = ''] = path.split('/', 2);
  return { name, argument: safeDecode(argument), query: new URLSearchParams(query) };
}

/** A broken escape in an address is no reason to show nothing. */
function safeDecode(text: string): string {
  try {
    return decodeURIComponent(text);
  } catch {
    return text;
  }
}

function view(route: Route): View {
  switch (route.name) {
    case '': return home();
    case 'c': return list(route.argument);
    case 'p': return product(route.argument);
    case 'search': return search(route.query.get('q') ?? '');
    case 'cart': return cart();
    case 'checkout': return checkout();
    case 'thanks': return thanks(route.argument);
    case 'account': return account();
    default: return missing();
  }
}

let first = true;

/** Draws the view of the present address; `announce` is false for a redraw that is no visit. */
export function draw(announce = true): void {
  const route = parse(location.hash);
  const shown = view(route);
  const outlet = byId('view');
  outlet.replaceChildren(...shown.content);
  refill();
  document.title = shown.title === '' ? 'Tideline' : `${shown.title} · Tideline`;
  for (const link of document.querySelectorAll<HTMLAnchorElement>('#nav a')) {
    if (link.hash === `#/c/${shown.category ?? ''}`) link.setAttribute('aria-current', 'page');
    else link.removeAttribute('aria-current');
  }
  if (!announce) return;
  page({ path: `/${location.hash.replace(/^#\/?/, '').split('?')[0] ?? ''}`, title: document.title });
  shown.visited?.();
  if (!first) {
    window.scrollTo(0, 0);
    outlet.querySelector<HTMLElement>('h1')?.focus({ preventScroll: true });
  }
  first = false;
}

export function go(hash: string): void {
  if (location.hash === hash) draw();
  else location.hash = hash;
}
