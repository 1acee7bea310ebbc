// Numbers with their units, in the words of `tokentape.views.units`; test/units.json has what Python says of some.
//
//   number(value, unit)      "1.23 ms", "4.5 MiB", "12.3%", "1,234"; a dash for null
//   nanos(value) percent(value)                     the same for what is written most
//   duration(ns) bytes(n) three(value) whole(n)   the same of one kind
//   scaleOf(most, unit)      {size, name}: divide an axis's values by size, and write name on it: 1e6 "ms"
//   ticks(low, high, about)  round places of a linear axis;  logTicks(low, high)  of a logarithmic one
//   tick(value, step)        a tick's label: as many decimals as its step needs

import type { Unit } from "../document";
import { abs, ceil, clamp, floor, log10, max, min } from "../maths";

export const ABSENT = "\u2013";

/** Python's rounding: an exact half goes to the even digit, where JavaScript's toFixed goes up. */
function fixed(value: number, digits: number): string {
  const exact = value.toFixed(min(100, digits + 60));
  const cut = digits ? exact.indexOf(".") + 1 + digits : exact.indexOf(".");
  if (/^\.?50*$/.test(exact.slice(cut)) && "02468".includes(exact.slice(0, cut).replace(".", "").slice(-1))) return exact.slice(0, cut);
  return value.toFixed(digits);
}

const grouped = (text: string): string => text.replace(/^(-?\d+)/, (head) => head.replace(/\B(?=(\d{3})+$)/g, ","));
const power = (value: number): number => Number(value.toExponential(15).split("e")[1]);

/** Three significant digits, three decimals at most, thousands apart. */
export function three(value: number): string {
  if (value === 0 || !Number.isFinite(value)) return String(value === 0 ? 0 : value);
  const near = abs(value) < 1000 ? Number(fixed(value, 2 - power(value))) : value;
  // what is too small to be seen has no sign either
  return near === 0 ? "0.000" : grouped(fixed(near, clamp(2 - power(near), 0, 3))).replace(/^-(?=[0.]+$)/, "");
}

export const whole = (n: number): string => grouped(fixed(n, 0));

type Scale = [size: number, name: string];
const SCALES: Partial<Record<Unit, Scale[]>> = {
  ns: [[1, "ns"], [1e3, "us"], [1e6, "ms"], [1e9, "s"], [6e10, "min"]],
  bytes: [[1, "B"], [1024, "KiB"], [1024 ** 2, "MiB"], [1024 ** 3, "GiB"], [1024 ** 4, "TiB"]],
  share: [[0.01, "%"]],
  nats: [[1, "nats"]],
  flops: [[1, "FLOP"], [1e3, "KFLOP"], [1e6, "MFLOP"], [1e9, "GFLOP"], [1e12, "TFLOP"], [1e15, "PFLOP"]],
};

/** In the least unit in which it has fewer than four digits. */
function inUnits(value: number, scales: Scale[], most: number): string {
  const [size, unit] = scales.find(([size]) => abs(value) < most * size) ?? scales.at(-1)!;
  return `${three(value / size)} ${unit}`;
}

export const duration = (ns: number): string =>
  ns < 99.95e9 ? inUnits(ns, SCALES.ns!.slice(0, 4), 999.5) : `${floor(ns / 6e10)} min ${floor(ns / 1e9) % 60} s`;

export const bytes = (size: number): string => (size < 1023.5 ? `${size} B` : inUnits(size, SCALES.bytes!, 1023.5));

export function number(value: number | null | undefined, unit: Unit = ""): string {
  if (value === null || value === undefined || Number.isNaN(value)) return ABSENT;
  switch (unit) {
    case "ns": return duration(value);
    case "bytes": return bytes(value);
    case "share": {
      // nothing that is possible is told as 0%, and nothing that is not certain as 100%
      const text = three(100 * value);
      return value > 0 && text === "0.000" ? "<0.001%" : value < 1 && text === "100" ? ">99.9%" : `${text}%`;
    }
    case "nats": return `${three(value)} nats`;
    case "flops": return inUnits(value, SCALES.flops!, 999.5);
    case "tokens": case "count": return Number.isInteger(value) ? whole(value) : three(value);
    default: return three(value);
  }
}

export const nanos = (value: number | null | undefined): string => number(value, "ns");
export const percent = (value: number | null | undefined): string => number(value, "share");

/** How an axis whose largest value is `most` is written. */
export function scaleOf(most: number, unit: Unit): { size: number; name: string } {
  let found = { size: 1, name: "" };
  for (const [size, name] of SCALES[unit] ?? []) if (!found.name || most >= size * 1.5) found = { size, name };
  return found;
}

export function ticks(low: number, high: number, about = 6): number[] {
  if (!(high > low)) return [low];
  const raw = (high - low) / about, base = 10 ** floor(log10(raw));
  const step = base * ([1, 2, 5].find((one) => one * base >= raw * 0.75) ?? 10);
  const found: number[] = [];
  for (let i = ceil(low / step - 1e-9); i * step <= high + step * 1e-9; i++) found.push(Number((i * step).toPrecision(12)));
  return found;
}

/** Powers of ten between, with 2 and 5 of each where there are few. */
export function logTicks(low: number, high: number): number[] {
  if (!(high > low) || low <= 0) return [high];
  const few = log10(high / low) < 3;
  const found: number[] = [];
  for (let e = floor(log10(low)); e <= ceil(log10(high)); e++) {
    for (const one of few ? [1, 2, 5] : [1]) {
      const value = Number(`${one}e${e}`);
      if (value >= low * 0.999 && value <= high * 1.001) found.push(value);
    }
  }
  return found.length > 1 ? found : ticks(low, high);
}

export function tick(value: number, step = abs(value)): string {
  if (value === 0) return "0";
  const digits = max(0, -floor(log10(step) + 1e-9));
  return grouped(value.toFixed(min(12, digits)));
}
