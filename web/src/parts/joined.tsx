// What the parts Cost, Compare and Law share: series of different places in one chart, small tables, intervals as whiskers.

import type { ComponentChildren } from "preact";
import type { Band, Line } from "../chart/picture";
import type { Values } from "../document";

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

/** `left` columns are text, the others numbers. */
export function Grid({ title, head, rows, left = 1 }: { title: string; head: ComponentChildren[]; rows: ComponentChildren[][]; left?: number | number[] }) {
  const how = (i: number): string => ((typeof left === "number" ? i < left : left.includes(i)) ? "" : "num");
  return (
    <div class="scroll" tabIndex={0} role="region" aria-label={title}>
      <table class="table">
        <thead><tr>{head.map((one, i) => <th scope="col" class={how(i)}>{one}</th>)}</tr></thead>
        <tbody>
          {rows.map((row) => <tr>{row.map((one, i) => (i ? <td class={how(i)}>{one}</td> : <th scope="row" class={how(i)}>{one}</th>))}</tr>)}
        </tbody>
      </table>
    </div>
  );
}

/** Intervals on one axis: `[value, low, high]` of each, between `ends`; a line where nothing differs. */
export function Whisker({ of, ends, mark }: { of: (number[] | null)[]; ends: [number, number]; mark?: number }) {
  const x = (value: number): number => (100 * (value - ends[0])) / (ends[1] - ends[0] || 1);
  return (
    <svg class="whisker" viewBox={`-2 0 104 ${8 * of.length + 2}`} preserveAspectRatio="none" aria-hidden="true">
      {mark !== undefined && <path class="at" d={`M${x(mark)} 0V99`} />}
      {of.map((one, i) => one && <path class={`w${i}`} d={`M${x(one[1]!)} ${8 * i + 5}H${x(one[2]!)}M${x(one[0]!)} ${8 * i + 2}v6`} />)}
    </svg>
  );
}

/** The ends of an axis that holds all of them. */
export function endsOf(of: (number[] | null)[], mark?: number): [number, number] {
  const all = [...of.flatMap((one) => one ?? []), ...(mark === undefined ? [] : [mark])];
  return [Math.min(...all), Math.max(...all)];
}
