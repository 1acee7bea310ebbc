import assert from "node:assert/strict";
import test from "node:test";
import type { FolderTape, PageDocument, RowsEvent, Trace } from "../src/document";
import { withRows, withSections } from "../src/live";
import { found } from "../src/parts/folder";

const symbols = (n: number, from = 0) => ({
  ids: Array.from({ length: n }, (_, i) => from + i), position: Array.from({ length: n }, (_, i) => from + i),
  text: Array.from({ length: n }, (_, i) => `t${from + i}`), open: Array<0>(n).fill(0), hex: Array<null>(n).fill(null), special: Array<0>(n).fill(0),
});
const NAMES = ["time_ns", "gap_ns", "logprob", "surprise", "entropy", "rank", "rules_logprob", "wanted", "allowed", "removed"];
const tokens = (n: number, from = 0) => ({
  ...Object.fromEntries(NAMES.map((name) => [name, Array.from({ length: n }, (_, i) => from + i)])),
  step: Array.from({ length: n }, (_, i) => from + i), forced: Array<0>(n).fill(0), candidate_ids: Array.from({ length: n }, (_, i) => [from + i, 7]),
  candidate_logprobs: Array.from({ length: n }, () => [-1, -2]),
});
const PROMPT = 2;
const page = (n: number): PageDocument =>
  ({
    schema: 1, title: "a", words: { en: {}, zh: {} }, live: { since: "x" },
    tape: {
      state: "recording", n_traces: 1, pieces: { 1: "one" }, overview: { verdict: { key: `after ${n}` } },
      traces: [{
        number: 0, run: 0, n_prompt: PROMPT, symbols: symbols(PROMPT + n), tokens: tokens(n),
        measures: [
          { name: "latency", values: [null, null, ...tokens(n)["gap_ns" as "step"]], low: 0, high: n },
          { name: "attention", values: Array(PROMPT + n).fill(0.5), low: 0, high: 1 },
        ],
      }],
      runs: [{ number: 0, kind: Array(n).fill(1), step_ns: tokens(n).step, time: { caption: { key: `after ${n}` } } }],
    },
  }) as unknown as PageDocument;
const rows = (first: number, n: number, redrawn = 0): RowsEvent =>
  ({
    state: "recording", pieces: { 2: "two" },
    run: { number: 0, from: first, kind: Array(n).fill(1), step_ns: tokens(n, first).step },
    traces: [{ number: 0, tokens: { ...tokens(n, first), from: first }, symbols: { ...symbols(n + redrawn, PROMPT + first - redrawn), from: PROMPT + first - redrawn } }],
  }) as unknown as RowsEvent;
const shown = (document: PageDocument): Trace => document.tape!.traces[0]!;

test("rows make of a page what it would have been", () => {
  const grown = withRows(withRows(page(3), rows(3, 2)), rows(5, 4, 2));
  assert.deepEqual(shown(grown).tokens, shown(page(9)).tokens);
  assert.deepEqual(shown(grown).symbols, shown(page(9)).symbols);
  assert.deepEqual(grown.tape!.runs[0]!.step_ns, page(9).tape!.runs[0]!.step_ns);
  assert.deepEqual(grown.tape!.pieces, { 1: "one", 2: "two" });
});

test("a measure that is a column grows with it, and keeps its scale", () => {
  const [latency, attention] = shown(withRows(page(3), rows(3, 2))).measures;
  assert.deepEqual(latency, { name: "latency", values: [null, null, 0, 1, 2, 3, 4], low: 0, high: 3 });
  assert.equal(attention!.values.length, PROMPT + 3);
});

test("what was there is replaced, not what was not told", () => {
  const before = page(3);
  const after = withRows(before, rows(2, 3));
  assert.equal(shown(after).tokens.step.length, 5);
  assert.equal(shown(before).tokens.step.length, 3);
  assert.equal(after.tape!.overview, before.tape!.overview);
  assert.equal(withRows({ ...before, tape: null }, rows(3, 1)).tape, null);
});

test("sections that are behind the rows leave the rows", () => {
  const grown = withRows(page(3), rows(3, 4));
  const { words: _, live: __, ...fresh } = page(5) as PageDocument;
  const slim = fresh as PageDocument;
  const { symbols: ___, tokens: ____, ...trace } = shown(slim);
  slim.tape!.traces = [trace as Trace];
  slim.tape!.runs = [{ number: 0, time: { caption: { key: "after 5" } } }] as never;
  const merged = withSections(grown, slim);
  assert.deepEqual(shown(merged).tokens, shown(page(7)).tokens);
  assert.deepEqual(shown(merged).measures[0]!.values, [null, null, 0, 1, 2, 3, 4, 5, 6]);
  assert.equal(shown(merged).measures[0]!.high, 5);
  assert.equal(merged.tape!.overview.verdict.key, "after 5");
  assert.deepEqual(merged.tape!.runs[0]!.step_ns, page(7).tape!.runs[0]!.step_ns);
  assert.equal((merged.tape!.runs[0]!.time as { caption: { key: string } }).caption.key, "after 5");
  assert.deepEqual(merged.words, page(1).words);
  assert.equal(merged.live!.since, "x");
});

test("a folder's tapes are found by all words and sorted with what has no value last", () => {
  const tapes = [["b10.tape", 5], ["b9.tape", null], ["a.tape", 70]].map(
    ([name, count]) => ({ name, tokens: count, model: "Demo", prompt: "Once upon", state: "complete" }) as FolderTape,
  );
  assert.deepEqual(found(tapes, "", "name", false), [2, 1, 0]);
  assert.deepEqual(found(tapes, "", "tokens", false), [0, 2, 1]);
  assert.deepEqual(found(tapes, "", "tokens", true), [2, 0, 1]);
  assert.deepEqual(found(tapes, "demo B", "name", true), [0, 1]);
  assert.deepEqual(found(tapes, "nothing", "name", true), []);
});
