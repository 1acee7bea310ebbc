// What a chart of series is (its Spec), where its values lie, and how it is drawn. Pure functions: the page's canvas and the file agree
// because both draw here.

import type { Unit, Values } from "../document";
import { beside } from "../words";
import { abs, ceil, floor, log, max, min, round } from "../maths";
import { bisect } from "./cells";
import { column, type Column } from "./export";
import { logTicks, number, scaleOf, tick, ticks } from "./format";
import { widthOf, type Box, type Pen, type Picture, type Point } from "./pen";

export interface Line {
  name: string;
  unit: Unit;
  values: Values;
  /** A CSS variable: "--s1". */
  colour: string;
  /** "rings" are hollow, to single values out. */
  kind?: "line" | "points" | "rings";
  width?: number;
  dash?: number[];
  /** Nulls between values are passed over: a curve that is known at some places. */
  sparse?: boolean;
  /** Written at the right end of the plot; the name by default, "" for nothing. */
  label?: string;
  /** Not among what is read at the cursor. */
  quiet?: boolean;
  /** Read at the cursor and in the table, and not drawn: a band shows it. */
  hidden?: boolean;
}

export const lineOf = (name: string, unit: Unit, values: Values, colour: string, more?: Partial<Line>): Line => ({ name, unit, values, colour, ...more });

export interface Band {
  low: Values;
  high: Values;
  colour: string;
  /** 0..1, 0.16 where it says nothing. */
  alpha?: number;
  sparse?: boolean;
  label?: string;
}

export interface Axis {
  name: string;
  unit: Unit;
  /** Logarithmic; what is not above zero is not drawn. */
  log?: boolean;
  /** Always within the limits: 0 for shares, 1 for ratios. */
  holds?: number;
  /** Fixed ends, where the kind of value has them. */
  ends?: [number, number];
}

export interface Spec {
  x: Axis & { values: number[] };
  y: Axis;
  lines: Line[];
  bands?: Band[];
  /** Horizontal lines. */
  rules?: { at: number; colour: string }[];
  /** The place of each row, null where it has none; absent where rows are no tokens. */
  places?: (number | null)[];
  /** Pixels kept free on the right, where charts one below another are to have one axis. */
  room?: number;
  /** Further columns of the table and the CSV, first of all. */
  also?: Column[];
}

export type Ends = [number, number];

export const drawn = (spec: Spec): Line[] => spec.lines.filter((one) => !one.hidden);

/** Ends of an axis that show values from `low` to `high`. */
export function limits(axis: Axis, low: number, high: number): Ends {
  if (axis.ends) return axis.ends;
  if (!(low <= high)) return axis.log ? [1, 10] : [0, 1];
  const held = axis.holds ?? low;
  low = min(low, held), high = max(high, held);
  if (axis.log) {
    const pad = high > low ? (high / low) ** 0.06 : 2;
    return [low / pad, high * pad];
  }
  const pad = (high - low || abs(high) || 1) * 0.06;
  return [low === axis.holds ? low : low - pad, high === axis.holds ? high : high + pad];
}

/** Whether the y axis can show a value. */
const shows = ({ y }: Spec, value: number | null | undefined): value is number => value != null && !(y.log && value <= 0);

/** Ends of the y axis for the rows `from` to `to`. */
export function yLimits(spec: Spec, from: number, to: number): Ends {
  let low = Infinity, high = -Infinity;
  for (const values of [...drawn(spec).map((one) => one.values), ...(spec.bands ?? []).flatMap((one) => [one.low, one.high])]) {
    for (let i = from; i <= to; i++) {
      const value = values[i];
      if (shows(spec, value)) low = min(low, value), high = max(high, value);
    }
  }
  return limits(spec.y, low, high);
}

/** Where an axis has its ticks, and what is written there. */
export function places(axis: Axis, [low, high]: Ends, about: number): { at: number[]; text: string[]; unit: string } {
  const { size, name } = scaleOf(max(abs(low), abs(high)), axis.unit);
  let found = axis.log ? logTicks(low / size, high / size) : ticks(low / size, high / size, about);
  if (axis.log && found.length > about + 2) found = found.filter((_, i) => i % ceil(found.length / about) === 0);
  const whole = axis.unit === "tokens" || axis.unit === "count";
  if (whole) found = found.filter(Number.isInteger);
  const step = axis.log || found.length < 2 ? undefined : found[1]! - found[0]!;
  return { at: found.map((value) => value * size), text: found.map((value) => tick(value, step)), unit: name };
}

export const titleOf = (axis: Axis, unit: string): string => (unit && axis.name ? `${axis.name} (${unit})` : axis.name || unit);

/** What is written at the right end of a line or a band. */
const labelOf = (one: Line | Band): string => ("kind" in one && one.kind === "rings" ? "" : one.label ?? ("name" in one ? one.name : ""));
const labelled = (spec: Spec): (Line | Band)[] => [...(spec.bands ?? []), ...spec.lines].filter(labelOf);

/** Names at the right end, at the height of their last values, apart from each other. */
export function labels(spec: Spec, from: number, to: number, yOf: (value: number) => number, top: number, bottom: number) {
  const found: { y: number; text: string; colour: string }[] = [], apart = 14;
  const typical = (values: Values): number | null => {
    const known: number[] = [], near = max(from, to - ceil((to - from) / 16));
    for (let i = to; i >= from && (i >= near || !known.length); i--) {
      const value = values[i];
      if (shows(spec, value)) known.push(value);
    }
    return known.sort((a, b) => a - b)[known.length >> 1] ?? null;
  };
  for (const one of labelled(spec)) {
    // a band is named in its middle
    const [low, high] = ("name" in one ? [one.values, one.values] : [one.low, one.high]).map(typical);
    if (low != null && high != null) found.push({ y: yOf((low + high) / 2), text: labelOf(one), colour: one.colour });
  }
  found.sort((a, b) => a.y - b.y);
  found.forEach((one, i) => (one.y = max(one.y, i ? found[i - 1]!.y + apart : top + 4)));
  for (let i = found.length - 1; i >= 0; i--) found[i]!.y = min(found[i]!.y, (found[i + 1]?.y ?? bottom - 4 + apart) - apart);
  return found;
}

export const labelRoom = (spec: Spec, width: number): number =>
  width < 480 ? 10 : min(width * 0.22, max(spec.room ?? 10, ...labelled(spec).map((one) => widthOf(labelOf(one)) + 12)));

/** What is read at a row. */
export function reading(spec: Spec, i: number): string {
  const rest = spec.lines.filter((one) => !one.quiet && one.values[i] != null);
  return beside(...[spec.x, ...rest].map((one) => `${one.name} ${number(one.values[i], one.unit)}`));
}

export function columnsOf(spec: Spec): Column[] {
  return [
    ...(spec.also ?? []),
    ...[spec.x, ...spec.lines.filter((one) => one.kind !== "rings")].map(({ name, unit, values }) => column(name, values, unit)),
  ];
}

/** A chart laid out: where its values lie, in pixels. */
export interface Layout {
  width: number;
  height: number;
  box: Box;
  x: Ends;
  y: Ends;
  /** The first and the last row within the x axis. */
  from: number;
  to: number;
  xOf(value: number): number;
  yOf(value: number): number;
  /** The value of the x axis at a pixel. */
  valueAt(x: number): number;
}

/** Ends of the x axis where it shows everything: a line ends where its values end, only a lone value needs room. */
export function whole({ x }: Spec): Ends {
  const first = x.values[0] ?? 0, last = x.values.at(-1) ?? 1;
  return first < last && !x.ends ? [first, last] : limits({ ...x, holds: undefined }, first, last);
}

export function layout(spec: Spec, width: number, height: number, shown: Ends | null): Layout {
  const xs = spec.x.values, x = shown ?? whole(spec);
  if (x[0] >= x[1]) x[0] -= 0.5, x[1] += 0.5;
  let from = xs.findIndex((one) => one >= x[0]), to = xs.findLastIndex((one) => one <= x[1]);
  if (from < 0 || to < from) from = 0, to = xs.length - 1;
  const y = yLimits(spec, from, to), box = { left: 56, top: 22, right: width - labelRoom(spec, width), bottom: height - 36 };
  const along = (axis: Axis, [low, high]: Ends, value: number): number =>
    axis.log ? log(value / low) / log(high / low) : (value - low) / (high - low);
  return {
    width, height, box, x, y, from, to,
    xOf: (value) => box.left + along(spec.x, x, value) * (box.right - box.left),
    yOf: (value) => box.bottom - along(spec.y, y, value) * (box.bottom - box.top),
    valueAt(pixel) {
      const part = (pixel - box.left) / (box.right - box.left);
      return spec.x.log ? x[0] * (x[1] / x[0]) ** part : x[0] + part * (x[1] - x[0]);
    },
  };
}

/** The row whose value of the x axis lies nearest to a pixel. */
export function nearest(spec: Spec, of: Layout, pixel: number): number {
  const xs = spec.x.values, value = of.valueAt(pixel);
  const high = bisect((i) => xs[i]!, value, of.from, of.to), low = max(of.from, high - 1);
  return abs(of.xOf(xs[low]!) - pixel) <= abs(of.xOf(xs[high]!) - pixel) ? low : high;
}

/** Of points that lie closer together than can be seen, in each column of pixels the first, the lowest, the highest and the last. */
export function thinned(points: Point[], width: number): Point[] {
  if (points.length < 4 * width) return points;
  const found: Point[] = [];
  for (let i = 0; i < points.length; ) {
    const column = floor(points[i]![0]);
    let low = i, high = i, end = i;
    for (; end < points.length && floor(points[end]![0]) === column; end++) {
      if (points[end]![1] < points[low]![1]) low = end;
      if (points[end]![1] > points[high]![1]) high = end;
    }
    for (const kept of [...new Set([i, low, high, end - 1])].sort((a, b) => a - b)) found.push(points[kept]!);
    i = end;
  }
  return found;
}

/** Draws a chart. */
export function drawSeries(spec: Spec, { box, xOf, yOf, from, to, width, x, y }: Layout, pen: Pen): void {
  const { left, top, right, bottom } = box, xs = spec.x.values, muted = "--muted";
  const runs = (values: Values, sparse?: boolean): Point[][] => {
    const found: Point[][] = [[]];
    for (let i = max(0, from - 1); i <= min(xs.length - 1, to + 1); i++) {
      const value = values[i];
      if (shows(spec, value)) found.at(-1)!.push([xOf(xs[i]!), yOf(value)]);
      else if (!sparse && found.at(-1)!.length) found.push([]);
    }
    return found.filter((run) => run.length).map((run) => thinned(run, right - left));
  };
  const ys = places(spec.y, y, max(2, (bottom - top) / 45)), xt = places(spec.x, x, max(2, (right - left) / 90));
  ys.at.forEach((at, i) => {
    pen.line([[left, yOf(at)], [right, yOf(at)]], { colour: "--line" });
    pen.text(left - 8, yOf(at) + 4, ys.text[i]!, muted, { anchor: "end" });
  });
  xt.at.forEach((at, i) => pen.text(xOf(at), bottom + 16, xt.text[i]!, muted, { anchor: "middle" }));
  pen.text(8, 12, titleOf(spec.y, ys.unit), muted);
  pen.text(right, bottom + 31, titleOf(spec.x, xt.unit), muted, { anchor: "end" });
  for (const { at, colour } of spec.rules ?? []) {
    if (at >= y[0] && at <= y[1]) pen.line([[left, yOf(at)], [right, yOf(at)]], { colour, dash: [2, 3] });
  }
  pen.within(box, () => {
    for (const { low, high, sparse, colour, alpha = 0.16 } of spec.bands ?? []) {
      const lower = runs(low, sparse);
      runs(high, sparse).forEach((run, i) => lower[i] && pen.area([...run, ...lower[i].reverse()], colour, alpha));
    }
    for (const { kind = "line", values, sparse, colour, width: thick, dash } of drawn(spec)) {
      if (kind === "line") for (const run of runs(values, sparse)) pen.line(run, { colour, width: thick ?? 1.25, dash });
      else {
        // of dots on one another one is drawn
        const apart = new Map(runs(values, true).flat().map((one) => [`${round(2 * one[0])} ${round(2 * one[1])}`, one]));
        pen.dots([...apart.values()], kind === "rings" ? 4.5 : thick ?? 1.5, colour, kind === "rings" ? 1.5 : undefined);
      }
    }
  });
  if (width >= 480) for (const one of labels(spec, from, to, yOf, top, bottom)) pen.text(right + 6, one.y + 4, one.text, one.colour);
}

/** A chart that is laid out. */
export const pictureOf = (spec: Spec, of: Layout): Picture => ({ width: of.width, height: of.height, draw: (pen) => drawSeries(spec, of, pen) });
