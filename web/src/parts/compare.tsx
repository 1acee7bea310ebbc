// The part Compare: the verdict, what differs, both texts side by side to where they part, both series of times, both laws.

import { computed, useSignal } from "@preact/signals";
import { useEffect, useMemo, useRef } from "preact/hooks";
import { pairsOf, runsOf, type Pair, type Span } from "../aligned";
import { number } from "../chart/format";
import { Choice } from "../chart/frame";
import { SeriesChart, type Spec } from "../chart/series";
import { isMissing, type Aligned, type ComparePart as Compare } from "../document";
import { drawn } from "../layout";
import { Empty } from "../missing";
import { doc, extra, lang, setExtra } from "../state";
import { say, t } from "../words";
import { endsOf, Grid, joined, Whisker } from "./joined";

const SIDES = ["A", "B"] as const;
const w: typeof t = (key, args) => t(`page_compare.${key}`, args);

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
          {verdict?.low != null && <Verdict of={verdict} />}
          {verdict?.reason && <p>{say(verdict.reason)}</p>}
          {found.caveat && <div class="note">{say(found.caveat)}</div>}
          {found.notes.map((one) => <div class="note">{say(one)}</div>)}
        </section>
      )}
      <section class="panel stack">
        <Grid
          title={w("sides")} left={4} head={["", ...["tape", "model", "holds"].map((one) => w(`${one}`))]}
          rows={found.sides.map((side, i) => [
            <span class={`side-${SIDES[i]}`}>{SIDES[i]}</span>, side.name ?? w("in_memory"), side.model ?? "\u2013",
            <>{w("holds_text", { runs: side.n_runs, traces: side.n_traces, tokens: side.n_tokens })}{side.state !== "complete" && ` (${w(`${side.state}`)})`}</>,
          ])}
        />
        <Differences of={found} />
        {doc.value?.tape && <p class="small muted">{w("of_a")}</p>}
      </section>
      {shown.value && <Text all={found} of={shown.value} />}
      {!found.refused && <Times of={found} />}
      {!found.refused && (
        <section class="panel stack">
          <h3>{w("laws")}</h3>
          {isMissing(found.laws) ? <Empty part={found.laws} /> : <Laws of={found.laws} />}
        </section>
      )}
    </div>
  );
}

/** The interval of the change, with the threshold to both sides of none. */
function Verdict({ of }: { of: NonNullable<Compare["verdict"]> }) {
  const one = [of.change!, of.low!, of.high!], size = of.threshold;
  const ends: [number, number] = [Math.min(of.low!, -size) * 1.1, Math.max(of.high!, size) * 1.1];
  const x = (value: number): number => (100 * (value - ends[0])) / (ends[1] - ends[0]);
  return (
    <svg class="scale" viewBox="0 0 100 8" preserveAspectRatio="none" role="img" aria-label={say(of.sentence)}>
      <rect x={x(-size)} width={x(size) - x(-size)} y="0" height="8" />
      <path class="at" d={`M${x(0)} 0V8`} />
      <path class="w0" d={`M${x(one[1]!)} 4H${x(one[2]!)}M${x(one[0]!)} 1v6`} />
    </svg>
  );
}

function Differences({ of }: { of: Compare }) {
  if (!of.differences.length) return <p class="small muted">{w("no_differences")}</p>;
  const why = (because: string | null): string =>
    because === null ? w("because_refused") : because === "asked" ? w("because_asked") : w("because_follows", { name: because });
  return (
    <>
      <h3>{w("differences")}</h3>
      <Grid
        title={w("differences")} left={4} head={[w("name"), ...SIDES, w("because")]}
        rows={of.differences.map((one) => [one.name, <span class="tok">{one.a ?? "\u2013"}</span>, <span class="tok">{one.b ?? "\u2013"}</span>, <span class={one.because === null ? "refused" : "muted"}>{why(one.because)}</span>])}
      />
    </>
  );
}

// text

function Text({ all, of }: { all: Compare; of: Aligned }) {
  return (
    <section class="panel stack">
      <div class="row spread">
        <h3>{w("text")}</h3>
        {all.aligned.length > 1 && (
          <label class="field">
            {w("pair")}
            <select value={all.aligned.indexOf(of)} onChange={(event) => setExtra("compare.pair", event.currentTarget.value === "0" ? null : event.currentTarget.value)}>
              {all.aligned.map((one, i) => <option value={i}>{one.a === one.b ? one.a : `${one.a} / ${one.b}`}</option>)}
            </select>
          </label>
        )}
      </div>
      <p>{say(of.outcome)}{of.n_alike > 1 && ` ${w("alike", { n: of.n_alike })}`}</p>
      {of.stretches.length > 0 && <Ribbons key={`${of.a} ${of.b}`} of={of} />}
      {of.parting && <Parting of={of.parting} />}
      {of.deviation && <p class="small muted">{say(of.deviation)}</p>}
      {all.more && <p class="small muted">{say(all.more)}</p>}
    </section>
  );
}

/** What one side says in a cell. */
const text = (of: Aligned, side: number, span: Span | null): string | null => span && of.sides[side]!.text.slice(...span).join("");

function Ribbons({ of }: { of: Aligned }) {
  const pairs = useMemo(() => pairsOf(of.stretches), [of]);
  const parts = pairs.findIndex((one) => one.kind === 2);
  const at = useSignal<number | null>(parts < 0 ? null : parts);
  const open = useSignal<ReadonlySet<number>>(new Set());
  const box = useRef<HTMLDivElement>(null);
  const go = (to: number): void => {
    const next = Math.max(0, Math.min(pairs.length - 1, to));
    const fold = runs.findIndex((one) => one.folded && next >= one.from && next < one.to);
    if (fold >= 0) open.value = new Set([...open.value, runs[fold]!.from]);
    at.value = next;
    requestAnimationFrame(centre);
  };
  const runs = useMemo(() => runsOf(pairs), [pairs]);
  const centre = (): void => {
    const cell = box.current?.querySelector<HTMLElement>(".here");
    if (cell) box.current!.scrollTop = cell.offsetTop - box.current!.clientHeight / 2;
  };
  useEffect(centre, []);
  const press = (event: KeyboardEvent): void => {
    const now = at.value ?? -1;
    const to = { ArrowRight: now + 1, ArrowLeft: now - 1, PageDown: now + 10, PageUp: now - 10, Home: 0, End: pairs.length - 1, p: parts }[event.key];
    if (to === undefined || event.ctrlKey || event.metaKey || event.altKey) return;
    if (to >= 0 || event.key !== "p") go(to);
    event.preventDefault();
    event.stopPropagation();
  };
  const point = (event: Event): void => {
    const { i, fold } = (event.target as Element).closest<HTMLElement>("[data-i], [data-fold]")?.dataset ?? {};
    if (i) at.value = Number(i);
    else if (fold && event.type === "click") open.value = new Set([...open.value, Number(fold)]);
  };
  return (
    <div class="stack tight">
      <div ref={box} class={pairs.length > 1500 ? "pairs many" : "pairs"} tabIndex={0} role="application" aria-label={`${w("aligned")}. ${w("keys")}`} onKeyDown={press} onClick={point} onMouseOver={point}>
        <span class="pair both"><b>A</b><b>B</b></span>
        {runs.map((one) => one.folded && !open.value.has(one.from)
          ? <button type="button" class="chip" tabIndex={-1} data-fold={one.from}>{w("fold", { n: one.to - one.from })}</button>
          : <Cells key={one.from} of={of} pairs={pairs} from={one.from} to={one.to} here={at.value !== null && at.value >= one.from && at.value < one.to ? at.value : null} parts={parts} />)}
      </div>
      <p class="small" aria-live="polite">{at.value === null ? "\u00a0" : told(of, pairs, at.value)}</p>
    </div>
  );
}

function Cells({ of, pairs, from, to, here, parts }: { of: Aligned; pairs: Pair[]; from: number; to: number; here: number | null; parts: number }) {
  return useMemo(() => (
    <span class="run">
      {pairs.slice(from, to).map((one, k) => {
        const i = from + k, kinds = ["same", "recut", "other"];
        return (
          <span class={`pair ${kinds[one.kind]}${i === here ? " here" : ""}${i === parts ? " parts" : ""}`} data-i={i}>
            {[one.a, one.b].map((span, side) => (span ? <span class="tok">{drawn(text(of, side, span)!)}</span> : <i />))}
          </span>
        );
      })}
    </span>
  ), [of, pairs, from, to, here, parts]);
}

function told(of: Aligned, pairs: Pair[], i: number): string {
  const one = pairs[i]!;
  const said = [one.a, one.b].map((span, side) => (span ? `\u201c${drawn(text(of, side, span)!)}\u201d` : w("nothing")));
  const spans = [one.a, one.b];
  const cells = spans.flatMap((span, side) => {
    const own = of.sides[side]!;
    return span && span[1] - span[0] === 1 ? [w("cell", { side: SIDES[side]!, p: number(own.share[span[0]], "share"), gap: number(own.gap_ns[span[0]], "ns") })] : [];
  });
  const what = w(`place_${["same", "recut", "other"][one.kind]}`, { a: said[0]!, b: said[1]! });
  return [`${w("place", { at: i + 1, n: pairs.length })}: ${what}`, ...cells].join(" \u00b7 ");
}

function Parting({ of }: { of: NonNullable<Aligned["parting"]> }) {
  const most = Math.max(...of.share.flatMap((side) => side.map((share) => share ?? 0)));
  const bar = (side: number, i: number) => {
    const share = of.share[side]![i] ?? null, below = of.below[side] ?? null;
    const words = share === null ? (below === null ? "\u2013" : `< ${number(below, "share")}`) : number(share, "share");
    return <span class={`odds side-${SIDES[side]}`}><span class="bar" style={{ "--w": `${(100 * (share ?? 0)) / (most || 1)}%` }} />{words}</span>;
  };
  return (
    <div class="stack tight">
      <h3>{w("parting")}</h3>
      {SIDES.map((side, i) => of.position[i] === null && <p class="small">{w("ended", { side })}</p>)}
      {of.name.length > 0 && (
        <Grid
          title={w("parting")} left={4} head={[w("candidate"), ...SIDES.map((side) => w("probability_by", { side })), ""]}
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
  const ends = endsOf(of.ratios.map((one) => [one.ratio, one.low ?? one.ratio, one.high ?? one.ratio]), 1);
  return (
    <section class="panel stack">
      {spec && (
        <SeriesChart
          id="compare" title={w("series")} caption={caption} spec={spec} height={260}
          tools={series && pair && <Choice label={w("by")} value={along.value} onChange={(to) => setExtra("compare.by", to === "token" ? to : null)} options={[["place", w(`at_${series.at}`)], ["token", w("token")]]} />}
        />
      )}
      {!series && <p class="small muted">{w("no_series")}</p>}
      {of.ratios.length > 0 && (
        <Grid
          title={w("ratios")} left={[0, 4, 5]} head={["", ...SIDES, w("ratio"), "", w("interval"), w("counts")]}
          rows={of.ratios.map((one) => [
            <span class={one.inner ? "inner" : ""}>{say(one.label)}</span>, number(one.a_ns, "ns"), number(one.b_ns, "ns"), one.ratio.toFixed(3),
            <Whisker of={[[one.ratio, one.low ?? one.ratio, one.high ?? one.ratio]]} ends={ends} mark={1} />,
            one.low === null || one.high === null ? "\u2013" : `${one.low.toFixed(3)} – ${one.high.toFixed(3)}`, `${number(one.n_a, "count")}, ${number(one.n_b, "count")}`,
          ])}
        />
      )}
    </section>
  );
}

type Series = NonNullable<Compare["series"]>;

function bySteps(series: Series): Spec {
  const several = series.batches.length > 1;
  const { x, lines, from } = joined(series.batches.map((one, k) => ({
    x: one.x,
    lines: SIDES.map((side, i) => ({
      name: several ? `${side}, ${w("batch", { n: one.batch })}` : side, unit: "ns" as const, values: i ? one.b_ns : one.a_ns,
      colour: `--s${i + 1}`, width: 1.5, ...(k && { dash: [[5, 3], [2, 3]][(k - 1) % 2] }),
    })),
  })));
  return {
    x: { name: w(`at_${series.at}`), unit: "count", values: x },
    y: { name: w("step_time"), unit: "ns", log: true },
    lines,
    also: [{ name: w("ratio"), unit: "", values: from.map(([s, i]) => series.batches[s]!.ratio[i]!) }],
  };
}

function byTokens(of: Aligned): Spec {
  const n = Math.max(...of.sides.map((side) => side.gap_ns.length));
  return {
    x: { name: w("token"), unit: "count", values: Array.from({ length: n }, (_, i) => i) },
    y: { name: w("gap"), unit: "ns", log: true },
    lines: SIDES.map((name, i) => ({ name, unit: "ns", values: Array.from({ length: n }, (_, k) => of.sides[i]!.gap_ns[k] ?? null), colour: `--s${i + 1}`, width: 1.5 })),
  };
}

// laws

function Laws({ of }: { of: Exclude<Compare["laws"], { missing: unknown }> }) {
  const cell = (one: number[] | null) => (one ? <>{number(one[0], "ns")} <span class="muted">{number(one[1], "ns")} – {number(one[2], "ns")}</span></> : "\u2013");
  return (
    <Grid
      title={w("laws")} left={[0, 1, 4, 6]}
      head={["", w("coefficient"), ...SIDES, "", w("difference"), w("intervals")]}
      rows={of.map((one) => [
        t(`page_cost.kind_${one.kind}`), <>{say(one.term)} <span class="muted">({say(one.per)}) {say(one.meaning)}</span></>, cell(one.a), cell(one.b),
        <Whisker of={[one.a, one.b]} ends={endsOf([one.a, one.b], 0)} mark={0} />, cell(one.difference),
        one.apart === null ? "\u2013" : w(`${one.apart ? "are_apart" : "overlap"}`),
      ])}
    />
  );
}
