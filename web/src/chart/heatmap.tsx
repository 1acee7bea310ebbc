// A heat map of rows and columns, of thousands of cells a side or of a few dozen.
//
//   <Heatmap
//     id title caption tools          as ChartFrame has them
//     cells={SparseRows}              what is drawn: sparse rows as they come in the document, or `denseRows(values: Values[])` of cells.ts;
//                                     memoize it: a new object is a new drawing. Row 0 is at the top
//     columns={n}                     how many columns there are; rows are counted in `cells`
//     rowTitle="..." columnTitle="..." valueName="..." unit="share"      axes and values, for legend, table and CSV
//     rowName={(i) => string} columnName={(i) => string}                 full names: axis labels where there is room, table, CSV
//     rowTick={(i) => string} columnTick={(i) => string}                 short ones where only every n-th gets a label; the index unless given
//     scale="magnitude" | "difference"      cividis from `low` to `high`, or blue to orange from -high to high
//     low={0} high={1} power={0.5}    ends of the scale; `power` below 1 shows small values better (1 unless given)
//     tell={(row, column, value | null) => string}       one sentence: what hovering shows and the screen reader hears
//     onPick={(row, column) => ...}   a click, or Enter at the cursor; optional
//     marked={row | null}             a row that is marked; optional
//     view={View | null}              what part is shown at first and whenever this changes (memoize it), null for all; optional
//     blank="..."                     what a cell without a value means, for the legend; optional
//     log                             colours by the logarithm; `low` is above 0 then; optional
//     text={(row, column) => string}  what is written into cells that have room for it; memoize it; optional
//     markedColumn={column | null}    a column that is marked; optional
//     thumb={(row, column) => Thumb | null}   a small map drawn into each cell instead of its colour; optional
//   />
//
// Wheel zooms where the plot has the focus (or with Ctrl), dragging moves, double click shows all again. Keys: arrows walk through the cells
// that have a value, Home/End within the row, + and - zoom at the cursor, 0 shows all; what ChartFrame does besides.
// Hovering draws nothing anew: two lines and a tip are moved.

import { useEffect, useMemo, useRef, useState } from "preact/hooks";
import type { SparseRows } from "../document";
import { cellOf, columnOf, nearest, offsetsOf, panned, placeOf, showing, valueOf, zoomed, type View } from "./cells";
import { themed } from "./colour";
import type { Column } from "./export";
import { ChartFrame } from "./frame";
import { flatNames, HIGH, HIGH_THUMB, LEFT, Painter, RIGHT, TOP, WIDE, type HeatmapProps } from "./painter";

export type { HeatmapProps, Thumb } from "./painter";

/** A name and a value a cell, in the order in which the arrow keys walk. */
function columnsOf(props: HeatmapProps): Column[] {
  const { cells } = props, offsets = offsetsOf(cells), rows: string[] = [], columns: string[] = [], values: (number | null)[] = [];
  cells.counts.forEach((n, row) => {
    for (let i = offsets[row]!; i < offsets[row]! + n; i++) {
      rows.push(props.rowName(row)), columns.push(props.columnName(columnOf(cells, i, offsets[row]!))), values.push(valueOf(cells, i));
    }
  });
  return [
    { name: props.rowTitle, unit: "", values: rows }, { name: props.columnTitle, unit: "", values: columns },
    { name: props.valueName, unit: props.unit, values },
  ];
}

export function Heatmap(props: HeatmapProps) {
  const { cells, columns } = props;
  const box = useRef<HTMLDivElement>(null), canvas = useRef<HTMLCanvasElement>(null);
  const lines = [useRef<HTMLDivElement>(null), useRef<HTMLDivElement>(null), useRef<HTMLDivElement>(null), useRef<HTMLDivElement>(null)] as const, tip = useRef<HTMLDivElement>(null);
  const [width, setWidth] = useState(0);
  const [cursor, setCursor] = useState<number | null>(null);
  const painter = useRef<Painter | null>(null), frame = useRef(0);
  const drawn = useRef<[SparseRows?, (View | null)?]>([]);
  const latest = useRef({ props, cursor });
  latest.current = { props, cursor };
  const rows = cells.counts.length;
  const wide = Math.min(width, Math.max(LEFT + RIGHT + columns * WIDE, 320));
  const high = props.thumb ? Math.min(HIGH_THUMB, (wide - LEFT - RIGHT) / columns) * rows : HIGH * rows;
  const bottom = flatNames(props) ? 24 : 68, height = TOP + bottom + Math.round(Math.max(60, Math.min(high, props.thumb ? 720 : 480)));

  const draw = (): void => {
    frame.current = 0;
    const ratio = devicePixelRatio || 1;
    if (!canvas.current || !painter.current) return;
    painter.current.props = latest.current.props;
    painter.current.paint(canvas.current, ratio);
    place();
  };
  const soon = (): void => void (frame.current ||= requestAnimationFrame(draw));

  /** The lines of the marked row and of the cursor, where they are now. */
  const place = (hovered?: [number, number]): void => {
    const is = painter.current, at = latest.current.cursor, here = hovered ?? (at === null ? null : placeOf(latest.current.props.cells, at));
    if (!is) return;
    const show = (line: HTMLDivElement | null, low: number, high: number, ends: [number, number], across: boolean): void => {
      if (!line) return;
      const from = Math.max(low, ends[0]), size = Math.min(high, ends[1]) - from;
      line.hidden = !(size > 0);
      line.style.transform = across ? `translate(${LEFT}px, ${from}px)` : `translate(${from}px, ${TOP}px)`;
      if (across) line.style.height = `${size}px`;
      else Object.assign(line.style, { width: `${size}px`, height: `${is.height - TOP - is.bottom}px` });
    };
    const down: [number, number] = [TOP, is.height - is.bottom], along: [number, number] = [LEFT, is.width - RIGHT];
    const row = here?.[0] ?? -1e9, column = here?.[1] ?? -1e9, marked = latest.current.props.marked ?? -1e9;
    show(lines[0].current, is.y(row), is.y(row + 1), down, true);
    show(lines[1].current, is.x(column), is.x(column + 1), along, false);
    show(lines[2].current, is.y(marked), is.y(marked + 1), down, true);
    const beside = latest.current.props.markedColumn ?? -1e9;
    show(lines[3].current, is.x(beside), is.x(beside + 1), along, false);
  };

  useEffect(() => {
    const watch = new ResizeObserver(([entry]) => setWidth(Math.round(entry!.contentRect.width)));
    watch.observe(box.current!);
    return () => (watch.disconnect(), cancelAnimationFrame(frame.current));
  }, []);

  const fresh = themed.value;
  useEffect(() => {
    if (!width || !canvas.current) return;
    const same = painter.current && drawn.current[0] === cells && drawn.current[1] === props.view ? painter.current.view : null;
    drawn.current = [cells, props.view];
    const ratio = devicePixelRatio || 1;
    canvas.current.width = Math.round(wide * ratio), canvas.current.height = Math.round(height * ratio);
    painter.current = new Painter(props, wide, height, bottom, same ?? props.view ?? null);
    draw();
  }, [cells, columns, wide, height, bottom, fresh, props.view, props.scale, props.low, props.high, props.thumb, props.text, props.rowTitle]);
  useEffect(() => setCursor(null), [cells]);
  useEffect(() => soon(), [cursor, props.marked, props.markedColumn]);

  // the wheel is listened to here because it may have to be held back, and dragging because it leaves the plot
  useEffect(() => {
    const on = canvas.current!.parentElement!;
    let drag: { x: number; y: number; view: View; moved: boolean } | null = null;
    const spot = (event: MouseEvent): [number, number] => {
      const at = on.getBoundingClientRect();
      return [event.clientX - at.left, event.clientY - at.top];
    };
    const under = (event: MouseEvent) => painter.current?.at(...spot(event)) ?? null;
    const move = (to: View): void => {
      painter.current!.view = to;
      hide();
      soon();
    };
    const hide = (): void => {
      if (tip.current) tip.current.hidden = true;
      place();
    };
    const size = (): [number, number] => [latest.current.props.columns, latest.current.props.cells.counts.length];
    const hover = (event: PointerEvent): void => {
      if (drag && painter.current) {
        const [x, y] = spot(event), { view } = drag, is = painter.current;
        drag.moved ||= Math.hypot(x - drag.x, y - drag.y) > 4;
        if (!drag.moved) return;
        on.setPointerCapture(event.pointerId);
        const dx = ((drag.x - x) * (view.x1 - view.x0)) / (is.width - LEFT - RIGHT), dy = ((drag.y - y) * (view.y1 - view.y0)) / (is.height - TOP - is.bottom);
        return move(panned(view, dx, dy, ...size()));
      }
      const here = under(event), box = tip.current;
      if (!here || !box) return hide();
      const row = Math.floor(here[0]), column = Math.floor(here[1]), [x, y] = spot(event);
      place([row, column]);
      box.hidden = false;
      box.textContent = latest.current.props.tell(row, column, cellOf(latest.current.props.cells, row, column));
      const right = x > on.clientWidth / 2, low = y > on.clientHeight / 2;
      box.style.transform = `translate(${right ? x - 14 : x + 14}px, ${low ? y - 14 : y + 14}px) translate(${right ? "-100%" : "0"}, ${low ? "-100%" : "0"})`;
    };
    const listen: Record<string, (event: never) => void> = {
      pointermove: hover,
      pointerleave: hide,
      pointerdown: (event: PointerEvent) => {
        const [x, y] = spot(event);
        if (event.button === 0 && under(event)) drag = { x, y, view: painter.current!.view, moved: false };
      },
      pointerup: (event: PointerEvent) => {
        const here = drag && !drag.moved ? under(event) : null;
        drag = null;
        if (here) latest.current.props.onPick?.(Math.floor(here[0]), Math.floor(here[1]));
      },
      pointercancel: () => (drag = null),
      dblclick: () => painter.current && move(painter.current.all()),
      wheel: (event: WheelEvent) => {
        const here = under(event);
        if (!here || !(event.ctrlKey || document.activeElement?.contains(on) && document.activeElement !== document.body)) return;
        event.preventDefault();
        move(zoomed(painter.current!.view, Math.exp(Math.max(-1, Math.min(1, event.deltaY / 300))), here[1], here[0], ...size()));
      },
    };
    for (const [name, act] of Object.entries(listen)) on.addEventListener(name, act as EventListener, { passive: false });
    return () => {
      for (const [name, act] of Object.entries(listen)) on.removeEventListener(name, act as EventListener);
    };
  }, []);

  const look = (entry: number): void => {
    setCursor(entry);
    if (painter.current) painter.current.view = showing(painter.current.view, ...placeOf(cells, entry), columns, rows);
  };
  const key = (event: KeyboardEvent): boolean => {
    const is = painter.current, [row, column] = cursor === null ? [props.marked ?? Math.ceil(is?.view.y0 ?? 0), 0] : placeOf(cells, cursor);
    if (!is) return false;
    const offsets = offsetsOf(cells), by = { "+": 0.5, "=": 0.5, "-": 2 }[event.key];
    if (by) is.view = zoomed(is.view, by, column + 0.5, row + 0.5, columns, rows);
    else if (event.key === "0") is.view = is.all();
    else if (event.key === "Home" || event.key === "End") {
      if (cells.counts[row]) look(event.key === "Home" ? offsets[row]! : offsets[row + 1]! - 1);
    } else if (event.key === "ArrowUp" || event.key === "ArrowDown") {
      const step = event.key === "ArrowUp" ? -1 : 1;
      for (let to = cursor === null ? row : row + step; to >= 0 && to < rows; to += step) {
        const found = nearest(cells, to, column);
        if (found < 0) continue;
        look(found);
        break;
      }
    } else return false;
    soon();
    return true;
  };
  const exporter = useMemo(() => ({ canvas: () => canvas.current!, svg: () => painter.current?.svg() ?? "" }), []);
  return (
    <ChartFrame id={props.id} title={props.title} caption={props.caption} tools={props.tools} columns={() => columnsOf(props)}
      count={cells.values.length} cursor={cursor} onCursor={(entry) => (entry === null ? setCursor(null) : look(entry))} exporter={exporter}
      announce={(entry) => props.tell(...placeOf(cells, entry), valueOf(cells, entry))} onKey={key}
      onSelect={(entry) => props.onPick?.(...placeOf(cells, entry))}>
      <div ref={box}><div class="heat" style={{ width: `${wide}px`, height: `${height}px` }}>
        <canvas ref={canvas} />
        <div class="heat-row" ref={lines[2]} data-marked hidden />
        <div class="heat-column" ref={lines[3]} data-marked hidden />
        <div class="heat-row" ref={lines[0]} hidden />
        <div class="heat-column" ref={lines[1]} hidden />
        <div class="tip heat-tip" ref={tip} hidden />
      </div></div>
      {props.blank && <p class="small muted">{props.blank}</p>}
    </ChartFrame>
  );
}
