//! Files that the build makes. Invariant: as `build.mjs` writes them.

declare module '*/core.fallback.js' {
  const instantiate: () => import('./glue.js').Exports;
  export default instantiate;
}
