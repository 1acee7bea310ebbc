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
//     difference                      blue to orange from -high to high; else cividis from `low` to `high`
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

import { useSignal } from "@preact/signals";
import { useEffect, useLayoutEffect, useRef } from "preact/hooks";
import { small } from "../blocks";
import type { SparseRows } from "../document";
import { ceil, clamp, exp, floor, hypot, max, min, round, times } from "../maths";
import { cellOf, nearest, offsetsOf, panned, placeOf, showing, valueOf, zoomed, type View } from "./cells";
import { themed } from "./colour";
import { column, type Column } from "./export";
import { ChartFrame, useWidth } from "./frame";
import { bottomOf, FLAT, HIGH, HIGH_THUMB, LEFT, plotOf, RIGHT, TOP, WIDE, type HeatmapProps, type Plot } from "./painter";
import { paintOn } from "./pen";

export type { HeatmapProps, Thumb } from "./painter";

/** A name and a value a cell, in the order in which the arrow keys walk. */
function columnsOf({ cells, rowName, columnName, ...props }: HeatmapProps): Column[] {
  const places = times(cells.values.length, (i) => placeOf(cells, i));
  return [
    column(props.rowTitle, places.map(([row]) => rowName(row))), column(props.columnTitle, places.map((place) => columnName(place[1]))),
    column(props.valueName, places.map((_, i) => valueOf(cells, i)), props.unit),
  ];
}

/** What is the same from one drawing to the next. */
interface Kept {
  props: HeatmapProps;
  cursor: number | null;
  plot?: Plot;
  /** What the plot is of. */
  of?: [SparseRows, View | null];
  frame?: number;
  drag?: { x: number; y: number; view: View; moved: boolean } | null;
}

export function Heatmap(props: HeatmapProps) {
  const { cells, columns, view = null } = props, rows = cells.counts.length;
  const box = useRef<HTMLDivElement>(null), stage = useRef<HTMLDivElement>(null);
  const width = useWidth(box), place = useSignal<number | null>(null), below = useSignal(FLAT), cursor = place.value, bottom = below.value;
  const kept = useRef<Kept>({ props, cursor }).current;
  Object.assign(kept, { props, cursor });
  const wide = min(width, max(LEFT + RIGHT + columns * WIDE, 320)), each = props.thumb ? min(HIGH_THUMB, (wide - LEFT - RIGHT) / columns) : HIGH;
  const high = round(clamp(each * rows, 60, props.thumb ? 720 : 480));
  /** What is in the stage, in its order. */
  const layers = () => [...stage.current!.children] as [HTMLCanvasElement, ...HTMLElement[]];

  const draw = (): void => {
    const { plot } = kept;
    kept.frame = 0;
    if (!plot || !stage.current) return;
    paintOn(layers()[0], plot);
    below.value = bottomOf(kept.props, plot.view, plot.wide);
    point();
  };
  const soon = (): void => void (kept.frame ||= requestAnimationFrame(draw));

  /** The lines of what is marked and of the cursor, where they are now. */
  const point = (hovered?: [number, number]): void => {
    const { plot, cursor, props: { cells, marked, markedColumn } } = kept, here = hovered ?? (cursor === null ? [] : placeOf(cells, cursor));
    if (!plot) return;
    const [, ...lines] = layers();
    [marked, markedColumn, ...here, null, null].slice(0, 4).forEach((at, i) => {
      const line = lines[i]!, down = i % 2 === 0, of = down ? plot.y : plot.x, first = down ? TOP : LEFT, cell = at ?? -1e9;
      const from = max(of(cell), first), size = min(of(cell + 1), first + (down ? plot.high : plot.wide)) - from;
      line.hidden = size <= 0;
      Object.assign(line.style, down
        ? { transform: `translate(${LEFT}px, ${from}px)`, height: `${size}px`, width: `${plot.wide}px` }
        : { transform: `translate(${from}px, ${TOP}px)`, width: `${size}px`, height: `${plot.high}px` });
    });
  };

  useLayoutEffect(() => {
    if (!width) return;
    const { plot, of } = kept, same = plot && of?.[0] === cells && of[1] === view;
    kept.of = [cells, view];
    kept.plot = plotOf(props, wide, high, bottom, same ? plot.view : view, () => kept.props.marked);
    draw();
  }, [cells, columns, wide, high, bottom, themed.value, view, props.difference, props.low, props.high, props.thumb, props.text, props.rowTitle]);
  useEffect(() => void (place.value = null), [cells]);
  useEffect(soon, [cursor, props.marked, props.markedColumn]);

  const hide = (): void => {
    layers().at(-1)!.hidden = true;
    point();
  };
  const move = (to: View): void => {
    kept.plot!.view = to;
    hide();
    soon();
  };
  const under = (event: MouseEvent) => kept.plot?.at(event.offsetX, event.offsetY)?.map(floor) as [number, number] | undefined;
  const hover = (event: PointerEvent): void => {
    const { plot, drag } = kept, { offsetX: x, offsetY: y } = event;
    if (drag && plot) {
      const { view } = drag;
      drag.moved ||= hypot(x - drag.x, y - drag.y) > 4;
      if (!drag.moved) return;
      stage.current!.setPointerCapture(event.pointerId);
      return move(panned(view, ((drag.x - x) * (view.x1 - view.x0)) / plot.wide, ((drag.y - y) * (view.y1 - view.y0)) / plot.high, columns, rows));
    }
    const here = under(event), tip = layers().at(-1)!;
    if (!here) return hide();
    point(here);
    tip.hidden = false;
    tip.textContent = props.tell(...here, cellOf(cells, ...here));
    // on the side where there is more room
    const right = x > wide / 2, low = y > plot!.height / 2;
    tip.style.transform = `translate(${x + (right ? -14 : 14)}px, ${y + (low ? -14 : 14)}px) translate(${right ? -100 : 0}%, ${low ? -100 : 0}%)`;
  };
  const wheel = (event: WheelEvent): void => {
    const { plot } = kept, here = plot?.at(event.offsetX, event.offsetY), on = document.activeElement;
    if (!here || !(event.ctrlKey || (on !== document.body && on?.contains(stage.current)))) return;
    event.preventDefault();
    move(zoomed(plot!.view, exp(clamp(event.deltaY / 300, -1, 1)), here[1], here[0], columns, rows));
  };

  const look = (entry: number): void => {
    place.value = entry;
    if (kept.plot) kept.plot.view = showing(kept.plot.view, ...placeOf(cells, entry), columns, rows);
  };
  const key = ({ key }: KeyboardEvent): boolean => {
    const { plot } = kept, offsets = offsetsOf(cells), by = { "+": 0.5, "=": 0.5, "-": 2 }[key];
    if (!plot) return false;
    const [row, column] = cursor === null ? [props.marked ?? ceil(plot.view.y0), 0] : placeOf(cells, cursor);
    if (by) plot.view = zoomed(plot.view, by, column + 0.5, row + 0.5, columns, rows);
    else if (key === "0") plot.view = plot.all;
    else if (key === "Home" || key === "End") {
      if (cells.counts[row]) look(key === "Home" ? offsets[row]! : offsets[row + 1]! - 1);
    } else if (key === "ArrowUp" || key === "ArrowDown") {
      const step = key === "ArrowUp" ? -1 : 1;
      let to = cursor === null ? row : row + step;
      while (cells.counts[to] === 0) to += step;
      if (cells.counts[to]) look(nearest(cells, to, column));
    } else return false;
    soon();
    return true;
  };
  return (
    <ChartFrame id={props.id} title={props.title} caption={props.caption} tools={props.tools} columns={() => columnsOf(props)}
      count={cells.values.length} cursor={cursor} onCursor={(entry) => (entry === null ? (place.value = null) : look(entry))} picture={() => kept.plot!}
      announce={(entry) => props.tell(...placeOf(cells, entry), valueOf(cells, entry))} onKey={key}
      onSelect={(entry) => props.onPick?.(...placeOf(cells, entry))}>
      <div ref={box}>
        <div ref={stage} class="stage" style={{ width: `${wide}px`, height: `${TOP + high + bottom}px` }}
          onPointerMove={hover} onPointerLeave={hide} onPointerCancel={() => (kept.drag = null)} onWheel={wheel}
          onDblClick={() => kept.plot && move(kept.plot.all)}
          onPointerDown={(event) => {
            if (event.button === 0 && under(event)) kept.drag = { x: event.offsetX, y: event.offsetY, view: kept.plot!.view, moved: false };
          }}
          onPointerUp={(event) => {
            const here = kept.drag && !kept.drag.moved && under(event);
            kept.drag = null;
            if (here) props.onPick?.(...here);
          }}>
          <canvas />
          <div class="heat-row" data-marked hidden />
          <div class="heat-column" data-marked hidden />
          <div class="heat-row" hidden />
          <div class="heat-column" hidden />
          <div class="tip" hidden />
        </div>
      </div>
      {small(props.blank)}
    </ChartFrame>
  );
}
