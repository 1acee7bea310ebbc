// Rectangles and words that are drawn alike on a canvas and in an SVG.

import { css } from "./colour";
import { escaped, FONT } from "./export";

export interface Shape {
  x: number;
  y: number;
  width?: number;
  height?: number;
  fill?: string;
  /** Words at (x, y) in the middle of their height, in place of a rectangle. */
  text?: string;
  /** Words end at x. */
  end?: boolean;
  turned?: boolean;
}

export const LETTERS = `11px ${FONT}`;

export function paintShapes(to: CanvasRenderingContext2D, shapes: Shape[]): void {
  to.font = LETTERS;
  to.textBaseline = "middle";
  for (const { x, y, width = 0, height = 0, fill, text, end, turned } of shapes) {
    to.fillStyle = fill ?? css("--muted");
    if (text === undefined) to.fillRect(x, y, width, height);
    else {
      to.save();
      to.translate(x, y);
      if (turned) to.rotate(-Math.PI / 3);
      to.textAlign = end ? "right" : "left";
      to.fillText(text, 0, 0);
      to.restore();
    }
  }
}

export function svgShapes(shapes: Shape[]): string {
  const at = (value: number): string => String(Math.round(value * 100) / 100);
  return shapes.map(({ x, y, width = 0, height = 0, fill, text, end, turned }) => {
    const colour = fill ? ` fill="${escaped(fill)}"` : "";
    return text === undefined
      ? `<rect x="${at(x)}" y="${at(y)}" width="${at(width)}" height="${at(height)}"${colour}/>`
      : `<text transform="translate(${at(x)} ${at(y)})${turned ? " rotate(-60)" : ""}" dy=".35em"${colour}${end ? ' text-anchor="end"' : ""}>${escaped(text)}</text>`;
  }).join("");
}

/** A text cut to so many pixels. */
export function cut(text: string, most: number, widthOf: (text: string) => number): string {
  const letters = [...text.slice(0, 240)];
  if (letters.length < 60 && widthOf(text) <= most) return text;
  let kept = Math.min(letters.length, 60);
  const short = (): string => `${letters.slice(0, kept).join("")}\u2026`;
  while (kept > 1 && widthOf(short()) > most) kept--;
  return short();
}

/** About how wide a text is, where no canvas can tell. */
export const about = (text: string): number => [...text].reduce((sum, one) => sum + (one > "\u2e7f" ? 11 : 6), 0);
