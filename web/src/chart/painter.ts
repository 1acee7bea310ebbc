// Draws a heat map: pixels of its cells, names along its axes, the legend; on the page and in a file.

import type { ComponentChildren } from "preact";
import type { SparseRows, Unit } from "../document";
import { ceil, floor, max, min, round, times } from "../maths";
import { cellOf, labelled, onScale, pooled, poolFactor, type View } from "./cells";
import { blueOrange, cividis, rgb, table } from "./colour";
import { number } from "./format";
import { cut, type Letters, type Pen, type Picture } from "./pen";

export interface Thumb {
  cells: SparseRows;
  columns: number;
  high: number;
}

export interface HeatmapProps {
  id: string;
  title: string;
  caption: string;
  tools?: ComponentChildren;
  cells: SparseRows;
  columns: number;
  rowTitle: string;
  columnTitle: string;
  valueName: string;
  unit: Unit;
  rowName(row: number): string;
  columnName(column: number): string;
  rowTick?(row: number): string;
  columnTick?(column: number): string;
  difference?: boolean;
  low?: number;
  high: number;
  power?: number;
  tell(row: number, column: number, value: number | null): string;
  onPick?(row: number, column: number): void;
  marked?: number | null;
  view?: View | null;
  blank?: string;
  log?: boolean;
  text?(row: number, column: number): string;
  markedColumn?: number | null;
  thumb?(row: number, column: number): Thumb | null;
}

/** Pixels around the cells: names of rows, the legend, names of columns. */
export const LEFT = 104, TOP = 26, RIGHT = 8, FLAT = 24, TURNED = 68;
/** The widest cell, and the highest. */
export const WIDE = 96, HIGH = 22, HIGH_THUMB = 72;
/** Sides of a raster; a larger part of the map is drawn anew where it is looked at. */
const MOST = 2048;
/** Rectangles in an SVG; more are pooled. */
const MOST_RECTS = 12_000;
const ROOM = 13;

interface Raster {
  region: View;
  canvas: HTMLCanvasElement;
}

/** A map that is laid out: where its cells lie, and its picture. `view` may be set. */
export interface Plot extends Picture {
  view: View;
  all: View;
  /** Pixels of the cells together. */
  wide: number;
  high: number;
  /** Place of a column's or row's left or upper edge. */
  x(column: number): number;
  y(row: number): number;
  /** The point of the map at a pixel, in cells; null outside of the plot. */
  at(x: number, y: number): [row: number, column: number] | null;
}

/** Whether each column has room for its name, and whether the names must be turned to have it. */
export const named = (view: View, wide: number): boolean => labelled(view.x0, view.x1, wide, ROOM + 4).step === 1;
const isFlat = ({ columns, columnName }: HeatmapProps): boolean => [0, columns - 1].every((one) => columnName(max(0, one)).length < 4);
/** Pixels below the cells. */
export const bottomOf = (props: HeatmapProps, view: View, wide: number): number => (named(view, wide) && !isFlat(props) ? TURNED : FLAT);

/** Cells as pixels, pooled. */
function raster(cells: SparseRows, region: View, across: number, down: number, index: (value: number) => number, colours: Uint8ClampedArray): Raster {
  const { width, height, values } = pooled(cells, region, across, down);
  const canvas = document.createElement("canvas");
  canvas.width = max(1, width), canvas.height = max(1, height);
  const context = canvas.getContext("2d")!;
  const image = context.createImageData(canvas.width, canvas.height);
  const into = new Uint32Array(image.data.buffer), palette = new Uint32Array(colours.buffer);
  for (let i = 0; i < values.length; i++) if (values[i] === values[i]) into[i] = palette[index(values[i]!)]!;
  context.putImageData(image, 0, 0);
  return { region, canvas };
}

/** Lays a map out in `width` pixels, `high` of them for its rows; keeps what was rasterized. `marked` tells the row that is marked. */
export function plotOf(props: HeatmapProps, width: number, high: number, bottom: number, view: View | null, marked: () => unknown): Plot {
  const { cells, columns, rowName, columnName, rowTick = String, columnTick = String, low = 0, text, thumb, unit, difference = false } = props;
  const rows = cells.counts.length, all: View = { x0: 0, x1: columns, y0: 0, y1: rows };
  const wide = width - LEFT - RIGHT, right = LEFT + wide, end = TOP + high;
  const colours = table(difference ? blueOrange : cividis);
  const rasters = new Map<string, Raster>(), thumbs = new Map<SparseRows, HTMLCanvasElement>();
  const on = props.log ? Math.log : Number;

  const index = (value: number, most = props.high, least = low): number => {
    const part = onScale(on(value), on(least), on(most), difference, props.power);
    return round(255 * (difference ? (part + 1) / 2 : max(0, part)));
  };
  const shade = (at: number): string => rgb([...colours.subarray(4 * at, 4 * at + 3)] as [number, number, number]);

  /** Does something with each cell of the window. */
  const each = (act: (row: number, column: number) => void): void => {
    const { x0, x1, y0, y1 } = plot.view;
    for (let row = floor(y0); row < min(rows, y1); row++) for (let column = floor(x0); column < min(columns, x1); column++) act(row, column);
  };

  /** The pixels of the window. */
  const pixels = (to: CanvasRenderingContext2D): void => {
    const { x0, x1, y0, y1 } = plot.view, ratio = devicePixelRatio || 1;
    const across = poolFactor((x1 - x0) / (wide * ratio)), down = poolFactor((y1 - y0) / (high * ratio));
    const part = columns / across > MOST || rows / down > MOST, key = `${across} ${down} ${part}`;
    let found = rasters.get(key);
    if (!found || found.region.x0 > x0 || found.region.x1 < x1 || found.region.y0 > y0 || found.region.y1 < y1) {
      // of a large map a part, with some room to move in before the next is needed
      const around = (low: number, high: number, n: number, factor: number): [number, number] =>
        [max(0, floor((low - (high - low) / 2) / factor) * factor), min(n, ceil(high + (high - low) / 2))];
      const [left, right] = around(x0, x1, columns, across), [top, end] = around(y0, y1, rows, down);
      const region = part ? { x0: left, x1: right, y0: top, y1: end } : all;
      rasters.set(key, (found = raster(cells, region, across, down, index, colours)));
    }
    const { region, canvas } = found;
    to.imageSmoothingEnabled = false;
    to.drawImage(canvas, (x0 - region.x0) / across, (y0 - region.y0) / down, (x1 - x0) / across, (y1 - y0) / down, LEFT, TOP, wide, high);
  };

  /** Small maps in place of colours, each within its cell. */
  const small = (to: CanvasRenderingContext2D, pen: Pen, thumb: NonNullable<HeatmapProps["thumb"]>): void => each((row, column) => {
    const of = thumb(row, column), x = plot.x(column) + 1, y = plot.y(row) + 1, w = plot.x(column + 1) - x - 1, h = plot.y(row + 1) - y - 1;
    if (!of || w < 4 || h < 4) return;
    let found = thumbs.get(of.cells);
    if (!found) {
      const region = { x0: 0, x1: of.columns, y0: 0, y1: of.cells.counts.length };
      found = raster(of.cells, region, poolFactor(region.x1 / 64), poolFactor(region.y1 / 64), (value) => index(value, of.high, 0), colours).canvas;
      thumbs.set(of.cells, found);
    }
    pen.rect(x, y, w, h, "--bg");
    to.drawImage(found, x, y, w, h);
  });

  /** The cells as rectangles, as many as a file can bear. */
  const rectangles = (pen: Pen): void => {
    const { view, x, y } = plot, x0 = floor(view.x0), y0 = floor(view.y0), region = { x0, y0, x1: ceil(view.x1), y1: ceil(view.y1) };
    let factor = 1, found = pooled(cells, region, factor);
    while (found.values.filter((value) => value === value).length > MOST_RECTS) found = pooled(cells, region, (factor *= 2));
    found.values.forEach((value, i) => {
      const row = y0 + floor(i / found.width) * factor, column = x0 + (i % found.width) * factor;
      if (value === value) pen.rect(x(column), y(row), x(column + factor) - x(column), y(row + factor) - y(row), shade(index(value)));
    });
  };

  /** What is written into cells, where there is room. */
  const words = (pen: Pen): void => {
    const { view: { x0, y0 }, x, y } = plot, room = x(x0 + 1) - LEFT;
    if (!text || room < 34 || y(y0 + 1) - TOP < ROOM) return;
    each((row, column) => {
      const value = cellOf(cells, row, column), [r = 0, g = 0, b = 0] = colours.subarray(4 * index(value ?? low));
      const ink = value === null ? "--ink" : 0.3 * r + 0.6 * g + 0.1 * b > 130 ? "#111" : "#fff";
      pen.text(x(column) + 3, y(row + 0.5) + 4, cut(text(row, column), room - 6, pen.widthOf), ink);
    });
  };

  /** Names along the axes; the scale as a row of small rectangles, with its ends. */
  const around = (pen: Pen): void => {
    const { view, x, y } = plot, anchor = "end", muted = "--muted", start = width - RIGHT - 186;
    const rowsAt = labelled(view.y0, view.y1, high, ROOM), full = named(view, wide), turned = bottom > FLAT && full;
    const how: Letters = { anchor, turned };
    for (const row of rowsAt.at) {
      pen.text(LEFT - 6, y(row + 0.5) + 4, cut((rowsAt.step === 1 ? rowName : rowTick)(row), LEFT - 10, pen.widthOf), row === marked() ? "--ink" : muted, { anchor });
    }
    for (const column of labelled(view.x0, view.x1, wide, full ? ROOM + 4 : 44).at) {
      const at = x(column + 0.5);
      if (turned) pen.text(at + 6, end + 12, cut(columnName(column), TURNED, pen.widthOf), muted, how);
      else pen.text(at, end + 14, (full ? columnName : columnTick)(column), muted, { anchor: "middle" });
    }
    pen.text(4, 16, `${props.rowTitle} \u2193  ${props.columnTitle} \u2192`, muted);
    pen.text(start - 6, 16, number(difference ? -props.high : low, unit), muted, { anchor });
    pen.text(start + 126, 16, number(props.high, unit), muted);
    for (const i of times(60, Number)) pen.rect(start + 2 * i, 7, 2.2, 10, shade(round((255 * i) / 59)));
  };

  const plot: Plot = {
    width, height: end + bottom, wide, high, all,
    view: view ?? all,
    x: (column) => LEFT + ((column - plot.view.x0) / (plot.view.x1 - plot.view.x0)) * wide,
    y: (row) => TOP + ((row - plot.view.y0) / (plot.view.y1 - plot.view.y0)) * high,
    at(x, y) {
      const { x0, x1, y0, y1 } = plot.view;
      const column = x0 + ((x - LEFT) / wide) * (x1 - x0), row = y0 + ((y - TOP) / high) * (y1 - y0);
      return column < x0 || column >= x1 || row < y0 || row >= y1 ? null : [row, column];
    },
    draw(pen) {
      const to = pen.canvas, box = { left: LEFT, top: TOP, right, bottom: end };
      pen.rect(0, 0, width, plot.height, "--panel");
      pen.within(box, () => {
        if (!to) rectangles(pen);
        else if (thumb) small(to, pen, thumb);
        else pixels(to);
        words(pen);
      }, true);
      const l = LEFT - 0.5, t = TOP - 0.5, r = right + 0.5, b = end + 0.5;
      pen.line([[l, t], [r, t], [r, b], [l, b], [l, t]], { colour: "--line" });
      around(pen);
    },
  };
  return plot;
}
