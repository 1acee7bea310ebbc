// The order of a table's rows.

import { times } from "./maths";

/** Rows ordered by a column; rows without a value come last either way, and equal ones keep their order. */
export function ordered(values: readonly (number | string | null)[] | null, n: number, down: boolean): number[] {
  const rows = times(n, Number);
  if (!values) return down ? rows.reverse() : rows;
  return rows.sort((a, b) => {
    const x = values[a] ?? null, y = values[b] ?? null;
    if (x === null || y === null) return x === y ? a - b : x === null ? 1 : -1;
    const order = typeof x === "number" ? x - Number(y) : x.localeCompare(String(y), undefined, { numeric: true });
    return (down ? -order : order) || a - b;
  });
}
