// The part Time: latency of each step with its law and its roofline, what the law leaves over, what was late, the prefill apart.

import { computed } from "@preact/signals";
import { Badge } from "../badge";
import { number } from "../chart/format";
import { Choice, type Column } from "../chart/frame";
import { reading } from "../chart/picture";
import { SeriesChart, type Line, type Spec } from "../chart/series";
import { isMissing, type Figure, type LawCurve, type Run, type TimePart as Time, type Values } from "../document";
import { Empty } from "../missing";
import { extra, lang, run, selected, setExtra, trace } from "../state";
import { say, t } from "../words";

const AXES = ["step", "context", "clock"] as const;
type AxisName = (typeof AXES)[number];

const held = computed<Time | null>(() => {
  const part = run.value?.time;
  return part && !isMissing(part) ? part : null;
});
const axis = computed<AxisName>(() => AXES.find((one) => one === extra.value["time.axis"]) ?? "step");
const scale = computed(() => (extra.value["time.scale"] === "log" || extra.value["time.scale"] === "linear" ? extra.value["time.scale"] : held.value?.scale ?? "linear"));

interface Rows {
  /** Steps after the prompt, in the order of the horizontal axis. */
  steps: number[];
  x: Spec["x"];
  places: (number | null)[];
  tokens: (string | null)[];
}

const rows = computed<Rows | null>(() => {
  const of = run.value, shown = trace.value;
  if (!of || !shown) return null;
  const along = axis.value;
  const values = along === "context" ? of.context : along === "clock" ? of.start_ns : of.kind.map((_, i) => i);
  const steps: number[] = [];
  of.kind.forEach((kind, i) => kind !== 0 && values[i] !== null && steps.push(i));
  if (along === "context") steps.sort((a, b) => values[a]! - values[b]! || a - b);
  const places = new Map<number, number>();
  shown.tokens.step.forEach((step, i) => places.has(step) || places.set(step, shown.n_prompt + i));
  const unit = { step: "count", context: "tokens", clock: "ns" } as const;
  return {
    steps,
    x: { name: t(`page_time.axis_${along}`), unit: unit[along], values: steps.map((i) => values[i]!) },
    places: steps.map((step) => places.get(step) ?? null),
    tokens: steps.map((step) => shown.symbols.text[places.get(step) ?? -1] ?? null),
  };
});

/** Values of some steps, at the rows of the chart. */
function spread(steps: number[], at: number[], values: Values): Values {
  const known = new Map(at.map((step, i) => [step, values[i] ?? null]));
  return steps.map((step) => known.get(step) ?? null);
}

const timesOf = (of: Run, part: Time): Values => (part.clock === "device" ? of.device_ns : of.step_ns);

const stepColumn = (steps: number[]): Column[] => (axis.value === "step" ? [] : [{ name: t("page_time.axis_step"), unit: "count", values: steps }]);

const latency = computed<Spec | null>(() => {
  const of = run.value, part = held.value, found = rows.value;
  void lang.value;
  if (!of || !part || !found || !found.steps.length) return null;
  const { steps, x, places, tokens } = found;
  const ns = timesOf(of, part), law = isMissing(part.law) ? null : part.law, floor = isMissing(part.floor) ? null : part.floor;
  const lines: Line[] = [{ name: t("page_time.measured"), unit: "ns", values: steps.map((i) => ns[i] ?? null), colour: "--s1", kind: "points", width: steps.length > 1500 ? 1 : 1.75 }];
  if (law) lines.push({ name: t("page_time.law"), unit: "ns", values: spread(steps, law.knots, law.ns), colour: "--s2", width: 1.75, sparse: true });
  if (floor) lines.push({ name: t("page_time.roofline"), unit: "ns", values: spread(steps, floor.knots, floor.ns), colour: "--s4", width: 1.25, dash: [5, 3], sparse: true });
  if (part.late.length) {
    lines.push({ name: t("page_time.late_mark"), unit: "ns", values: spread(steps, part.late.map((one) => one.step), part.late.map((one) => one.ns)), colour: "--s3", kind: "rings", quiet: true });
  }
  return {
    x,
    y: { name: t("page_time.step_time"), unit: "ns", log: scale.value === "log", ...(scale.value === "linear" && { holds: 0 }) },
    lines,
    bands: law ? [{ low: spread(steps, law.knots, law.low), high: spread(steps, law.knots, law.high), colour: "--s2", sparse: true }] : [],
    places,
    also: [{ name: t("page_time.token"), unit: "", values: tokens }, ...stepColumn(steps), ...(residuals.value ? residuals.value.lines : [])],
  };
});

const residuals = computed<Spec | null>(() => {
  const part = held.value, found = rows.value;
  void lang.value;
  if (!part || !found || isMissing(part.law)) return null;
  const { index, ratio } = part.law;
  const at = typeof index === "number" ? ratio.map((_, i) => index + i) : index;
  return {
    x: found.x,
    y: { name: t("page_time.times_law"), unit: "", log: true, holds: 1 },
    lines: [{ name: t("page_time.residuals"), unit: "", values: spread(found.steps, at, ratio), colour: "--s1", kind: "points", width: found.steps.length > 1500 ? 1 : 1.5, label: t("page_time.measured") }],
    rules: [{ at: 1, text: "", colour: "--s2" }],
    places: found.places,
    also: stepColumn(found.steps),
  };
});

/** What is read at a row: the token, the times, and how the law is met. */
function told(i: number): string {
  const ratio = residuals.value?.lines[0]?.values[i], token = rows.value?.tokens[i];
  const found = reading(latency.value!, i) + (ratio === null || ratio === undefined ? "" : ` \u00b7 ${number(ratio)} ${t("page_time.times_law")}`);
  return token === null || token === undefined ? found : `${found} \u00b7 ${token}`;
}

export function TimePart() {
  const of = run.value;
  if (!of) return null;
  if (isMissing(of.time)) return <Empty part={of.time} />;
  const part = of.time, spec = latency.value;
  const choices = (
    <>
      <Choice label={t("page_time.axis")} value={axis.value} onChange={(to) => setExtra("time.axis", to === "step" ? null : to)}
        options={AXES.filter((one) => one !== "context" || of.context.some((value) => value !== null)).map((one) => [one, t(`page_time.axis_${one}`)] as const)} />
      <Choice label={t("page_time.scale")} value={scale.value} onChange={(to) => setExtra("time.scale", to === part.scale ? null : to)}
        options={[["linear", t("page_time.scale_linear")], ["log", t("page_time.scale_log")]]} />
    </>
  );
  return (
    <div class="stack">
      <section class="panel stack">
        {spec ? <SeriesChart id="time" title={t("page_time.latency")} caption={say(part.caption)} spec={spec} height={280} tools={choices} announce={told} /> : <p>{say(part.caption)}</p>}
        {residuals.value && !isMissing(part.law) && (
          <SeriesChart id="residuals" title={t("page_time.residuals")} caption={say(part.law.ratio_caption)} spec={residuals.value} height={150} />
        )}
        <p class="small muted">{say(part.clock_note)}</p>
      </section>
      {isMissing(part.law) ? <Empty part={part.law} /> : <Law law={part.law} />}
      {isMissing(part.floor) ? <Empty part={part.floor} /> : (
        <p class="row small"><Badge kind={part.floor.badge} /><span class="grow">{say(part.floor.note)}</span></p>
      )}
      <div class="time-cards">
        <Late part={part} />
        {part.prefill && (
          <section class="panel stack tight">
            <h3>{t("page_time.prefill_title")}</h3>
            <p class="small">{say(part.prefill.caption)}</p>
            <Figures of={part.prefill.figures} />
          </section>
        )}
        <section class="panel stack tight">
          <h3>{t("page_time.percentiles_title")}</h3>
          <Figures of={part.percentiles} />
        </section>
        {part.split && <Split split={part.split} />}
      </div>
    </div>
  );
}

function Figures({ of }: { of: Figure[] }) {
  return (
    <dl class="facts">
      {of.map((one) => (
        <>
          <dt>{say(one.label)}</dt>
          <dd>{one.text ?? "\u2013"}{one.note && <span class="small muted"> {say(one.note)}</span>}</dd>
        </>
      ))}
    </dl>
  );
}

function Law({ law }: { law: LawCurve }) {
  const ns = (value: number): string => number(value, "ns");
  return (
    <section class="panel stack tight">
      <h3>{t("page_time.law_title")}</h3>
      <p>{say(law.sentence)}</p>
      <div class="scroll" tabIndex={0} role="region" aria-label={t("page_time.law_title")}>
        <table class="table">
          <thead>
            <tr>{["coefficient", "value", "interval", "per", "share"].map((one, i) => <th scope="col" class={i % 3 && i < 3 || i === 4 ? "num" : ""}>{t(`page_time.${one}`)}</th>)}</tr>
          </thead>
          <tbody>
            {law.coefficients.map((one) => (
              <tr>
                <th scope="row">{say(one.name)}</th>
                <td class="num">{ns(one.value)}</td>
                <td class="num">{ns(one.low)} – {ns(one.high)}</td>
                <td>{say(one.per)}</td>
                <td class="num">{number(one.share, "share")}</td>
              </tr>
            ))}
          </tbody>
        </table>
      </div>
      <p class="small muted">{say(law.band)} {law.check && say(law.check)}</p>
    </section>
  );
}

function Late({ part }: { part: Time }) {
  const shown = trace.value;
  const go = (step: number) => (event: Event): void => {
    event.preventDefault();
    const i = shown?.tokens.step.indexOf(step) ?? -1;
    if (shown && i >= 0) selected.value = shown.n_prompt + i;
  };
  const more = part.late.length && Number(part.late_caption.args?.n) - part.late.length;
  return (
    <section class="panel stack tight">
      <h3>{t("page_time.late_title")}</h3>
      <p class="small">{say(part.late_caption)}</p>
      {part.late.length > 0 && (
        <ol class="late scroll" tabIndex={0} aria-label={t("page_time.late_title")}>
          {part.late.map((one) => {
            const i = shown?.tokens.step.indexOf(one.step) ?? -1;
            const name = `${t("page_time.axis_step")} ${one.step}`;
            return (
              <li>
                {i < 0 ? <span>{name}</span> : <a href={`#part=time&at=${shown!.n_prompt + i}`} onClick={go(one.step)}>{name}</a>}
                <b class="num">{number(one.ns, "ns")}</b>
                <span class="muted">{t("page_time.late_times", { times: number(one.times) })} · {say(one.why)}</span>
              </li>
            );
          })}
        </ol>
      )}
      {more > 0 && <p class="small muted">{t("page_time.more_late", { n: more })}</p>}
    </section>
  );
}

const SHADES = ["--s1", "--s3", "--s4", "--s6"];

function Split({ split }: { split: NonNullable<Time["split"]> }) {
  return (
    <section class="panel stack tight">
      <h3>{t("page_time.split_title")}</h3>
      <p class="small">{say(split.caption)}</p>
      <div class="split" aria-hidden="true">
        {split.rows.map((one, i) => <span style={{ width: `${100 * one.share}%`, background: `var(${SHADES[i]})` }} />)}
      </div>
      <dl class="facts">
        {split.rows.map((one, i) => (
          <>
            <dt><i class="swatch" style={{ background: `var(${SHADES[i]})` }} />{say(one.name)}</dt>
            <dd>{one.text} <span class="muted">{number(one.share, "share")}</span></dd>
          </>
        ))}
      </dl>
    </section>
  );
}
