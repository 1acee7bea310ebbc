// What a token rests on and where the model looked before it, by place: for ribbon, inspector, arcs and the part itself.

import { entries } from "./chart/cells";
import { isMissing, type Explained, type Trace, type Values, type Weights } from "./document";
import { abs, max, min } from "./maths";
import { extra } from "./state";

/** A value for each place, and the largest of them by absolute value: the end of a colour scale. */
export interface ByPlace {
  values: Values;
  limit: number;
}

/** A stretch of places that a token rests on, or that was looked at. */
export interface TopSource {
  start: number;
  /** Half-open. */
  stop: number;
  value: number;
  /** Part of what all tokens add up to; null for a method without a ledger. */
  share: number | null;
}

export type Sight = "relevance" | "attention";

/** The explanation that was chosen among those of a trace; null where there is none. */
export function explanationOf(trace: Trace): Explained | null {
  if (isMissing(trace.relevance)) return null;
  const all = trace.relevance.explanations;
  return all[Number(extra.value.why ?? 0)] ?? all[0] ?? null;
}

/** The row of an explanation that a place is a target of; -1 for none. */
export function rowOf(found: Explained, place: number | null): number {
  const row = found.targets.indexOf(place!);
  return found.together && row > 0 ? 0 : row;
}

/** Relevance of every place for the target at `place`, from the chosen explanation; null where that does not explain it. */
export function relevanceTo(trace: Trace, place: number): ByPlace | null {
  const found = explanationOf(trace);
  const row = found ? rowOf(found, place) : -1;
  if (!found || row < 0) return null;
  const values: Values = trace.symbols.text.map(() => null);
  for (const [source, value] of entries(found.rows, row)) values.fill(value, found.starts[source], found.stops[source]);
  return { values, limit: found.limits[row]! };
}

/** Which weights are looked at: the mean over layers, over the heads of one, or those of one head. Counted from 0. */
export interface Chosen {
  weights: Weights;
  /** The place that each row predicts. */
  rows: number[];
  layer: number | null;
  head: number | null;
}

/** The weights that were chosen: `map` in the hash is `l3` or `l3h2`. */
export function weightsOf(trace: Trace): Chosen | null {
  const found = trace.attention;
  if (isMissing(found)) return null;
  const named = /^l(\d+)(?:h(\d+))?$/.exec(extra.value.map ?? "");
  const layer = Number(named?.[1] ?? NaN), head = Number(named?.[2] ?? NaN);
  const single = found.heads[layer]?.[head];
  if (single) return { weights: single, rows: found.head_rows, layer, head };
  const mean = found.layers[layer];
  if (mean) return { weights: mean, rows: found.rows, layer, head: null };
  return { weights: found.overall, rows: found.rows, layer: null, head: null };
}

/** Weights of the places that the model looked at before the token at `place`; null where it has no row. Places not kept are null. */
export function attentionOf(trace: Trace, place: number): ByPlace | null {
  const chosen = weightsOf(trace);
  const row = chosen ? chosen.rows.indexOf(place) : -1;
  if (!chosen || row < 0) return null;
  const values: Values = trace.symbols.text.map(() => null);
  let limit = 0;
  for (const [source, value] of entries(chosen.weights, row)) {
    values[source] = value;
    limit = max(limit, value);
  }
  return { values, limit };
}

/** What is drawn as arcs: relevance where there is any for the place, else attention; `arcs` in the hash says otherwise. */
export function sightOf(trace: Trace, place: number): Sight | null {
  const asked = extra.value.arcs;
  const found = explanationOf(trace);
  const weights = weightsOf(trace);
  const can = { relevance: !!found && rowOf(found, place) >= 0, attention: !!weights && weights.rows.includes(place) };
  if (asked === "none") return null;
  if ((asked === "relevance" || asked === "attention") && can[asked]) return asked;
  return can.relevance ? "relevance" : can.attention ? "attention" : null;
}

/** The `k` sources with the largest relevance for a place, by absolute value, or the largest weights; best first. */
export function topSources(trace: Trace, place: number, k: number, sight = sightOf(trace, place)): TopSource[] {
  const all: TopSource[] = [];
  const found = explanationOf(trace);
  const chosen = weightsOf(trace);
  if (sight === "relevance" && found) {
    const row = rowOf(found, place);
    const whole = found.wholes?.[row];
    for (const [source, value] of entries(found.rows, row))
      all.push({ start: found.starts[source]!, stop: found.stops[source]!, value, share: whole ? value / whole : null });
  } else if (sight === "attention" && chosen) {
    for (const [start, value] of entries(chosen.weights, chosen.rows.indexOf(place)))
      all.push({ start, stop: start + 1, value, share: null });
  }
  return all.filter((one) => one.value !== 0).sort((a, b) => abs(b.value) - abs(a.value)).slice(0, k);
}

/** The text of a source: its symbols one after another, cut where it is long. */
export function sourceText(trace: Trace, start: number, stop = start + 1): string {
  const text = trace.symbols.text.slice(start, min(stop, start + 40)).join("");
  const shown = [...text.slice(0, 200)];
  return shown.length > 40 || stop > start + 40 ? `${shown.slice(0, 39).join("")}\u2026` : text;
}
