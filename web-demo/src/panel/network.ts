//! The switch that `network-switch.js` installed before the SDK. Invariant: never throws where that script is missing.

interface Switch {
  readonly offline: boolean;
  set(offline: boolean): void;
}

function theSwitch(): Switch | undefined {
  return (globalThis as { demoNetwork?: Switch }).demoNetwork;
}

export function isOffline(): boolean {
  return theSwitch()?.offline ?? false;
}

export function setOffline(offline: boolean): void {
  theSwitch()?.set(offline);
}
