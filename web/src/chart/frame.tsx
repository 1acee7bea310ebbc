// What every chart stands in: title, caption, keys, table, and the ways out of the page.
//
//   <ChartFrame
//     id="time"                       names the downloads: <title of the page>-time.svg
//     title="..." caption="..."       strings, already said; the caption is the sentence made from the chart's numbers
//     columns={() => Column[]}        asked only for a table or a CSV: {name, unit, values}
//     count={n}                       how many places the arrow keys walk through
//     cursor={i | null} onCursor={(i: number | null) => ...}      the chart draws its own cursor
//     announce={(i) => string}        what is read out, and shown below the plot, for the cursor's place
//     picture={() => Picture}         what PNG and SVG show (pen.ts)
//     onSelect={(i) => ...}           Enter; optional
//     onKey={(event) => boolean}      further keys (Up and Down of a map); true where it took one; optional
//     tools={...}                     what stands left of the buttons: axis choosers, legends; optional
//   >the plot</ChartFrame>
//
// Keys while the plot has the focus: Left/Right, Home/End, PageUp/PageDown, Enter, t (table), Escape (leaves).
// The plot itself must hold nothing that takes the focus, and a canvas needs no label: the frame has it.
//
// Looks are style.css's: .chart .plot .tools .btn .table, and its variables (--s1 .. --s6, --panel, --ink, --muted, --line, --mark).
// Charts of their own kind draw on a canvas of whole size with `--panel` as ground, and draw again when `themed` changes.

import { useSignal } from "@preact/signals";
import type { ComponentChildren, RefObject } from "preact";
import { useLayoutEffect, useRef } from "preact/hooks";
import { Button, copied, Grid, small } from "../blocks";
import { modified, take, walked, watchSize } from "../elements";
import { clamp, max, min, round, times, where } from "../maths";
import { doc } from "../state";
import { wordsOf } from "../words";
import { CSV, csvOf, save, titled, type Column } from "./export";
import { number } from "./format";
import { paintOn, svgOf, type Picture } from "./pen";

export { column, type Column } from "./export";

export interface FrameProps {
  id: string;
  title: string;
  caption: string;
  columns(): Column[];
  count: number;
  cursor: number | null;
  onCursor(index: number | null): void;
  announce(index: number): string;
  picture(): Picture;
  onSelect?(index: number): void;
  onKey?(event: KeyboardEvent): boolean;
  tools?: ComponentChildren;
  children: ComponentChildren;
}

const w = wordsOf("chart");
const MOST_ROWS = 1000;

/** How wide an element is, in whole pixels; 0 before it is in the page. */
export function useWidth(of: RefObject<HTMLElement | null>): number {
  const width = useSignal(0);
  useLayoutEffect(() => watchSize(of.current!, (box) => (width.value = round(box.width))), []);
  return width.value;
}

export function fileName(id: string, extension: string): string {
  const stem = (doc.value?.tape?.name ?? doc.value?.title ?? "").replace(/\.tape$/, "").replace(/[^\p{L}\p{N}._-]+/gu, "-");
  return `${stem.slice(0, 60) || "tokentape"}-${id}.${extension}`;
}

export function ChartFrame({ id, title, caption, columns, count, cursor, onCursor, picture, ...props }: FrameProps) {
  const plot = useRef<HTMLDivElement>(null), sheet = useRef<HTMLDivElement>(null), moved = useRef(false);
  const tabled = useSignal(false), asTable = tabled.value;
  // what was saved is told until the cursor moves on
  const told = useSignal<[words: string, cursor: number | null]>(["", null]);

  // the focus goes along with what took the other's place
  useLayoutEffect(() => {
    if (moved.current) (asTable ? sheet : plot).current?.focus();
    moved.current = false;
  }, [asTable]);

  const give = (extension: string, type: string, content: BlobPart): void => {
    const file = fileName(id, extension), doubtful = save(file, type, content);
    told.value = [w(doubtful ? "perhaps_saved" : "saved", { file }), cursor];
    if (doubtful && typeof content === "string") void copied(content).then((done) => done && (told.value = [w("copied", { file }), cursor]));
  };

  const press = (event: KeyboardEvent): void => {
    const here = event.target === plot.current, { key } = event;
    if (modified(event)) return;
    if (key === "t" || key === "T") {
      moved.current = here || event.target === sheet.current;
      tabled.value = !asTable;
    } else if (!here) return;
    else if (props.onKey?.(event)) told.value = ["", null];
    else if (key === "Escape") {
      onCursor(null);
      plot.current?.blur();
    } else if (key === "Enter" && cursor !== null) props.onSelect?.(cursor);
    else {
      const to = walked(event, cursor ?? -1, count);
      if (to === undefined || !count) return;
      onCursor(clamp(to, 0, count - 1));
    }
    take(event);
  };

  return (
    <figure class="chart" aria-label={title} onKeyDown={press}>
      <div class="row spread">
        <h3>{title}</h3>
        <div class="row tools">
          {props.tools}
          <Button aria-pressed={asTable} onClick={() => (tabled.value = !asTable)}>{w("table")}</Button>
          <Button onClick={() => paintOn(document.createElement("canvas"), titled(picture(), title, caption)).toBlob((blob) => blob && give("png", "image/png", blob))}>PNG</Button>
          <Button onClick={() => give("svg", "image/svg+xml", svgOf(titled(picture(), title, caption), title, caption))}>SVG</Button>
          <Button onClick={() => give("csv", CSV, csvOf(columns()))}>CSV</Button>
        </div>
      </div>
      <figcaption>{caption}</figcaption>
      <div ref={plot} class="plot" hidden={asTable} tabIndex={0} role="application" aria-label={`${title}. ${w("keys")}`} aria-roledescription={w("chart")}>
        {props.children}
      </div>
      {asTable && table(columns(), cursor)}
      <p class="small muted num chart-read" aria-live="polite">
        {(told.value[1] === cursor && told.value[0]) || (cursor !== null && cursor < count && props.announce(cursor)) || "\u00a0"}
      </p>
    </figure>
  );

  function table(all: Column[], marked: number | null) {
    const n = max(0, ...all.map((one) => one.values.length)), shown = min(n, MOST_ROWS);
    return (
      <div class="tall">
        {n > shown && small(w("first_rows", { shown, n }))}
        <Grid
          box={sheet} title={title} head={all.map((one) => one.name)} marked={marked} left={where(all, ({ values }) => values.some((one) => typeof one === "string"))}
          rows={times(shown, (i) => all.map(({ values, unit }) => (typeof values[i] === "string" ? values[i] : number(values[i] as number | null, unit))))}
        />
      </div>
    );
  }
}
