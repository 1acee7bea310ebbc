// What a token rests on, by place: words spread over their places, nothing where nothing is known.

import assert from "node:assert/strict";
import { beforeEach, test } from "node:test";
import { isMissing, type AttentionPart, type Explained, type Trace, type Weights } from "../src/document";
import { attentionOf, explanationOf, relevanceTo, rowOf, sightOf, sourceText, topSources, weightsOf } from "../src/relevance";
import { extra } from "../src/state";

const said = { key: "k" };
const check = { text: said, passed: true };

function explained(more: Partial<Explained> = {}): Explained {
  return {
    number: 0, title: said, caption: said, method: "m", kind: "logit", unit: "logit", targets: [3, 4], together: false, foils: null,
    starts: [0, 1, 2, 3], stops: [1, 2, 3, 4], rows: { counts: [3, 4], columns: null, values: [1, -2.5, 0.5, 0, null, -3, 4], per: 1 },
    limits: [2.5, 4], values: [9, 9], wholes: null, ledger: [], kept: null, check, cost: said, note: said, ...more,
  };
}

/** Word 0-2 and word 2-3, for the two targets as one answer. */
const words = explained({ starts: [0, 2], stops: [2, 3], together: true, rows: { counts: [2], columns: [0, 1], values: [3, -6], per: 2 }, limits: [3], wholes: [6] });

const weights = (counts: number[], columns: number[], values: number[]): Weights => ({ counts, columns, values, per: 1000, kept: counts.map(() => 900) });
const attention: AttentionPart = {
  caption: said, kept: [], check, n_heads: [1, 0], figures: [], rows: [1, 2, 3, 4],
  overall: weights([1, 2, 2, 2], [0, 0, 1, 0, 2, 1, 3], [1000, 600, 400, 500, 300, 250, 750]),
  layers: [weights([1, 0, 0, 1], [0, 2], [1000, 123]), null],
  head_rows: [4], heads: [[weights([1], [3], [999])], []],
};

const trace = (relevance: Explained[], seen: AttentionPart | null): Trace =>
  ({
    number: 0, n_prompt: 3, symbols: { text: ["The", " cat", " sat", " on", "\\n"], open: [0, 0, 0, 0, 0] },
    relevance: relevance.length ? { explanations: relevance } : { missing: said, run: null }, attention: seen ?? { missing: said, run: null },
  }) as unknown as Trace;

beforeEach(() => (extra.value = {}));

test("relevance of every place for a target", () => {
  const of = trace([explained()], null);
  assert.deepEqual(relevanceTo(of, 3), { values: [1, -2.5, 0.5, null, null], limit: 2.5 });
  assert.deepEqual(relevanceTo(of, 4), { values: [0, null, -3, 4, null], limit: 4 });
  assert.equal(relevanceTo(of, 2), null);
  assert.equal(relevanceTo(trace([], attention), 3), null);
});

test("a word's relevance stands at each of its places; targets together share a row", () => {
  const of = trace([words], null);
  for (const place of [3, 4]) assert.deepEqual(relevanceTo(of, place), { values: [1.5, 1.5, -3, null, null], limit: 3 });
  assert.equal(rowOf(words, 4), 0);
  assert.equal(rowOf(words, 0), -1);
});

test("the chosen explanation counts; a wrong choice is the first", () => {
  const of = trace([explained(), words], null);
  assert.equal(explanationOf(of)!.starts.length, 4);
  extra.value = { why: "1" };
  assert.equal(explanationOf(of), words);
  for (const why of ["7", "x", "-1"]) {
    extra.value = { why };
    assert.equal(explanationOf(of)!.starts.length, 4);
  }
});

test("the largest sources by size, with their share where there is one", () => {
  assert.deepEqual(topSources(trace([explained()], null), 4, 2).map((one) => [one.start, one.value, one.share]), [[3, 4, null], [2, -3, null]]);
  assert.equal(topSources(trace([explained()], null), 4, 9).length, 2); // zero and null are no sources
  assert.deepEqual(topSources(trace([words], null), 3, 9), [
    { start: 2, stop: 3, value: -3, share: -0.5 }, { start: 0, stop: 2, value: 1.5, share: 0.25 },
  ]);
  assert.deepEqual(topSources(trace([], null), 3, 9), []);
});

test("attention of every place; those that were not kept are null", () => {
  const of = trace([], attention);
  assert.deepEqual(attentionOf(of, 3), { values: [0.5, null, 0.3, null, null], limit: 0.5 });
  assert.equal(attentionOf(of, 0), null);
  assert.deepEqual(topSources(of, 4, 1), [{ start: 3, stop: 4, value: 0.75, share: null }]);
});

test("a layer or a head is chosen by the hash; one that is not there is the mean of what there is", () => {
  const of = trace([], attention);
  const chosen = (map?: string) => {
    extra.value = map ? { map } : {};
    const found = weightsOf(of)!;
    return [found.layer, found.head, found.rows.length];
  };
  assert.deepEqual(chosen(), [null, null, 4]);
  assert.deepEqual(chosen("l0"), [0, null, 4]);
  assert.deepEqual(chosen("l0h0"), [0, 0, 1]);
  assert.deepEqual(chosen("l0h5"), [0, null, 4]);
  assert.deepEqual(chosen("l1"), [null, null, 4]);
  assert.deepEqual(chosen("l9h9"), [null, null, 4]);
  assert.deepEqual(chosen("<b>"), [null, null, 4]);
  extra.value = { map: "l0h0" };
  assert.deepEqual(attentionOf(of, 4)!.values, [null, null, null, 0.999, null]);
  assert.equal(attentionOf(of, 3), null);
  assert.equal(weightsOf(trace([], null)), null);
});

test("arcs show relevance where there is any, else attention, unless told", () => {
  const of = trace([explained()], attention);
  assert.deepEqual([0, 1, 3].map((place) => sightOf(of, place)), [null, "attention", "relevance"]);
  extra.value = { arcs: "attention" };
  assert.equal(sightOf(of, 3), "attention");
  extra.value = { arcs: "none" };
  assert.equal(sightOf(of, 3), null);
  assert.deepEqual(topSources(of, 3, 5), []);
  assert.equal(isMissing(of.attention), false);
});

test("a source is written with the text's own symbols, cut where it is long", () => {
  const of = trace([], null);
  assert.equal(sourceText(of, 0, 3), "The cat sat");
  of.symbols.text = ["\ud83d\ude00".repeat(100)];
  assert.equal([...sourceText(of, 0)].length, 40);
  assert.ok(!/[\ud800-\udbff](?![\udc00-\udfff])/.test(sourceText(of, 0)));
});
