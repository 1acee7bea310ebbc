// The cells of a heat map: sparse rows to look into, to pool into pixels, and a window to move over them. No page here.

import type { SparseRows, Values } from "../document";
import { abs, ceil, clamp, floor, max, min, sign } from "../maths";

/** Rows `y0` to `y1` and columns `x0` to `x1`, in cells and parts of cells. */
export interface View {
  x0: number;
  x1: number;
  y0: number;
  y1: number;
}

const starts = new WeakMap<SparseRows, Int32Array>();

/** Where each row's entries begin, and one more for the end. */
export function offsetsOf(cells: SparseRows): Int32Array {
  let found = starts.get(cells);
  if (!found) {
    found = new Int32Array(cells.counts.length + 1);
    for (let row = 0; row < cells.counts.length; row++) found[row + 1] = found[row]! + cells.counts[row]!;
    starts.set(cells, found);
  }
  return found;
}

/** A full matrix, row by row. */
export function denseRows(values: Values[]): SparseRows {
  return { counts: values.map((row) => row.length), columns: null, values: values.flat(), per: 1 };
}

export const columnOf = (cells: SparseRows, entry: number, first: number): number =>
  cells.columns ? cells.columns[entry]! : entry - first;

export function valueOf(cells: SparseRows, entry: number): number | null {
  const value = cells.values[entry];
  return value == null ? null : value / cells.per;
}

/** The entries of a row that have a value, by column; a row that is not there has none. */
export function entries(cells: SparseRows, row: number): [column: number, value: number][] {
  const offsets = offsetsOf(cells), first = offsets[row] ?? 0, found: [number, number][] = [];
  for (let i = first; i < (offsets[row + 1] ?? first); i++) {
    const value = valueOf(cells, i);
    if (value !== null) found.push([columnOf(cells, i, first), value]);
  }
  return found;
}

/** The first of ascending numbers `of(low) .. of(high - 1)` that is not below `wanted`; `high` where all are. */
export function bisect(of: (i: number) => number, wanted: number, low: number, high: number): number {
  while (low < high) {
    const middle = (low + high) >> 1;
    if (of(middle) < wanted) low = middle + 1;
    else high = middle;
  }
  return low;
}

/** The entry of a row whose column is nearest; -1 where the row has none. */
export function nearest(cells: SparseRows, row: number, column: number): number {
  const offsets = offsetsOf(cells), first = offsets[row] ?? 0, end = offsets[row + 1] ?? first;
  if (first === end) return -1;
  const of = (i: number): number => columnOf(cells, i, first);
  const at = bisect(of, column, first, end);
  return at === end || (at > first && column - of(at - 1) <= of(at) - column) ? at - 1 : at;
}

/** The value of a cell; null where there is none. */
export function cellOf(cells: SparseRows, row: number, column: number): number | null {
  const at = nearest(cells, row, column);
  return at < 0 || columnOf(cells, at, offsetsOf(cells)[row]!) !== column ? null : valueOf(cells, at);
}

/** Row and column of an entry. */
export function placeOf(cells: SparseRows, entry: number): [row: number, column: number] {
  const offsets = offsetsOf(cells);
  const row = bisect((i) => offsets[i + 1]!, entry + 1, 0, cells.counts.length - 1);
  return [row, columnOf(cells, entry, offsets[row]!)];
}

/** Cells pooled by `factor` columns and `rows` rows: of each such field of the region the value that is largest by size, NaN where there is none. */
export function pooled(cells: SparseRows, region: View, factor: number, rows = factor): { width: number; height: number; values: Float32Array } {
  const width = ceil((region.x1 - region.x0) / factor), height = ceil((region.y1 - region.y0) / rows);
  const values = new Float32Array(width * height).fill(NaN), offsets = offsetsOf(cells);
  for (let row = region.y0; row < min(region.y1, cells.counts.length); row++) {
    const first = offsets[row]!, base = floor((row - region.y0) / rows) * width;
    for (let i = first; i < offsets[row + 1]!; i++) {
      const column = columnOf(cells, i, first), value = cells.values[i];
      if (value == null || column < region.x0 || column >= region.x1) continue;
      const at = base + floor((column - region.x0) / factor), there = values[at]!;
      if (!(abs(there) >= abs(value / cells.per))) values[at] = value / cells.per;
    }
  }
  return { width, height, values };
}

/** How many cells go into a pixel's side, so that no cell is skipped: the least power of two. */
export function poolFactor(cellsPerPixel: number): number {
  let factor = 1;
  while (factor < cellsPerPixel * 0.999) factor *= 2;
  return factor;
}

/** A window of that many cells at `from`, moved so that it lies within 0 .. n. */
function within(from: number, size: number, n: number): [number, number] {
  const least = min(n, 4), kept = clamp(size, least, n);
  const low = clamp(from + (size - kept) / 2, 0, n - kept);
  return [low, low + kept];
}

/** The window zoomed by `factor` (below 1: nearer) about a point of it, within `columns` x `rows` cells. */
export function zoomed(view: View, factor: number, x: number, y: number, columns: number, rows: number): View {
  const [x0, x1] = within(x - (x - view.x0) * factor, (view.x1 - view.x0) * factor, columns);
  const [y0, y1] = within(y - (y - view.y0) * factor, (view.y1 - view.y0) * factor, rows);
  return { x0, x1, y0, y1 };
}

export function panned(view: View, dx: number, dy: number, columns: number, rows: number): View {
  const [x0, x1] = within(view.x0 + dx, view.x1 - view.x0, columns);
  const [y0, y1] = within(view.y0 + dy, view.y1 - view.y0, rows);
  return { x0, x1, y0, y1 };
}

/** The window moved as little as is needed to show a cell. */
export function showing(view: View, row: number, column: number, columns: number, rows: number): View {
  const by = (at: number, low: number, high: number): number => (at < low ? at - low : at + 1 > high ? at + 1 - high : 0);
  return panned(view, by(column, view.x0, view.x1), by(row, view.y0, view.y1), columns, rows);
}

/** Which of the cells `low` to `high` over `pixels` get a label, `room` pixels each: every 1st, 2nd, 5th, 10th ... */
export function labelled(low: number, high: number, pixels: number, room: number): { step: number; at: number[] } {
  const least = (room * (high - low)) / max(1, pixels);
  let step = 1;
  for (let i = 0; step < least; i++) step = [2, 5, 10][i % 3]! * 10 ** floor(i / 3);
  const at: number[] = [];
  for (let i = ceil(floor(low) / step) * step; i < high; i += step) if (i + 0.5 >= low && i + 0.5 <= high) at.push(i);
  return { step, at };
}

/** Where on its scale a value lies: 0 to 1, or -1 to 1 of a difference; `power` below 1 spreads small ones. */
export function onScale(value: number, low: number, high: number, difference: boolean, power = 1): number {
  const part = difference ? value / (high || 1) : (value - low) / (high - low || 1);
  return sign(part) * min(1, abs(part)) ** power;
}
