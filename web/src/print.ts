// A printed page has all parts, in light colours.

import { signal } from "@preact/signals";
import { options } from "preact";
import { themed } from "./chart/colour";
import { theme } from "./state";

export const printing = signal(false);

export function bindPrint(): void {
  let before = theme.value;
  addEventListener("beforeprint", () => {
    if (printing.value) return;
    before = theme.value;
    // the browser prints what is in the page when this returns: nothing may wait for a frame
    const kept = options.debounceRendering;
    const frame = options.requestAnimationFrame;
    const waiting: (() => void)[] = [];
    options.debounceRendering = (act) => act();
    options.requestAnimationFrame = (act) => waiting.push(act);
    theme.value = "light";
    themed.value++;
    printing.value = true;
    for (let act = waiting.shift(); act; act = waiting.shift()) act();
    options.debounceRendering = kept;
    options.requestAnimationFrame = frame;
  });
  addEventListener("afterprint", () => {
    if (!printing.value) return;
    printing.value = false;
    theme.value = before;
  });
}
