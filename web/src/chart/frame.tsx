// What every chart stands in: title, caption, keys, table, and the ways out of the page.
//
//   <ChartFrame
//     id="time"                       names the downloads: <title of the page>-time.svg
//     title="..." caption="..."       strings, already said; the caption is the sentence made from the chart's numbers
//     columns={...}                   Column[] or () => Column[] (asked only for a table or a CSV): {name, unit, values}
//     count={n}                       how many places the arrow keys walk through
//     cursor={i | null} onCursor={(i: number | null) => ...}      the chart draws its own cursor
//     announce={(i) => string}        what is read out, and shown below the plot, for the cursor's place
//     exporter={{canvas(): HTMLCanvasElement, svg(): string}}     null where there is no picture; svg() is a whole file (svgPage)
//     onSelect={(i) => ...}           Enter; optional
//     onKey={(event) => boolean}      further keys (Up and Down of a map); true where it took one; optional
//     step={10}                       how far PageUp and PageDown go
//     tools={...}                     what stands left of the buttons: axis choosers, legends; optional
//   >the plot</ChartFrame>
//
// Keys while the plot has the focus: Left/Right, Home/End, PageUp/PageDown, Enter, t (table), Escape (leaves).
// The plot itself must hold nothing that takes the focus, and a canvas needs no label: the frame has it.
//
// Also here: <Choice label="..." options={[[value, words], ...]} value={...} onChange={...}/>, a few joined buttons for `tools`;
// `fileName(id, extension)`.
//
// Looks are style.css's: .chart .plot .tools .btn .seg .table, and its variables (--s1 .. --s6, --panel, --ink, --muted, --line, --mark).
// Charts of their own kind draw on a canvas of whole size with `css("--panel")` as ground, and draw again when `themed` changes.

import type { ComponentChildren, Ref } from "preact";
import { useId, useLayoutEffect, useRef, useState } from "preact/hooks";
import { doc } from "../state";
import { copied } from "../missing";
import { t } from "../words";
import { csvOf, pngOf, save, type Column } from "./export";
import { ABSENT, number } from "./format";

export type { Column } from "./export";

export interface Exporter {
  canvas(): HTMLCanvasElement;
  svg(): string;
}

export interface FrameProps {
  id: string;
  title: string;
  caption: string;
  columns: Column[] | (() => Column[]);
  count: number;
  cursor: number | null;
  onCursor(index: number | null): void;
  announce(index: number): string;
  exporter: Exporter | null;
  onSelect?(index: number): void;
  onKey?(event: KeyboardEvent): boolean;
  step?: number;
  tools?: ComponentChildren;
  children: ComponentChildren;
}

const MOST_ROWS = 1000;

export function fileName(id: string, extension: string): string {
  const stem = (doc.value?.tape?.name ?? doc.value?.title ?? "tokentape").replace(/\.tape$/, "").replace(/[^\p{L}\p{N}._-]+/gu, "-");
  return `${stem.slice(0, 60) || "tokentape"}-${id}.${extension}`;
}

export function ChartFrame(props: FrameProps) {
  const { id, title, caption, count, cursor, onCursor, exporter } = props;
  const plot = useRef<HTMLDivElement>(null);
  const table = useRef<HTMLDivElement>(null);
  const moved = useRef(false);
  const [asTable, setTable] = useState(false);
  // what was saved is told until the cursor moves on
  const [told, tell] = useState<[string, number | null]>(["", null]);
  const name = useId();
  const columns = (): Column[] => (typeof props.columns === "function" ? props.columns() : props.columns);

  // the focus goes along with what took the other's place
  useLayoutEffect(() => {
    if (moved.current) (asTable ? table : plot).current?.focus();
    moved.current = false;
  }, [asTable]);

  const give = (extension: string, type: string, content: BlobPart): void => {
    const file = fileName(id, extension);
    const doubtful = save(file, type, content);
    tell([t(doubtful ? "page_chart.perhaps_saved" : "page_chart.saved", { file }), cursor]);
    if (doubtful && typeof content === "string") void copied(content).then((done) => done && tell([t("page_chart.copied", { file }), cursor]));
  };

  const move = (event: KeyboardEvent): void => {
    if (event.ctrlKey || event.metaKey || event.altKey) return;
    if (event.key === "t" || event.key === "T") {
      moved.current = event.target === plot.current || event.target === table.current;
      setTable(!asTable);
    } else if (event.target !== plot.current) return;
    else if (props.onKey?.(event)) tell(["", null]);
    else if (event.key === "Escape") {
      onCursor(null);
      plot.current?.blur();
    } else if (event.key === "Enter" && cursor !== null) props.onSelect?.(cursor);
    else {
      const page = props.step ?? 10;
      const by = { ArrowLeft: -1, ArrowRight: 1, PageUp: -page, PageDown: page, Home: -Infinity, End: Infinity }[event.key];
      if (by === undefined || count === 0) return;
      const from = cursor ?? (by === 1 ? -1 : 0);
      onCursor(Math.max(0, Math.min(count - 1, from + by)));
    }
    event.preventDefault();
    event.stopPropagation();
  };

  const button = (words: string, act: () => void, pressed?: boolean) => (
    <button type="button" class="btn" aria-pressed={pressed} onClick={act}>{words}</button>
  );
  const read = cursor !== null && cursor < count ? props.announce(cursor) : "";
  return (
    <figure class="chart" aria-labelledby={name} onKeyDown={move}>
      <div class="row spread">
        <h3 id={name}>{title}</h3>
        <div class="row tools">
          {props.tools}
          {button(t("page_chart.table"), () => setTable(!asTable), asTable)}
          {exporter && button("PNG", () => void pngOf(exporter.canvas(), title, caption).then((blob) => blob && give("png", "image/png", blob)))}
          {exporter && button("SVG", () => give("svg", "image/svg+xml", exporter.svg()))}
          {button("CSV", () => give("csv", "text/csv;charset=utf-8", csvOf(columns())))}
        </div>
      </div>
      <figcaption>{caption}</figcaption>
      <div ref={plot} class="plot" hidden={asTable} tabIndex={0} role="application" aria-label={`${title}. ${t("page_chart.keys")}`}
        aria-roledescription={t("page_chart.chart")}>
        {props.children}
      </div>
      {asTable && <Table focus={table} columns={columns()} cursor={cursor} title={title} />}
      <p class="small muted num chart-read" aria-live="polite">{(told[1] === cursor && told[0]) || read || "\u00a0"}</p>
    </figure>
  );
}

function Table({ columns, cursor, title, focus }: { focus: Ref<HTMLDivElement>; columns: Column[]; cursor: number | null; title: string }) {
  const n = Math.max(0, ...columns.map((one) => one.values.length));
  const shown = Math.min(n, MOST_ROWS);
  const cell = (column: Column, i: number): string => {
    const value = column.values[i];
    return typeof value === "string" ? value : value === null || value === undefined ? ABSENT : number(value, column.unit);
  };
  return (
    <div ref={focus} class="scroll chart-table" tabIndex={0} role="region" aria-label={title}>
      {n > shown && <p class="small muted">{t("page_chart.first_rows", { shown, n })}</p>}
      <table class="table">
        <thead><tr>{columns.map((one) => <th scope="col">{one.name}</th>)}</tr></thead>
        <tbody>
          {Array.from({ length: shown }, (_, i) => (
            <tr aria-selected={i === cursor}>
              {columns.map((one) => <td class={typeof one.values[i] === "string" ? undefined : "num"}>{cell(one, i)}</td>)}
            </tr>
          ))}
        </tbody>
      </table>
    </div>
  );
}

export interface ChoiceProps<T extends string> {
  label: string;
  options: readonly (readonly [T, string])[];
  value: T;
  onChange(value: T): void;
}

export function Choice<T extends string>({ label, options, value, onChange }: ChoiceProps<T>) {
  return (
    <span class="seg" role="group" aria-label={label} title={label}>
      {options.map(([one, words]) => (
        <button type="button" class="btn" aria-pressed={one === value} onClick={() => onChange(one)}>{words}</button>
      ))}
    </span>
  );
}
