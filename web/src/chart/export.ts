// What leaves the page: tables as CSV, charts as SVG and PNG. Everything here but `save` and `pngOf` is text in, text out.
//
//   csvOf(columns)                          a table; lines end as RFC 4180 has them
//   escaped(text)                           any string as text of XML: marks, and what XML 1.0 cannot hold
//   svgPage({width, height, title, caption, body, ground, ink})   a whole SVG file around your shapes, `body` drawn from (0, 0)
//   pngOf(canvas, title, caption)           a canvas with title and caption around it, in the page's colours
//   save(name, type, content)               hands a file to the reader; true where it may have been forbidden (a sandboxed frame)

import type { Unit, Values } from "../document";
import { css } from "./colour";

export interface Column {
  name: string;
  unit: Unit;
  values: Values | (string | null)[];
}

export function csvOf(columns: Column[]): string {
  // a spreadsheet takes such a cell for a formula; an apostrophe makes it text
  const inert = (text: string): string => (/^[=+\-@\t\r]/.test(text) ? `'${text}` : text);
  const cell = (value: string | number | null | undefined): string => {
    if (value === null || value === undefined) return "";
    if (typeof value === "number") return String(value);
    const text = inert(value);
    return /[",\r\n]/.test(text) ? `"${text.replaceAll('"', '""')}"` : text;
  };
  const rows = [columns.map((one) => cell(one.unit ? `${one.name} (${one.unit})` : one.name)).join(",")];
  const n = Math.max(0, ...columns.map((one) => one.values.length));
  for (let i = 0; i < n; i++) rows.push(columns.map((one) => cell(one.values[i])).join(","));
  return rows.join("\r\n") + "\r\n";
}

const MARKS: Record<string, string> = { "&": "&amp;", "<": "&lt;", ">": "&gt;", '"': "&quot;", "'": "&#39;" };

export function escaped(text: string): string {
  return text
    .replace(/[&<>"']/g, (one) => MARKS[one]!)
    .replace(/[^\t\n\r\u0020-\ud7ff\ue000-\ufffd\u{10000}-\u{10ffff}]|[\u202a-\u202e\u2066-\u2069\u200e\u200f\u061c]/gu, "\ufffd");
}

/** Lines of about so many columns; a Chinese character takes two. */
export function folded(text: string, columns: number): string[] {
  const lines: string[] = [];
  let line = "", used = 0;
  for (const part of text.match(/[\u2e80-\uffef][\u3000-\u303f\uff00-\uff0f\uff1a-\uff1f]?|[^\s\u2e80-\uffef]+\s*|\s+/gu) ?? []) {
    const width = [...part.trimEnd()].reduce((sum, one) => sum + (one > "\u2e7f" ? 2 : 1), 0);
    if (line && used + width > columns) {
      lines.push(line.trimEnd());
      line = "", used = 0;
    }
    line += part, used += width + part.length - part.trimEnd().length;
  }
  return line.trim() ? [...lines, line.trimEnd()] : lines;
}

export interface SvgPage {
  width: number;
  height: number;
  title: string;
  caption: string;
  body: string;
  ground: string;
  ink: string;
}

export const FONT = "system-ui, 'Noto Sans', 'Noto Sans CJK SC', sans-serif";

export function svgPage({ width, height, title, caption, body, ground, ink }: SvgPage): string {
  const lines = folded(caption, Math.floor(width / 6.2));
  const high = height + 34 + 16 * lines.length + 12;
  const text = (y: number, size: number, weight: number, words: string): string =>
    `<text x="12" y="${y}" font-size="${size}" font-weight="${weight}">${escaped(words)}</text>`;
  return [
    '<?xml version="1.0" encoding="UTF-8"?>',
    `<svg xmlns="http://www.w3.org/2000/svg" width="${width}" height="${high}" viewBox="0 0 ${width} ${high}" ` +
      `font-family="${escaped(FONT)}" font-size="11" fill="${escaped(ink)}" role="img">`,
    `<title>${escaped(title)}</title><desc>${escaped(caption)}</desc>`,
    `<rect width="${width}" height="${high}" fill="${escaped(ground)}"/>`,
    text(22, 14, 600, title),
    `<g transform="translate(0 34)">${body}</g>`,
    ...lines.map((line, i) => text(height + 34 + 16 * (i + 1), 12, 400, line)),
    "</svg>\n",
  ].join("\n");
}

export function pngOf(of: HTMLCanvasElement, title: string, caption: string): Promise<Blob | null> {
  const ratio = Math.max(1, devicePixelRatio), wide = Math.max(of.width, 320 * ratio);
  const lines = folded(caption, Math.floor(wide / ratio / 6.2));
  const canvas = document.createElement("canvas");
  canvas.width = wide;
  canvas.height = of.height + (34 + 16 * lines.length + 12) * ratio;
  const to = canvas.getContext("2d")!;
  to.fillStyle = css("--panel");
  to.fillRect(0, 0, canvas.width, canvas.height);
  to.drawImage(of, 0, 34 * ratio);
  to.scale(ratio, ratio);
  to.fillStyle = css("--ink");
  to.font = `600 14px ${FONT}`;
  to.fillText(title, 12, 22);
  to.font = `12px ${FONT}`;
  lines.forEach((line, i) => to.fillText(line, 12, of.height / ratio + 34 + 16 * (i + 1)));
  return new Promise((done) => canvas.toBlob(done));
}

export function save(name: string, type: string, content: BlobPart): boolean {
  const link = document.createElement("a");
  link.href = URL.createObjectURL(new Blob([content], { type }));
  link.download = name;
  document.body.append(link);
  link.click();
  link.remove();
  setTimeout(() => URL.revokeObjectURL(link.href), 60_000);
  // a frame of no origin of its own is sandboxed, and nothing tells whether it may download
  return window !== top && origin === "null";
}
