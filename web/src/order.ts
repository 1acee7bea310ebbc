// The order of a table's rows.

import type { Values } from "./document";

/** Rows ordered by a column; rows without a value come last either way, and equal ones keep their order. */
export function ordered(values: Values | null, n: number, down: boolean): number[] {
  const rows = Array.from({ length: n }, (_, row) => row);
  if (!values) return down ? rows.reverse() : rows;
  return rows.sort((a, b) => {
    const [x, y] = [values[a] ?? null, values[b] ?? null];
    if (x === null || y === null) return x === y ? a - b : x === null ? 1 : -1;
    return (down ? y - x : x - y) || a - b;
  });
}
