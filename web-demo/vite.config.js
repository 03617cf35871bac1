// Builds the shop and the console into `dist/`, which the binary embeds.
//
// Invariant: every path is absolute from `/` and every file is ours: no address of another host, nothing inlined as `data:`.
import { readFileSync } from 'node:fs';
import { fileURLToPath } from 'node:url';
import { defineConfig } from 'vite';

const here = (path) => fileURLToPath(new URL(path, import.meta.url));

/** Puts the SDK's own stub into the page, so that the shop carries the very snippet that the README shows. */
function snippet() {
  return {
    name: 'rivulet-snippet',
    transformIndexHtml(html) {
      if (!html.includes('/* rivulet:stub */')) return html;
      const path = process.env.RIVULET_STUB ?? here('../sdk-wasm/dist/stub.js');
      let stub;
      try {
        stub = readFileSync(path, 'utf8').trim();
      } catch {
        throw new Error(`${path} is missing: build the SDK first (cargo xtask sdk)`);
      }
      return html.replace('/* rivulet:stub */', () => stub);
    },
  };
}

export default defineConfig({
  base: '/',
  plugins: [snippet()],
  build: {
    outDir: 'dist',
    emptyOutDir: true,
    target: 'es2022',
    assetsInlineLimit: 0,
    modulePreload: { polyfill: false },
    rolldownOptions: { input: { shop: here('./index.html'), console: here('./console/index.html') } },
  },
});
