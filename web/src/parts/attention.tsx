// Attention and relevance: what the selected token rests on, what every token rests on, and where the model looked.

import { useMemo, useState } from "preact/hooks";
import { denseRows, type View } from "../chart/cells";
import { css } from "../chart/colour";
import { svgPage } from "../chart/export";
import { Choice, ChartFrame } from "../chart/frame";
import { number } from "../chart/format";
import { Heatmap, type Thumb } from "../chart/heatmap";
import { about, cut, paintShapes, svgShapes, type Shape } from "../chart/shapes";
import { isMissing, type AttentionPart as Attention, type Checked, type Explained, type Trace } from "../document";
import { nameOf } from "../layout";
import { Empty } from "../missing";
import { explanationOf, rowOf, sourceText, topSources, weightsOf, type TopSource } from "../relevance";
import { extra, range, selected, setExtra, trace } from "../state";
import { say, t } from "../words";

const of = (key: string, args?: Parameters<typeof t>[1]): string => t(`page_attention.${key}`, args);
const SHOWN = 12;

export function AttentionPart() {
  const shown = trace.value;
  if (!shown) return null;
  const { relevance, attention } = shown;
  return (
    <div class="stack attention">
      {isMissing(relevance) ? <Empty part={relevance} /> : <Relevance shown={shown} all={relevance.explanations} found={explanationOf(shown)!} />}
      {isMissing(attention) ? <Empty part={attention} /> : <Looked shown={shown} found={attention} />}
    </div>
  );
}

const quoted = (shown: Trace, start: number, stop?: number): string => {
  const text = sourceText(shown, start, stop);
  return of("quoted", { text: text.trim() || text });
};
const placed = (shown: Trace, place: number): string => `${place} ${nameOf(shown.symbols, place, 40)}`;

const Check = ({ of: check }: { of: Checked }) => <p class={check.passed === false ? "note" : "small muted"}>{say(check.text)}</p>;

interface Picked {
  value: string;
  label: string;
}

function Pick({ label, value, options, onPick }: { label: string; value: string; options: (Picked | [string, Picked[]])[]; onPick(to: string): void }) {
  const option = (one: Picked) => <option value={one.value}>{one.label}</option>;
  return (
    <label class="field">
      {label}
      <select value={value} onChange={(event) => onPick(event.currentTarget.value)}>
        {options.map((one) => (Array.isArray(one) ? <optgroup label={one[0]}>{one[1].map(option)}</optgroup> : option(one)))}
      </select>
    </label>
  );
}

/** The part of a map that the range shows: the rows of its places, and the columns up to its end. */
function useView(rows: readonly number[], ends: readonly number[]): View | null {
  const chosen = range.value;
  return useMemo(() => {
    if (!chosen) return null;
    const inside = rows.flatMap((place, row) => (place >= chosen[0] && place <= chosen[1] ? [row] : []));
    const columns = ends.filter((end) => end <= chosen[1]).length;
    return inside.length && columns ? { x0: 0, x1: Math.max(columns, 1), y0: inside[0]!, y1: inside.at(-1)! + 1 } : null;
  }, [chosen, rows, ends]);
}

function Relevance({ shown, all, found }: { shown: Trace; all: Explained[]; found: Explained }) {
  const place = selected.value, row = place === null ? -1 : rowOf(found, place), n = found.targets.length;
  const names = (one: number): string => placed(shown, found.targets[one]!);
  const source = (one: number): string =>
    found.stops[one] === found.starts[one]! + 1 ? placed(shown, found.starts[one]!) : `${found.starts[one]} ${sourceText(shown, found.starts[one]!, found.stops[one])}`;
  const view = useView(found.targets, found.stops), high = Math.max(...found.limits);
  return (
    <>
      <section class="panel stack tight">
        <div class="row">
          <Pick label={of("explanation")} value={String(all.indexOf(found))} onPick={(to) => setExtra("why", to === "0" ? null : to)}
            options={all.map((one, i) => ({ value: String(i), label: say(one.title) }))} />
          <Pick label={of("arcs")} value={extra.value.arcs ?? "auto"} onPick={(to) => setExtra("arcs", to === "auto" ? null : to)}
            options={(["auto", "relevance", "attention", "none"] as const).map((value) => ({ value, label: of(`arcs_${value}`) }))} />
        </div>
        <p class="small">{say(found.note)}</p>
        <Check of={found.check} />
        <p class="small muted">{say(found.cost)}{found.kept && ` ${say(found.kept)}`}</p>
        {row < 0 && <p>{place === null ? of("choose", { n }) : of("not_explained", { target: quoted(shown, place), n })}</p>}
      </section>
      {row >= 0 && <section class="panel"><Bars shown={shown} found={found} place={place!} row={row} /></section>}
      {found.rows.counts.length > 1 && (
        <section class="panel"><Heatmap id="relevance" title={of("relevance_title")} caption={say(found.caption)} cells={found.rows} columns={found.starts.length}
          rowTitle={of("target")} columnTitle={of("source")} valueName={of("value")} unit={found.unit === "nats" ? "nats" : ""}
          rowName={names} columnName={source} rowTick={(one) => String(found.targets[one])} columnTick={(one) => String(found.starts[one])}
          scale="difference" high={high} power={0.5} marked={row < 0 ? null : row} view={view} blank={of("blank_relevance")}
          onPick={(one) => (selected.value = found.targets[one]!)}
          tell={(target, column, value) => of("relevance_cell", { target: names(target), source: source(column), value: value === null ? of(found.starts[column]! < found.targets[target]! ? "not_kept" : "unseen_yet") : number(value) })} /></section>
      )}
    </>
  );
}

/** The strongest sources of a token, for it and against it. */
function Bars({ shown, found, place, row }: { shown: Trace; found: Explained; place: number; row: number }) {
  const [cursor, setCursor] = useState<number | null>(null);
  const every = useMemo(() => topSources(shown, place, Infinity, "relevance"), [shown, found, place]);
  const top = every.slice(0, SHOWN), limit = found.limits[row]! || 1;
  const foil = found.foils?.[found.targets.indexOf(place)], target = found.together && found.targets.length > 1
    ? of("answer", { first: String(found.targets[0]), last: String(found.targets.at(-1)) }) : quoted(shown, place);
  const name = (one: TopSource): string => sourceText(shown, one.start, one.stop);
  const value = (one: TopSource): string => (one.share === null ? number(one.value) : `${number(one.value)}  ${number(one.share, "share")}`);
  const listed = (sources: TopSource[]): string => sources.slice(0, 3).map((one) => `${quoted(shown, one.start, one.stop)} (${number(one.value)})`).join(t("page_ui.comma"));
  const [pro, contra] = [top.filter((one) => one.value > 0), top.filter((one) => one.value < 0)];
  const sum = (of: TopSource[]): number => of.reduce((all, one) => all + Math.abs(one.value), 0);
  const rest = every.slice(SHOWN);
  const told = [
    pro.length ? of("for", { target, sources: listed(pro) }) : of("nothing_for", { target }),
    contra.length ? of("against", { sources: listed(contra) }) : "",
    found.ledger.length ? [of("ledger", { value: number(found.values[row]), tokens: number(found.wholes?.[row]) }), ...found.ledger.map((one) => `${say(one.name)} ${number(one.values[row])}`)].join(" + ") : "",
  ].filter(Boolean).join(" ");
  const title = foil === undefined ? of("bars_title", { target }) : of("bars_title_foil", { target, foil });
  const shapes = (widthOf: (text: string) => number): Shape[] => top.flatMap((one, i): Shape[] => {
    const y = 22 * i + 14, size = (Math.abs(one.value) / limit) * 190;
    return [
      { text: cut(`${one.start} ${name(one)}`, 180, widthOf), x: 190, y, end: true, fill: css("--ink") },
      { x: one.value < 0 ? 400 - size : 400, y: y - 6, width: size, height: 12, fill: css(one.value < 0 ? "--accent" : "--warm") },
      { text: value(one), x: 600, y },
    ];
  });
  const height = 22 * top.length + 10;
  return (
    <ChartFrame id="sources" title={title} caption={told} count={top.length} cursor={cursor} onCursor={setCursor}
      announce={(i) => (top[i] ? `${of("out_of_sight", { text: name(top[i]!), place: top[i]!.start, value: value(top[i]!) })}` : "")}
      onSelect={(i) => (selected.value = top[i]!.start)}
      columns={() => [
        { name: of("source"), unit: "", values: every.map(name) }, { name: of("place"), unit: "", values: every.map((one) => one.start) },
        { name: of("value"), unit: found.unit, values: every.map((one) => one.value) },
        ...(every[0]?.share == null ? [] : [{ name: of("share"), unit: "share" as const, values: every.map((one) => one.share) }]),
      ]}
      exporter={{
        canvas: () => {
          const canvas = document.createElement("canvas"), ratio = devicePixelRatio || 1;
          canvas.width = 700 * ratio, canvas.height = height * ratio;
          const to = canvas.getContext("2d")!;
          to.scale(ratio, ratio);
          paintShapes(to, shapes((text) => to.measureText(text).width));
          return canvas;
        },
        svg: () => svgPage({ width: 700, height, title, caption: told, body: svgShapes(shapes(about)), ground: css("--panel"), ink: css("--ink") }),
      }}>
      <ol class="sides" onClick={(event) => {
        const at = event.target instanceof Element && event.target.closest<HTMLElement>("[data-p]");
        if (at) selected.value = Number(at.dataset.p);
      }}>
        {top.map((one, i) => (
          <li data-p={one.start} class={i === cursor ? "here" : undefined}>
            <span class="num muted">{one.start}</span>
            <span class="tok clip">{name(one)}</span>
            <span class={one.value < 0 ? "side against" : "side"} style={{ "--w": `${(50 * Math.abs(one.value)) / limit}%` }} />
            <span class="num">{number(one.value)}</span>
            <span class="num muted">{one.share === null ? "" : number(one.share, "share")}</span>
          </li>
        ))}
      </ol>
      {rest.length > 0 && <p class="small muted">{of("more_sources", { n: rest.length, part: number(sum(rest) / (sum(every) || 1), "share") })}</p>}
    </ChartFrame>
  );
}

function Looked({ shown, found }: { shown: Trace; found: Attention }) {
  const chosen = weightsOf(shown)!, { layer, head, rows, weights } = chosen;
  const place = selected.value, columns = Math.max(...found.rows), ends = useMemo(() => Array.from({ length: columns }, (_, i) => i + 1), [columns]);
  const which = layer === null ? of("all_layers") : head === null ? of("layer", { layer: layer + 1 }) : of("of_head", { layer: layer + 1, head });
  const options: (Picked | [string, Picked[]])[] = [
    { value: "", label: of("all_layers") },
    ...found.layers.flatMap((mean, i): [string, Picked[]][] => (mean ? [[of("layer", { layer: i + 1 }), [
      { value: `l${i}`, label: `${of("layer", { layer: i + 1 })}: ${of("all_heads")}` },
      ...(found.heads[i] ?? []).map((_, j) => ({ value: `l${i}h${j}`, label: of("of_head", { layer: i + 1, head: j }) })),
    ]]] : [])),
  ];
  const view = useView(rows, ends), name = (one: number): string => placed(shown, one);
  const row = place === null ? -1 : rows.indexOf(place);
  const now = layer === null ? "" : head === null ? `l${layer}` : `l${layer}h${head}`;
  return (
    <>
      <section class="panel stack tight">
        <p class="small">{of("caveat")}</p>
        <Check of={found.check} />
        <details class="small muted"><summary>{of("what_is_kept")}</summary>{found.kept.map((one) => <p>{say(one)}</p>)}</details>
      </section>
      <section class="panel"><Heads shown={shown} found={found} /></section>
      <section class="panel"><Heatmap id="attention" title={of("map_title", { which })} caption={say(found.caption)} cells={weights} columns={columns}
        tools={<Pick label={of("maps")} value={now} options={options} onPick={(to) => setExtra("map", to || null)} />}
        rowTitle={of("target")} columnTitle={of("source")} valueName={of("weight")} unit="share"
        rowName={(one) => name(rows[one]!)} columnName={name} rowTick={(one) => String(rows[one])}
        scale="magnitude" low={0} high={1} power={0.5} marked={row < 0 ? null : row} view={view} blank={of("blank")}
        onPick={(one) => (selected.value = rows[one]!)}
        tell={(target, column, value) => of("attention_cell", {
          target: name(rows[target]!), source: name(column),
          value: value === null ? of(column < rows[target]! ? "not_kept" : "unseen_yet") : number(value, "share"),
        })} /></section>
    </>
  );
}

/** Every head by one figure, or by its map; a click shows its map below. */
function Heads({ shown, found }: { shown: Trace; found: Attention }) {
  const maps = found.heads.length > 0, at = extra.value.heads ?? (maps ? "map" : "0");
  const figure = found.figures[Number(at)] ?? found.figures.find((one) => one.unit === "share") ?? found.figures[0];
  const cells = useMemo(() => figure && denseRows(figure.values), [figure]);
  const thumb = useMemo(() => {
    if (at !== "map") return undefined;
    return (layer: number, head: number): Thumb | null => {
      const cells = found.heads[layer]?.[head];
      return cells ? { cells, columns: shown.symbols.text.length, high: 1 } : null;
    };
  }, [found, at]);
  if (!figure || !cells) return null;
  const name = say(figure.name);
  return (
    <Heatmap id="heads" title={of("heads_title")} caption={of(maps ? "heads_caption" : "heads_caption_figures")} cells={cells} columns={Math.max(...found.n_heads)}
      tools={<Choice label={of("figure")} value={at} onChange={(to) => setExtra("heads", to)}
        options={[...(maps ? [["map", of("maps")] as const] : []), ...found.figures.map((one, i) => [String(i), say(one.name)] as const)]} />}
      rowTitle={of("layers")} columnTitle={of("head")} valueName={name} unit={figure.unit} rowName={(one) => of("layer", { layer: one + 1 })}
      rowTick={(one) => String(one + 1)} columnName={String} scale="magnitude" low={figure.low} high={thumb ? 1 : figure.high} power={thumb ? 0.5 : 1} thumb={thumb}
      tell={(layer, head, value) => of("head_cell", { layer: layer + 1, head, value: `${name} ${number(value, figure.unit)}` })}
      onPick={(layer, head) => setExtra("map", maps && found.heads[layer]?.[head] ? `l${layer}h${head}` : `l${layer}`)} />
  );
}
