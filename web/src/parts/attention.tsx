// Attention and relevance: what the selected token rests on, what every token rests on, and where the model looked.

import { useSignal } from "@preact/signals";
import { useMemo } from "preact/hooks";
import { Choice, orEmpty, Panel, Pick, small, type Option } from "../blocks";
import { denseRows, type View } from "../chart/cells";
import { ChartFrame, column } from "../chart/frame";
import { number, percent } from "../chart/format";
import { Heatmap, type Thumb } from "../chart/heatmap";
import { cut, type Pen } from "../chart/pen";
import type { AttentionPart as Attention, Checked, Explained, Trace, Unit } from "../document";
import { numbered } from "../elements";
import { nameOf } from "../layout";
import { abs, max, times, where } from "../maths";
import { explanationOf, rowOf, sourceText, topSources, weightsOf, type TopSource } from "../relevance";
import { extra, range, selected, setExtra, trace } from "../state";
import { say, ui, wordsOf } from "../words";

const w = wordsOf("attention");
const SHOWN = 12;

export function AttentionPart() {
  const shown = trace.value;
  if (!shown) return null;
  return (
    <div class="stack attention">
      {orEmpty(shown.relevance, ({ explanations }) => <Relevance shown={shown} all={explanations} found={explanationOf(shown)!} />)}
      {orEmpty(shown.attention, (found) => <Looked shown={shown} found={found} />)}
    </div>
  );
}

const quoted = (shown: Trace, start: number, stop?: number): string => {
  const text = sourceText(shown, start, stop);
  return w("quoted", { text: text.trim() || text });
};

/** A place with its text. */
export const placed = (shown: Trace, place: number): string => `${place} ${nameOf(shown.symbols, place, 40)}`;

/** What a replay showed, with what else is to be said. */
export const Check = ({ of, also = [] }: { of: Checked; also?: Checked["text"][] }) => (
  <p class={of.passed === false ? "note" : "small muted"}>{[of.text, ...also].map(say).join(" ")}</p>
);

/** What stands in a cell: its value, or why there is none. */
const valueIn = (value: number | null, before: boolean, unit: Unit = ""): string => (value === null ? w(before ? "not_kept" : "unseen_yet") : number(value, unit));

/** The part of a map that the range shows: the rows of its places, and the columns up to its end. */
function useView(rows: readonly number[], ends: readonly number[]): View | null {
  const chosen = range.value;
  return useMemo(() => {
    if (!chosen) return null;
    const inside = where(rows, (place) => place >= chosen[0] && place <= chosen[1]);
    const x1 = ends.filter((end) => end <= chosen[1]).length;
    return inside.length && x1 ? { x0: 0, x1, y0: inside[0]!, y1: inside.at(-1)! + 1 } : null;
  }, [chosen, rows, ends]);
}

function Relevance({ shown, all, found }: { shown: Trace; all: Explained[]; found: Explained }) {
  const { targets, starts, stops, rows, unit } = found, place = selected.value, row = rowOf(found, place), n = targets.length;
  const names = (one: number): string => placed(shown, targets[one]!);
  const source = (one: number): string => {
    const start = starts[one]!, stop = stops[one]!;
    return stop === start + 1 ? placed(shown, start) : `${start} ${sourceText(shown, start, stop)}`;
  };
  const view = useView(targets, stops);
  return (
    <>
      <Panel tight>
        <div class="row">
          <Pick label={w("explanation")} value={all.indexOf(found)} onPick={(to) => setExtra("why", to, "0")} options={all.map((one, i) => [i, say(one.title)])} />
          <Pick label={w("arcs")} value={extra.value.arcs ?? "auto"} onPick={(to) => setExtra("arcs", to, "auto")}
            options={["auto", "relevance", "attention", "none"].map((one) => [one, w(`arcs_${one}`)])} />
        </div>
        <p class="small">{say(found.note)}</p>
        <Check of={found.check} />
        {small(say(found.cost), found.kept && ` ${say(found.kept)}`)}
        {row < 0 && <p>{place === null ? w("choose", { n }) : w("not_explained", { target: quoted(shown, place), n })}</p>}
      </Panel>
      {row >= 0 && <Panel><Bars shown={shown} found={found} place={place!} row={row} /></Panel>}
      {rows.counts.length > 1 && (
        <Panel><Heatmap id="relevance" title={w("relevance_title")} caption={say(found.caption)} cells={rows} columns={starts.length}
          rowTitle={w("target")} columnTitle={w("source")} valueName={w("value")} unit={unit === "nats" ? "nats" : ""}
          rowName={names} columnName={source} rowTick={(one) => String(targets[one])} columnTick={(one) => String(starts[one])}
          difference high={max(...found.limits)} power={0.5} marked={row < 0 ? null : row} view={view} blank={w("blank_relevance")}
          onPick={(one) => (selected.value = targets[one]!)}
          tell={(target, column, value) => w("relevance_cell", { target: names(target), source: source(column), value: valueIn(value, starts[column]! < targets[target]!) })} /></Panel>
      )}
    </>
  );
}

/** The strongest sources of a token, for it and against it. */
function Bars({ shown, found, place, row }: { shown: Trace; found: Explained; place: number; row: number }) {
  const { targets, foils, ledger, wholes } = found;
  const cursor = useSignal<number | null>(null);
  const every = useMemo(() => topSources(shown, place, Infinity, "relevance"), [shown, found, place]);
  const top = every.slice(0, SHOWN), rest = every.slice(SHOWN), limit = found.limits[row]! || 1;
  const foil = foils?.[targets.indexOf(place)];
  const target = found.together && targets.length > 1 ? w("answer", { first: String(targets[0]), last: String(targets.at(-1)) }) : quoted(shown, place);
  const name = (one: TopSource): string => sourceText(shown, one.start, one.stop);
  const share = (one: TopSource): string => (one.share === null ? "" : percent(one.share));
  const listed = (sources: TopSource[]): string => sources.slice(0, 3).map((one) => `${quoted(shown, one.start, one.stop)} (${number(one.value)})`).join(ui("comma"));
  const [pro, contra] = [top.filter((one) => one.value > 0), top.filter((one) => one.value < 0)];
  const sum = (of: TopSource[]): number => of.reduce((all, one) => all + abs(one.value), 0);
  const caption = [
    pro.length ? w("for", { target, sources: listed(pro) }) : w("nothing_for", { target }),
    contra.length && w("against", { sources: listed(contra) }),
    ledger.length && [w("ledger", { value: number(found.values[row]), tokens: number(wholes?.[row]) }), ...ledger.map((one) => `${say(one.name)} ${number(one.values[row])}`)].join(" + "),
  ].filter(Boolean).join(" ");
  const draw = (pen: Pen): void => top.forEach((one, i) => {
    const y = 22 * i + 14, size = (abs(one.value) / limit) * 190, against = one.value < 0;
    pen.text(190, y + 4, cut(`${one.start} ${name(one)}`, 180, pen.widthOf), "--ink", { anchor: "end" });
    pen.rect(against ? 400 - size : 400, y - 6, size, 12, against ? "--accent" : "--warm");
    pen.text(600, y + 4, `${number(one.value)}  ${share(one)}`, "--muted");
  });
  return (
    <ChartFrame id="sources" title={w(foil === undefined ? "bars_title" : "bars_title_foil", { target, foil: foil ?? null })} caption={caption}
      count={top.length} cursor={cursor.value} onCursor={(i) => (cursor.value = i)} onSelect={(i) => (selected.value = top[i]!.start)}
      announce={(i) => (top[i] ? w("out_of_sight", { text: name(top[i]), place: top[i].start, value: `${number(top[i].value)}  ${share(top[i])}`.trim() }) : "")}
      columns={() => [
        column(w("source"), every.map(name)), column(w("place"), every.map((one) => one.start)), column(w("value"), every.map((one) => one.value), found.unit),
        ...(every[0]?.share == null ? [] : [column(w("share"), every.map((one) => one.share), "share")]),
      ]}
      picture={() => ({ width: 700, height: 22 * top.length + 10, draw })}>
      <ol class="sides" onClick={(event) => (selected.value = numbered(event, "p") ?? selected.value)}>
        {top.map((one, i) => (
          <li data-p={one.start} class={i === cursor.value ? "here" : ""}>
            <span class="num muted">{one.start}</span>
            <span class="tok clip">{name(one)}</span>
            <span class={one.value < 0 ? "side against" : "side"} style={{ "--w": `${(50 * abs(one.value)) / limit}%` }} />
            <span class="num">{number(one.value)}</span>
            <span class="num muted">{share(one)}</span>
          </li>
        ))}
      </ol>
      {rest.length > 0 && small(w("more_sources", { n: rest.length, part: percent(sum(rest) / (sum(every) || 1)) }))}
    </ChartFrame>
  );
}

/** A layer, or one of its heads, as the hash has it. */
const mapOf = (layer: number, head?: number | null): string => `l${layer}${head == null ? "" : `h${head}`}`;
const layerName = (layer: number): string => w("layer", { layer: layer + 1 });
const headName = (layer: number, head: number): string => w("of_head", { layer: layer + 1, head });

function Looked({ shown, found }: { shown: Trace; found: Attention }) {
  const { layer, head, rows, weights } = weightsOf(shown)!, place = selected.value, columns = max(...found.rows);
  const ends = useMemo(() => times(columns, (i) => i + 1), [columns]), view = useView(rows, ends);
  const name = (one: number): string => placed(shown, one), row = rows.indexOf(place!);
  return (
    <>
      <Panel tight>
        <p class="small">{w("caveat")}</p>
        <Check of={found.check} />
        <details class="small muted"><summary>{w("what_is_kept")}</summary>{found.kept.map((one) => <p>{say(one)}</p>)}</details>
      </Panel>
      <Panel><Heads shown={shown} found={found} /></Panel>
      <Panel>
        <Heatmap id="attention" caption={say(found.caption)} cells={weights} columns={columns}
          title={w("map_title", { which: layer === null ? w("all_layers") : head === null ? layerName(layer) : headName(layer, head) })}
          tools={<Pick label={w("maps")} value={layer === null ? "" : mapOf(layer, head)} onPick={(to) => setExtra("map", to, "")} options={[
            ["", w("all_layers")],
            ...found.layers.flatMap((mean, i) => (mean ? [{ group: layerName(i), options: [
              [mapOf(i), `${layerName(i)}: ${w("all_heads")}`] as const,
              ...(found.heads[i] ?? []).map((_, j): Option => [mapOf(i, j), headName(i, j)]),
            ] }] : [])),
          ]} />}
          rowTitle={w("target")} columnTitle={w("source")} valueName={w("weight")} unit="share"
          rowName={(one) => name(rows[one]!)} columnName={name} rowTick={(one) => String(rows[one])}
          low={0} high={1} power={0.5} marked={row < 0 ? null : row} view={view} blank={w("blank")}
          onPick={(one) => (selected.value = rows[one]!)}
          tell={(target, column, value) => w("attention_cell", {
            target: name(rows[target]!), source: name(column),
            value: valueIn(value, column < rows[target]!, "share"),
          })} />
      </Panel>
    </>
  );
}

/** Every head by one figure, or by its map; a click shows its map below. */
function Heads({ shown, found }: { shown: Trace; found: Attention }) {
  const { heads, figures } = found, maps = heads.length > 0, at = extra.value.heads ?? (maps ? "map" : "0");
  const figure = figures[Number(at)] ?? figures.find((one) => one.unit === "share") ?? figures[0];
  const cells = useMemo(() => figure && denseRows(figure.values), [figure]);
  const thumb = useMemo(() => at !== "map" ? undefined : (layer: number, head: number): Thumb | null => {
    const cells = heads[layer]?.[head];
    return cells ? { cells, columns: shown.symbols.text.length, high: 1 } : null;
  }, [found, at]);
  if (!figure || !cells) return null;
  const name = say(figure.name);
  return (
    <Heatmap id="heads" title={w("heads_title")} caption={w(maps ? "heads_caption" : "heads_caption_figures")} cells={cells} columns={max(...found.n_heads)}
      tools={<Choice label={w("figure")} value={at} onPick={(to) => setExtra("heads", to)}
        options={[...(maps ? [["map", w("maps")] as const] : []), ...figures.map((one, i) => [String(i), say(one.name)] as const)]} />}
      rowTitle={w("layers")} columnTitle={w("head")} valueName={name} unit={figure.unit} rowName={layerName}
      rowTick={(one) => String(one + 1)} columnName={String} low={figure.low} high={thumb ? 1 : figure.high} power={thumb ? 0.5 : 1} thumb={thumb}
      tell={(layer, head, value) => w("head_cell", { layer: layer + 1, head, value: `${name} ${number(value, figure.unit)}` })}
      onPick={(layer, head) => setExtra("map", mapOf(layer, maps && heads[layer]?.[head] ? head : null))} />
  );
}
