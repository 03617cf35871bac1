//! The cart. Invariant: kept in storage where there is any, else in memory; what is stored is never trusted.

import { CURRENCY, round2 } from '../lib/format';
import { product, type Product } from './catalog';
import { send } from './track';

const KEY = 'demo.cart';
const MOST_OF_ONE = 20;

export interface Line {
  product: Product;
  quantity: number;
}

const quantities = load();
const listeners: (() => void)[] = [];

export function onCartChange(listener: () => void): void {
  listeners.push(listener);
}

export function lines(): Line[] {
  return [...quantities].flatMap(([id, quantity]) => {
    const found = product(id);
    return found ? [{ product: found, quantity }] : [];
  });
}

export function count(): number {
  return lines().reduce((sum, line) => sum + line.quantity, 0);
}

export function total(): number {
  return round2(lines().reduce((sum, line) => sum + line.quantity * line.product.price, 0));
}

/** The cart as the purchase and checkout events carry it. */
export function items(): Record<string, unknown>[] {
  return lines().map((line) => ({ product_id: line.product.id, category: line.product.category, name: line.product.name, quantity: line.quantity, price: line.product.price }));
}

export function add(item: Product, quantity = 1): void {
  const before = quantities.get(item.id) ?? 0;
  const after = Math.min(before + quantity, MOST_OF_ONE);
  if (after === before) return;
  quantities.set(item.id, after);
  changed();
  send('add_to_cart', { ...about(item), quantity: after - before });
}

export function remove(item: Product, quantity: number): void {
  const before = quantities.get(item.id) ?? 0;
  const gone = Math.min(quantity, before);
  if (gone === 0) return;
  if (gone === before) quantities.delete(item.id);
  else quantities.set(item.id, before - gone);
  changed();
  send('remove_from_cart', { ...about(item), quantity: gone });
}

export function empty(): void {
  quantities.clear();
  changed();
}

function about(item: Product): Record<string, unknown> {
  return { product_id: item.id, category: item.category, name: item.name, price: item.price, currency: CURRENCY };
}

function changed(): void {
  try {
    localStorage.setItem(KEY, JSON.stringify([...quantities]));
  } catch {
    // Storage is full or blocked: the cart lives as long as the page.
  }
  for (const listener of listeners) listener();
}

function load(): Map<string, number> {
  try {
    const stored: unknown = JSON.parse(localStorage.getItem(KEY) ?? '[]');
    const entries = Array.isArray(stored) ? stored.filter((entry): entry is [string, number] => Array.isArray(entry) && typeof entry[0] === 'string' && Number.isInteger(entry[1]) && entry[1] > 0) : [];
    return new Map(entries.map(([id, quantity]) => [id, Math.min(quantity, MOST_OF_ONE)]));
  } catch {
    return new Map();
  }
}
