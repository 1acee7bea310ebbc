// A document as the package makes them, of a text that never was: for tests, and to look at the page without a tape.
// fixture({n: 4096}) is long; every figure of it comes from the seed.

import type { Measure, PageDocument, Run, Trace, Values } from "../src/document";

function random(seed: number): () => number {
  let state = seed >>> 0;
  return () => {
    state = (state + 0x6d2b79f5) >>> 0;
    let mixed = Math.imul(state ^ (state >>> 15), 1 | state);
    mixed = (mixed + Math.imul(mixed ^ (mixed >>> 7), 61 | mixed)) ^ mixed;
    return ((mixed ^ (mixed >>> 14)) >>> 0) / 2 ** 32;
  };
}

const WORDS = [
  "Once", " upon", " a", " time", ",", " there", " was", " a", " little", " cat", " that", " sat", " on", " the", " mat", " and", " looked", " at",
  " the", " moon", ".", "\\n", " It", " said", ":", " \u4f60\u597d", "\uff0c", "\u4e16\u754c", "\u3002", " Then", " it", " slept", "</script>", " \\u202ex", " caf", "\u00e9", ".",
];

export interface Wanted {
  n?: number;
  prompt?: number;
  seed?: number;
  words?: PageDocument["words"];
}

const hexOf = (text: string): string => [...new TextEncoder().encode(text)].map((one) => one.toString(16).padStart(2, "0")).join("");

function trace(number: number, n: number, prompt: number, next: () => number): Trace {
  const all = prompt + n;
  const text = Array.from({ length: all }, (_, place) => WORDS[place % WORDS.length]!);
  const open = text.map((): 0 | 1 => 0);
  if (all > prompt + 9) {
    text[prompt + 7] = "";
    open[prompt + 7] = 1;
    text[prompt + 8] = " \u{1f600}";
  }
  if (all > prompt + 12) text[all - 1] = "</s>";
  const each = (of: (i: number) => number | null): Values => Array.from({ length: n }, (_, i) => of(i));
  const logprob = each(() => -(-Math.log(1 - next() * 0.98)) * 0.9);
  const gap_ns = each((i) => Math.round((i === 0 ? 9e6 : 1.4e6 + 300 * i) * (1 + 0.2 * next()) + (next() > 0.985 ? 6e6 : 0)));
  const entropy = each((i) => -logprob[i]! * 0.6 + next());
  const padded = (values: Values): Values => [...Array<null>(prompt).fill(null), ...values];
  const measure = (name: Measure["name"], unit: Measure["unit"], values: Values, scale: Measure["scale"]): Measure => {
    const known = values.filter((one): one is number => one !== null).sort((a, b) => a - b);
    return { name, unit, values: padded(values), low: known[0] ?? 0, high: known[Math.floor(0.98 * (known.length - 1))] ?? 1, scale };
  };
  const surprise = logprob.map((one) => -one!);
  const missing = { missing: { key: "page_ui.lacks_relevance" }, run: "tokentape explain cat.tape --all" };
  return {
    number, run: 0, row: number, finish: { key: "page_ui.key_help" }, guarded: false,
    symbols: {
      ids: text.map((_, place) => 3 + (place % WORDS.length)), position: text.map((_, place) => place), text, open,
      hex: text.map((one, place) => (open[place] ? "f09f" : hexOf(one))), special: text.map((one): 0 | 1 => (one === "</s>" ? 1 : 0)),
    },
    n_prompt: prompt,
    tokens: {
      step: Array.from({ length: n }, (_, i) => i), time_ns: gap_ns.map((_, i) => gap_ns.slice(Math.max(0, i - 3), i + 1).reduce<number>((a, b) => a + b!, 0)), gap_ns,
      logprob, surprise, entropy, rank: each((i) => (logprob[i]! < -1 ? 2 : 1)), rules_logprob: each((i) => (i % 7 ? null : logprob[i]! / 2)),
      forced: text.slice(prompt).map((_, i): 0 | 1 => (i === 4 ? 1 : 0)), wanted: each((i) => (i === 5 ? 9 : null)),
      allowed: each((i) => (i % 7 ? null : 12)), removed: each((i) => (i % 7 ? null : 0.25)),
      candidate_ids: Array.from({ length: n }, (_, i) => [0, 1, 2, 3, 4].map((k) => 3 + ((prompt + i + k) % WORDS.length))),
      candidate_logprobs: Array.from({ length: n }, (_, i) => [0, 1, 2, 3, 4].map((k) => logprob[i]! - k * 0.8 - (logprob[i]! > -0.4 ? 1.2 * Math.min(1, k) : 0.7))),
    },
    measures: [measure("latency", "ns", gap_ns, "log"), measure("surprise", "nats", surprise, "linear"), measure("entropy", "nats", entropy, "linear")],
    distribution: missing, relevance: missing, attention: missing, layers: missing,
  };
}

function run(n: number, prompt: number, of: Trace): Run {
  const step_ns = of.tokens.gap_ns.map((one) => Math.round(one! * 0.93));
  let at = 0;
  const start_ns = step_ns.map((one) => (at += one) - one);
  const each = (make: (i: number) => number | null): Values => Array.from({ length: n }, (_, i) => make(i));
  const none = each(() => null);
  return {
    number: 0, kind: step_ns.map((_, i) => (i ? 1 : 0)), context: each((i) => prompt + i), batch: step_ns.map(() => 1), start_ns, step_ns, device_ns: none,
    forward_ns: step_ns.map((one) => Math.round(one * 0.8)), rules_ns: step_ns.map((one) => Math.round(one * 0.05)), gc_ns: each((i) => (i % 50 ? 0 : 210_000)),
    pause_ns: each(() => 41_000), switches: each(() => 0), cache_bytes: each((i) => 2048 * (prompt + i)), rss_bytes: none, device_bytes: none,
    time: { missing: { key: "page_ui.lacks_latency" }, run: null },
  };
}

export function fixture({ n = 60, prompt = 8, seed = 7, words = { en: {}, zh: {} } }: Wanted = {}): PageDocument {
  const next = random(seed);
  const first = trace(0, n, prompt, next);
  const label = (key: string) => ({ key: `page_ui.${key}` });
  return {
    schema: 1, tokentape: "0.1", title: "cat.tape", lang: null, words, compare: null, law: null, live: null,
    dropped: [{ what: label("part_attention"), bytes: 2_400_000, flag: "--max-bytes 12M" }],
    tape: {
      name: "cat.tape", state: "complete", n_traces: 2, traces: [first, trace(1, Math.min(n, 30), prompt, next)], runs: [run(n, prompt, first)],
      pieces: Object.fromEntries(WORDS.map((one, i) => [String(3 + i), one])),
      overview: {
        verdict: { key: "page_ui.tokens_caption", args: { n, prompt, finish: label("key_help") } },
        figures: [
          { label: label("f_gap"), text: "1.46 ms", value: 1.46e6, unit: "ns", badge: "measured", note: null },
          { label: label("f_surprise"), text: "0.883 nats", value: 0.883, unit: "nats", badge: "measured", note: null },
          { label: label("f_context"), text: "68", value: 68, unit: "tokens", badge: "modelled", note: label("key_parts") },
          { label: label("f_device"), text: null, value: null, unit: "ns", badge: "unavailable", note: label("badge_unavailable_why") },
          { label: label("f_batch"), text: "1", value: 1, unit: "count", badge: "measured", note: null },
        ],
        findings: [
          { text: { key: "page_ui.token_of", args: { i: 13, n, text: " mat" } }, link: { part: "tokens", place: prompt + 5 } },
          { text: { key: "page_ui.token_of", args: { i: 31, n, text: " moon" } }, link: { part: "time", trace: 1, place: prompt + 3 } },
        ],
        command: "tokentape record demo 'Once upon a time' -n 60 -o cat.tape",
      },
      cost: { missing: label("lacks_entropy"), run: null },
      alone: { missing: { key: "page_ui.no_compare" }, run: "tokentape view a.tape other.tape --html compared.html" },
      provenance: {
        groups: [
          { title: label("part_provenance"), rows: [{ name: "model", value: "demo" }, { name: "weights", value: "sha256:9f2d7c61be0a44d3a1c0f6f14fd8e7724b0c22e1" }, { name: "dtype", value: "float32" }] },
          { title: label("part_cost"), rows: [{ name: "processor", value: "a processor of two cores" }, { name: "torch", value: "2.13.0" }] },
        ],
        notes: [label("lacks_attention")],
        again: "tokentape record demo 'Once upon a time' -n 60 -o cat.tape",
      },
    },
  };
}
