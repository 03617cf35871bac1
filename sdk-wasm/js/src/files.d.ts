//! Files that the build makes. Invariant: as `build.mjs` and wasm-bindgen write them.

declare module '*/core.fallback.js' {
  const instantiate: (imports: unknown) => { __wbindgen_start?: () => void };
  export default instantiate;
}

declare module '*/core_bg.js' {
  export function step(input: string, now: number, first: number, second: number, third: number, fourth: number): string;
  export function __wbg_set_wasm(exports: unknown): void;
}
