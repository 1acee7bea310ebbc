// What a chart of series is (its Spec), where its values lie, and how it is drawn. Pure functions: the page's canvas and the file agree
// because both draw here.

import type { Unit, Values } from "../document";
import { svgPage, type Column } from "./export";
import { logTicks, number, scaleOf, tick, ticks } from "./format";
import { svgPen, type Box, type Pen, type Point } from "./pen";

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
  rules?: { at: number; text: string; colour?: string }[];
  /** Vertical lines. */
  marks?: { at: number; text: string }[];
  /** The place of each row, null where it has none; absent where rows are no tokens. */
  places?: (number | null)[];
  /** Further columns of the table and the CSV, first of all. */
  also?: Column[];
}

export type Ends = [number, number];

export const drawn = (spec: Spec): Line[] => spec.lines.filter((one) => !one.hidden);

/** Ends of an axis that show values from `low` to `high`. */
export function limits(axis: Axis, low: number, high: number): Ends {
  if (axis.ends) return axis.ends;
  if (!Number.isFinite(low) || !Number.isFinite(high)) return axis.log ? [1, 10] : [0, 1];
  const held = axis.holds ?? low;
  low = Math.min(low, held), high = Math.max(high, held);
  if (axis.log) {
    const pad = high > low ? (high / low) ** 0.06 : 2;
    return [low / pad, high * pad];
  }
  const pad = (high - low || Math.abs(high) || 1) * 0.06;
  return [low === axis.holds ? low : low - pad, high === axis.holds ? high : high + pad];
}

/** Ends of the y axis for the rows `from` to `to`. */
export function yLimits(spec: Spec, from: number, to: number): Ends {
  let low = Infinity, high = -Infinity;
  const take = (values: Values): void => {
    for (let i = from; i <= to; i++) {
      const value = values[i];
      if (value === null || value === undefined || (spec.y.log && value <= 0)) continue;
      if (value < low) low = value;
      if (value > high) high = value;
    }
  };
  for (const one of spec.lines) if (!one.hidden) take(one.values);
  for (const one of spec.bands ?? []) take(one.low), take(one.high);
  return limits(spec.y, low, high);
}

/** Where an axis has its ticks, and what is written there. */
export function places(axis: Axis, [low, high]: Ends, about: number): { at: number[]; text: string[]; unit: string } {
  const { size, name } = scaleOf(Math.max(Math.abs(low), Math.abs(high)), axis.unit);
  let found = axis.log ? logTicks(low / size, high / size) : ticks(low / size, high / size, about);
  if (axis.log && found.length > about + 2) found = found.filter((_, i) => i % Math.ceil(found.length / about) === 0);
  const whole = axis.unit === "tokens" || axis.unit === "count";
  if (whole) found = found.filter(Number.isInteger);
  const step = axis.log || found.length < 2 ? undefined : found[1]! - found[0]!;
  return { at: found.map((value) => value * size), text: found.map((value) => tick(value, step)), unit: name };
}

/** How many ticks fit along so many pixels of the bottom (2) or the left (3). */
export const enough = (pixels: number, side: 2 | 3): number => Math.max(2, pixels / (side === 2 ? 90 : 45));

export const titleOf = (axis: Axis, unit: string): string => (unit && axis.name ? `${axis.name} (${unit})` : axis.name || unit);

/** Names at the right end, at the height of their last values, apart from each other. */
export function labels(spec: Spec, from: number, to: number, yOf: (value: number) => number, top: number, bottom: number) {
  const found: { y: number; text: string; colour: string }[] = [];
  const typical = (values: Values): number | null => {
    const known: number[] = [];
    const near = Math.max(from, to - Math.ceil((to - from) / 16));
    for (let i = to; i >= from && (i >= near || !known.length); i--) {
      const value = values[i];
      if (value !== null && value !== undefined && !(spec.y.log && value <= 0)) known.push(value);
    }
    return known.sort((a, b) => a - b)[known.length >> 1] ?? null;
  };
  for (const one of [...(spec.bands ?? []), ...spec.lines]) {
    const text = one.label ?? ("name" in one ? one.name : "");
    if (!text) continue;
    let value: number | null;
    if ("name" in one) value = one.kind === "rings" ? null : typical(one.values);
    else {
      const low = typical(one.low), high = typical(one.high);
      value = low === null || high === null ? null : (low + high) / 2;
    }
    if (value !== null) found.push({ y: yOf(value), text, colour: one.colour });
  }
  found.sort((a, b) => a.y - b.y);
  const apart = 14;
  found.forEach((one, i) => (one.y = Math.max(one.y, i ? found[i - 1]!.y + apart : top + 4)));
  for (let i = found.length - 1; i >= 0; i--) {
    found[i]!.y = Math.min(found[i]!.y, i === found.length - 1 ? bottom - 4 : found[i + 1]!.y - apart);
  }
  return found;
}

/** About how wide a text of 11 pixels is. */
export const widthOf = (text: string): number => [...text].reduce((sum, one) => sum + (one > "\u2e7f" ? 11 : 6.1), 0);

export function labelRoom(spec: Spec, width: number): number {
  const named = [...spec.lines.filter((one) => one.kind !== "rings").map((one) => one.label ?? one.name), ...(spec.bands ?? []).map((one) => one.label ?? "")];
  return width < 480 ? 10 : Math.min(width * 0.22, Math.max(10, ...named.map((text) => (text ? widthOf(text) + 12 : 0))));
}

/** What is read at a row. */
export function reading(spec: Spec, i: number): string {
  const x = `${spec.x.name} ${number(spec.x.values[i], spec.x.unit)}`;
  const rest = spec.lines.filter((one) => !one.quiet && one.values[i] !== null && one.values[i] !== undefined);
  return [x, ...rest.map((one) => `${one.name} ${number(one.values[i], one.unit)}`)].join(" \u00b7 ");
}

export function columnsOf(spec: Spec): Column[] {
  return [
    ...(spec.also ?? []),
    { name: spec.x.name, unit: spec.x.unit, values: spec.x.values },
    ...spec.lines.filter((one) => one.kind !== "rings").map(({ name, unit, values }) => ({ name, unit, values })),
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
    axis.log ? Math.log(value / low) / Math.log(high / low) : (value - low) / (high - low);
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
  let low = of.from, high = of.to;
  while (high - low > 1) {
    const middle = (low + high) >> 1;
    if (xs[middle]! < value) low = middle;
    else high = middle;
  }
  return Math.abs(of.xOf(xs[low]!) - pixel) <= Math.abs(of.xOf(xs[high]!) - pixel) ? low : high;
}

/** Of points that lie closer together than can be seen, in each column of pixels the first, the lowest, the highest and the last. */
export function thinned(points: Point[], width: number): Point[] {
  if (points.length < 4 * width) return points;
  const found: Point[] = [];
  for (let i = 0; i < points.length; ) {
    const column = Math.floor(points[i]![0]);
    let low = i, high = i, end = i;
    for (; end < points.length && Math.floor(points[end]![0]) === column; end++) {
      if (points[end]![1] < points[low]![1]) low = end;
      if (points[end]![1] > points[high]![1]) high = end;
    }
    for (const kept of [...new Set([i, low, high, end - 1])].sort((a, b) => a - b)) found.push(points[kept]!);
    i = end;
  }
  return found;
}

/** Draws a chart with a pen, in the colours that `css` gives. */
export function drawSeries(spec: Spec, of: Layout, pen: Pen, css: (name: string) => string): void {
  const { box, xOf, yOf, from, to, width } = of, { left, top, right, bottom } = box, xs = spec.x.values, muted = css("--muted");
  const shown = (value: number | null | undefined): value is number => value !== null && value !== undefined && !(spec.y.log && value <= 0);
  const runs = (values: Values, sparse?: boolean): Point[][] => {
    const found: Point[][] = [[]];
    for (let i = Math.max(0, from - 1); i <= Math.min(xs.length - 1, to + 1); i++) {
      const value = values[i];
      if (shown(value)) found.at(-1)!.push([xOf(xs[i]!), yOf(value)]);
      else if (!sparse && found.at(-1)!.length) found.push([]);
    }
    return found.filter((run) => run.length).map((run) => thinned(run, right - left));
  };
  const ys = places(spec.y, of.y, enough(bottom - top, 3)), xt = places(spec.x, of.x, enough(right - left, 2));
  ys.at.forEach((at, i) => {
    pen.line([[left, yOf(at)], [right, yOf(at)]], { colour: css("--line") });
    pen.text(left - 8, yOf(at) + 4, ys.text[i]!, muted, "end");
  });
  xt.at.forEach((at, i) => pen.text(xOf(at), bottom + 16, xt.text[i]!, muted, "middle"));
  pen.text(8, 12, titleOf(spec.y, ys.unit), muted);
  pen.text(right, bottom + 31, titleOf(spec.x, xt.unit), muted, "end");
  const inside = (value: number, [low, high]: Ends): boolean => value >= low && value <= high;
  for (const { at, text, colour = "--muted" } of spec.rules ?? []) {
    if (!inside(at, of.y)) continue;
    pen.line([[left, yOf(at)], [right, yOf(at)]], { colour: css(colour), dash: [2, 3] });
    pen.text(left + 4, yOf(at) - 4, text, muted);
  }
  for (const { at, text } of spec.marks ?? []) {
    if (!inside(at, of.x)) continue;
    pen.line([[xOf(at), top], [xOf(at), bottom]], { colour: muted, dash: [2, 3] });
    pen.text(xOf(at) + 4, top + 10, text, muted);
  }
  pen.within(box, () => {
    for (const { low, high, sparse, colour, alpha = 0.16 } of spec.bands ?? []) {
      const lower = runs(low, sparse);
      runs(high, sparse).forEach((run, i) => lower[i] && pen.area([...run, ...lower[i].reverse()], css(colour), alpha));
    }
    for (const { kind = "line", values, sparse, colour, width: thick, dash } of drawn(spec)) {
      if (kind === "line") for (const run of runs(values, sparse)) pen.line(run, { colour: css(colour), width: thick ?? 1.25, dash });
      else {
        // of dots on one another one is drawn
        const apart = new Map(runs(values, true).flat().map((one) => [`${Math.round(2 * one[0])} ${Math.round(2 * one[1])}`, one]));
        if (kind === "rings") pen.dots([...apart.values()], 4.5, css(colour), 1.5);
        else pen.dots([...apart.values()], thick ?? 1.5, css(colour));
      }
    }
  });
  if (width >= 480) for (const one of labels(spec, from, to, yOf, top, bottom)) pen.text(right + 6, one.y + 4, one.text, css(one.colour));
}

export interface View {
  width: number;
  height: number;
  /** Ends of the x axis; all rows where null. */
  x: Ends | null;
  title: string;
  caption: string;
  css(name: string): string;
}

/** The chart as an SVG file. */
export function seriesSvg(spec: Spec, { width, height, x, title, caption, css }: View): string {
  const body: string[] = [];
  drawSeries(spec, layout(spec, width, height, x), svgPen(body), css);
  return svgPage({ width, height, title, caption, body: body.join("\n"), ground: css("--panel"), ink: css("--ink") });
}
