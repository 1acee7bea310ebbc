// The part Cost: the roofline with the steps under it, memory as it grew, the figures, and what another machine would need.

import { computed } from "@preact/signals";
import type { ComponentChildren } from "preact";
import { Badge, Button, Choice, Facts, Grid, orEmpty, Panel, Pick, small, Sourced } from "../blocks";
import { ABSENT, nanos, number, percent } from "../chart/format";
import { column } from "../chart/export";
import { lineOf, SeriesChart, type Line, type Spec } from "../chart/series";
import { present, type Accelerators, type CostPart as Cost, type CostRun, type Unit } from "../document";
import { known } from "../maths";
import { doc, extra, placeOfStep, run, selected, selectedStep, setExtra } from "../state";
import { beside, say, wordsOf } from "../words";
import { joined, type Curves } from "./joined";

const w = wordsOf("cost");
const held = computed<Cost | null>(() => present(doc.value?.tape?.cost));
const machines = computed<Accelerators | null>(() => present(held.value?.accelerators));
const chosen = computed<number>(() => machines.value?.name.indexOf(extra.value["cost.on"] ?? "") ?? -1);
const wanted = computed(() => (extra.value["cost.memory"] === "whole" ? "whole" : "cache"));

/** A step under the roofline, by its run. */
interface Mark {
  of: CostRun;
  at: number;
}

const rate = (value: number | null | undefined): string => `${number(value, "flops")}/s`;

const roofline = computed<{ spec: Spec; tell(i: number): string; stepOf(i: number): number | null; rowOf(step: number): number } | null>(() => {
  const part = held.value;
  if (!part?.runs.length) return null;
  const own = part.runs.find((one) => one.run === run.value?.number), sets: (Curves & { marks: Mark[] })[] = [];
  const line = (name: string, colour: string, values: Line["values"], more: Partial<Line>): Line => lineOf(name, "flops", values, colour, more);
  const marksOf = (of: CostRun): Mark[] => of.step.map((_, at) => ({ of, at }));
  const rest = part.runs.flatMap((of) => (of === own ? [] : marksOf(of)));
  if (rest.length) {
    sets.push({
      x: rest.map(({ of, at }) => of.intensity[at]!), marks: rest,
      lines: [line(w("other_runs"), "--s6", rest.map(({ of, at }) => of.flops_per_s[at]!), { label: "", kind: "points" })],
    });
  }
  if (own) {
    const of = (kind: 0 | 1) => own.flops_per_s.map((value, i) => (own.decode[i] === kind ? value : null));
    sets.push({
      x: own.intensity, marks: marksOf(own),
      lines: [
        line(w("kind_decode"), "--s1", of(1), { kind: "points", width: 2 }), line(w("kind_prefill"), "--s2", of(0), { kind: "points", width: 3 }),
        ...(known(own.reach) ? [line(w("reach"), "--s4", own.reach, { label: "", width: 1, dash: [2, 2] })] : []),
      ],
    });
  }
  const roof = (name: string, of: number[], colour: string, dash?: number[]): void => {
    const every = (from: 0 | 1): number[] => of.filter((_, i) => i % 2 === from);
    sets.push({ x: every(0), marks: [], lines: [line(name, colour, every(1), { width: 1.5, dash })] });
  };
  const roofs = present(part.roofs) ?? [], other = machines.value?.roof[chosen.value];
  for (const one of roofs) roof(one.one_row ? w("roof_row") : say(one.name), one.line, "--s4", one.one_row ? [2, 3] : undefined);
  if (other) roof(machines.value!.name[chosen.value]!, other, "--s3", [6, 3]);
  const { x, lines, from } = joined(sets), marks = from.map(([s, i]) => sets[s]!.marks[i]);
  const also = (name: string, unit: Unit, of: (mark: Mark) => number | null | undefined) => column(w(name), marks.map((mark) => (mark && of(mark)) ?? null), unit);
  return {
    spec: {
      x: { ...column(w("intensity"), x), log: true, ...(!roofs.length && !other && { ends: part.span }) },
      y: { name: w("rate"), unit: "flops", log: true },
      lines,
      also: [
        also("step", "count", ({ of, at }) => of.step[at]), also("context", "tokens", ({ of, at }) => of.context[at]), also("time", "ns", ({ of, at }) => of.ns[at]),
      ],
    },
    stepOf(i) {
      const mark = marks[i];
      return mark?.of === own ? mark?.of.step[mark.at] ?? null : null;
    },
    rowOf(step) {
      const at = own ? own.step.findLastIndex((one) => one <= step) : -1;
      return marks.findIndex((mark) => mark?.of === own && mark?.at === at);
    },
    tell(i) {
      const mark = marks[i];
      if (!mark) {
        const there = lines.find((one) => one.values[i] !== null);
        return beside(there?.name, number(x[i]), rate(there?.values[i]));
      }
      const { of, at } = mark, share = of.share[at] ?? null, n = of.n[at]!;
      return beside(
        w("mark", {
          kind: w(of.decode[at] ? "kind_decode" : "kind_prefill"), step: of.step[at]!, context: number(of.context[at], "tokens"),
          intensity: number(of.intensity[at]), rate: rate(of.flops_per_s[at]), time: nanos(of.ns[at]),
        }),
        share !== null && w("mark_share", { share: percent(share) }), n > 1 && w("mark_of", { n }),
      );
    },
  };
});

const memory = computed<Spec | null>(() => {
  const of = held.value?.memory.runs.find((one) => one.run === run.value?.number);
  if (!of) return null;
  const line = (word: string, values: Line["values"], more?: Partial<Line>): Line => lineOf(w(word), "bytes", values, "--s1", { sparse: true, ...more });
  const all = wanted.value === "cache"
    ? [line("cache_modelled", of.modelled, { colour: "--s2", dash: [6, 3] }), line("cache", of.cache, { kind: "points", width: 2.5 })]
    : [line("rss", of.rss), line("device", of.device, { colour: "--s3" })];
  return {
    x: column(w("step"), of.step, "count"),
    y: { name: w("bytes"), unit: "bytes", holds: 0 },
    lines: all.filter((one) => known(one.values)),
    places: of.step.map(placeOfStep),
    also: [column(w("context"), of.context, "tokens")],
  };
});

export const CostPart = () => doc.value?.tape && orEmpty(doc.value.tape.cost, (part) => {
  const drawn = roofline.value, grown = memory.value, all = machines.value, step = selectedStep.value;
  const row = drawn && step !== null ? drawn.rowOf(step) : -1;
  const pick = (i: number): void => {
    const step = drawn!.stepOf(i);
    selected.value = (step === null ? null : placeOfStep(step)) ?? selected.value;
  };
  return (
    <div class="stack">
      <Panel>
        {drawn ? (
          <SeriesChart id="roofline" title={w("roofline")} caption={say(part.caption)} spec={drawn.spec} height={320} announce={drawn.tell} onSelect={pick} />
        ) : <p>{say(part.caption)}</p>}
        {row >= 0 && <p class="small">{w("selected")}: {drawn!.tell(row)}</p>}
        {orEmpty(part.roofs, ([one]) => one && <Sourced kind={one.badge}>{say(one.name)}: {say(one.note)}</Sourced>)}
        {small(part.left_out && say(part.left_out))}
      </Panel>
      <Panel>
        <div class="row spread">
          <h3>{w("elsewhere")}</h3>
          {all && <Pick label={w("accelerator")} value={all.name[chosen.value] ?? ""} onPick={(to) => setExtra("cost.on", to, "")} options={[["", w("choose")], ...all.name.map((name) => [name, name] as const)]} />}
        </div>
        {orEmpty(part.accelerators, (of) => <Elsewhere of={of} />)}
      </Panel>
      <Panel>
        {grown?.lines.length ? (
          <SeriesChart
            id="memory" title={w("memory")} caption={say(part.memory.caption)} spec={grown} height={220}
            tools={<Choice label={w("growth")} value={wanted.value} onPick={(to) => setExtra("cost.memory", to, "cache")} options={[["cache", w("cache")], ["whole", w("whole_memory")]]} />}
          />
        ) : <p>{say(part.memory.caption)}</p>}
      </Panel>
      <Panel title={w("figures")}>
        <Grid
          title={w("figures")} left={[0, 2, 3]} head={["figure", "value", "origin", "note"].map((one) => w(one))}
          rows={part.figures.map((one) => [say(one.label), one.text ?? ABSENT, <Badge kind={one.badge} />, <span class="muted">{one.note && say(one.note)}</span>])}
        />
      </Panel>
    </div>
  );
});

/** The chosen machine, or all of them. */
function Elsewhere({ of }: { of: Accelerators }) {
  const i = chosen.value, spec = (name: string, value: ComponentChildren, bound?: string | null) =>
    [w(name), <>{value}{bound && <span class="small muted"> {w(`bound_${bound}`)}</span>}</>] as const;
  const room = (at: number): string =>
    w(`fits_${of.fits[at] === null ? "unknown" : of.fits[at] ? "yes" : "no"}`, { need: number(of.peak_bytes, "bytes"), room: number(of.memory_bytes[at], "bytes") });
  return (
    <>
      <p>{say(of.asked)}</p>
      {i < 0 ? (
        <div class="tall">
          <Grid
            title={w("elsewhere")} left={[0, 4]} head={["accelerator", "least_decode", "least_prefill", "most_speed", "fits"].map((one) => w(one))}
            rows={of.name.map((name, at) => [
              <Button quiet onClick={() => setExtra("cost.on", name)}>{name}</Button>,
              nanos(of.decode_ns[at]), nanos(of.prefill_ns[at]), number(of.tokens_per_s[at], "count"), room(at),
            ])}
          />
        </div>
      ) : (
        <>
          <Facts rows={[
            spec("least_decode", nanos(of.decode_ns[i]), of.decode_bound[i]), spec("least_prefill", nanos(of.prefill_ns[i]), of.prefill_bound[i]),
            spec("least_request", nanos(of.request_ns[i])), spec("most_speed", number(of.tokens_per_s[i], "count")), spec("fits", room(i)),
            spec("largest_batch", number(of.largest_batch[i], "count")), spec("largest_context", number(of.largest_context[i], "count")),
          ]} />
          <Sourced kind={of.decode_ns[i] === null ? "unavailable" : "modelled"}>{of.name[i]}: {of.decode_ns[i] === null ? w("no_rate") : w("sheet", { source: of.source[i]! })}</Sourced>
        </>
      )}
    </>
  );
}
