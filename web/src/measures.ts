// What colours and underlines the tokens: the tape's measures, and the relevance for the selected token.

import { computed } from "@preact/signals";
import { isMissing, type Measure, type Trace, type Unit, type Values } from "./document";
import { abs, ceil, clamp, floor, log, max, min, round } from "./maths";
import { explanationOf, relevanceTo } from "./relevance";
import { colour, selected, trace, underline } from "./state";

export const MODES = ["latency", "surprise", "entropy", "relevance", "attention", "constraint"] as const;

/** Values with their scale. A diverging one goes from -high to high. */
export interface Mode {
  name: string;
  unit: Unit;
  values: Values;
  low: number;
  high: number;
  scale: Measure["scale"] | "diverging";
}

export const LEVELS = 16;
export const SIDES = 8;
export const LINES = 4;

/** The part of the scale below a value, 0 to 1; -1 to 1 of a diverging scale; null where there is no value. */
export function share(mode: Mode, value: number | null | undefined): number | null {
  if (value === null || value === undefined) return null;
  const { low, high, scale } = mode;
  if (scale === "diverging") return high ? clamp(value / high, -1, 1) : 0;
  if (!(high > low)) return 0;
  return clamp(scale === "log" && low > 0 ? log(max(value, low) / low) / log(high / low) : (value - low) / (high - low), 0, 1);
}

/** The class that paints a value: `q0` to `q15` for magnitudes, `d0` to `d16` for differences; empty for none. */
export function shadeOf(mode: Mode | null, place: number): string {
  const at = mode && share(mode, mode.values[place]);
  if (mode === null || at === null) return "";
  return mode.scale === "diverging" ? `d${round(at * SIDES) + SIDES}` : `q${min(LEVELS - 1, floor(at * LEVELS))}`;
}

/** The class that underlines a value: `u0` to `u4`, thicker for more. */
export function lineOf(mode: Mode | null, place: number): string {
  const at = mode && share(mode, mode.values[place]);
  return mode === null || at === null ? "" : `u${ceil(abs(at) * LINES)}`;
}

/** Whether a trace has what a mode needs; whether a token must be selected for it is another question. */
export function has(shown: Trace, name: string): boolean {
  return name === "relevance" ? !isMissing(shown.relevance) : shown.measures.some((one) => one.name === name);
}

export function modeOf(shown: Trace, name: string, place: number | null): Mode | null {
  if (name !== "relevance") return shown.measures.find((one) => one.name === name) ?? null;
  const found = place === null ? null : relevanceTo(shown, place);
  return found && { name, unit: explanationOf(shown)?.unit ?? "", values: found.values, low: -found.limit, high: found.limit, scale: "diverging" };
}

const chosen = (name: string): Mode | null => trace.value && modeOf(trace.value, name, name === "relevance" ? selected.value : null);

export const shade = computed(() => chosen(colour.value));
export const line = computed(() => chosen(underline.value));
