// Two sequences side by side: no token is lost or said twice, and what is folded is equal.

import assert from "node:assert/strict";
import { readFileSync } from "node:fs";
import { test } from "node:test";
import { pairsOf, runsOf } from "../src/aligned";

const root = `${process.cwd()}/../`;

test("stretches become cells one by one, with gaps where one has no token", () => {
  assert.deepEqual(pairsOf([0, 2, 0, 2, 0, 2, 4, 2, 3, 2, 4, 4, 3, 5, 2, 4, 6, 5, 6, 1]), [
    { a: [0, 1], b: [0, 1], kind: 0 },
    { a: [1, 2], b: [1, 2], kind: 0 },
    { a: [2, 3], b: [2, 3], kind: 2 },
    { a: [3, 4], b: null, kind: 2 },
    { a: null, b: [3, 4], kind: 2 },
    { a: null, b: [4, 5], kind: 2 },
    { a: [4, 6], b: [5, 6], kind: 1 },
  ]);
  assert.deepEqual(pairsOf([]), []);
});

test("runs cover every cell once, and fold only equal ones far from a difference", () => {
  for (const stretches of [
    [0, 500, 0, 500, 0],
    [0, 40, 0, 40, 0, 40, 41, 40, 41, 2, 41, 700, 41, 700, 0, 700, 1400, 700, 900, 2],
    [0, 0, 0, 3, 2],
    [0, 200, 0, 200, 0, 200, 203, 200, 204, 1, 203, 303, 204, 304, 0],
  ]) {
    const pairs = pairsOf(stretches), runs = runsOf(pairs);
    assert.deepEqual(runs.map((one) => one.from), [0, ...runs.slice(0, -1).map((one) => one.to)]);
    assert.equal(runs.at(-1)!.to, pairs.length);
    for (const { from, to, folded } of runs) {
      assert.ok(to > from && (folded || to - from <= 256));
      if (folded) assert.ok(pairs.slice(Math.max(0, from - 12), to + 12).every((one) => one.kind === 0));
    }
  }
  assert.equal(runsOf(pairsOf([0, 500, 0, 500, 0])).filter((one) => one.folded).length, 1);
});

test("the words of Cost, Compare and Law are in their files", () => {
  for (const area of ["cost", "compare", "law"]) {
    const known = [...readFileSync(`${root}src/tokentape/words/page_${area}.toml`, "utf8").matchAll(/^\["page_\w+\.([^"]+)"\]/gm)].map((one) => one[1]!);
    const text = readFileSync(`${root}web/src/parts/${area}.tsx`, "utf8");
    const used = [...text.matchAll(/\bw\(["`]([\w.]+)(["`]|\$\{)/g)];
    assert.ok(used.length > 10);
    for (const [, key, end] of used) assert.ok(known.some((one) => (end === "${" ? one.startsWith(key!) : one === key)), `page_${area}.${key}`);
  }
});
