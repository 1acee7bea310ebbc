// What draws a chart: on a canvas, or into an SVG. Whatever is drawn with a pen looks alike on the page and in the file.

import { escaped, FONT } from "./export";

export type Point = readonly [x: number, y: number];

export interface Stroke {
  colour: string;
  width?: number;
  dash?: readonly number[];
}

export interface Pen {
  line(points: readonly Point[], how: Stroke): void;
  area(points: readonly Point[], colour: string, alpha: number): void;
  /** Discs; rings where `ring` is their line's width. */
  dots(points: readonly Point[], radius: number, colour: string, ring?: number): void;
  text(x: number, y: number, words: string, colour: string, anchor?: "start" | "middle" | "end"): void;
  within(box: Box, draw: () => void): void;
}

export interface Box {
  left: number;
  top: number;
  right: number;
  bottom: number;
}

export function canvasPen(to: CanvasRenderingContext2D): Pen {
  const trace = (points: readonly Point[]): void => {
    to.beginPath();
    for (const [x, y] of points) to.lineTo(x, y);
  };
  to.font = `11px ${FONT}`;
  to.lineJoin = "round";
  return {
    line(points, { colour, width = 1, dash = [] }) {
      trace(points);
      Object.assign(to, { strokeStyle: colour, lineWidth: width });
      to.setLineDash([...dash]);
      to.stroke();
      to.setLineDash([]);
    },
    area(points, colour, alpha) {
      trace(points);
      Object.assign(to, { fillStyle: colour, globalAlpha: alpha });
      to.fill();
      to.globalAlpha = 1;
    },
    dots(points, radius, colour, ring) {
      Object.assign(to, { fillStyle: colour, strokeStyle: colour, lineWidth: ring ?? 0 });
      to.beginPath();
      for (const [x, y] of points) to.moveTo(x + radius, y), to.arc(x, y, radius, 0, 7);
      if (ring) to.stroke();
      else to.fill();
    },
    text(x, y, words, colour, anchor = "start") {
      Object.assign(to, { fillStyle: colour, textAlign: anchor === "middle" ? "center" : anchor });
      to.fillText(words, x, y);
    },
    within({ left, top, right, bottom }, draw) {
      to.save();
      to.beginPath();
      to.rect(left, top, right - left, bottom - top);
      to.clip();
      draw();
      to.restore();
    },
  };
}

const P = (value: number): string => String(Math.round(value * 10) / 10);

/** A pen that writes SVG elements into `body`. */
export function svgPen(body: string[]): Pen {
  const path = (points: readonly Point[]): string => points.map(([x, y], i) => `${i ? "L" : "M"}${P(x)} ${P(y)}`).join("");
  return {
    line(points, { colour, width = 1, dash }) {
      const dashes = dash ? ` stroke-dasharray="${dash.join(" ")}"` : "";
      body.push(`<path d="${path(points)}" fill="none" stroke="${escaped(colour)}" stroke-width="${width}" stroke-linejoin="round"${dashes}/>`);
    },
    area(points, colour, alpha) {
      body.push(`<path d="${path(points)}Z" fill="${escaped(colour)}" fill-opacity="${alpha}"/>`);
    },
    dots(points, radius, colour, ring) {
      const how = ring ? `fill="none" stroke="${escaped(colour)}" stroke-width="${ring}"` : `fill="${escaped(colour)}"`;
      for (const [x, y] of points) body.push(`<circle cx="${P(x)}" cy="${P(y)}" r="${radius}" ${how}/>`);
    },
    text(x, y, words, colour, anchor = "start") {
      body.push(`<text x="${P(x)}" y="${P(y)}" text-anchor="${anchor}" fill="${escaped(colour)}">${escaped(words)}</text>`);
    },
    within({ left, top, right, bottom }, draw) {
      const size = `width="${P(right - left)}" height="${P(bottom - top)}"`;
      body.push(`<clipPath id="plot"><rect x="${P(left)}" y="${P(top)}" ${size}/></clipPath><g clip-path="url(#plot)">`);
      draw();
      body.push("</g>");
    },
  };
}
