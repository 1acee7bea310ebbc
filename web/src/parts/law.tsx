// A law of latency alone: measurements with the lines of the law and their bands, what is left over, the coefficients.

import { useMemo } from "preact/hooks";
import { Grid, Panel, small } from "../blocks";
import { nanos, number, percent } from "../chart/format";
import { column } from "../chart/export";
import { lineOf, SeriesChart, type Line, type Spec } from "../chart/series";
import type { LawColumn, Values } from "../document";
import { clamp } from "../maths";
import { doc, lang } from "../state";
import { beside, say, wordsOf } from "../words";
import { joined, Whisker, type Curves } from "./joined";

const w = wordsOf("law");
const CAUSES = ["warm-up", "gc", "switches"];

export function LawPart() {
  const law = doc.value?.law;
  if (!law) return null;
  return (
    <div class="stack">
      <h2>{w("title")}</h2>
      <p class="lead">{say(law.caption)}</p>
      {law.subjects.map((one) => (
        <>
          {law.subjects.length > 1 && <h2>{one.name}</h2>}
          {one.columns.map((column, i) => <Column key={`${one.name} ${i}`} of={column} name={one.name} />)}
        </>
      ))}
      {law.missing.map((one) => <div class="note">{say(one)}</div>)}
    </div>
  );
}

function Column({ of, name }: { of: LawColumn; name: string }) {
  const kind = say(of.title), { confidence, machine } = doc.value!.law!;
  const specs = useMemo(() => specsOf(of, machine), [of, lang.value]);
  const form = (terms: LawColumn["form"]): string => terms.map(say).join(" + ");
  const reach = { low: number(of.measured[0], "tokens"), high: number(of.measured[1], "tokens") };
  const id = `law-${of.kind}`;
  return (
    <Panel>
      {small(w("measured", { ...reach, n: of.n_cells, points: of.n_points, least: of.batch[0]!, most: of.batch[1]!, clock: w(`clock_${of.clock}`) }))}
      <SeriesChart
        id={id} title={w("latency", { kind })} spec={specs.times} height={300} announce={specs.tell}
        caption={w("latency_caption", { ...reach, confidence: percent(confidence) })}
      />
      <SeriesChart id={`${id}-residuals`} title={w("residuals", { kind })} caption={w("residuals_caption", { n: of.points.n })} spec={specs.ratios} height={150} announce={specs.tellRatio} />
      <p class="mono small">{w("form", { form: form(of.form) })}</p>
      <Grid
        title={`${w("coefficients")} ${name} ${kind}`} left={[0, 3, 4, 6]} head={["term", "value", "interval", "", "each", "share", "what"].map((one) => one && w(one))}
        rows={of.coefficients.map((one) => [
          say(one.term), one.text[0], `${one.text[1]} \u2013 ${one.text[2]}`, <Whisker of={[[one.value, one.low, one.high]]} mark={0} />,
          say(one.per), percent(one.share), <span class="muted">{say(one.meaning)}</span>,
        ])}
      />
      {of.sentences.map((one) => <p class="small">{say(one)}</p>)}
      {of.also.length > 0 && small(w("also", { forms: of.also.map(form).join("; ") }))}
    </Panel>
  );
}

const colourOf = (i: number): string => `--s${1 + (i % 6)}`;

function specsOf(of: LawColumn, machine: string | null) {
  const x = { name: w("of_context"), unit: "tokens", log: true } as const;
  const { points, cells, contexts, lines } = of, { context, batch, ns, ratio, cause } = points;
  const fitted = (values: number[]): Values => values.map((value, i) => (cause[i] ? null : value));
  const left = (values: number[]): Values => values.map((value, i) => (cause[i] ? value : null));
  // what lies beyond the ends stands at them
  const inside = (values: Values, [low, high]: [number, number]): Values => values.map((one) => (one === null ? null : clamp(one, low * 1.02, high / 1.02)));
  const line = (name: string, colour: string, values: Values, more: Partial<Line> = {}): Line => lineOf(name, "ns", values, colour, { label: "", quiet: true, ...more });
  const sets: Curves[] = [
    {
      x: contexts,
      lines: lines.flatMap(({ batch: n, ns, roof }, i) => [
        line(w("batch_n", { n }), colourOf(i), ns, { label: undefined, width: 1.75, quiet: false }),
        ...(roof ? [line(w("roof_of", { name: machine }), colourOf(i), roof, { label: i ? "" : machine ?? "", width: 1, dash: [2, 3] })] : []),
      ]),
      bands: lines.map(({ low, high }, i) => ({ low, high, colour: colourOf(i) })),
    },
    {
      x: cells.context,
      lines: lines.map(({ batch: n }, i) => line(w("batch_n", { n }), colourOf(i), cells.ns.map((value, k) => (cells.batch[k] === n ? value : null)), { kind: "points", width: 3 })),
    },
    {
      x: context,
      lines: [
        line(w("measurement"), "--s6", fitted(ns), { kind: "points" }),
        ...(cause.some(Boolean) ? [line(w("left"), "--warm", inside(left(ns), of.ends), { kind: "rings" })] : []),
      ],
    },
  ];
  const all = joined(sets), order = context.map((_, i) => i).sort((a, b) => context[a]! - context[b]!);
  const sorted = (values: Values): Values => order.map((i) => values[i] ?? null);
  const why = (i: number): string => w(`cause.${CAUSES[cause[i]! - 1]}`);
  const word = (i: number): string => {
    const told = w("point", { context: number(context[i], "tokens"), batch: batch[i]!, time: nanos(ns[i]), ratio: number(ratio[i]) });
    return beside(told, cause[i]! > 0 && `${w("left")}: ${why(i)}`);
  };
  const cell = (context: number | undefined, batch: number | undefined, time: string): string => w("cell", { context: number(context, "tokens"), batch: batch!, time });
  const times: Spec = {
    x: { ...x, values: all.x }, y: { name: w("time"), unit: "ns", log: true, ends: of.ends }, lines: all.lines, bands: all.bands,
    also: [column(w("left"), all.from.map(([set, i]) => (set === 2 && cause[i] ? ns[i]! : null)), "ns")],
  };
  const ratios: Spec = {
    x: { ...x, values: order.map((i) => context[i]!) },
    y: { name: w("ratio"), unit: "", log: true, ends: of.ratio_ends },
    rules: [{ at: 1, colour: "--s2" }],
    lines: [
      line(w("measurement"), "--s1", sorted(fitted(ratio)), { unit: "", kind: "points", quiet: false }),
      line(w("left"), "--warm", sorted(inside(left(ratio), of.ratio_ends)), { unit: "", kind: "rings", quiet: false }),
    ],
    also: [
      column(w("batch"), sorted(batch)), column(w("time"), sorted(ns), "ns"),
      column(`${w("ratio")}, ${w("left")}`, sorted(left(ratio))), column(w("cause"), order.map((i) => (cause[i] ? why(i) : null))),
    ],
  };
  const tell = (row: number): string => {
    const [set, i] = all.from[row]!;
    if (set === 2) return word(i);
    if (set === 1) return cell(cells.context[i], cells.batch[i], nanos(cells.ns[i]));
    return lines.map(({ batch, ns, low, high }) => cell(contexts[i], batch, `${nanos(ns[i])} (${nanos(low[i])} \u2013 ${nanos(high[i])})`)).join("; ");
  };
  return { times, ratios, tell, tellRatio: (row: number) => word(order[row]!) };
}
