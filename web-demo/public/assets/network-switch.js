//! The demo's "go offline" button: cuts this page off from `/v1/` the way a dead network would. Loaded before the SDK.
//!
//! Invariant: only calls to `/v1/` are cut; the state is kept for the tab, so that a reload stays offline.
(() => {
  const KEY = 'demo.offline';
  const real = { fetch: window.fetch, WebSocket: window.WebSocket, sendBeacon: navigator.sendBeacon };
  /** @type {Set<WebSocket>} */
  const open = new Set();
  let offline = false;
  try {
    offline = sessionStorage.getItem(KEY) === '1';
  } catch {
    // Storage is blocked: the switch still works, until a reload.
  }

  /** @param {string | URL | Request} target */
  const cut = (target) => {
    const url = new URL(target instanceof Request ? target.url : target, location.href);
    return offline && url.pathname.startsWith('/v1/');
  };

  window.fetch = function fetch(input, init) {
    return cut(input) ? Promise.reject(new TypeError('Failed to fetch')) : real.fetch.call(window, input, init);
  };

  navigator.sendBeacon = function sendBeacon(url, data) {
    return cut(url) ? false : real.sendBeacon.call(navigator, url, data);
  };

  // A socket opened while offline is closed before it has connected: it reports `error` and `close` like one without a network.
  window.WebSocket = new Proxy(real.WebSocket, {
    construct(target, [url, protocols]) {
      const socket = protocols === undefined ? new target(url) : new target(url, protocols);
      if (cut(url)) {
        socket.close();
      } else {
        open.add(socket);
        socket.addEventListener('close', () => open.delete(socket));
      }
      return socket;
    },
  });

  Object.defineProperty(navigator, 'onLine', { configurable: true, get: () => !offline });

  Object.defineProperty(window, 'demoNetwork', {
    value: Object.freeze({
      get offline() {
        return offline;
      },
      /** @param {boolean} value */
      set(value) {
        if (offline === value) return;
        offline = value;
        try {
          sessionStorage.setItem(KEY, value ? '1' : '0');
        } catch {
          // See above.
        }
        if (value) for (const socket of open) socket.close();
        window.dispatchEvent(new Event(value ? 'offline' : 'online'));
      },
    }),
  });
})();
