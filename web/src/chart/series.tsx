// A chart of series in its frame: lines, points, bands, marks, logarithmic axes, a brush.
//
//   <SeriesChart id="time" title="..." caption="..." spec={spec} height={260} tools={...} announce={(i) => ...} onSelect={(i) => ...} />
//
// `spec` (picture.ts: Spec) must be the same object as long as nothing in it changes: keep it with useMemo or computed.
// x.values ascend. With `places` (the place of each row) the chart shows the shared range, a drag sets it and a double click clears
// it, a click or Enter sets the shared selection, and the cursors of all such charts go together (`hovered`). Without places the
// drag and the cursor are the chart's own, and `onSelect` tells of a click. Hovering draws nothing anew: a line and dots are moved.

import { effect, signal, useSignal } from "@preact/signals";
import type { ComponentChildren } from "preact";
import { useEffect, useLayoutEffect, useRef } from "preact/hooks";
import { useWidth } from "./frame";
import { abs, clamp, max, min, where } from "../maths";
import { range, selected } from "../state";
import { themed } from "./colour";
import { ChartFrame } from "./frame";
import { paintOn } from "./pen";
import { columnsOf, drawn, layout, nearest, pictureOf, reading, type Ends, type Layout, type Spec } from "./picture";

export { lineOf, type Line, type Spec } from "./picture";

/** The place under the pointer in any chart. */
export const hovered = signal<number | null>(null);

export interface SeriesProps {
  id: string;
  title: string;
  caption: string;
  spec: Spec;
  height?: number;
  tools?: ComponentChildren;
  announce?(index: number): string;
  onSelect?(index: number): void;
}

/** A drag of fewer pixels is a click. */
const DRAG = 4;

export function SeriesChart({ id, title, caption, spec, height = 240, tools, announce, onSelect }: SeriesProps) {
  const holder = useRef<HTMLDivElement>(null), canvas = useRef<HTMLCanvasElement>(null);
  const over = useRef<HTMLDivElement>(null), here = useRef<HTMLDivElement>(null), brush = useRef<HTMLDivElement>(null);
  const now = useRef<Layout | null>(null), from = useRef<number | null>(null);
  const at = useSignal<number | null>(null), own = useSignal<Ends | null>(null), width = useWidth(holder);
  const n = spec.x.values.length, read = drawn(spec).filter((one) => !one.quiet);
  const rowOf = (place: number | null): number | null => {
    const row = place === null || !spec.places ? -1 : spec.places.indexOf(place);
    return row < 0 ? null : row;
  };
  const point = (row: number | null): void => {
    at.value = row;
    if (spec.places) hovered.value = row === null ? null : spec.places[row] ?? null;
  };
  const choose = (row: number): void => {
    selected.value = spec.places?.[row] ?? selected.value;
    onSelect?.(row);
  };
  const shown = (): Ends | null => (spec.places ? within(spec, range.value) : own.value);

  useLayoutEffect(() => {
    if (!width || !n) return;
    const move = (element: HTMLElement, x: number | null): void => {
      const { left, right } = now.current!.box;
      element.hidden = x === null || x < left || x > right;
      element.style.transform = `translateX(${x}px)`;
    };
    const stops = [
      effect(() => {
        const laid = (now.current = layout(spec, width, height, shown())), row = rowOf(selected.value);
        paintOn(canvas.current!, pictureOf(spec, laid));
        move(here.current!, row === null ? null : laid.xOf(spec.x.values[row]!));
      }),
      effect(() => {
        const row = at.value, { xOf, yOf, y: [low, high] } = now.current!;
        move(over.current!, row === null ? null : xOf(spec.x.values[row] ?? NaN));
        [...over.current!.children].forEach((dot, i) => {
          const value = row === null ? null : read[i]?.values[row] ?? null;
          (dot as HTMLElement).hidden = value === null || value < low || value > high;
          (dot as HTMLElement).style.transform = `translateY(${yOf(value ?? 0)}px)`;
        });
      }),
      // what another chart points at
      effect(() => {
        if (spec.places) at.value = rowOf(hovered.value);
      }),
    ];
    return () => stops.forEach((stop) => stop());
  }, [spec, width, height, themed.value]);

  useEffect(() => {
    at.value = null;
  }, [spec]);

  const pixel = (event: MouseEvent): number => event.clientX - holder.current!.getBoundingClientRect().left;
  const inside = (x: number): boolean => now.current !== null && x >= now.current.box.left - DRAG && x <= now.current.box.right + DRAG;
  const drag = (event: PointerEvent): void => {
    const x = pixel(event), start = from.current, box = brush.current!;
    if (!now.current) return;
    if (start === null) return point(inside(x) ? nearest(spec, now.current, x) : null);
    box.hidden = abs(x - start) < DRAG;
    Object.assign(box.style, { left: `${min(x, start)}px`, width: `${abs(x - start)}px` });
  };
  const drop = (event: PointerEvent): void => {
    const start = from.current, x = pixel(event), of = now.current;
    from.current = null;
    brush.current!.hidden = true;
    if (start === null || !of) return;
    if (abs(x - start) < DRAG) return choose(nearest(spec, of, x));
    const ends = [start, x].sort((a, b) => a - b).map((one) => of.valueAt(clamp(one, of.box.left, of.box.right))) as Ends;
    if (!spec.places) own.value = ends;
    else {
      const found = spec.places.filter((place, i): place is number => place !== null && spec.x.values[i]! >= ends[0] && spec.x.values[i]! <= ends[1]);
      if (found.length) range.value = endsOf(found);
    }
  };

  return (
    <ChartFrame
      id={id} title={title} caption={caption} tools={tools} count={n} columns={() => columnsOf(spec)}
      cursor={at.value ?? rowOf(selected.value)} announce={announce ?? ((i) => reading(spec, i))} onSelect={choose}
      onCursor={(i) => point(i === null || !now.current ? null : clamp(i, now.current.from, now.current.to))}
      picture={() => pictureOf(spec, now.current ?? layout(spec, width, height, null))}
    >
      <div
        ref={holder} class="stage chart-canvas" style={{ height: `${height}px` }} onPointerMove={drag} onPointerUp={drop}
        onPointerLeave={() => from.current === null && point(null)}
        onPointerDown={(event) => {
          const x = pixel(event);
          if (event.button || !inside(x)) return;
          from.current = x;
          holder.current!.setPointerCapture?.(event.pointerId);
        }}
        onDblClick={() => (spec.places ? (range.value = null) : (own.value = null))}
      >
        <canvas ref={canvas} />
        <div ref={here} class="chart-here" hidden />
        <div ref={brush} class="chart-brush" hidden />
        <div ref={over} class="chart-over" hidden>{read.map((one) => <i style={{ borderColor: `var(${one.colour})` }} />)}</div>
      </div>
    </ChartFrame>
  );
}

/** The least and the greatest, of any number of them. */
const endsOf = (values: number[]): Ends => values.reduce<Ends>(([low, high], one) => [min(low, one), max(high, one)], [Infinity, -Infinity]);

/** The part of the x axis that shows a range of places; null for all of it. */
function within({ places, x }: Spec, ends: Ends | null): Ends | null {
  if (!ends) return null;
  const [low, high] = endsOf(where(places!, (place) => place !== null && place >= ends[0] && place <= ends[1]).map((i) => x.values[i]!));
  return low < high ? [low, high] : null;
}
