// The part Distribution: what the model believed at each token, where its probability lay, and what rules took away.

import { computed } from "@preact/signals";
import { orEmpty, Panel } from "../blocks";
import { column } from "../chart/export";
import { reading } from "../chart/picture";
import { lineOf, SeriesChart, type Line, type Spec } from "../chart/series";
import { present, type DistributionPart as Held, type Message, type Tokens, type Values } from "../document";
import { known, max, times } from "../maths";
import { trace } from "../state";
import { beside, say, wordsOf } from "../words";

const w = wordsOf("distribution");

/** A chart over the tokens of the shown trace; null where there is nothing to show. */
const spec = (make: (part: Held, tokens: Tokens) => Pick<Spec, "y" | "lines" | "bands" | "rules"> | false | null) => computed((): Spec | null => {
  const of = trace.value, part = present(of?.distribution), made = part && make(part, of!.tokens);
  if (!made) return null;
  const places = times(of!.tokens.step.length, (i) => of!.n_prompt + i);
  return {
    ...made,
    x: column(w("token_axis"), places.map((_, i) => i), "count"),
    places,
    also: [column(w("text"), places.map((place) => of!.symbols.text[place] ?? null))],
  };
});

/** Of what is read, and not drawn. */
const UNSEEN: Partial<Line> = { hidden: true, label: "" };

/** Lines of few values, dots of many. */
const kindOf = (values: Values): Line["kind"] => (values.length > 400 ? "points" : "line");

const surprise = spec(({ mean_surprise }, { surprise, entropy }) => ({
  y: { name: "", unit: "nats", holds: 0 },
  lines: [
    ...(known(entropy) ? [lineOf(w("entropy"), "nats", entropy, "--s2")] : []),
    ...(mean_surprise !== null ? [lineOf(w("surprise"), "nats", surprise, "--s1", { kind: kindOf(surprise), width: 1.25 })] : []),
  ],
  rules: mean_surprise !== null ? [{ at: mean_surprise, colour: "--s1" }] : [],
}));

const rank = spec((_, { rank }) => known(rank) && {
  y: { name: w("rank"), unit: "count", log: true, holds: 1 },
  lines: [lineOf(w("rank"), "count", rank, "--s1", { kind: "points", width: rank.length > 1500 ? 1 : 1.75, label: "" })],
});

const mass = spec((part, { step }) => {
  const bands = present(part.mass)?.bands;
  if (!bands) return null;
  // each band stands on the sum of those before it
  const sums = [step.map((): number | null => 0)], last = bands.length - 1;
  for (const { values } of bands) sums.push(sums.at(-1)!.map((below, i) => (below === null || values[i] == null ? null : below + values[i])));
  // the lower the ranks, the darker: what is unusual stands out
  const colour = (i: number): string => (i === last ? "--s6" : "--s1");
  return {
    y: { name: w("probability"), unit: "share", ends: [0, 1] },
    lines: bands.map((band, i) => lineOf(say(band.label), "share", band.values, colour(i), UNSEEN)),
    bands: bands.map((band, i) => ({ low: sums[i]!, high: sums[i + 1]!, colour: colour(i), alpha: i === last ? 0.45 : 0.22 + (0.65 * i) / max(1, last - 1), label: say(band.label) })),
  };
});

const rules = spec(({ rules }, { allowed }) => rules && {
  y: { name: w("removed"), unit: "share", ends: [0, 1] },
  lines: [
    lineOf(w("removed"), "share", rules.removed, "--s2", { kind: kindOf(rules.removed), label: "" }),
    lineOf(w("allowed"), "count", allowed, "--s1", UNSEEN),
  ],
});

export const DistributionPart = () => trace.value && orEmpty(trace.value.distribution, (part) => {
  const panel = (id: string, title: string, caption: Message, spec: Spec | null, height: number) => spec && (
    <Panel>
      <SeriesChart id={id} title={w(title)} caption={say(caption)} spec={spec} height={height} announce={(i) => beside(reading(spec, i), `${spec.also![0]!.values[i]}`)} />
    </Panel>
  );
  return (
    <div class="stack">
      {panel("surprise", "surprise_title", part.caption, surprise.value, 220)}
      {orEmpty(part.mass, ({ caption }) => panel("probability", "mass_title", caption, mass.value, 220))}
      {panel("rank", "rank_title", part.rank_caption, rank.value, 170)}
      {part.rules && panel("rules", "rules_title", part.rules.caption, rules.value, 150)}
    </div>
  );
});
