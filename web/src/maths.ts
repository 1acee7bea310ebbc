// Mathematics under its short names, and what is done with numbers and lists again and again.

export const { abs, ceil, exp, floor, hypot, log, log10, max, min, round, sign } = Math;

export const clamp = (value: number, low: number, high: number): number => max(low, min(high, value));

/** `make(0)` to `make(n - 1)`. */
export const times = <T>(n: number, make: (i: number) => T): T[] => Array.from({ length: n }, (_, i) => make(i));

/** The places of a list for which something holds, as it is asked of each with its place. */
export const where = <T>(of: readonly T[], holds: (one: T, i: number) => boolean): number[] => of.flatMap((one, i) => (holds(one, i) ? [i] : []));

/** Whether there is anything in a column. */
export const known = (values: readonly unknown[]): boolean => values.some((one) => one !== null);
