// Colours of data: cividis for magnitudes, blue to orange for differences; series by CSS variables, so that both themes have their own.
//
//   cividis(x)          [r, g, b] of a magnitude, x in 0..1 (clamped)
//   blueOrange(x)       [r, g, b] of a difference, x in -1..1 (clamped); its middle is the page's ground, light or dark
//   table(of, n)        the n colours of a scale as RGBA bytes, to look up in a canvas: table(cividis), table(blueOrange)
//   rgb(colour)         "rgb(1 2 3)"
//   css(name)           what a CSS variable is now: css("--s1"); series are --s1 .. --s6 (style.css)
//   dark()              whether the page is dark now
//   themed              a signal that grows when the theme has changed and is painted: read it where a canvas is drawn

import { effect, signal } from "@preact/signals";
import { ceil, floor, max, min, round } from "../maths";
import { theme } from "../state";

export type Rgb = [number, number, number];

const stops = (hex: string): Rgb[] =>
  hex.match(/.{6}/g)!.map((one) => [0, 2, 4].map((i) => parseInt(one.slice(i, i + 2), 16)) as Rgb);

const CIVIDIS = stops("00224e0031712b406d434e6c575d6d6a6c717c7b78908b78a59c74bbad6cd2bf60e9d24efee838");
const LIGHT = stops("0b3c6f4a8fc7f4f2eee58b3a8a3a05");
const DARK = stops("a9d3ff3c7fbe23262bc96a1affc48a");

function between(of: Rgb[], x: number): Rgb {
  const at = min(1, max(0, x || 0)) * (of.length - 1);
  const low = of[floor(at)]!, high = of[ceil(at)]!;
  return low.map((value, i) => round(value + (at % 1) * (high[i]! - value))) as Rgb;
}

export const cividis = (x: number): Rgb => between(CIVIDIS, x);
export const blueOrange = (x: number, night = dark()): Rgb => between(night ? DARK : LIGHT, (x + 1) / 2);
export const rgb = (colour: Rgb): string => `rgb(${colour.join(" ")})`;

export function table(of: (x: number) => Rgb, n = 256): Uint8ClampedArray {
  const found = new Uint8ClampedArray(4 * n);
  const low = of === blueOrange ? -1 : 0;
  for (let i = 0; i < n; i++) found.set([...of(low + ((1 - low) * i) / (n - 1)), 255], 4 * i);
  return found;
}

export const css = (name: string): string => getComputedStyle(document.documentElement).getPropertyValue(name).trim();

const system = globalThis.matchMedia?.("(prefers-color-scheme: dark)");

export const dark = (): boolean => (theme.value === "auto" ? (system?.matches ?? false) : theme.value === "dark");

export const themed = signal(0);
if (system) {
  // the page writes its own attribute first; a frame later the variables have their new values
  const changed = (): unknown => requestAnimationFrame(() => themed.value++);
  system.addEventListener("change", changed);
  let first = true;
  effect(() => {
    void theme.value;
    if (!first) changed();
    first = false;
  });
}
