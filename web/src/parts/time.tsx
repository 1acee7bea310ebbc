// The part Time: latency of each step with its law and its roofline, what the law leaves over, what was late, the prefill apart.

import { computed } from "@preact/signals";
import type { ComponentChildren } from "preact";
import { nanos, number, percent } from "../chart/format";
import { Choice, factOf, Facts, Grid, orEmpty, Panel, small, Sourced } from "../blocks";
import { column, type Column } from "../chart/frame";
import { reading } from "../chart/picture";
import { lineOf, SeriesChart, type Line, type Spec } from "../chart/series";
import { present, type LawCurve, type TimePart as Time, type Values } from "../document";
import { known, where } from "../maths";
import { doc, extra, placeOfStep, run, selected, setExtra, trace } from "../state";
import { beside, say, wordsOf } from "../words";

const w = wordsOf("time");
const AXES = { step: "count", context: "tokens", clock: "ns" } as const;
type AxisName = keyof typeof AXES;
const AXIS_NAMES = Object.keys(AXES) as AxisName[];

/** Of a server messages are seen, the first of which took what the TTFT says. */
const served = computed(() => doc.value?.tape?.requests);
const held = computed<Time | null>(() => present(run.value?.time));
const axisName = (one: AxisName): string => (one === "step" && served.value ? "message" : `axis_${one}`);
const axis = computed<AxisName>(() => AXIS_NAMES.find((one) => one === extra.value["time.axis"]) ?? "step");
const scale = computed(() => (["log", "linear"] as const).find((one) => one === extra.value["time.scale"]) ?? held.value?.scale ?? "linear");

interface Rows {
  /** Steps after the prompt, in the order of the horizontal axis. */
  steps: number[];
  x: Spec["x"];
  places: (number | null)[];
  tokens: (string | null)[];
  /** Values of some steps, at the rows of the chart. */
  spread(at: number[], values: Values): Values;
  /** The step, where the axis has something else. */
  also: Column[];
}

const rows = computed<Rows | null>(() => {
  const of = run.value, shown = trace.value, along = axis.value;
  if (!of || !shown) return null;
  const values = along === "context" ? of.context : along === "clock" ? of.start_ns : of.kind.map((_, i) => i);
  const steps = where(of.kind, (kind, i) => kind !== 0 && (i > 0 || !served.value) && values[i] !== null);
  if (along === "context") steps.sort((a, b) => values[a]! - values[b]! || a - b);
  const places = new Map<number, number>();
  shown.tokens.step.forEach((step, i) => places.has(step) || places.set(step, shown.n_prompt + i));
  return {
    steps,
    x: column(w(axisName(along)), steps.map((i) => values[i]!), AXES[along]),
    places: steps.map((step) => places.get(step) ?? null),
    tokens: steps.map((step) => shown.symbols.text[places.get(step) ?? -1] ?? null),
    spread(at, values) {
      const known = new Map(at.map((step, i) => [step, values[i] ?? null]));
      return steps.map((step) => known.get(step) ?? null);
    },
    also: along === "step" ? [] : [column(w(axisName("step")), steps, "count")],
  };
});

const MANY = 1500;

const latency = computed<Spec | null>(() => {
  const of = run.value, part = held.value, found = rows.value;
  if (!of || !part || !found?.steps.length) return null;
  const { steps, x, places, tokens, spread } = found;
  const ns = part.clock === "device" ? of.device_ns : of.step_ns, law = present(part.law), floor = present(part.floor);
  const line = (name: string, colour: string, values: Values, more: Partial<Line>): Line => lineOf(w(name), "ns", values, colour, more);
  const lines = [line("measured", "--s1", steps.map((i) => ns[i] ?? null), { kind: "points", width: steps.length > MANY ? 1 : 1.75 })];
  if (law) lines.push(line("law", "--s2", spread(law.knots, law.ns), { width: 1.75, sparse: true }));
  if (floor) lines.push(line("roofline", "--s4", spread(floor.knots, floor.ns), { dash: [5, 3], sparse: true }));
  if (part.late.length) lines.push(line("late_mark", "--s3", spread(part.late.map((one) => one.step), part.late.map((one) => one.ns)), { kind: "rings", quiet: true }));
  return {
    x,
    y: { name: w(served.value ? "gap" : "step_time"), unit: "ns", log: scale.value === "log", ...(scale.value === "linear" && { holds: 0 }) },
    lines,
    bands: law ? [{ low: spread(law.knots, law.low), high: spread(law.knots, law.high), colour: "--s2", sparse: true }] : [],
    places,
    also: [column(w("token"), tokens), ...found.also, ...(residuals.value?.lines ?? [])],
  };
});

const residuals = computed<Spec | null>(() => {
  const found = rows.value, law = present(held.value?.law);
  if (!found || !law) return null;
  const { index, ratio } = law;
  return {
    x: found.x,
    y: { name: w("times_law"), unit: "", log: true, holds: 1 },
    lines: [lineOf(w("residuals"), "", found.spread(typeof index === "number" ? ratio.map((_, i) => index + i) : index, ratio), "--s1", {
      kind: "points", width: found.steps.length > MANY ? 1 : 1.5, label: w("measured"),
    })],
    rules: [{ at: 1, colour: "--s2" }],
    places: found.places,
    also: found.also,
  };
});

/** What is read at a row: the token, the times, and how the law is met. */
function told(i: number): string {
  const ratio = residuals.value?.lines[0]!.values[i];
  return beside(reading(latency.value!, i), ratio != null && `${number(ratio)} ${w("times_law")}`, rows.value?.tokens[i]);
}

export const TimePart = () => run.value && orEmpty(run.value.time, (part) => {
  const spec = latency.value, { prefill, split } = part;
  const choices = (
    <>
      <Choice label={w("axis")} value={axis.value} onPick={(to) => setExtra("time.axis", to, "step")}
        options={AXIS_NAMES.filter((one) => one !== "context" || known(run.value!.context)).map((one) => [one, w(axisName(one))])} />
      <Choice label={w("scale")} value={scale.value} onPick={(to) => setExtra("time.scale", to, part.scale)}
        options={["linear", "log"].map((one) => [one, w(`scale_${one}`)])} />
    </>
  );
  return (
    <div class="stack">
      <Panel>
        {spec ? <SeriesChart id="time" title={w(served.value ? "latency_served" : "latency")} caption={say(part.caption)} spec={spec} height={280} tools={choices} announce={told} /> : <p>{say(part.caption)}</p>}
        {residuals.value && <SeriesChart id="residuals" title={w("residuals")} caption={say((part.law as LawCurve).ratio_caption)} spec={residuals.value} height={150} />}
        {small(say(part.clock_note))}
      </Panel>
      {orEmpty(part.law, (law) => <Law law={law} />)}
      {!served.value && orEmpty(part.floor, (floor) => <Sourced kind={floor.badge}>{say(floor.note)}</Sourced>)}
      <div class="time-cards">
        <Late part={part} />
        {prefill && <Card title="prefill_title" caption={say(prefill.caption)}><Facts rows={prefill.figures.map(factOf)} /></Card>}
        <Card title={served.value ? "percentiles_title_served" : "percentiles_title"}><Facts rows={part.percentiles.map(factOf)} /></Card>
        {split && <Split split={split} />}
      </div>
    </div>
  );
});

const Card = ({ title, caption, children }: { title: string; caption?: string; children: ComponentChildren }) => (
  <Panel tight title={w(title)}>
    {caption && <p class="small">{caption}</p>}
    {children}
  </Panel>
);

function Law({ law }: { law: LawCurve }) {
  const ns = (value: number): string => nanos(value);
  return (
    <Card title="law_title">
      <p>{say(law.sentence)}</p>
      <Grid
        title={w("law_title")} left={[0, 3]} head={["coefficient", "value", "interval", "per", "share"].map((one) => w(one))}
        rows={law.coefficients.map((one) => [say(one.name), ns(one.value), `${ns(one.low)} \u2013 ${ns(one.high)}`, say(one.per), percent(one.share)])}
      />
      {small(say(law.band), law.check && ` ${say(law.check)}`)}
    </Card>
  );
}

function Late({ part: { late, late_caption } }: { part: Time }) {
  const more = late.length && Number(late_caption.args?.n) - late.length;
  return (
    <Card title={served.value ? "late_title_served" : "late_title"} caption={say(late_caption)}>
      {late.length > 0 && (
        <ol class="late scroll" tabIndex={0} aria-label={w("late_title")}>
          {late.map((one) => {
            const place = placeOfStep(one.step), name = `${w(axisName("step"))} ${one.step}`;
            const go = (event: Event): void => {
              event.preventDefault();
              selected.value = place;
            };
            return (
              <li>
                {place === null ? <span>{name}</span> : <a href={`#part=time&at=${place}`} onClick={go}>{name}</a>}
                <b class="num">{nanos(one.ns)}</b>
                <span class="muted">{beside(w("late_times", { times: number(one.times) }), say(one.why))}</span>
              </li>
            );
          })}
        </ol>
      )}
      {more > 0 && small(w("more_late", { n: more }))}
    </Card>
  );
}

function Split({ split: { caption, rows } }: { split: NonNullable<Time["split"]> }) {
  const shade = (i: number): string => `var(--s${[1, 3, 4, 6][i]})`;
  return (
    <Card title="split_title" caption={say(caption)}>
      <div class="split" aria-hidden="true">{rows.map((one, i) => <span style={{ width: `${100 * one.share}%`, background: shade(i) }} />)}</div>
      <Facts rows={rows.map((one, i) => [
        <><i class="swatch" style={{ background: shade(i) }} />{say(one.name)}</>,
        <>{one.text} <span class="muted">{percent(one.share)}</span></>,
      ])} />
    </Card>
  );
}
