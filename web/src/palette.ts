// The classes that paint tokens, `q0`.. and `d0`.., made from the charts' colours. Low values stay near the page's ground in both
// themes, so that what stands out is what is large; letters are dark or light, whichever can be read.

import { effect } from "@preact/signals";
import { blueOrange, cividis, dark, rgb, themed, type Rgb } from "./chart/colour";
import { round } from "./maths";
import { LEVELS, SIDES } from "./measures";
import { theme } from "./state";

const linear = (value: number): number => ((value /= 255) <= 0.04045 ? value / 12.92 : ((value + 0.055) / 1.055) ** 2.4);
const luminance = ([r, g, b]: Rgb): number => 0.2126 * linear(r) + 0.7152 * linear(g) + 0.0722 * linear(b);

/** The ratio of WCAG 2 between two colours. */
export function contrast(one: Rgb, other: Rgb): number {
  const [low, high] = [luminance(one), luminance(other)].sort((a, b) => a - b) as [number, number];
  return (high + 0.05) / (low + 0.05);
}

const mixed = (over: Rgb, ground: Rgb, much: number): Rgb => over.map((value, i) => round(value * much + ground[i]! * (1 - much))) as Rgb;

/** Ground and letters of a magnitude in 0..1. */
export function magnitude(x: number, night: boolean): [Rgb, Rgb] {
  return inked(night ? mixed(cividis(0.12 + 0.88 * x), [25, 28, 33], 0.25 + 0.7 * x) : mixed(cividis(1 - x), [255, 255, 255], 0.12 + 0.8 * x));
}

/** Ground and letters of a difference in -1..1. */
export function difference(x: number, night: boolean): [Rgb, Rgb] {
  return inked(blueOrange(x, night));
}

function inked(ground: Rgb): [Rgb, Rgb] {
  const inks: Rgb[] = [[20, 23, 28], [255, 255, 255], [0, 0, 0]];
  return [ground, inks.find((ink) => contrast(ink, ground) >= 4.5) ?? inks[2]!];
}

/** Keeps the classes and the theme's attribute on the root element alike with the theme. */
export function bindPalette(): void {
  const sheet = new CSSStyleSheet();
  document.adoptedStyleSheets = [...document.adoptedStyleSheets, sheet];
  effect(() => {
    void themed.value;
    void theme.value;
    const night = dark();
    document.documentElement.dataset.theme = night ? "dark" : "light";
    const rule = (name: string, [ground, ink]: [Rgb, Rgb]): string => `.${name}{--c:${rgb(ground)};--k:${rgb(ink)}}`;
    let text = "";
    for (let i = 0; i < LEVELS; i++) text += rule(`q${i}`, magnitude(i / (LEVELS - 1), night));
    for (let i = -SIDES; i <= SIDES; i++) text += rule(`d${i + SIDES}`, difference(i / SIDES, night));
    sheet.replaceSync(text);
  });
}

