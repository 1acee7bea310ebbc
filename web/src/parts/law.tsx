// A law of latency alone: measurements with the lines of the law and their bands, what is left over, the coefficients.

import { useMemo } from "preact/hooks";
import { number } from "../chart/format";
import { SeriesChart, type Spec } from "../chart/series";
import type { LawColumn } from "../document";
import { doc, lang } from "../state";
import { say, t } from "../words";
import { endsOf, Grid, joined, Whisker, type Curves } from "./joined";

const w: typeof t = (key, args) => t(`page_law.${key}`, args);
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
    <section class="panel stack">
      <p class="small muted">{w("measured", { ...reach, n: of.n_cells, points: of.n_points, least: of.batch[0]!, most: of.batch[1]!, clock: w(`clock_${of.clock}`) })}</p>
      <SeriesChart
        id={id} title={w("latency", { kind })} spec={specs.times} height={300} announce={specs.tell}
        caption={w("latency_caption", { ...reach, confidence: number(confidence, "share") })}
      />
      <SeriesChart id={`${id}-residuals`} title={w("residuals", { kind })} caption={w("residuals_caption", { n: of.points.n })} spec={specs.ratios} height={150} announce={specs.tellRatio} />
      <p class="mono small">{w("form", { form: form(of.form) })}</p>
      <Grid
        title={`${w("coefficients")} ${name} ${kind}`} left={[0, 3, 4, 6]} head={["term", "value", "interval", "", "each", "share", "what"].map((one) => one && w(`${one}`))}
        rows={of.coefficients.map((one) => [
          say(one.term), one.text[0], `${one.text[1]} – ${one.text[2]}`, <Whisker of={[[one.value, one.low, one.high]]} ends={endsOf([[one.value, one.low, one.high]], 0)} mark={0} />,
          say(one.per), number(one.share, "share"), <span class="muted">{say(one.meaning)}</span>,
        ])}
      />
      {of.sentences.map((one) => <p class="small">{say(one)}</p>)}
      {of.also.length > 0 && <p class="small muted">{w("also", { forms: of.also.map(form).join("; ") })}</p>}
    </section>
  );
}

const colourOf = (i: number): string => `--s${1 + (i % 6)}`;

function specsOf(of: LawColumn, machine: string | null) {
  const x = { name: w("of_context"), unit: "tokens", log: true } as const;
  const { points, cells } = of;
  const batches = of.lines.map((one) => one.batch);
  const only = (values: number[], batch: number, whose: number[]) => values.map((value, i) => (whose[i] === batch ? value : null));
  const fitted = (values: number[]) => values.map((value, i) => (points.cause[i] ? null : value));
  const left = (values: number[]) => values.map((value, i) => (points.cause[i] ? value : null));
  // what lies beyond the ends stands at them
  const inside = (values: (number | null)[], [low, high]: [number, number]) => values.map((one) => (one === null ? null : Math.max(low * 1.02, Math.min(high / 1.02, one))));
  const several = points.cause.some((one) => one > 0);
  const base = { unit: "ns", quiet: true } as const;
  const sets: Curves[] = [
    {
      x: of.contexts,
      lines: of.lines.flatMap((one, i) => [
        { ...base, name: w("batch_n", { n: one.batch }), values: one.ns, colour: colourOf(i), width: 1.75, quiet: false },
        ...(one.roof ? [{ ...base, name: w("roof_of", { name: machine }), label: i ? "" : machine ?? "", values: one.roof, colour: colourOf(i), width: 1, dash: [2, 3] }] : []),
      ]),
      bands: of.lines.map((one, i) => ({ low: one.low, high: one.high, colour: colourOf(i) })),
    },
    { x: cells.context, lines: batches.map((batch, i) => ({ ...base, name: w("batch_n", { n: batch }), label: "", values: only(cells.ns, batch, cells.batch), colour: colourOf(i), kind: "points" as const, width: 3 })) },
    {
      x: points.context,
      lines: [
        { ...base, name: w("measurement"), label: "", values: fitted(points.ns), colour: "--s6", kind: "points" },
        ...(several ? [{ ...base, name: w("left"), label: "", values: inside(left(points.ns), of.ends), colour: "--warm", kind: "rings" as const }] : []),
      ],
    },
  ];
  const all = joined(sets);
  const order = points.context.map((_, i) => i).sort((a, b) => points.context[a]! - points.context[b]!);
  const sorted = (values: (number | null)[]) => order.map((i) => values[i] ?? null);
  const word = (i: number): string => {
    const cause = points.cause[i]!;
    const told = w("point", { context: number(points.context[i], "tokens"), batch: points.batch[i]!, time: number(points.ns[i], "ns"), ratio: number(points.ratio[i], "") });
    return cause ? `${told} \u00b7 ${w("left")}: ${w(`cause.${CAUSES[cause - 1]}`)}` : told;
  };
  const times: Spec = {
    x: { ...x, values: all.x }, y: { name: w("time"), unit: "ns", log: true, ends: of.ends }, lines: all.lines, bands: all.bands,
    also: [{ name: w("left"), unit: "ns", values: all.from.map(([set, i]) => (set === 2 && points.cause[i] ? points.ns[i]! : null)) }],
  };
  const ratios: Spec = {
    x: { ...x, values: order.map((i) => points.context[i]!) },
    y: { name: w("ratio"), unit: "", log: true, ends: of.ratio_ends },
    rules: [{ at: 1, text: "", colour: "--s2" }],
    lines: [
      { name: w("measurement"), label: "", unit: "", values: sorted(fitted(points.ratio)), colour: "--s1", kind: "points" },
      { name: w("left"), label: "", unit: "", values: sorted(inside(left(points.ratio), of.ratio_ends)), colour: "--warm", kind: "rings" },
    ],
    also: [
      { name: w("batch"), unit: "", values: sorted(points.batch) },
      { name: w("time"), unit: "ns", values: sorted(points.ns) },
      { name: `${w("ratio")}, ${w("left")}`, unit: "", values: sorted(left(points.ratio)) },
      { name: w("cause"), unit: "", values: order.map((i) => (points.cause[i] ? w(`cause.${CAUSES[points.cause[i]! - 1]}`) : null)) },
    ],
  };
  const tell = (row: number): string => {
    const [set, i] = all.from[row]!;
    if (set === 2) return word(i);
    if (set === 1) return w("cell", { context: number(cells.context[i], "tokens"), batch: cells.batch[i]!, time: number(cells.ns[i], "ns") });
    return of.lines.map((one) => w("cell", { context: number(of.contexts[i], "tokens"), batch: one.batch, time: `${number(one.ns[i], "ns")} (${number(one.low[i], "ns")} \u2013 ${number(one.high[i], "ns")})` })).join("; ");
  };
  return { times, ratios, tell, tellRatio: (row: number) => word(order[row]!) };
}
