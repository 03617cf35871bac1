//! Starts the console: key, readiness, tail, profile look-up. Invariant: nothing is asked for before there is a key.

import '../styles/base.css';
import '../styles/console.css';
import { byId } from '../lib/dom';
import { keepKey, key, restoreKey } from './api';
import { listen } from './profile';
import { watch } from './ready';
import { Tail } from './tail';

restoreKey();
const tail = new Tail();
byId<HTMLFormElement>('key-form').addEventListener('submit', (event) => {
  event.preventDefault();
  keepKey();
  tail.connect();
});
listen();
watch();
if (key() !== '') tail.connect();
