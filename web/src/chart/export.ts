// What leaves the page: tables as CSV, pictures with their title and caption. Everything here but `save` is values in, values out.
//
//   csvOf(columns)                          a table; lines end as RFC 4180 has them
//   titled(picture, title, caption)         a picture with its title above and its caption below
//   save(name, type, content)               hands a file to the reader; true where it may have been forbidden (a sandboxed frame)

import type { Unit, Values } from "../document";
import { floor, max } from "../maths";
import type { Picture } from "./pen";

export interface Column {
  name: string;
  unit: Unit;
  values: Values | (string | null)[];
}

export const CSV = "text/csv;charset=utf-8";

export const column = <V extends Column["values"]>(name: string, values: V, unit: Unit = "") => ({ name, unit, values });

export function csvOf(columns: Column[]): string {
  // a spreadsheet takes such a cell for a formula; an apostrophe makes it text
  const inert = (text: string): string => (/^[=+\-@\uff1d\uff0b\uff0d\uff20\t\r]/.test(text) ? `'${text}` : text);
  const cell = (value: string | number | null | undefined): string => {
    if (typeof value !== "string") return String(value ?? "");
    const text = inert(value);
    return /[",;\r\n]/.test(text) ? `"${text.replaceAll('"', '""')}"` : text;
  };
  const rows = [columns.map((one) => cell(one.unit ? `${one.name} (${one.unit})` : one.name)).join(",")];
  const n = max(0, ...columns.map((one) => one.values.length));
  for (let i = 0; i < n; i++) rows.push(columns.map((one) => cell(one.values[i])).join(","));
  return rows.join("\r\n") + "\r\n";
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

export function titled(picture: Picture, title: string, caption: string): Picture {
  const width = max(picture.width, 320), lines = folded(caption, floor((width - 24) / 6.4)), below = picture.height + 34;
  const height = below + 16 * lines.length + 12;
  return {
    width, height,
    draw(pen) {
      pen.rect(0, 0, width, height, "--panel");
      pen.text(12, 22, title, "--ink", { size: 14, weight: 600 });
      pen.moved(0, 34, () => picture.draw(pen));
      lines.forEach((line, i) => pen.text(12, below + 16 * (i + 1), line, "--ink", { size: 12 }));
    },
  };
}

export function save(name: string, type: string, content: BlobPart): boolean {
  const link = Object.assign(document.createElement("a"), { href: URL.createObjectURL(new Blob([content], { type })), download: name });
  document.body.append(link);
  link.click();
  link.remove();
  setTimeout(() => URL.revokeObjectURL(link.href), 60_000);
  // a frame of no origin of its own is sandboxed, and nothing tells whether it may download
  return window !== top && origin === "null";
}
