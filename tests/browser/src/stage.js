//! What the tests of the SDK stand on: a browser, host pages and a program for each file; a context and a way to the program for
//! each test. Invariant: importing it starts them before the file's first test and stops them after its last one.

import { after, afterEach, before, beforeEach } from 'node:test';
import { Proxy, Rivulet, Site, launch } from './harness.js';

/** Live bindings: each test sees its own. */
export let browser;
export let site;
export let rivulet;
export let proxy;
export let context;

before(async () => {
  [browser, site, rivulet] = await Promise.all([launch(), Site.start(), Rivulet.start()]);
});
after(async () => {
  await browser?.close();
  await site?.stop();
  await rivulet?.stop();
});
beforeEach(async () => {
  [proxy, context] = await Promise.all([Proxy.start(rivulet.url), browser.newContext()]);
});
afterEach(async () => {
  await context?.close();
  await proxy?.stop();
});
