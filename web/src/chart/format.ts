// Numbers with their units, in the words of `tokentape.views.units`; test/units.json has what Python says of some.
//
//   number(value, unit)      "1.23 ms", "4.5 MiB", "12.3%", "1,234"; a dash for null
//   duration(ns) bytes(n) three(value) whole(n)   the same of one kind
//   scaleOf(most, unit)      {size, name}: divide an axis's values by size, and write name on it: 1e6 "ms"
//   ticks(low, high, about)  round places of a linear axis;  logTicks(low, high)  of a logarithmic one
//   tick(value, step)        a tick's label: as many decimals as its step needs

import type { Unit } from "../document";

export const ABSENT = "\u2013";

/** Python's rounding: an exact half goes to the even digit, where JavaScript's toFixed goes up. */
function fixed(value: number, digits: number): string {
  const exact = value.toFixed(Math.min(100, digits + 60));
  const cut = digits ? exact.indexOf(".") + 1 + digits : exact.indexOf(".");
  if (/^\.?50*$/.test(exact.slice(cut)) && "02468".includes(exact.slice(0, cut).replace(".", "").slice(-1))) return exact.slice(0, cut);
  return value.toFixed(digits);
}

const grouped = (text: string): string => text.replace(/^(-?\d+)/, (head) => head.replace(/\B(?=(\d{3})+$)/g, ","));
const power = (value: number): number => Number(value.toExponential(15).split("e")[1]);

/** Three significant digits, three decimals at most, thousands apart. */
export function three(value: number): string {
  if (value === 0 || !Number.isFinite(value)) return String(value === 0 ? 0 : value);
  const near = Math.abs(value) < 1000 ? Number(fixed(value, 2 - power(value))) : value;
  return near === 0 ? "0.000" : grouped(fixed(near, Math.min(3, Math.max(0, 2 - power(near)))));
}

export const whole = (n: number): string => grouped(fixed(n, 0));

export function duration(ns: number): string {
  for (const [size, unit] of [[1, "ns"], [1e3, "us"], [1e6, "ms"]] as const) {
    if (Math.abs(ns) < 999.5 * size) return `${three(ns / size)} ${unit}`;
  }
  const seconds = ns / 1e9;
  return seconds < 99.95 ? `${three(seconds)} s` : `${Math.floor(Math.trunc(seconds) / 60)} min ${Math.trunc(seconds) % 60} s`;
}

export function bytes(size: number): string {
  let value = size;
  for (const unit of ["B", "KiB", "MiB", "GiB"]) {
    if (value < 1023.5) return unit === "B" ? `${size} B` : `${three(value)} ${unit}`;
    value /= 1024;
  }
  return `${three(value)} TiB`;
}

function flops(value: number): string {
  let n = -1;
  for (; Math.abs(value) >= 999.5 && n < 4; n++) value /= 1000;
  return `${three(value)} ${"KMGTP"[n] ?? ""}FLOP`;
}

export function number(value: number | null | undefined, unit: Unit = ""): string {
  if (value === null || value === undefined || Number.isNaN(value)) return ABSENT;
  switch (unit) {
    case "ns": return duration(value);
    case "bytes": return bytes(value);
    case "share": return `${three(100 * value)}%`;
    case "nats": return `${three(value)} nats`;
    case "flops": return flops(value);
    case "tokens": case "count": return Number.isInteger(value) ? whole(value) : three(value);
    default: return three(value);
  }
}

const SCALES: Partial<Record<Unit, [number, string][]>> = {
  ns: [[1, "ns"], [1e3, "us"], [1e6, "ms"], [1e9, "s"], [6e10, "min"]],
  bytes: [[1, "B"], [1024, "KiB"], [1024 ** 2, "MiB"], [1024 ** 3, "GiB"], [1024 ** 4, "TiB"]],
  share: [[0.01, "%"]],
  nats: [[1, "nats"]],
  flops: [[1, "FLOP"], [1e6, "MFLOP"], [1e9, "GFLOP"], [1e12, "TFLOP"], [1e15, "PFLOP"]],
};

/** How an axis whose largest value is `most` is written. */
export function scaleOf(most: number, unit: Unit): { size: number; name: string } {
  let found = { size: 1, name: "" };
  for (const [size, name] of SCALES[unit] ?? []) if (!found.name || most >= size * 1.5) found = { size, name };
  return found;
}

export function ticks(low: number, high: number, about = 6): number[] {
  if (!(high > low)) return [low];
  const raw = (high - low) / about, base = 10 ** Math.floor(Math.log10(raw));
  const step = base * ([1, 2, 5].find((one) => one * base >= raw * 0.75) ?? 10);
  const found: number[] = [];
  for (let i = Math.ceil(low / step - 1e-9); i * step <= high + step * 1e-9; i++) found.push(Number((i * step).toPrecision(12)));
  return found;
}

/** Powers of ten between, with 2 and 5 of each where there are few. */
export function logTicks(low: number, high: number): number[] {
  if (!(high > low) || low <= 0) return [high];
  const few = Math.log10(high / low) < 3;
  const found: number[] = [];
  for (let e = Math.floor(Math.log10(low)); e <= Math.ceil(Math.log10(high)); e++) {
    for (const one of few ? [1, 2, 5] : [1]) {
      const value = Number(`${one}e${e}`);
      if (value >= low * 0.999 && value <= high * 1.001) found.push(value);
    }
  }
  return found.length > 1 ? found : ticks(low, high);
}

export function tick(value: number, step = Math.abs(value)): string {
  if (value === 0) return "0";
  const digits = Math.max(0, -Math.floor(Math.log10(step) + 1e-9));
  return grouped(value.toFixed(Math.min(12, digits)));
}
