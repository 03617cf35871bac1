//! Ids. Invariant: those of a tab rise strictly, also when the clock stands still or goes back.

/** With hyphens. */
export function canonical(id: string): string {
  return id.replace(/^(.{8})(.{4})(.{4})(.{4})(?=.{12}$)/, '$1-$2-$3-$4-');
}

export function words(count: number): Uint32Array {
  return crypto.getRandomValues(new Uint32Array(count));
}

let minted = 0;
let counter = 0;
/** A UUID of version 7. */
export function mint(at: number): string {
  const hex = (number: number, digits: number): string => number.toString(16).padStart(digits, '0').slice(-digits);
  const [first, second, third] = words(3) as unknown as [number, number, number];
  if (at > minted) {
    minted = at;
    counter = first >>> 21;
  } else if (++counter > 0xfff) {
    minted++;
    counter = 0;
  }
  return canonical(hex(minted, 12) + 7 + hex(counter, 3) + (0x8000 + (first & 0x3fff)).toString(16) + hex(second, 8) + hex(third, 4));
}
