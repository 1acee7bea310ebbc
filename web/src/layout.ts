// How a text is laid out in the ribbon: cells, and blocks of cells that are drawn only where they are seen. Pure functions.

import type { Symbols } from "./document";
import { floor, min } from "./maths";

/** Places that are drawn together: one token, those that share a character, or those of a prompt whose text is known as a whole only. */
export interface Cell {
  from: number;
  /** Half-open. */
  to: number;
  text: string;
  /** The line ends after it. */
  breaks: boolean;
}

export interface Block {
  from: number;
  to: number;
}

const LONGEST = 600;
const MARKS: Record<string, string> = { "\\n": "\u21b5\n", "\\r": "\u240d", "\\t": "\u21e5" };

/** Whether a token's text ends a line; a backslash that was written as one does not. */
export function breaks(text: string): boolean {
  return /(^|[^\\])(\\\\)*\\n$/.test(text);
}

/** So much of a text, and no half of a character. */
const cut = (text: string, most: number): string => (text.length > most ? text.slice(0, most).replace(/[\ud800-\udbff]$/, "") + "\u2026" : text);

/** What is drawn of a token: marks for line ends and tabs, and no more than fits. A prompt of unknown tokens (`whole`) is drawn whole. */
export function drawn(text: string, whole = false): string {
  return cut(text, whole ? Infinity : LONGEST).replace(/\\[\s\S]/g, (one) => MARKS[one] ?? one).replace(/\n$/, "") || "\u00b7";
}

/** The places around one whose tokens share a character with it; half-open. */
export function sharing(symbols: Symbols, place: number): [number, number] {
  let [from, to] = [place, place + 1];
  while (from > 0 && symbols.open[from - 1]) from--;
  while (to < symbols.text.length && symbols.open[to - 1]) to++;
  return [from, to];
}

/** How a place is called: its text, of a part of a character the whole character; cut where it is long. */
export function nameOf(symbols: Symbols, place: number, longest = 80): string {
  return cut(symbols.text.slice(...sharing(symbols, place)).join("") || "\u00b7", longest);
}

export function cellsOf(symbols: Symbols, { from, to }: Block): Cell[] {
  const cells: Cell[] = [];
  for (let start = from; start < to; ) {
    const end = min(to, sharing(symbols, start)[1]);
    const text = symbols.text.slice(start, end).join("");
    cells.push({ from: start, to: end, text: drawn(text, symbols.ids[start] === null || symbols.hex[start] === null), breaks: breaks(text) });
    start = end;
  }
  return cells;
}

/** Cuts a text into blocks of about `size` places, after a line end where one is near, never inside of a character. */
export function blocksOf(symbols: Symbols, size = 256): Block[] {
  const n = symbols.text.length;
  const blocks: Block[] = [];
  for (let from = 0; from < n; ) {
    let to = min(n, from + size);
    if (n - from <= size * 1.25) to = n;
    else for (let end = from + floor(size * 1.25); end > from + size * 0.75; end--) {
      if (breaks(symbols.text[end - 1]!)) {
        to = end;
        break;
      }
    }
    while (to < n && symbols.open[to - 1]) to++;
    blocks.push({ from, to });
    from = to;
  }
  return blocks;
}

/** About how many lines a block takes where a line holds so many letters; East Asian ones are twice as wide. */
export function linesOf(symbols: Symbols, { from, to }: Block, letters: number): number {
  let lines = 1;
  let used = 0;
  for (let place = from; place < to; place++) {
    const text = symbols.text[place]!;
    const width = text.length > LONGEST ? LONGEST : text.length + (text.match(/[\u2e80-\uffe6]/g)?.length ?? 0);
    used += width;
    if (used > letters) {
      lines += floor(used / letters);
      used %= letters;
    }
    if (breaks(text)) {
      lines++;
      used = 0;
    }
  }
  return lines;
}
