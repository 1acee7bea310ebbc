// The part Cost: the roofline with the steps under it, memory as it grew, the figures, and what another machine would need.

import { computed } from "@preact/signals";
import type { ComponentChildren } from "preact";
import { Badge } from "../badge";
import { number } from "../chart/format";
import { Choice } from "../chart/frame";
import { SeriesChart, type Line, type Spec } from "../chart/series";
import { isMissing, type Accelerators, type CostPart as Cost, type Figure } from "../document";
import { Empty } from "../missing";
import { doc, extra, lang, placeOfStep, run, selected, selectedStep, setExtra } from "../state";
import { say, t } from "../words";
import { Grid, joined, type Curves } from "./joined";

const held = computed<Cost | null>(() => {
  const part = (doc.value?.tape?.cost ?? null);
  return part && !isMissing(part) ? part : null;
});
const machines = computed<Accelerators | null>(() => {
  const found = held.value?.accelerators;
  return found && !isMissing(found) ? found : null;
});
const chosen = computed<number>(() => machines.value?.name.indexOf(extra.value["cost.on"] ?? "") ?? -1);
const wanted = computed(() => (extra.value["cost.memory"] === "whole" ? "whole" : "cache"));

interface Mark {
  of: Cost["runs"][number];
  at: number;
}

const roofline = computed<{ spec: Spec; tell(i: number): string; stepOf(i: number): number | null; rowOf(step: number): number } | null>(() => {
  const part = held.value;
  void lang.value;
  if (!part?.runs.length) return null;
  const sets: Curves[] = [];
  const marks: Mark[][] = [];
  const own = part.runs.find((one) => one.run === run.value?.number);
  const base = { unit: "flops" as const };
  const rest = part.runs.flatMap((of) => (of === own ? [] : of.step.map((_, at): Mark => ({ of, at }))));
  if (rest.length) {
    sets.push({ x: rest.map(({ of, at }) => of.intensity[at]!), lines: [{ ...base, name: w("other_runs"), label: "", values: rest.map(({ of, at }) => of.flops_per_s[at]!), colour: "--s6", kind: "points" }] });
    marks.push(rest);
  }
  if (own) {
    const of = (kind: 0 | 1) => own.flops_per_s.map((value, i) => (own.decode[i] === kind ? value : null));
    const lines: Line[] = [
      { ...base, name: w("kind_decode"), values: of(1), colour: "--s1", kind: "points", width: 2 },
      { ...base, name: w("kind_prefill"), values: of(0), colour: "--s2", kind: "points", width: 3 },
    ];
    if (own.reach.some((value) => value !== null)) lines.push({ ...base, name: w("reach"), label: "", values: own.reach, colour: "--s4", width: 1, dash: [2, 2] });
    sets.push({ x: own.intensity, lines }), marks.push(own.step.map((_, at) => ({ of: own, at })));
  }
  const roof = (name: string, line: number[], colour: string, dash?: number[]): void => {
    const at = line.map((_, i) => i).filter((i) => i % 2 === 0);
    sets.push({ x: at.map((i) => line[i]!), lines: [{ ...base, name, values: at.map((i) => line[i + 1]!), colour, width: 1.5, ...(dash && { dash }) }] });
    marks.push([]);
  };
  const roofs = isMissing(part.roofs) ? [] : part.roofs;
  for (const one of roofs) roof(one.one_row ? w("roof_row") : say(one.name), one.line, "--s4", one.one_row ? [2, 3] : undefined);
  const other = machines.value?.roof[chosen.value];
  if (other) roof(machines.value!.name[chosen.value]!, other, "--s3", [6, 3]);
  const { x, lines, from } = joined(sets);
  const markAt = (i: number): Mark | undefined => marks[from[i]![0]]![from[i]![1]];
  const column = (of: (mark: Mark) => number | null | undefined) => x.map((_, i) => { const mark = markAt(i); return mark ? of(mark) ?? null : null; });
  return {
    spec: {
      x: { name: w("intensity"), unit: "", log: true, values: x, ...(!roofs.length && !other && { ends: part.span }) },
      y: { name: w("rate"), unit: "flops", log: true },
      lines,
      also: [
        { name: w("step"), unit: "count", values: column(({ of, at }) => of.step[at]) },
        { name: w("context"), unit: "tokens", values: column(({ of, at }) => of.context[at]) },
        { name: w("time"), unit: "ns", values: column(({ of, at }) => of.ns[at]) },
      ],
    },
    stepOf(i) {
      const mark = markAt(i);
      return mark?.of === own ? mark?.of.step[mark.at] ?? null : null;
    },
    rowOf(step) {
      const at = own ? own.step.findLastIndex((one) => one <= step) : -1;
      return from.findIndex(([s, i]) => i === at && marks[s]![i]?.of === own);
    },
    tell(i) {
      const mark = markAt(i);
      if (!mark) return `${lines.find((one) => one.values[i] !== null)?.name} \u00b7 ${number(x[i], "")} \u00b7 ${rate(lines.find((one) => one.values[i] !== null)?.values[i])}`;
      const { of, at } = mark;
      const said = w("mark", {
        kind: w(`kind_${of.decode[at] ? "decode" : "prefill"}`), step: of.step[at]!, context: number(of.context[at], "tokens"),
        intensity: number(of.intensity[at], ""), rate: rate(of.flops_per_s[at]), time: number(of.ns[at], "ns"),
      });
      const share = of.share[at] ?? null, n = of.n[at]!;
      return [said, share !== null && w("mark_share", { share: number(share, "share") }), n > 1 && w("mark_of", { n })].filter(Boolean).join(" \u00b7 ");
    },
  };
});

const w: typeof t = (key, args) => t(`page_cost.${key}`, args);
const rate = (value: number | null | undefined): string => `${number(value, "flops")}/s`;

const memory = computed<Spec | null>(() => {
  const of = held.value?.memory.runs.find((one) => one.run === run.value?.number);
  void lang.value;
  if (!of) return null;
  const line = (name: "cache" | "modelled" | "rss" | "device", word: string, more: Partial<Line>): Line => ({ name: w(`${word}`), unit: "bytes", values: of[name], colour: "--s1", sparse: true, ...more });
  const all = wanted.value === "cache"
    ? [line("modelled", "cache_modelled", { colour: "--s2", dash: [6, 3] }), line("cache", "cache", { kind: "points", width: 2.5 })]
    : [line("rss", "rss", {}), line("device", "device", { colour: "--s3" })];
  return {
    x: { name: w("step"), unit: "count", values: of.step },
    y: { name: w("bytes"), unit: "bytes", holds: 0 },
    lines: all.filter((one) => one.values.some((value) => value !== null)),
    places: of.step.map(placeOfStep),
    also: [{ name: w("context"), unit: "tokens", values: of.context }],
  };
});

export function CostPart() {
  const part = (doc.value?.tape?.cost ?? null);
  if (!part) return null;
  if (isMissing(part)) return <Empty part={part} />;
  const drawn = roofline.value, grown = memory.value;
  const row = drawn && selectedStep.value !== null ? drawn.rowOf(selectedStep.value) : -1;
  const pick = (i: number): void => {
    const step = drawn?.stepOf(i) ?? null, place = step === null ? null : placeOfStep(step);
    if (place !== null) selected.value = place;
  };
  return (
    <div class="stack">
      <section class="panel stack">
        {drawn ? (
          <SeriesChart id="roofline" title={w("roofline")} caption={say(part.caption)} spec={drawn.spec} height={320} announce={drawn.tell} onSelect={pick} />
        ) : <p>{say(part.caption)}</p>}
        {row >= 0 && <p class="small">{w("selected")}: {drawn!.tell(row)}</p>}
        {isMissing(part.roofs) ? <Empty part={part.roofs} /> : part.roofs[0] && <p class="row small muted"><Badge kind={part.roofs[0].badge} /><span class="grow">{say(part.roofs[0].name)}: {say(part.roofs[0].note)}</span></p>}
        {part.left_out && <p class="small muted">{say(part.left_out)}</p>}
      </section>
      <section class="panel stack">
        <div class="row spread"><h3>{w("elsewhere")}</h3><On /></div>
        {isMissing(part.accelerators) ? <Empty part={part.accelerators} /> : <Elsewhere of={part.accelerators} />}
      </section>
      <section class="panel stack">
        {grown?.lines.length ? (
          <SeriesChart
            id="memory" title={w("memory")} caption={say(part.memory.caption)} spec={grown} height={220}
            tools={<Choice label={w("growth")} value={wanted.value} onChange={(to) => setExtra("cost.memory", to === "cache" ? null : to)} options={[["cache", w("cache")], ["whole", w("whole_memory")]]} />}
          />
        ) : <p>{say(part.memory.caption)}</p>}
      </section>
      <section class="panel stack">
        <h3>{w("figures")}</h3>
        <Figures of={part.figures} />
      </section>
    </div>
  );
}

function On() {
  const all = machines.value;
  if (!all) return null;
  return (
    <label class="field">
      {w("accelerator")}
      <select value={all.name[chosen.value] ?? ""} onChange={(event) => setExtra("cost.on", event.currentTarget.value || null)}>
        <option value="">{w("choose")}</option>
        {all.name.map((name) => <option value={name}>{name}</option>)}
      </select>
    </label>
  );
}

/** The chosen machine, or all of them. */
function Elsewhere({ of }: { of: Accelerators }) {
  const i = chosen.value;
  const bound = (name: string | null | undefined) => name && <span class="small muted"> {w(`bound_${name}`)}</span>;
  const room = (at: number): string => {
    const told = { need: number(of.peak_bytes, "bytes"), room: number(of.memory_bytes[at], "bytes") };
    return w(`fits_${of.fits[at] === null ? "unknown" : of.fits[at] ? "yes" : "no"}`, told);
  };
  if (i < 0) {
    return (
      <>
        <p>{say(of.asked)}</p>
        <div class="tall">
          <Grid
            title={w("elsewhere")} left={[0, 4]}
            head={[w("accelerator"), w("least_decode"), w("least_prefill"), w("most_speed"), w("fits")]}
            rows={of.name.map((name, at) => [
              <button type="button" class="btn quiet" onClick={() => setExtra("cost.on", name)}>{name}</button>,
              number(of.decode_ns[at], "ns"), number(of.prefill_ns[at], "ns"), number(of.tokens_per_s[at], "count"), room(at),
            ])}
          />
        </div>
      </>
    );
  }
  const rows: [string, ComponentChildren][] = [
    ["least_decode", <>{number(of.decode_ns[i], "ns")}{bound(of.decode_bound[i])}</>],
    ["least_prefill", <>{number(of.prefill_ns[i], "ns")}{bound(of.prefill_bound[i])}</>],
    ["least_request", number(of.request_ns[i], "ns")],
    ["most_speed", number(of.tokens_per_s[i], "count")],
    ["fits", room(i)],
    ["largest_batch", number(of.largest_batch[i], "count")],
    ["largest_context", number(of.largest_context[i], "count")],
  ];
  return (
    <>
      <p>{say(of.asked)}</p>
      <dl class="facts">{rows.map(([name, value]) => <><dt>{w(`${name}`)}</dt><dd>{value}</dd></>)}</dl>
      <p class="row small muted"><Badge kind={of.decode_ns[i] === null ? "unavailable" : "modelled"} /><span class="grow">{of.name[i]}: {of.decode_ns[i] === null ? w("no_rate") : w("sheet", { source: of.source[i]! })}</span></p>
    </>
  );
}

function Figures({ of }: { of: Figure[] }) {
  return (
    <Grid
      title={w("figures")} left={[0, 2, 3]} head={["figure", "value", "origin", "note"].map((one) => w(`${one}`))}
      rows={of.map((one) => [say(one.label), one.text ?? "\u2013", <Badge kind={one.badge} />, <span class="muted">{one.note && say(one.note)}</span>])}
    />
  );
}
