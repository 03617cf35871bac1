//! Strings in and out of the engine's memory, as wasm-bindgen's own glue does it, in a third of its bytes. `build.mjs` gives the exports
//! their names and fails if wasm-bindgen, whose version is pinned, should pass a string in another way.
//! Invariant: a view of the memory is never kept: it may have grown meanwhile.

export type Step = (input: string, now: number, random: number) => string;

export interface Exports {
  memory: WebAssembly.Memory;
  /** `step(result, text, length, now, random)`: writes where the commands are and how long they are to `result`. */
  step(result: number, text: number, length: number, now: number, random: number): void;
  stack(bytes: number): number;
  malloc(bytes: number, align: number): number;
  free(at: number, bytes: number, align: number): void;
}

const encoder = new TextEncoder();
const decoder = new TextDecoder('utf-8', { ignoreBOM: true });

export function bind({ memory, step, stack, malloc, free }: Exports): Step {
  const result = stack(-16);
  return (input, now, random) => {
    const text = encoder.encode(input);
    const at = malloc(text.length, 1) >>> 0;
    new Uint8Array(memory.buffer).set(text, at);
    // The engine frees the text.
    step(result, at, text.length, now, random);
    const [place, length] = new Uint32Array(memory.buffer, result, 2) as unknown as [number, number];
    const commands = decoder.decode(new Uint8Array(memory.buffer, place, length));
    free(place, length, 1);
    return commands;
  };
}
