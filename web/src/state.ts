// What the whole page shares: one document, one selected place, one range. What a reader would send to a friend is in the hash.

import { computed, effect, signal } from "@preact/signals";
import { PARTS, present, type Lang, type PageDocument, type PartName, type Run, type Trace } from "./document";

export const doc = signal<PageDocument | null>(null);
/** Number of the shown trace. */
export const traceNumber = signal(0);
/** The selected place of the shown trace; null for none. */
export const selected = signal<number | null>(null);
/** Places shown in charts, both ends included; null for all. */
export const range = signal<[number, number] | null>(null);
export const part = signal<PartName>("overview");
/** Name of the measure that colours the tokens, and of the one that underlines them. */
export const colour = signal<string>("latency");
export const underline = signal<string>("none");
export const lang = signal<Lang>("en");
export const theme = signal<"auto" | "light" | "dark">("auto");
/** Whether the newest token of a growing tape is selected each time; it is not in the hash then. */
export const following = signal(false);
/** What single parts keep in the hash: an axis, a layer, a head. */
export const extra = signal<Record<string, string>>({});

export const trace = computed<Trace | null>(() => {
  const tape = doc.value?.tape;
  return tape?.traces.find((one) => one.number === traceNumber.value) ?? tape?.traces[0] ?? null;
});
export const run = computed<Run | null>(() => doc.value?.tape?.runs.find((one) => one.number === trace.value?.run) ?? null);

/** Whether the tape is written still. */
export const growing = computed(() => doc.value?.tape?.state === "recording");

/** The step that gave the selected place; null where none is selected, or a place of the prompt. */
export const selectedStep = computed<number | null>(() => {
  const shown = trace.value;
  const place = selected.value;
  return shown === null || place === null ? null : shown.tokens.step[place - shown.n_prompt] ?? null;
});

/** Shows another trace, of which nothing is selected. */
export function show(number: number): void {
  if (number === trace.value?.number) return;
  traceNumber.value = number;
  selected.value = range.value = null;
}

/** The place of the first token that a step gave; null where it gave none to the shown trace. */
export function placeOfStep(step: number): number | null {
  const shown = trace.value;
  const index = shown?.tokens.step.indexOf(step) ?? -1;
  return shown === null || index < 0 ? null : shown.n_prompt + index;
}

/** Keeps a part's choice in the hash; its usual one is not written. */
export function setExtra(name: string, value: string | null, usual: string | null = null): void {
  const next = { ...extra.value };
  if (value === null || value === usual) delete next[name];
  else next[name] = value;
  extra.value = next;
}

/** The part that a document opens with. */
const home = (): PartName => (doc.value?.compare ? "compare" : "overview");

/** The hash of the state, without `#`; what is as it was at first is left out. */
export function hashOf(): string {
  const found = new URLSearchParams();
  const put = (name: string, value: string | number | null, usual: string | number | null = null): void => {
    if (value !== usual) found.set(name, String(value));
  };
  put("part", part.value, home());
  put("trace", traceNumber.value, 0);
  put("at", following.value ? null : selected.value);
  put("range", range.value?.join("-") ?? null);
  put("colour", colour.value, "latency");
  put("underline", underline.value, "none");
  put("theme", theme.value, "auto");
  put("lang", langChosen ? lang.value : null);
  for (const [name, value] of Object.entries(extra.value)) put(`x.${name}`, value);
  return found.toString();
}

let langChosen = false;

export function chooseLang(to: Lang): void {
  langChosen = true;
  lang.value = to;
}

/** Takes over what a hash says; whatever it does not say, or says wrongly, goes back to what it was at first. */
export function readHash(hash: string, preferred: Lang): void {
  const found = new URLSearchParams(hash.replace(/^#/, ""));
  const whole = (name: string): number | null => (/^\d{1,9}$/.test(found.get(name) ?? "") ? Number(found.get(name)) : null);
  const oneOf = <T extends string>(name: string, all: readonly T[]): T | undefined => all.find((one) => one === found.get(name));
  part.value = oneOf("part", PARTS) ?? home();
  traceNumber.value = whole("trace") ?? doc.value?.tape?.traces[0]?.number ?? 0;
  const n = trace.value?.symbols.text.length ?? 0;
  const at = whole("at");
  selected.value = at !== null && at < n ? at : null;
  const ends = /^(\d{1,9})-(\d{1,9})$/.exec(found.get("range") ?? "")?.slice(1).map(Number) as [number, number] | undefined;
  range.value = ends && ends[0] <= ends[1] ? ends : null;
  colour.value = found.get("colour") ?? "latency";
  underline.value = found.get("underline") ?? "none";
  theme.value = oneOf("theme", ["light", "dark"]) ?? "auto";
  const tongue = oneOf("lang", ["en", "zh"]);
  langChosen = !!tongue;
  lang.value = tongue ?? preferred;
  extra.value = Object.fromEntries([...found].flatMap(([name, value]) => (name.startsWith("x.") ? [[name.slice(2), value]] : [])));
}

/** Keeps the hash and the state alike, without filling the history. */
export function bindHash(preferred: Lang): void {
  let written = "";
  readHash(location.hash, preferred);
  effect(() => {
    const next = hashOf();
    if (next === written) return;
    written = next;
    history.replaceState(history.state, "", next ? `#${next}` : location.pathname + location.search);
  });
  addEventListener("hashchange", () => {
    if (location.hash.slice(1) !== written) readHash(location.hash, preferred);
  });
}

/** The parts of a tape in the order of their tabs: of requests to a server these first, and last what there is nothing of. */
export function orderOf({ tape, compare }: PageDocument): readonly PartName[] {
  if (!tape?.requests) return PARTS.filter((one) => one !== "requests");
  const bare = (one: PartName): boolean =>
    one === "compare" ? !compare : one === "cost" ? !present(tape.cost)
    : one === "attention" || one === "layers" || one === "distribution" ? !tape.traces.some((each) => present(each[one])) : false;
  const rest = PARTS.filter((one) => one !== "overview" && one !== "requests");
  return ["overview", "requests", ...rest.filter((one) => !bare(one)), ...rest.filter(bare)];
}
