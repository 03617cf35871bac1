//! What the browser tests stand on: the real binary, a host page's server, a proxy that can misbehave, Chromium.
//!
//! Invariant: nothing sleeps; every wait is for a condition, with a deadline and a sentence that says what was waited for.
//! Every process and server started here is stopped by the test that started it.

import { execFile, spawn } from 'node:child_process';
import { once } from 'node:events';
import { existsSync, mkdtempSync, readFileSync, rmSync } from 'node:fs';
import http from 'node:http';
import net from 'node:net';
import { createRequire } from 'node:module';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { fileURLToPath } from 'node:url';
import { promisify } from 'node:util';
import { chromium } from 'playwright-core';

const root = fileURLToPath(new URL('../../..', import.meta.url));
const binary = process.env.RIVULET_BIN ?? join(root, 'target/debug/rivulet');
const sdk = join(root, 'sdk-wasm/dist');

/** How long a condition may take, unless the test says otherwise. Generous: the machine may be slow, and a pass waits for none of it. */
const DEADLINE_MS = 20_000;
const POLL_MS = 20;

/** Waits until `condition` gives something truthy, and returns that. */
export async function until(what, condition, deadline = DEADLINE_MS) {
  const end = performance.now() + deadline;
  let last;
  for (;;) {
    try {
      const value = await condition();
      if (value) return value;
      last = undefined;
    } catch (error) {
      last = error;
    }
    if (performance.now() > end) throw new Error(`waited ${deadline} ms for: ${what}`, { cause: last });
    await new Promise((resolve) => setTimeout(resolve, POLL_MS));
  }
}

/** A port that was free a moment ago. */
export async function freePort() {
  const server = net.createServer().listen(0, '127.0.0.1');
  await once(server, 'listening');
  const { port } = server.address();
  server.close();
  await once(server, 'close');
  return port;
}

/** The real program, with an embedded log in a fresh folder. */
export class Rivulet {
  #child;

  static async start() {
    if (!existsSync(binary)) throw new Error(`${binary} is missing: build it first (cargo xtask up), or name it in RIVULET_BIN`);
    const rivulet = new Rivulet();
    rivulet.data = mkdtempSync(join(tmpdir(), 'rivulet-browser-'));
    rivulet.port = await freePort();
    rivulet.url = `http://127.0.0.1:${rivulet.port}`;
    await rivulet.resume();
    return rivulet;
  }

  /** Starts it, again on the same port and folder. */
  async resume() {
    const child = spawn(binary, ['up', '--listen', `127.0.0.1:${this.port}`, '--data', this.data], { stdio: ['ignore', 'pipe', 'pipe'] });
    this.#child = child;
    let said = '';
    for (const stream of [child.stdout, child.stderr]) stream.on('data', (chunk) => (said = (said + chunk).slice(-8_000)));
    await until('the program is ready', async () => {
      if (child.exitCode !== null) throw new Error(`the program ended: ${said}`);
      return (await fetch(`${this.url}/ready`)).ok;
    });
  }

  /** Kills it where it stands. */
  async kill() {
    const child = this.#child;
    if (!child || child.exitCode !== null || child.signalCode !== null) return;
    const ended = once(child, 'exit');
    child.kill('SIGKILL');
    await ended;
  }

  async stop() {
    await this.kill();
    rmSync(this.data, { recursive: true, force: true });
  }

  /** What stands on a topic, read from the folder by the program's own command. */
  async log(topic = 'rivulet.events') {
    const { stdout } = await promisify(execFile)(binary, ['log', 'cat', '--data', this.data, '--topic', topic], { maxBuffer: 64 << 20 });
    return stdout.split('\n').filter(Boolean).map((line) => JSON.parse(line));
  }

  /** Events of a type on the log. */
  async events(type) {
    return (await this.log()).map((record) => record.value).filter((value) => value?.event_type === type);
  }

  /** Waits until `count` different events of `type` are there, and returns every record of them, repeated ones too. */
  arrived(type, count, deadline) {
    return until(`${count} events ${type} on the log`, async () => {
      const events = await this.events(type);
      return new Set(events.map((event) => event.event_id)).size >= count && events;
    }, deadline);
  }
}

/** Fails unless the metadata member `n` of the events is 0 to `count` - 1, each once. */
export function eachOnce(assert, events, count) {
  const seen = events.map((event) => event.metadata.n).sort((a, b) => a - b);
  assert.deepEqual(seen, Array.from({ length: count }, (_, n) => n));
}

const typeOf = { html: 'text/html; charset=utf-8', js: 'text/javascript', mjs: 'text/javascript', wasm: 'application/wasm' };

/** A site of somebody's: serves the SDK's files and pages, on an origin of its own. */
export class Site {
  pages = new Map();

  static async start() {
    const site = new Site();
    site.server = http.createServer((request, response) => site.#answer(request, response)).listen(0, '127.0.0.1');
    await once(site.server, 'listening');
    site.url = `http://127.0.0.1:${site.server.address().port}`;
    return site;
  }

  /** A page with the snippet; `headers` may hold a policy, `init` further options. The page's own calls stand in a file, so that a policy may forbid inline code. */
  page(path, gateway, { headers = {}, before = '', init: options = '' } = {}) {
    const init = `${before}\n${readFileSync(join(sdk, 'stub.js'), 'utf8')}
      window.seen = { verdicts: [], decisions: [], queue: undefined, states: [], errors: [] };
      rivulet.init({ key: 'wk_dev', host: ${JSON.stringify(gateway)}, ${options} });
      rivulet.on('verdict', (verdict) => seen.verdicts.push(verdict));
      rivulet.on('decision', (decision) => seen.decisions.push(decision));
      rivulet.on('queue', (queue) => { seen.queue = queue; });
      rivulet.on('state', (state) => seen.states.push(state));
      rivulet.on('error', (error) => seen.errors.push(error));
      window.pageErrors = [];
      addEventListener('error', (event) => pageErrors.push(String(event.message)));
      addEventListener('unhandledrejection', (event) => pageErrors.push(String(event.reason)));`;
    this.pages.set(`${path}.js`, { body: init, type: typeOf.js, headers: {} });
    this.pages.set(path, { body: `<!doctype html><html lang="en"><title>host</title><script src="${path}.js"></script><script async src="/sdk/rivulet.js"></script><h1>host</h1>`, type: typeOf.html, headers });
    return `${this.url}${path}`;
  }

  #answer(request, response) {
    const path = new URL(request.url, this.url).pathname;
    const page = this.pages.get(path);
    if (page) return response.writeHead(200, { 'content-type': page.type, ...page.headers }).end(page.body);
    const file = /^\/sdk\/([\w.-]+)$/.exec(path)?.[1];
    if (file && existsSync(join(sdk, file))) return response.writeHead(200, { 'content-type': typeOf[file.split('.').at(-1)] ?? 'text/plain' }).end(readFileSync(join(sdk, file)));
    return response.writeHead(404).end();
  }

  async stop() {
    this.server.closeAllConnections();
    this.server.close();
  }
}

/** Stands between pages and the program. `mode` is `pass`, `hold` (answers nothing until it changes), or a function that answers events itself. */
export class Proxy {
  mode = 'pass';
  /** Times at which events were posted, or a socket asked for. */
  attempts = [];
  /** Bodies posted to `/v1/events`. */
  bodies = [];
  #held = [];
  #sockets = new Set();

  static async start(target) {
    const proxy = new Proxy();
    proxy.target = new URL(target);
    proxy.server = http.createServer((request, response) => proxy.#request(request, response)).on('upgrade', (...upgrade) => proxy.#upgrade(...upgrade)).listen(0, '127.0.0.1');
    proxy.server.on('connection', (socket) => {
      proxy.#sockets.add(socket);
      socket.on('close', () => proxy.#sockets.delete(socket)).on('error', () => {});
    });
    await once(proxy.server, 'listening');
    proxy.url = `http://127.0.0.1:${proxy.server.address().port}`;
    return proxy;
  }

  /** Changes the mode; what was held goes on its way. */
  become(mode) {
    this.mode = mode;
    if (mode !== 'hold') for (const go of this.#held.splice(0)) go();
  }

  async #request(request, response) {
    response.on('error', () => {});
    const chunks = [];
    try {
      for await (const chunk of request) chunks.push(chunk);
    } catch {
      return;
    }
    const body = Buffer.concat(chunks);
    const posts = request.method === 'POST' && request.url.startsWith('/v1/events');
    if (posts) {
      this.attempts.push(performance.now());
      this.bodies.push(body);
    }
    if (this.mode === 'hold') await new Promise((resolve) => this.#held.push(resolve));
    if (posts && typeof this.mode === 'function') return this.mode(response, body, request);
    const forward = http.request({ host: this.target.hostname, port: this.target.port, method: request.method, path: request.url, headers: request.headers }, (answer) => {
      response.writeHead(answer.statusCode, answer.headers);
      answer.pipe(response);
    });
    forward.on('error', () => response.destroy());
    forward.end(body);
  }

  async #upgrade(request, socket, head) {
    this.attempts.push(performance.now());
    if (this.mode === 'hold') await new Promise((resolve) => this.#held.push(resolve));
    // A proxy that answers events itself knows no WebSocket.
    if (typeof this.mode === 'function') return socket.end('HTTP/1.1 502 Bad Gateway\r\ncontent-length: 0\r\nconnection: close\r\n\r\n');
    const through = net.connect(Number(this.target.port), this.target.hostname, () => {
      const lines = [`${request.method} ${request.url} HTTP/1.1`];
      for (let at = 0; at < request.rawHeaders.length; at += 2) lines.push(`${request.rawHeaders[at]}: ${request.rawHeaders[at + 1]}`);
      through.write(`${lines.join('\r\n')}\r\n\r\n`);
      through.write(head);
      through.pipe(socket).pipe(through);
    });
    through.on('error', () => socket.destroy());
    socket.on('error', () => through.destroy()).on('close', () => through.destroy());
  }

  /** Cuts every connection that stands. */
  cut() {
    for (const socket of this.#sockets) socket.destroy();
  }

  async stop() {
    this.become('pass');
    this.cut();
    this.server.close();
  }
}

export function launch(options = {}) {
  const found = [process.env.CHROMIUM, '/usr/bin/chromium', '/usr/bin/chromium-browser', '/usr/bin/google-chrome'].find((path) => path && existsSync(path));
  if (!found) throw new Error('Chromium is missing: install it (apt-get install chromium), or name it in CHROMIUM');
  return chromium.launch({ executablePath: found, args: ['--no-sandbox'], ...options });
}

/** Waits until the page's SDK has nothing left to send. */
export function drained(page, deadline) {
  return until('the queue is empty', () => page.evaluate(() => window.seen?.queue && window.seen.queue.events === 0), deadline);
}

/** Sends `count` events whose `n` rises from `from`. */
export function sendMany(page, type, count, { from = 0, bytes = 0 } = {}) {
  return page.evaluate(({ type, count, from, bytes }) => {
    for (let n = from; n < from + count; n += 1) rivulet.track(type, { n, ...(bytes ? { filler: 'x'.repeat(bytes) } : {}) });
  }, { type, count, from, bytes });
}

const axeSource = readFileSync(createRequire(import.meta.url).resolve('axe-core/axe.min.js'), 'utf8');

/** Problems that axe finds on the page as it stands, one line each. */
export async function axe(page) {
  await page.evaluate(axeSource);
  const { violations } = await page.evaluate(() => globalThis.axe.run());
  return violations.map(({ id, help, nodes }) => `${id}: ${help}: ${nodes.map((node) => node.target.join(' ')).slice(0, 5).join(', ')}`);
}
