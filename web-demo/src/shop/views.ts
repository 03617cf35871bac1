//! The shop's pages. Invariant: a view builds elements and names what its visit sends; it sends nothing while being built.

import { h, type Child } from '../lib/dom';
import { CURRENCY, money, newOrderId } from '../lib/format';
import { icon } from '../lib/icon';
import { rivulet } from '../lib/sdk';
import * as basket from './cart';
import { categories, category, find, inCategory, product as productById, products, type CategoryId, type Product } from './catalog';
import { draw, go } from './router';
import { signIn, signedIn, signOut } from './session';
import { slot } from './slots';
import { send } from './track';

export interface View {
  title: string;
  content: HTMLElement[];
  category?: CategoryId;
  /** Sends what a visit of this view is worth telling, besides the page view. */
  visited?: () => void;
}

function heading(text: string, className = 'page-title'): HTMLElement {
  return h('h1', { class: className, tabindex: -1 }, text);
}

function card(item: Product): HTMLElement {
  return h('li', {}, h('a', { class: 'card', href: `#/p/${item.id}`, data: { product: item.id } },
    h('img', { src: item.art, alt: '', width: 400, height: 400, loading: 'lazy' }),
    h('span', { class: 'card-text' }, h('span', { class: 'card-name' }, item.name), h('span', { class: 'card-line' }, item.line)),
    h('span', { class: 'price' }, money(item.price))));
}

function grid(list: readonly Product[]): HTMLElement {
  return h('ul', { class: 'grid' }, ...list.map(card));
}

export function home(): View {
  const picks = ['shoe_runner', 'lamp_mushroom', 'coffee_dripper', 'plant_monstera'].flatMap((id) => productById(id) ?? []);
  const hero = h('section', { class: 'hero', 'aria-labelledby': 'hero-title' },
    h('div', { class: 'hero-text' },
      h('p', { class: 'eyebrow' }, 'The autumn edit'),
      h('h1', { id: 'hero-title', tabindex: -1 }, 'Good things for slow days'),
      h('p', {}, 'Shoes that can be resoled, light that flatters, coffee worth getting up for, and plants that forgive.'),
      h('a', { class: 'button', href: '#/c/lamps' }, 'See the lamps', icon('arrow', 18))),
    h('div', { class: 'hero-art', 'aria-hidden': 'true' },
      ...['lamp_pendant', 'plant_olive', 'coffee_cup'].map((id) => h('img', { src: productById(id)?.art ?? '', alt: '', width: 400, height: 400 }))));
  const tiles = h('ul', { class: 'tiles' }, ...categories.map((each) => h('li', {}, h('a', { class: `tile ${each.id}`, href: `#/c/${each.id}` },
    h('img', { src: inCategory(each.id)[1]?.art ?? '', alt: '', width: 400, height: 400 }),
    h('span', {}, h('span', { class: 'tile-name' }, each.name), h('span', { class: 'tile-line' }, each.line))))));
  return {
    title: '',
    content: [hero, slot('cart_reminder'),
      h('section', { 'aria-labelledby': 'departments' }, h('h2', { id: 'departments' }, 'Departments'), tiles),
      h('section', { 'aria-labelledby': 'picks' }, h('h2', { id: 'picks' }, 'This week'), grid(picks))],
  };
}

export function list(id: string): View {
  const found = category(id);
  if (!found) return missing();
  return {
    title: found.name,
    category: found.id,
    content: [h('header', { class: 'list-head' }, heading(found.name), h('p', { class: 'lead' }, found.line)), slot('cart_reminder'), grid(inCategory(found.id))],
    visited: () => send('category_view', { category: found.id, name: found.name, products: inCategory(found.id).length }),
  };
}

export function product(id: string): View {
  const item = productById(id);
  if (!item) return missing();
  const status = h('p', { class: 'added', role: 'status' });
  const quantity = h('select', { id: 'quantity', name: 'quantity' }, ...[1, 2, 3, 4, 5].map((n) => h('option', { value: n }, n)));
  const addButton = h('button', { type: 'submit', class: 'button', id: 'add-to-cart' }, 'Add to cart');
  const form = h('form', { class: 'buy', on: { submit: (event) => {
    event.preventDefault();
    basket.add(item, Number(quantity.value));
    status.replaceChildren(`${item.name} is in your cart. `, h('a', { href: '#/cart' }, 'Go to cart'));
  } } }, h('label', { for: 'quantity' }, 'Quantity'), quantity, addButton);
  return {
    title: item.name,
    category: item.category,
    content: [
      h('nav', { class: 'crumbs', 'aria-label': 'Breadcrumb' }, h('a', { href: '#/' }, 'Home'), h('span', { 'aria-hidden': 'true' }, '/'), h('a', { href: `#/c/${item.category}` }, category(item.category)?.name ?? '')),
      h('article', { class: 'product' },
        h('div', { class: 'product-art' }, h('img', { src: item.art, alt: '', width: 400, height: 400 })),
        h('div', { class: 'product-text' },
          heading(item.name), h('p', { class: 'lead' }, item.line), h('p', { class: 'price big' }, money(item.price)), h('p', {}, item.about), form, status, slot('product_hint'),
          h('dl', { class: 'facts' }, ...item.facts.map(([name, value]) => h('div', {}, h('dt', {}, name), h('dd', {}, value)))))),
      h('section', { 'aria-labelledby': 'more' }, h('h2', { id: 'more' }, `More ${category(item.category)?.name.toLowerCase() ?? ''}`), grid(inCategory(item.category).filter((each) => each !== item))),
    ],
    visited: () => send('product_view', { product_id: item.id, category: item.category, name: item.name, price: item.price, currency: CURRENCY }),
  };
}

export function search(query: string): View {
  const found = find(query);
  const count = found.length === 0 ? 'Nothing matches. Try “lamp”, “boot” or “coffee”.' : `${found.length} of ${products.length} products`;
  return {
    title: 'Search',
    content: [h('header', { class: 'list-head' }, h('h1', { class: 'page-title', tabindex: -1 }, 'Results for “', h('bdi', {}, query.slice(0, 80)), '”'), h('p', { class: 'lead' }, count)), slot('search_help'), grid(found)],
    visited: () => {
      if (query.trim() !== '') send('search', { query: query.slice(0, 200), results: found.length });
    },
  };
}

export function cart(): View {
  const lines = basket.lines();
  if (lines.length === 0) {
    return { title: 'Cart', content: [heading('Your cart'), h('p', { class: 'lead' }, 'Nothing here yet.'), h('p', {}, h('a', { class: 'button', href: '#/' }, 'Back to the shop'))] };
  }
  return {
    title: 'Cart',
    content: [heading('Your cart'), h('div', { class: 'with-summary' }, h('ul', { class: 'lines' }, ...lines.map(cartLine)),
      h('section', { class: 'summary', 'aria-label': 'Summary' }, summary(), h('a', { class: 'button wide', href: '#/checkout', id: 'to-checkout' }, 'Check out', icon('arrow', 18))))],
  };
}

function cartLine({ product: item, quantity }: basket.Line): HTMLElement {
  const change = (label: string, symbol: 'plus' | 'minus' | 'close', action: () => void): HTMLElement => h('button', { type: 'button', class: 'icon-button', 'aria-label': `${label} ${item.name}`, on: { click: () => {
    action();
    draw(false);
  } } }, icon(symbol, 18));
  return h('li', { class: 'line' },
    h('img', { src: item.art, alt: '', width: 88, height: 88 }),
    h('div', { class: 'line-text' }, h('a', { href: `#/p/${item.id}` }, item.name), h('span', { class: 'card-line' }, item.line)),
    h('div', { class: 'stepper', role: 'group', 'aria-label': `Quantity of ${item.name}` }, change('One less', 'minus', () => basket.remove(item, 1)), h('span', {}, quantity), change('One more', 'plus', () => basket.add(item, 1))),
    h('span', { class: 'price' }, money(item.price * quantity)),
    change('Remove', 'close', () => basket.remove(item, quantity)));
}

function summary(): HTMLElement {
  const row = (name: string, value: string, className = ''): HTMLElement => h('div', { class: className }, h('dt', {}, name), h('dd', {}, value));
  return h('dl', { class: 'totals' }, row('Goods', money(basket.total())), row('Delivery', 'Free'), row('Total', money(basket.total()), 'grand'));
}

function field(id: string, label: string, value: string, autocomplete: string): Child {
  return h('p', { class: 'field' }, h('label', { for: id }, label), h('input', { id, name: id, value, autocomplete, required: true, maxlength: 80 }));
}

export function checkout(): View {
  if (basket.count() === 0) return cart();
  const order = (event: Event): void => {
    event.preventDefault();
    const orderId = newOrderId();
    send('purchase', { order_id: orderId, value: basket.total(), currency: CURRENCY, items: basket.items() });
    basket.empty();
    go(`#/thanks/${orderId}`);
  };
  return {
    title: 'Checkout',
    content: [heading('Checkout'), slot('checkout_offer'), h('form', { class: 'with-summary', on: { submit: order } },
      h('div', { class: 'fields' }, h('p', { class: 'hint' }, 'A demo: nothing you type here leaves this page, and nothing is charged.'),
        field('name', 'Name', 'Robin Vale', 'off'), field('street', 'Street', '12 Ferry Lane', 'off'), field('city', 'City', 'Lisbon', 'off')),
      h('section', { class: 'summary', 'aria-label': 'Summary' }, summary(), h('button', { type: 'submit', class: 'button wide', id: 'place-order' }, 'Place the order')))],
    visited: () => send('checkout_started', { value: basket.total(), currency: CURRENCY, items: basket.items() }),
  };
}

export function thanks(orderId: string): View {
  return {
    title: 'Thank you',
    content: [heading('Thank you'), h('p', { class: 'lead' }, 'Order ', h('bdi', { class: 'mono' }, orderId.slice(0, 40)), ' is on its way, in a manner of speaking.'),
      h('p', {}, h('a', { class: 'button', href: '#/' }, 'Back to the shop'))],
  };
}

export function account(): View {
  const user = signedIn();
  if (user) {
    return {
      title: 'Account',
      content: [heading('Your account'), h('p', { class: 'lead' }, 'Signed in as ', h('bdi', { class: 'mono' }, user), '.'),
        h('p', {}, h('button', { type: 'button', class: 'button', on: { click: () => {
          signOut();
          rivulet().reset();
          draw(false);
        } } }, 'Sign out'))],
    };
  }
  const form = h('form', { class: 'fields narrow', on: { submit: (event) => {
    event.preventDefault();
    const data = new FormData(form);
    const isNew = (event.submitter as HTMLButtonElement | null)?.value === 'signup';
    signIn(String(data.get('customer') ?? '').trim(), String(data.get('nickname') ?? '').trim(), isNew);
    draw(false);
  } } }, field('customer', 'Customer number', `customer_${1000 + Math.floor(Math.random() * 9000)}`, 'off'), field('nickname', 'Name', 'Robin', 'off'),
  h('p', { class: 'buttons' }, h('button', { type: 'submit', class: 'button', value: 'signin', id: 'sign-in' }, 'Sign in'), h('button', { type: 'submit', class: 'button quiet', value: 'signup', id: 'sign-up' }, 'Create an account')));
  return { title: 'Account', content: [heading('Sign in'), h('p', { class: 'lead' }, 'Any number will do. What you did before moves to this customer’s profile.'), form] };
}

export function missing(): View {
  return { title: 'Not found', content: [heading('We do not have that'), h('p', {}, h('a', { class: 'button', href: '#/' }, 'Back to the shop'))] };
}
