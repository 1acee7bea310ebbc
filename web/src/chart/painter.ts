// Draws a heat map: pixels of its cells, names along its axes, the legend; and the same as an SVG.

import type { ComponentChildren } from "preact";
import type { SparseRows, Unit } from "../document";
import { cellOf, labelled, onScale, pooled, poolFactor, type View } from "./cells";
import { blueOrange, cividis, css, rgb, table } from "./colour";
import { escaped, svgPage } from "./export";
import { number } from "./format";
import { about, cut, LETTERS, paintShapes, svgShapes, type Shape } from "./shapes";

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
  scale: "magnitude" | "difference";
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
export const LEFT = 104, TOP = 26, RIGHT = 8;
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

/** Whether the names of columns are so short that they need not be turned. */
export const flatNames = ({ columns, columnName }: HeatmapProps): boolean => [0, columns - 1].every((one) => columnName(Math.max(0, one)).length < 4);

const isDifference = (props: HeatmapProps): boolean => props.scale === "difference";

/** Cells as pixels, pooled. */
function raster(cells: SparseRows, region: View, across: number, down: number, index: (value: number) => number, colours: Uint8ClampedArray): Raster {
  const { width, height, values } = pooled(cells, region, across, down);
  const canvas = document.createElement("canvas");
  canvas.width = Math.max(1, width), canvas.height = Math.max(1, height);
  const context = canvas.getContext("2d")!;
  const image = context.createImageData(canvas.width, canvas.height);
  const into = new Uint32Array(image.data.buffer), palette = new Uint32Array(colours.buffer);
  for (let i = 0; i < values.length; i++) if (values[i] === values[i]) into[i] = palette[index(values[i]!)]!;
  context.putImageData(image, 0, 0);
  return { region, canvas };
}

/** Draws one map: keeps what was rasterized, and knows where cells lie. */
export class Painter {
  private rasters = new Map<string, Raster>();
  private thumbs = new Map<SparseRows, HTMLCanvasElement>();
  private colours: Uint8ClampedArray;
  view: View;

  constructor(public props: HeatmapProps, readonly width: number, readonly height: number, readonly bottom: number, view: View | null) {
    this.colours = table(isDifference(props) ? blueOrange : cividis);
    this.view = view ?? this.all();
  }

  get rows(): number {
    return this.props.cells.counts.length;
  }

  all(): View {
    return { x0: 0, x1: this.props.columns, y0: 0, y1: this.rows };
  }

  /** Place of a column's or row's left or upper edge. */
  x = (column: number): number => LEFT + ((column - this.view.x0) / (this.view.x1 - this.view.x0)) * (this.width - LEFT - RIGHT);
  y = (row: number): number => TOP + ((row - this.view.y0) / (this.view.y1 - this.view.y0)) * (this.height - TOP - this.bottom);

  /** The point of the map at a pixel, in cells; null outside of the plot. */
  at(x: number, y: number): [row: number, column: number] | null {
    const { x0, x1, y0, y1 } = this.view;
    const column = x0 + ((x - LEFT) / (this.width - LEFT - RIGHT)) * (x1 - x0), row = y0 + ((y - TOP) / (this.height - TOP - this.bottom)) * (y1 - y0);
    return column < x0 || column >= x1 || row < y0 || row >= y1 ? null : [row, column];
  }

  private index = (value: number, high = this.props.high, low = this.props.low ?? 0): number => {
    const difference = isDifference(this.props), on = this.props.log ? Math.log : Number;
    const part = onScale(on(value), on(low), on(high), difference, this.props.power);
    return Math.round(255 * (difference ? (part + 1) / 2 : Math.max(0, part)));
  };

  private paint255(at: number): string {
    return rgb([...this.colours.subarray(4 * at, 4 * at + 3)] as [number, number, number]);
  }

  /** The pixels of the window, with how many cells go into one. */
  private rasterOf(ratio: number): Raster & { across: number; down: number } {
    const { x0, x1, y0, y1 } = this.view, all = this.all();
    const across = poolFactor((x1 - x0) / ((this.width - LEFT - RIGHT) * ratio)), down = poolFactor((y1 - y0) / ((this.height - TOP - this.bottom) * ratio));
    const part = all.x1 / across > MOST || all.y1 / down > MOST, key = `${across} ${down} ${part}`;
    let found = this.rasters.get(key);
    if (!found || found.region.x0 > x0 || found.region.x1 < x1 || found.region.y0 > y0 || found.region.y1 < y1) {
      // of a large map a part, with some room to move in before the next is needed
      const around = (low: number, high: number, n: number, factor: number): [number, number] =>
        [Math.max(0, Math.floor((low - (high - low) / 2) / factor) * factor), Math.min(n, Math.ceil(high + (high - low) / 2))];
      const [left, right] = around(x0, x1, all.x1, across), [top, end] = around(y0, y1, all.y1, down);
      const region = part ? { x0: left, x1: right, y0: top, y1: end } : all;
      this.rasters.set(key, (found = raster(this.props.cells, region, across, down, this.index, this.colours)));
    }
    return { ...found, across, down };
  }

  paint(canvas: HTMLCanvasElement, ratio: number): void {
    const to = canvas.getContext("2d")!;
    to.setTransform(ratio, 0, 0, ratio, 0, 0);
    to.fillStyle = css("--panel");
    to.fillRect(0, 0, this.width, this.height);
    const w = this.width - LEFT - RIGHT, h = this.height - TOP - this.bottom;
    to.save();
    to.beginPath();
    to.rect(LEFT, TOP, w, h);
    to.clip();
    to.imageSmoothingEnabled = false;
    if (this.props.thumb) this.paintThumbs(to, this.props.thumb);
    else {
      const { region, across, down, canvas: pixels } = this.rasterOf(ratio), { x0, x1, y0, y1 } = this.view;
      to.drawImage(pixels, (x0 - region.x0) / across, (y0 - region.y0) / down, (x1 - x0) / across, (y1 - y0) / down, LEFT, TOP, w, h);
      paintShapes(to, this.words((text) => to.measureText(text).width));
    }
    to.restore();
    to.strokeStyle = css("--line");
    to.strokeRect(LEFT - 0.5, TOP - 0.5, w + 1, h + 1);
    to.font = LETTERS;
    paintShapes(to, [...this.labels((text) => to.measureText(text).width), ...this.legend()]);
  }

  /** Small maps in place of colours, each within its cell. */
  private paintThumbs(to: CanvasRenderingContext2D, thumb: NonNullable<HeatmapProps["thumb"]>): void {
    const { view } = this, gap = 1;
    to.imageSmoothingEnabled = true;
    for (let row = Math.floor(view.y0); row < Math.min(this.rows, view.y1); row++) {
      for (let column = Math.floor(view.x0); column < Math.min(this.props.columns, view.x1); column++) {
        const small = thumb(row, column);
        if (!small) continue;
        const w = this.x(column + 1) - this.x(column) - 2 * gap, h = this.y(row + 1) - this.y(row) - 2 * gap;
        if (w < 4 || h < 4) continue;
        let pixels = this.thumbs.get(small.cells);
        if (!pixels) {
          const region = { x0: 0, x1: small.columns, y0: 0, y1: small.cells.counts.length };
          const index = (value: number): number => this.index(value, small.high, 0);
          pixels = raster(small.cells, region, poolFactor(region.x1 / 64), poolFactor(region.y1 / 64), index, this.colours).canvas;
          this.thumbs.set(small.cells, pixels);
        }
        to.fillStyle = css("--bg");
        to.fillRect(this.x(column) + gap, this.y(row) + gap, w, h);
        to.drawImage(pixels, this.x(column) + gap, this.y(row) + gap, w, h);
      }
    }
  }

  /** What is written into cells, where there is room. */
  private words(widthOf: (text: string) => number): Shape[] {
    const { text, cells, columns } = this.props, { x0, x1, y0, y1 } = this.view, found: Shape[] = [];
    const wide = this.x(x0 + 1) - LEFT;
    if (!text || wide < 34 || this.y(y0 + 1) - TOP < ROOM) return found;
    for (let row = Math.floor(y0); row < Math.min(this.rows, y1); row++) {
      for (let column = Math.floor(x0); column < Math.min(columns, x1); column++) {
        const value = cellOf(cells, row, column), at = 4 * (value === null ? 0 : this.index(value)), [r = 0, g = 0, b = 0] = this.colours.subarray(at);
        const fill = value === null ? css("--ink") : 0.3 * r + 0.6 * g + 0.1 * b > 130 ? "#111" : "#fff";
        found.push({ text: cut(text(row, column), wide - 6, widthOf), x: this.x(column) + 3, y: this.y(row + 0.5), fill });
      }
    }
    return found;
  }

  /** Names along the axes and at the ends of the legend. */
  labels(widthOf: (text: string) => number): Shape[] {
    const { props, view } = this, wide = this.width - LEFT - RIGHT;
    const rows = labelled(view.y0, view.y1, this.height - TOP - this.bottom, ROOM), columns = labelled(view.x0, view.x1, wide, ROOM + 4);
    const named = columns.step === 1, end = this.width - RIGHT - 66, { low = 0, high } = props;
    return [
      ...rows.at.map((row) => ({
        text: cut(rows.step === 1 ? props.rowName(row) : (props.rowTick ?? String)(row), LEFT - 10, widthOf),
        x: LEFT - 6, y: this.y(row + 0.5), end: true, fill: row === props.marked ? css("--ink") : undefined,
      })),
      ...(named ? columns : labelled(view.x0, view.x1, wide, 44)).at.map((column) => ({
        text: cut(named ? props.columnName(column) : (props.columnTick ?? String)(column), 68, widthOf),
        x: this.x(column + 0.5) + (this.bottom > 24 && named ? 3 : named ? 4 : 12), y: this.height - this.bottom + 10, turned: named && this.bottom > 24, end: true,
      })),
      { text: `${props.rowTitle} \u2193  ${props.columnTitle} \u2192`, x: 4, y: 12 },
      { text: number(isDifference(props) ? -high : low, props.unit), x: end - 126, y: 12, end: true },
      { text: number(high, props.unit), x: end + 6, y: 12 },
    ];
  }

  /** The scale as a row of small rectangles. */
  legend(): Shape[] {
    const start = this.width - RIGHT - 66 - 120;
    return Array.from({ length: 60 }, (_, i) => ({ x: start + 2 * i, y: 7, width: 2.2, height: 10, fill: this.paint255(Math.round((255 * i) / 59)) }));
  }

  svg(): string {
    const { props, view } = this, region = { x0: Math.floor(view.x0), x1: Math.ceil(view.x1), y0: Math.floor(view.y0), y1: Math.ceil(view.y1) };
    let factor = 1, found = pooled(props.cells, region, factor);
    while (found.values.reduce((n, value) => n + (value === value ? 1 : 0), 0) > MOST_RECTS) found = pooled(props.cells, region, (factor *= 2));
    const rects: Shape[] = [];
    found.values.forEach((value, i) => {
      if (value !== value) return;
      const row = region.y0 + Math.floor(i / found.width) * factor, column = region.x0 + (i % found.width) * factor;
      const x = this.x(column), y = this.y(row);
      rects.push({ x, y, width: this.x(column + factor) - x, height: this.y(row + factor) - y, fill: this.paint255(this.index(value)) });
    });
    const edge = `x="${LEFT}" y="${TOP}" width="${this.width - LEFT - RIGHT}" height="${this.height - TOP - this.bottom}"`;
    const body = [
      `<clipPath id="plot"><rect ${edge}/></clipPath><g clip-path="url(#plot)" shape-rendering="crispEdges">${svgShapes([...rects, ...this.words(about)])}</g>`,
      `<rect ${edge} fill="none" stroke="${escaped(css("--line"))}"/>`,
      svgShapes([...this.labels(about), ...this.legend()]),
    ].join("\n");
    return svgPage({ width: this.width, height: this.height, title: props.title, caption: props.caption, body, ground: css("--panel"), ink: css("--ink") });
  }
}
