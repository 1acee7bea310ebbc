// A table of any length: only the rows that are seen are in the page.

import { useSignal } from "@preact/signals";
import type { ComponentChildren } from "preact";
import { useLayoutEffect, useRef } from "preact/hooks";
import { small } from "./blocks";
import { numbered } from "./elements";
import { ceil, floor, max, min, times } from "./maths";
import { printing } from "./print";
import { ui } from "./words";

export interface Head {
  key: string;
  title: string;
  number?: boolean;
}

export interface RowsProps {
  label: string;
  head: Head[];
  /** Rows in the order that they are shown in. */
  order: ArrayLike<number>;
  cell(row: number, key: string): ComponentChildren;
  selected: number | null;
  onSelect(row: number): void;
  sort?: { key: string; down: boolean };
  onSort?(key: string): void;
}

const HIGH = 30;
const SPARE = 12;
/** Rows that are printed; paper does not scroll. */
const PRINTED = 200;

/** Rows from the first that is seen to behind the last, with some to spare. */
export function seen(top: number, height: number, n: number): [number, number] {
  const first = max(0, min(n, floor(top / HIGH)) - SPARE);
  return [first, min(n, ceil((top + height) / HIGH) + SPARE)];
}

export function Rows({ label, head, order, cell, selected, onSelect, sort, onSort }: RowsProps) {
  const box = useRef<HTMLDivElement>(null);
  const view = useSignal<[top: number, height: number]>([0, 700]);
  const paper = printing.value;
  const n = paper ? min(PRINTED, order.length) : order.length;
  const [first, last] = paper ? [0, n] : seen(...view.value, n);
  const look = (): void => void (view.value = [box.current!.scrollTop, box.current!.clientHeight]);
  useLayoutEffect(look, [n]);
  useLayoutEffect(() => {
    const at = selected === null ? -1 : Array.prototype.indexOf.call(order, selected);
    const own = box.current!;
    if (at >= 0 && (at * HIGH < own.scrollTop || (at + 3) * HIGH > own.scrollTop + own.clientHeight)) own.scrollTop = at * HIGH - own.clientHeight / 2;
  }, [selected, order]);
  const gap = (rows: number) => rows > 0 && <tr aria-hidden="true" class="gap"><td colSpan={head.length} style={{ height: `${rows * HIGH}px` }} /></tr>;
  const pick = (event: MouseEvent): void => {
    const row = numbered(event, "row");
    if (row !== null) onSelect(row);
  };
  const how = (number?: boolean): string => (number ? "num" : "");
  return (
    <div ref={box} class="scroll rows" tabIndex={0} role="region" aria-label={label} onScroll={look}>
      {n < order.length && small(ui("first_rows", { n, all: order.length }))}
      <table class="table" aria-rowcount={order.length + 1}>
        <thead>
          <tr aria-rowindex={1}>
            {head.map(({ key, title, number }) => {
              const by = sort?.key === key ? (sort.down ? "descending" : "ascending") : undefined;
              return (
                <th scope="col" class={how(number)} aria-sort={by}>
                  <button type="button" class="btn" onClick={() => onSort?.(key)}>{title}{by ? (sort!.down ? " \u2193" : " \u2191") : ""}</button>
                </th>
              );
            })}
          </tr>
        </thead>
        <tbody onClick={pick}>
          {gap(first)}
          {times(last - first, (k) => {
            const row = order[first + k]!;
            return (
              <tr key={row} data-row={row} aria-rowindex={first + k + 2} aria-selected={row === selected}>
                {head.map(({ key, number }) => <td class={how(number)}>{cell(row, key)}</td>)}
              </tr>
            );
          })}
          {gap(n - last)}
        </tbody>
      </table>
    </div>
  );
}
