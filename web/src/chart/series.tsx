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
import { useEffect, useLayoutEffect, useRef, useState } from "preact/hooks";
import { range, selected } from "../state";
import { css, themed } from "./colour";
import { ChartFrame } from "./frame";
import { canvasPen } from "./pen";
import { columnsOf, drawn, drawSeries, layout, nearest, reading, seriesSvg, type Ends, type Layout, type Spec } from "./picture";

export type { Axis, Band, Line, Spec } from "./picture";

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
  const at = useSignal<number | null>(null), own = useSignal<Ends | null>(null);
  const [width, setWidth] = useState(0);
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
    const place = spec.places?.[row];
    if (place !== null && place !== undefined) selected.value = place;
    onSelect?.(row);
  };
  const shown = (): Ends | null => (spec.places ? within(spec, range.value) : own.value);

  useLayoutEffect(() => {
    const watch = new ResizeObserver(([entry]) => setWidth(Math.round(entry!.contentRect.width)));
    watch.observe(holder.current!);
    return () => watch.disconnect();
  }, []);

  useLayoutEffect(() => {
    const of = canvas.current;
    if (!of || !width || !n) return;
    const move = (element: HTMLElement | null, x: number | null): void => {
      const box = now.current!.box;
      element!.hidden = x === null || x < box.left || x > box.right;
      if (!element!.hidden) element!.style.transform = `translateX(${x}px)`;
    };
    const stops = [
      effect(() => {
        const laid = (now.current = layout(spec, width, height, shown())), ratio = devicePixelRatio || 1;
        of.width = Math.round(width * ratio), of.height = Math.round(height * ratio);
        const to = of.getContext("2d")!;
        to.scale(ratio, ratio);
        drawSeries(spec, laid, canvasPen(to), css);
        const row = rowOf(selected.value);
        move(here.current, row === null ? null : laid.xOf(spec.x.values[row]!));
      }),
      effect(() => {
        const row = at.value, { xOf, yOf, y: [low, high] } = now.current!;
        move(over.current, row === null ? null : xOf(spec.x.values[row] ?? NaN));
        [...over.current!.children].forEach((dot, i) => {
          const value = row === null ? null : read[i]?.values[row] ?? null, seen = value !== null && value >= low && value <= high;
          Object.assign(dot, { hidden: !seen });
          if (seen) (dot as HTMLElement).style.transform = `translateY(${yOf(value)}px)`;
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
    box.hidden = Math.abs(x - start) < DRAG;
    Object.assign(box.style, { left: `${Math.min(x, start)}px`, width: `${Math.abs(x - start)}px` });
  };
  const drop = (event: PointerEvent): void => {
    const start = from.current, x = pixel(event), of = now.current;
    from.current = null;
    brush.current!.hidden = true;
    if (start === null || !of) return;
    if (Math.abs(x - start) < DRAG) return choose(nearest(spec, of, x));
    const ends = [start, x].sort((a, b) => a - b).map((one) => of.valueAt(Math.min(of.box.right, Math.max(of.box.left, one)))) as Ends;
    if (!spec.places) return void (own.value = ends);
    const places = spec.places.filter((place, i): place is number => place !== null && spec.x.values[i]! >= ends[0] && spec.x.values[i]! <= ends[1]);
    if (places.length) range.value = places.reduce<Ends>(([low, high], one) => [Math.min(low, one), Math.max(high, one)], [Infinity, -Infinity]);
  };

  return (
    <ChartFrame
      id={id} title={title} caption={caption} tools={tools} count={n} columns={() => columnsOf(spec)}
      cursor={at.value ?? rowOf(selected.value)} announce={announce ?? ((i) => reading(spec, i))} onSelect={choose}
      onCursor={(i) => point(i === null || !now.current ? null : Math.max(now.current.from, Math.min(now.current.to, i)))}
      exporter={{ canvas: () => canvas.current!, svg: () => seriesSvg(spec, { width, height, x: now.current!.x, title, caption, css }) }}
    >
      <div
        ref={holder} class="chart-canvas" style={{ height: `${height}px` }} onPointerMove={drag} onPointerUp={drop}
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

/** The part of the x axis that shows a range of places; null for all of it. */
function within(spec: Spec, places: [number, number] | null): Ends | null {
  if (!places) return null;
  let low = Infinity, high = -Infinity;
  spec.places!.forEach((place, i) => {
    if (place === null || place < places[0] || place > places[1]) return;
    low = Math.min(low, spec.x.values[i]!), high = Math.max(high, spec.x.values[i]!);
  });
  return low < high ? [low, high] : null;
}
