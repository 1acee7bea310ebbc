// What draws a picture: on a canvas, or into an SVG. Whatever is drawn with a pen looks alike on the page and in the file. A colour is
// one of CSS, or the name of a variable: "--s1".

import { round } from "../maths";
import { css } from "./colour";

export type Point = readonly [x: number, y: number];

export interface Box {
  left: number;
  top: number;
  right: number;
  bottom: number;
}

export interface Stroke {
  colour: string;
  width?: number;
  dash?: readonly number[];
}

export interface Letters {
  anchor?: "start" | "middle" | "end";
  size?: number;
  weight?: number;
  /** Reads upwards. */
  turned?: boolean;
}

export interface Pen {
  /** The canvas that is drawn on; null of a file. */
  canvas: CanvasRenderingContext2D | null;
  line(points: readonly Point[], how: Stroke): void;
  area(points: readonly Point[], colour: string, alpha?: number): void;
  rect(x: number, y: number, width: number, height: number, colour: string): void;
  /** Discs; rings where `ring` is their line's width. */
  dots(points: readonly Point[], radius: number, colour: string, ring?: number): void;
  text(x: number, y: number, words: string, colour: string, how?: Letters): void;
  widthOf(text: string): number;
  /** What is drawn shows within a box alone; `crisp` where its edges are to be sharp. */
  within(box: Box, draw: () => void, crisp?: boolean): void;
  moved(x: number, y: number, draw: () => void): void;
}

/** A picture of any kind, in pixels of CSS. */
export interface Picture {
  width: number;
  height: number;
  draw(pen: Pen): void;
}

export const FONT = "system-ui, 'Noto Sans', 'Noto Sans CJK SC', sans-serif";
const TURN = -60;

/** About how wide a text of 11 pixels is. */
export const widthOf = (text: string): number => [...text].reduce((sum, one) => sum + (one > "\u2e7f" ? 11 : 6.1), 0);

/** A text cut to so many pixels. */
export function cut(text: string, most: number, width = widthOf): string {
  const letters = [...text.slice(0, 240)];
  if (letters.length < 60 && width(text) <= most) return text;
  let kept = Math.min(letters.length, 60);
  const short = (): string => `${letters.slice(0, kept).join("")}\u2026`;
  while (kept > 1 && width(short()) > most) kept--;
  return short();
}

const paint = (colour: string, of: typeof css): string => (colour.startsWith("--") ? of(colour) : colour);

function canvasPen(to: CanvasRenderingContext2D): Pen {
  const set = (how: Partial<CanvasRenderingContext2D>) => Object.assign(to, how);
  const trace = (points: readonly Point[]): void => {
    to.beginPath();
    for (const [x, y] of points) to.lineTo(x, y);
  };
  const apart = (draw: () => void): void => {
    to.save();
    draw();
    to.restore();
  };
  set({ lineJoin: "round", font: `11px ${FONT}` });
  return {
    canvas: to,
    line(points, { colour, width = 1, dash = [] }) {
      trace(points);
      set({ strokeStyle: paint(colour, css), lineWidth: width });
      to.setLineDash([...dash]);
      to.stroke();
    },
    area(points, colour, alpha = 1) {
      trace(points);
      set({ fillStyle: paint(colour, css), globalAlpha: alpha });
      to.fill();
      to.globalAlpha = 1;
    },
    rect(x, y, width, height, colour) {
      to.fillStyle = paint(colour, css);
      to.fillRect(x, y, width, height);
    },
    dots(points, radius, colour, ring) {
      const fillStyle = paint(colour, css);
      set({ fillStyle, strokeStyle: fillStyle, lineWidth: ring ?? 0 });
      to.setLineDash([]);
      to.beginPath();
      for (const [x, y] of points) to.moveTo(x + radius, y), to.arc(x, y, radius, 0, 7);
      if (ring) to.stroke();
      else to.fill();
    },
    text(x, y, words, colour, { anchor = "start", size = 11, weight = 400, turned } = {}) {
      apart(() => {
        to.translate(x, y);
        if (turned) to.rotate((TURN * Math.PI) / 180);
        set({ fillStyle: paint(colour, css), textAlign: anchor === "middle" ? "center" : anchor, font: `${weight} ${size}px ${FONT}` });
        to.fillText(words, 0, 0);
      });
    },
    widthOf: (text) => to.measureText(text).width,
    within({ left, top, right, bottom }, draw) {
      apart(() => {
        to.beginPath();
        to.rect(left, top, right - left, bottom - top);
        to.clip();
        draw();
      });
    },
    moved(x, y, draw) {
      apart(() => {
        to.translate(x, y);
        draw();
      });
    },
  };
}

/** Draws a picture on a canvas, which becomes as large as it. */
export function paintOn(canvas: HTMLCanvasElement, { width, height, draw }: Picture): HTMLCanvasElement {
  const ratio = devicePixelRatio || 1, to = canvas.getContext("2d")!;
  canvas.width = round(width * ratio), canvas.height = round(height * ratio);
  to.scale(ratio, ratio);
  draw(canvasPen(to));
  return canvas;
}

const MARKS: Record<string, string> = { "&": "&amp;", "<": "&lt;", ">": "&gt;", '"': "&quot;", "'": "&#39;" };

/** Any string as text of XML: marks, and what XML 1.0 cannot hold. */
export function escaped(text: string): string {
  return text
    .replace(/[&<>"']/g, (one) => MARKS[one]!)
    .replace(/[^\t\n\r\u0020-\ud7ff\ue000-\ufffd\u{10000}-\u{10ffff}]|[\u202a-\u202e\u2066-\u2069\u200e\u200f\u061c]/gu, "\ufffd");
}

type Attributes = Record<string, string | number | false | undefined>;

/** A picture as an SVG file. `of` gives the colours. */
export function svgOf({ width, height, draw }: Picture, title: string, caption: string, of = css): string {
  const body: string[] = [];
  const tag = (name: string, attributes: Attributes, end = "/>"): void => {
    const written = Object.entries(attributes).map(([key, value]) =>
      value === undefined || value === false ? "" : ` ${key}="${typeof value === "number" ? round(value * 100) / 100 : escaped(value)}"`);
    body.push(`<${name}${written.join("")}${end}`);
  };
  const group = (attributes: Attributes, draw: () => void): void => {
    tag("g", attributes, ">");
    draw();
    body.push("</g>");
  };
  const path = (points: readonly Point[]): string => points.map(([x, y], i) => `${i ? "L" : "M"}${round(x * 10) / 10} ${round(y * 10) / 10}`).join("");
  const pen: Pen = {
    canvas: null,
    widthOf,
    line(points, { colour, width = 1, dash }) {
      tag("path", { d: path(points), fill: "none", stroke: paint(colour, of), "stroke-width": width, "stroke-linejoin": "round", "stroke-dasharray": dash?.join(" ") });
    },
    area(points, colour, alpha = 1) {
      tag("path", { d: `${path(points)}Z`, fill: paint(colour, of), "fill-opacity": alpha });
    },
    rect(x, y, width, height, colour) {
      tag("rect", { x, y, width, height, fill: paint(colour, of) });
    },
    dots(points, radius, colour, ring) {
      const shade = paint(colour, of);
      for (const [cx, cy] of points) tag("circle", { cx, cy, r: radius, fill: ring ? "none" : shade, stroke: ring && shade, "stroke-width": ring });
    },
    text(x, y, words, colour, { anchor, size, weight, turned } = {}) {
      tag("text", {
        x, y, "text-anchor": anchor, fill: paint(colour, of), "font-size": size, "font-weight": weight,
        transform: turned && `rotate(${TURN} ${round(x)} ${round(y)})`,
      }, `>${escaped(words)}</text>`);
    },
    within({ left, top, right, bottom }, draw, crisp) {
      body.push('<clipPath id="plot">');
      tag("rect", { x: left, y: top, width: right - left, height: bottom - top });
      body.push("</clipPath>");
      group({ "clip-path": "url(#plot)", "shape-rendering": crisp && "crispEdges" }, draw);
    },
    moved(x, y, draw) {
      group({ transform: `translate(${x} ${y})` }, draw);
    },
  };
  body.push('<?xml version="1.0" encoding="UTF-8"?>');
  tag("svg", { xmlns: "http://www.w3.org/2000/svg", width, height, viewBox: `0 0 ${width} ${height}`, "font-family": FONT, "font-size": 11, role: "img" }, ">");
  body.push(`<title>${escaped(title)}</title><desc>${escaped(caption)}</desc>`);
  draw(pen);
  return [...body, "</svg>\n"].join("\n");
}
