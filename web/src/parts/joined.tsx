// What the parts Cost, Compare and Law share: series of different places in one chart, intervals as whiskers.

import type { Band, Line } from "../chart/picture";
import type { Values } from "../document";
import { max, min } from "../maths";

export interface Curves {
  x: Values;
  lines: Line[];
  bands?: Band[];
}

/** Series of different places over all of these together, ascending; `from` says whose each row is, and which of its rows. */
export function joined(sets: Curves[]): { x: number[]; lines: Line[]; bands: Band[]; from: [number, number][] } {
  const rows = sets.flatMap(({ x }, s) => x.flatMap((at, i) => (at === null ? [] : [[at, s, i] as const]))).sort((a, b) => a[0] - b[0]);
  const spread = (of: number, values: Values): Values => rows.map(([, s, i]) => (s === of ? values[i] ?? null : null));
  return {
    x: rows.map((row) => row[0]),
    lines: sets.flatMap(({ lines }, s) => lines.map((one) => ({ sparse: true, ...one, values: spread(s, one.values) }))),
    bands: sets.flatMap(({ bands = [] }, s) => bands.map((one) => ({ ...one, sparse: true, low: spread(s, one.low), high: spread(s, one.high) }))),
    from: rows.map(([, s, i]) => [s, i]),
  };
}

/** Intervals `[value, low, high]` with a line at `mark`, where nothing differs, and a band around it, on the axis of those that they are `among`. */
export function Whisker({ of, mark, band = 0, among = of, label }: {
  of: (number[] | null)[];
  mark: number;
  band?: number;
  among?: (number[] | null)[];
  label?: string;
}) {
  const all = [mark - band, mark + band, ...among.flatMap((one) => one ?? [])], low = min(...all), width = max(...all) - low || 1;
  const x = (value: number): number => (100 * (value - low)) / width;
  return (
    <svg class={label ? "whisker scale" : "whisker"} viewBox={`-2 0 104 ${8 * of.length + 2}`} preserveAspectRatio="none" role="img" aria-label={label} aria-hidden={!label}>
      <rect x={x(mark - band)} width={x(mark + band) - x(mark - band)} height="99" />
      <path class="at" d={`M${x(mark)} 0V99`} />
      {of.map((one, i) => one && <path class={`w${i}`} d={`M${x(one[1]!)} ${8 * i + 5}H${x(one[2]!)}M${x(one[0]!)} ${8 * i + 2}v6`} />)}
    </svg>
  );
}
