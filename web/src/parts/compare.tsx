// The part Compare: the verdict, what differs, both texts side by side to where they part, both series of times, both laws.

import { computed, useSignal } from "@preact/signals";
import { useEffect, useMemo, useRef } from "preact/hooks";
import { pairsOf, runsOf, type Pair, type Span } from "../aligned";
import { Bar, Button, Choice, Empty, Grid, orEmpty, Panel, Pick, small } from "../blocks";
import { ABSENT, nanos, number, percent } from "../chart/format";
import { column } from "../chart/export";
import { lineOf, SeriesChart, type Spec } from "../chart/series";
import type { Aligned, ComparePart as Compare, Present } from "../document";
import { numbered, take, walked } from "../elements";
import { drawn } from "../layout";
import { clamp, max, times } from "../maths";
import { doc, extra, lang, setExtra } from "../state";
import { beside, say, t, wordsOf } from "../words";
import { joined, Whisker } from "./joined";

const SIDES = ["A", "B"] as const;
const KINDS = ["same", "recut", "other"];
const w = wordsOf("compare");

const shown = computed<Aligned | null>(() => {
  const all = doc.value?.compare?.aligned ?? [];
  return all[Number(extra.value["compare.pair"] ?? 0)] ?? all[0] ?? null;
});
const along = computed(() => (extra.value["compare.by"] === "token" || !doc.value?.compare?.series ? "token" : "place"));

export function ComparePart() {
  const found = doc.value?.compare;
  if (!found) return null;
  const { verdict } = found;
  return (
    <div class="stack compare">
      {found.refused ? <Empty part={found.refused} /> : (
        <section class="stack tight">
          {verdict && <p class="verdict" data-word={verdict.word}>{say(verdict.name)}</p>}
          <p class="lead">{say(found.caption)}</p>
          {verdict?.low != null && <Whisker of={[[verdict.change!, verdict.low, verdict.high!]]} mark={0} band={verdict.threshold} label={say(verdict.sentence)} />}
          {verdict?.reason && <p>{say(verdict.reason)}</p>}
          {found.caveat && <div class="note">{say(found.caveat)}</div>}
          {found.notes.map((one) => <div class="note">{say(one)}</div>)}
        </section>
      )}
      <Panel>
        <Grid
          title={w("sides")} left={[0, 1, 2, 3]} head={["", w("tape"), w("model"), w("holds")]}
          rows={found.sides.map((side, i) => [
            <span class={`side-${SIDES[i]}`}>{SIDES[i]}</span>, side.name ?? w("in_memory"), side.model ?? ABSENT,
            <>{w("holds_text", { runs: side.n_runs, traces: side.n_traces, tokens: side.n_tokens })}{side.state !== "complete" && ` (${w(side.state)})`}</>,
          ])}
        />
        <Differences of={found} />
        {doc.value?.tape && small(w("of_a"))}
      </Panel>
      {shown.value && <Text all={found} of={shown.value} />}
      {!found.refused && <Times of={found} />}
      {!found.refused && (
        <Panel title={w("laws")}>
          {orEmpty(found.laws, (laws) => <Laws of={laws} />)}
        </Panel>
      )}
    </div>
  );
}

function Differences({ of }: { of: Compare }) {
  if (!of.differences.length) return small(w("no_differences"));
  const why = (name: string | null): string => (name === null ? w("because_refused") : name === "asked" ? w("because_asked") : w("because_follows", { name }));
  return (
    <>
      <h3>{w("differences")}</h3>
      <Grid
        title={w("differences")} left={[0, 1, 2, 3]} head={[w("name"), ...SIDES, w("because")]}
        rows={of.differences.map(({ name, a, b, because }) => [
          name, ...[a, b].map((one) => <span class="tok">{one ?? ABSENT}</span>), <span class={because === null ? "refused" : "muted"}>{why(because)}</span>,
        ])}
      />
    </>
  );
}

// text

function Text({ all, of }: { all: Compare; of: Aligned }) {
  return (
    <Panel>
      <div class="row spread">
        <h3>{w("text")}</h3>
        {all.aligned.length > 1 && (
          <Pick label={w("pair")} value={all.aligned.indexOf(of)} onPick={(to) => setExtra("compare.pair", to, "0")}
            options={all.aligned.map(({ a, b }, i) => [i, a === b ? `${a}` : `${a} / ${b}`])} />
        )}
      </div>
      <p>{say(of.outcome)}{of.n_alike > 1 && ` ${w("alike", { n: of.n_alike })}`}</p>
      {of.stretches.length > 0 && <Ribbons key={`${of.a} ${of.b}`} of={of} />}
      {of.parting && <Parting of={of.parting} />}
      {small(of.deviation && say(of.deviation))}
      {small(all.more && say(all.more))}
    </Panel>
  );
}

/** What one side says in a cell. */
const text = (of: Aligned, side: number, span: Span | null): string | null => span && of.sides[side]!.text.slice(...span).join("");

function Ribbons({ of }: { of: Aligned }) {
  const pairs = useMemo(() => pairsOf(of.stretches), [of]), runs = useMemo(() => runsOf(pairs), [pairs]), n = pairs.length;
  const parts = pairs.findIndex((one) => one.kind === 2);
  const at = useSignal<number | null>(parts < 0 ? null : parts), open = useSignal<number[]>([]), box = useRef<HTMLDivElement>(null);
  const centre = (): void => {
    const cell = box.current?.querySelector<HTMLElement>(".here");
    if (cell) box.current!.scrollTop = cell.offsetTop - box.current!.clientHeight / 2;
  };
  const go = (to: number): void => {
    const next = clamp(to, 0, n - 1), fold = runs.find((one) => one.folded && next >= one.from && next < one.to);
    if (fold) open.value = [...open.value, fold.from];
    at.value = next;
    requestAnimationFrame(centre);
  };
  useEffect(centre, []);
  const press = (event: KeyboardEvent): void => {
    const parting = event.key === "p" && !event.ctrlKey && !event.metaKey, to = parting ? parts : walked(event, at.value ?? -1, n);
    if (to === undefined) return;
    if (to >= 0 || !parting) go(to);
    take(event);
  };
  const point = (event: Event): void => {
    const i = numbered(event, "i"), fold = numbered(event, "fold");
    if (i !== null) at.value = i;
    else if (fold !== null && event.type === "click") open.value = [...open.value, fold];
  };
  return (
    <div class="stack tight">
      <div ref={box} class={n > 1500 ? "pairs many" : "pairs"} tabIndex={0} role="application" aria-label={`${w("aligned")}. ${w("keys")}`} onKeyDown={press} onClick={point} onMouseOver={point}>
        <span class="pair both"><b>A</b><b>B</b></span>
        {runs.map(({ from, to, folded }) => folded && !open.value.includes(from)
          ? <Button class="chip" tabIndex={-1} data-fold={from}>{w("fold", { n: to - from })}</Button>
          : <Cells key={from} of={of} pairs={pairs} from={from} to={to} here={at.value !== null && at.value >= from && at.value < to ? at.value : null} parts={parts} />)}
      </div>
      <p class="small" aria-live="polite">{at.value === null ? "\u00a0" : told(of, pairs, at.value)}</p>
    </div>
  );
}

function Cells({ of, pairs, from, to, here, parts }: { of: Aligned; pairs: Pair[]; from: number; to: number; here: number | null; parts: number }) {
  return useMemo(() => (
    <span class="run">
      {pairs.slice(from, to).map((one, k) => {
        const i = from + k;
        return (
          <span class={`pair ${KINDS[one.kind]}${i === here ? " here" : ""}${i === parts ? " parts" : ""}`} data-i={i}>
            {[one.a, one.b].map((span, side) => (span ? <span class="tok">{drawn(text(of, side, span)!)}</span> : <i />))}
          </span>
        );
      })}
    </span>
  ), [of, pairs, from, to, here, parts]);
}

function told(of: Aligned, pairs: Pair[], i: number): string {
  const { a, b, kind } = pairs[i]!, spans = [a, b];
  const [inA, inB] = spans.map((span, side) => (span ? `\u201c${drawn(text(of, side, span)!)}\u201d` : w("nothing"))) as [string, string];
  const cells = spans.map((span, side) => {
    const { share, gap_ns } = of.sides[side]!;
    return span && span[1] - span[0] === 1 && w("cell", { side: SIDES[side]!, p: percent(share[span[0]]), gap: nanos(gap_ns[span[0]]) });
  });
  return beside(`${w("place", { at: i + 1, n: pairs.length })}: ${w(`place_${KINDS[kind]}`, { a: inA, b: inB })}`, ...cells);
}

function Parting({ of }: { of: NonNullable<Aligned["parting"]> }) {
  const most = max(...of.share.flatMap((side) => side.map((share) => share ?? 0)));
  const bar = (side: number, i: number) => {
    const share = of.share[side]![i] ?? null, below = of.below[side] ?? null;
    return <span class={`row odds side-${SIDES[side]}`}><Bar part={(share ?? 0) / (most || 1)} />{share === null && below !== null && "< "}{percent(share ?? below)}</span>;
  };
  return (
    <div class="stack tight">
      <h3>{w("parting")}</h3>
      {SIDES.map((side, i) => of.position[i] === null && <p class="small">{w("ended", { side })}</p>)}
      {of.name.length > 0 && (
        <Grid
          title={w("parting")} left={[0, 1, 2, 3]} head={[w("candidate"), ...SIDES.map((side) => w("probability_by", { side })), ""]}
          rows={of.name.map((name, i) => [
            <span class="tok">{drawn(name)}</span>, bar(0, i), bar(1, i),
            SIDES.filter((_, side) => of.said[side] === i).map((side) => <span class={`chip side-${side}`}>{w("said", { side })}</span>),
          ])}
        />
      )}
    </div>
  );
}

// times

function Times({ of }: { of: Compare }) {
  const pair = shown.value, { series } = of;
  const spec = useMemo(() => (along.value === "place" && series ? bySteps(series) : pair && byTokens(pair)), [of, pair, along.value, lang.value]);
  const caption = along.value === "place" && series ? say(series.caption) : w("gap_caption");
  const whiskers = of.ratios.map((one) => [one.ratio, one.low ?? one.ratio, one.high ?? one.ratio]);
  return (
    <Panel>
      {spec && (
        <SeriesChart
          id="compare" title={w("series")} caption={caption} spec={spec} height={260}
          tools={series && pair && <Choice label={w("by")} value={along.value} onPick={(to) => setExtra("compare.by", to, "place")} options={[["place", w(`at_${series.at}`)], ["token", w("token")]]} />}
        />
      )}
      {!series && small(w("no_series"))}
      {of.ratios.length > 0 && (
        <Grid
          title={w("ratios")} left={[0, 4, 5]} head={["", ...SIDES, w("ratio"), "", w("interval"), w("counts")]}
          rows={of.ratios.map(({ low, high, ...one }, i) => [
            <span class={one.inner ? "inner" : ""}>{say(one.label)}</span>, nanos(one.a_ns), nanos(one.b_ns), one.ratio.toFixed(3),
            <Whisker of={[whiskers[i]!]} among={whiskers} mark={1} />,
            low === null || high === null ? ABSENT : `${low.toFixed(3)} \u2013 ${high.toFixed(3)}`, `${number(one.n_a, "count")}, ${number(one.n_b, "count")}`,
          ])}
        />
      )}
    </Panel>
  );
}

type Series = NonNullable<Compare["series"]>;

function bySteps(series: Series): Spec {
  const several = series.batches.length > 1;
  const { x, lines, from } = joined(series.batches.map((one, k) => ({
    x: one.x,
    lines: SIDES.map((side, i) => lineOf(several ? `${side}, ${w("batch", { n: one.batch })}` : side, "ns", i ? one.b_ns : one.a_ns, `--s${i + 1}`, {
      width: 1.5, dash: k ? [[5, 3], [2, 3]][(k - 1) % 2] : undefined,
    })),
  })));
  return {
    x: column(w(`at_${series.at}`), x, "count"),
    y: { name: w("step_time"), unit: "ns", log: true },
    lines,
    also: [column(w("ratio"), from.map(([s, i]) => series.batches[s]!.ratio[i]!))],
  };
}

function byTokens(of: Aligned): Spec {
  const n = max(...of.sides.map((side) => side.gap_ns.length));
  return {
    x: column(w("token"), times(n, Number), "count"),
    y: { name: w("gap"), unit: "ns", log: true },
    lines: SIDES.map((name, i) => lineOf(name, "ns", times(n, (k) => of.sides[i]!.gap_ns[k] ?? null), `--s${i + 1}`, { width: 1.5 })),
  };
}

// laws

function Laws({ of }: { of: Present<Compare["laws"]> }) {
  const cell = (one: number[] | null) => (one ? <>{nanos(one[0])} <span class="muted">{nanos(one[1])} – {nanos(one[2])}</span></> : ABSENT);
  return (
    <Grid
      title={w("laws")} left={[0, 1, 4, 6]}
      head={["", w("coefficient"), ...SIDES, "", w("difference"), w("intervals")]}
      rows={of.map((one) => [
        t(`page_cost.kind_${one.kind}`), <>{say(one.term)} <span class="muted">({say(one.per)}) {say(one.meaning)}</span></>, cell(one.a), cell(one.b),
        <Whisker of={[one.a, one.b]} mark={0} />, cell(one.difference),
        one.apart === null ? ABSENT : w(one.apart ? "are_apart" : "overlap"),
      ])}
    />
  );
}
