//! Starts the shop: header, routes, slots and the panel. Invariant: the shop works without the SDK; only the panel then stays empty.

import '../styles/base.css';
import '../styles/shop.css';
import '../styles/panel.css';
import { append, byId } from '../lib/dom';
import { icon } from '../lib/icon';
import { rivulet } from '../lib/sdk';
import { Model } from '../panel/model';
import { isOffline, setOffline } from '../panel/network';
import { ProfileReader } from '../panel/profile';
import { PanelView } from '../panel/view';
import * as basket from './cart';
import { draw, go } from './router';
import { signOut } from './session';
import { clearSlots, show } from './slots';
import { observe, send } from './track';
import { sendTwice } from './twice';

const model = new Model();
const profiles = new ProfileReader(model);
observe(model);

const sdk = rivulet();
// The banner first: whatever else a decision causes may wait.
sdk.on('decision', (decision) => {
  show(decision);
  model.decided(decision);
  profiles.refresh();
});
sdk.on('verdict', (verdict) => {
  model.judged(verdict);
  if (verdict.status === 'accepted') profiles.refresh();
});
sdk.on('queue', (queue) => {
  model.queue = queue;
  model.changed();
});
sdk.on('state', (state) => {
  const before = model.state;
  model.state = state;
  model.problem = '';
  model.changed();
  if (before.anonymous_id !== model.state.anonymous_id || before.user_id !== model.state.user_id) profiles.refresh();
});
sdk.on('error', (error) => {
  model.problem = error.message ?? error.code ?? 'The SDK reported an error.';
  model.changed();
});

new PanelView(byId('panel'), model, {
  toggleNetwork: () => {
    setOffline(!isOffline());
    model.changed();
    profiles.refresh();
  },
  // One field of the wrong type: its schema says integer.
  sendInvalid: () => send('add_to_cart', { product_id: 'shoe_runner', quantity: 'two' }),
  sendTwice: () => void sendTwice(model).then(() => profiles.refresh()),
  reset: () => {
    setOffline(false);
    signOut();
    basket.empty();
    clearSlots();
    model.clear();
    rivulet().reset();
    go('#/');
  },
});

function drawCount(): void {
  const count = basket.count();
  byId('cart-count').textContent = String(count);
  byId('cart-count').hidden = count === 0;
  byId('cart-link').setAttribute('aria-label', count === 1 ? 'Cart, 1 item' : `Cart, ${count} items`);
}

append(byId('cart-icon'), [icon('bag', 22)]);
append(byId('account-icon'), [icon('person', 22)]);
append(byId('search-icon'), [icon('search', 18)]);
byId<HTMLFormElement>('search').addEventListener('submit', (event) => {
  event.preventDefault();
  const query = byId<HTMLInputElement>('search-text').value.trim();
  if (query !== '') go(`#/search?q=${encodeURIComponent(query)}`);
});
// The address after `#` is the route, so the skip link moves focus itself.
document.querySelector('.skip')?.addEventListener('click', (event) => {
  event.preventDefault();
  byId('view').focus();
});
basket.onCartChange(drawCount);
window.addEventListener('hashchange', () => draw());
drawCount();
draw();
