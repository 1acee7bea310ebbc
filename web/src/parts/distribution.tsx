// The part Distribution: what the model believed at each token, where its probability lay, and what rules took away.

import { computed } from "@preact/signals";
import { reading } from "../chart/picture";
import { SeriesChart, type Spec } from "../chart/series";
import { isMissing, type DistributionPart as Held, type Trace } from "../document";
import { Empty } from "../missing";
import { lang, trace } from "../state";
import { say, t } from "../words";

interface Shown {
  of: Trace;
  part: Held;
}

const shown = computed<Shown | null>(() => {
  const of = trace.value;
  return of && !isMissing(of.distribution) ? { of, part: of.distribution } : null;
});

/** What all charts of this part share: the tokens along the horizontal axis. */
function base({ of }: Shown): Pick<Spec, "x" | "places" | "also"> {
  const n = of.tokens.step.length;
  const places = Array.from({ length: n }, (_, i) => of.n_prompt + i);
  return {
    x: { name: t("page_distribution.token_axis"), unit: "count", values: places.map((_, i) => i) },
    places,
    also: [{ name: t("page_distribution.text"), unit: "", values: places.map((place) => of.symbols.text[place] ?? null) }],
  };
}

const spec = (make: (held: Shown) => Spec | null) => computed(() => (void lang.value, shown.value && make(shown.value)));

const surprise = spec((held) => {
  const { surprise, entropy } = held.of.tokens, { mean_surprise } = held.part;
  return {
    ...base(held),
    y: { name: "", unit: "nats", holds: 0 },
    lines: [
      ...(entropy.some((value) => value !== null) ? [{ name: t("page_distribution.entropy"), unit: "nats" as const, values: entropy, colour: "--s2", width: 1.25 }] : []),
      ...(mean_surprise !== null ? [{ name: t("page_distribution.surprise"), unit: "nats" as const, values: surprise, colour: "--s1", kind: surprise.length > 400 ? ("points" as const) : ("line" as const), width: 1.25 }] : []),
    ],
    rules: mean_surprise !== null ? [{ at: mean_surprise, text: "", colour: "--s1" }] : [],
  };
});

const rank = spec((held) => {
  const { rank } = held.of.tokens;
  if (!rank.some((value) => value !== null)) return null;
  return {
    ...base(held),
    y: { name: t("page_distribution.rank"), unit: "count", log: true, holds: 1 },
    lines: [{ name: t("page_distribution.rank"), unit: "count", values: rank, colour: "--s1", kind: "points", width: rank.length > 1500 ? 1 : 1.75, label: "" }],
  };
});

const mass = spec((held) => {
  const { mass } = held.part;
  if (isMissing(mass)) return null;
  // each band stands on the sum of those before it
  const sums = [held.of.tokens.step.map((): number | null => 0)];
  for (const band of mass.bands) sums.push(sums.at(-1)!.map((below, i) => (below === null || band.values[i] === null ? null : below + (band.values[i] ?? 0))));
  const last = mass.bands.length - 1;
  // the lower the ranks, the darker: what is unusual stands out
  const colour = (i: number): string => (i === last ? "--s6" : "--s1");
  const alpha = (i: number): number => (i === last ? 0.45 : 0.22 + (0.65 * i) / Math.max(1, last - 1));
  return {
    ...base(held),
    y: { name: t("page_distribution.probability"), unit: "share", ends: [0, 1] },
    lines: mass.bands.map((band, i) => ({ name: say(band.label), unit: "share", values: band.values, colour: colour(i), hidden: true, label: "" })),
    bands: mass.bands.map((band, i) => ({ low: sums[i]!, high: sums[i + 1]!, colour: colour(i), alpha: alpha(i), label: say(band.label) })),
  };
});

const rules = spec((held) => {
  const found = held.part.rules;
  if (!found) return null;
  return {
    ...base(held),
    y: { name: t("page_distribution.removed"), unit: "share", ends: [0, 1] },
    lines: [
      { name: t("page_distribution.removed"), unit: "share", values: found.removed, colour: "--s2", kind: found.removed.length > 400 ? "points" : "line", label: "" },
      { name: t("page_distribution.allowed"), unit: "count", values: held.of.tokens.allowed, colour: "--s1", hidden: true, label: "" },
    ],
  };
});

export function DistributionPart() {
  const of = trace.value;
  if (!of) return null;
  if (isMissing(of.distribution)) return <Empty part={of.distribution} />;
  const part = of.distribution;
  return (
    <div class="stack">
      {surprise.value && <Panel id="surprise" title="surprise_title" caption={say(part.caption)} spec={surprise.value} height={220} />}
      {isMissing(part.mass) ? <Empty part={part.mass} /> : mass.value && <Panel id="probability" title="mass_title" caption={say(part.mass.caption)} spec={mass.value} height={220} />}
      {rank.value && <Panel id="rank" title="rank_title" caption={say(part.rank_caption)} spec={rank.value} height={170} />}
      {part.rules && rules.value && <Panel id="rules" title="rules_title" caption={say(part.rules.caption)} spec={rules.value} height={150} />}
    </div>
  );
}

function Panel({ title, ...rest }: { id: string; title: string; caption: string; spec: Spec; height: number }) {
  return (
    <section class="panel">
      <SeriesChart {...rest} title={t(`page_distribution.${title}`)} announce={(i) => `${reading(rest.spec, i)} \u00b7 ${rest.spec.also![0]!.values[i]}`} />
    </section>
  );
}
