// Two sequences laid side by side as cells: what the page draws of the stretches that Python found. Pure functions.

export type Span = [from: number, to: number];

export interface Pair {
  /** Tokens of A and of B, half-open; null where one has none. */
  a: Span | null;
  b: Span | null;
  /** 0 the same, 1 the same text cut otherwise, 2 others. */
  kind: number;
}

/** Stretches (five numbers each) as cells, tokens one by one; a stretch that is cut otherwise is one cell. */
export function pairsOf(stretches: number[]): Pair[] {
  const found: Pair[] = [];
  for (let s = 0; s < stretches.length; s += 5) {
    const [a0, a1, b0, b1, kind] = stretches.slice(s, s + 5) as [number, number, number, number, number];
    if (kind === 1) found.push({ a: a1 > a0 ? [a0, a1] : null, b: b1 > b0 ? [b0, b1] : null, kind });
    else {
      for (let i = 0; i < Math.max(a1 - a0, b1 - b0); i++) {
        found.push({ a: a0 + i < a1 ? [a0 + i, a0 + i + 1] : null, b: b0 + i < b1 ? [b0 + i, b0 + i + 1] : null, kind });
      }
    }
  }
  return found;
}

/** A run of cells that are drawn, or of equal ones that are folded away. */
export interface Run {
  from: number;
  to: number;
  folded: boolean;
}

/** Folds long runs of equal cells but for `near` at either end, and cuts the rest into runs of at most `size`. */
export function runsOf(pairs: Pair[], near = 12, least = 48, size = 256): Run[] {
  const found: Run[] = [];
  const show = (from: number, to: number): void => {
    for (let at = from; at < to; at += size) found.push({ from: at, to: Math.min(to, at + size), folded: false });
  };
  let shown = 0;
  for (let i = 0; i < pairs.length; ) {
    let end = i;
    while (end < pairs.length && pairs[end]!.kind === pairs[i]!.kind) end++;
    if (pairs[i]!.kind === 0 && end - i >= least) {
      const from = i + near, to = end - near;
      show(shown, from);
      found.push({ from, to, folded: true });
      shown = to;
    }
    i = end;
  }
  show(shown, pairs.length);
  return found;
}
