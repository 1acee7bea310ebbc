import assert from "node:assert/strict";
import { test } from "node:test";
import type { Rgb } from "../src/chart/colour";
import type { Symbols } from "../src/document";
import { blocksOf, breaks, cellsOf, drawn, linesOf, nameOf, sharing } from "../src/layout";
import { lineOf, shadeOf, share, type Mode } from "../src/measures";
import { ordered } from "../src/order";
import { contrast, difference, magnitude } from "../src/palette";
import { seen } from "../src/rows";

function symbols(text: string[], open: number[] = []): Symbols {
  return {
    ids: text.map((_, i) => i), position: text.map((_, i) => i), text, open: text.map((_, i): 0 | 1 => (open.includes(i) ? 1 : 0)),
    hex: text.map(() => null), special: text.map((): 0 | 1 => 0),
  };
}

test("blocks hold every place once, in order, and end inside of no character", () => {
  for (const n of [0, 1, 255, 256, 257, 320, 321, 1000, 5003]) {
    const text = Array.from({ length: n }, (_, i) => (i % 97 === 96 ? "\\n" : " word"));
    const open = Array.from({ length: n }, (_, i) => i).filter((i) => i % 5 !== 4 && i < n - 1 && i % 256 > 250);
    const of = symbols(text, open);
    const blocks = blocksOf(of);
    assert.deepEqual(blocks.flatMap(({ from, to }) => Array.from({ length: to - from }, (_, k) => from + k)), text.map((_, i) => i));
    for (const { from, to } of blocks) {
      assert.ok(to > from && to - from <= 330, `${from} ${to}`);
      assert.ok(to === n || !of.open[to - 1]);
    }
    const cells = blocks.flatMap((block) => cellsOf(of, block));
    assert.deepEqual(cells.flatMap(({ from, to }) => Array.from({ length: to - from }, (_, k) => from + k)), text.map((_, i) => i));
  }
});

test("a prompt whose text is known as a whole is one cell, drawn with its lines, before the tokens", () => {
  const of = { ...symbols(["", "", "Hello\\nfox", " a", " b"], [0, 1]), hex: [null, null, "48", "20", "20"] };
  assert.deepEqual(cellsOf(of, { from: 0, to: 5 }).map(({ from, to, text }) => [from, to, text]), [[0, 3, "Hello\u21b5\nfox"], [3, 4, " a"], [4, 5, " b"]]);
  const long = { ...symbols(["", "x".repeat(5000)], [0]), hex: [null, "78"] };
  assert.equal(cellsOf(long, { from: 0, to: 2 })[0]!.text.length, 5000);
});

test("a block ends where a line ends, if one does near its size", () => {
  const text = Array.from({ length: 1000 }, (_, i) => (i === 300 ? ".\\n" : " a"));
  assert.equal(blocksOf(symbols(text))[0]!.to, 301);
});

test("a block that grew keeps where the blocks before it end", () => {
  const text = Array.from({ length: 3000 }, (_, i) => (i % 61 === 60 ? "\\n" : " a"));
  const whole = blocksOf(symbols(text));
  for (const n of [500, 1111, 2222]) {
    const part = blocksOf(symbols(text.slice(0, n)));
    assert.deepEqual(part.slice(0, -1), whole.slice(0, part.length - 1));
  }
});

test("a character of several tokens is one cell, and each of them is called by it", () => {
  const of = symbols(["Hi", "", "", " \u{1f469}!", "x"], [1, 2]);
  assert.deepEqual(cellsOf(of, { from: 0, to: 5 }).map(({ from, to, text }) => [from, to, text]), [[0, 1, "Hi"], [1, 4, " \u{1f469}!"], [4, 5, "x"]]);
  assert.deepEqual(sharing(of, 2), [1, 4]);
  assert.equal(nameOf(of, 1), " \u{1f469}!");
  assert.equal(nameOf(of, 0), "Hi");
});

test("a line ends after an escaped line end, not after a backslash and an n", () => {
  assert.ok(breaks("\\n") && breaks(".\\n\\n") && breaks("a\\\\\\n"));
  assert.ok(!breaks("\\\\n") && !breaks("n") && !breaks("a\\nb") && !breaks("\\t"));
  assert.equal(drawn(".\\n"), ".\u21b5");
  assert.equal(drawn("\\n\\n"), "\u21b5\n\u21b5");
  assert.equal(drawn("C:\\\\new"), "C:\\\\new");
  assert.equal(drawn(""), "\u00b7");
});

test("a long token is cut between characters, and says that it is", () => {
  const text = "\u{1f600}".repeat(50_000);
  const short = drawn("a" + text);
  assert.ok(short.length < 1000 && short.endsWith("\u2026"));
  assert.doesNotMatch(short, /[\ud800-\udbff](?![\udc00-\udfff])/);
  assert.equal(drawn(text, true), text);
});

test("lines are guessed from widths, those of Chinese doubled", () => {
  const block = { from: 0, to: 40 };
  assert.equal(linesOf(symbols(Array<string>(40).fill("abcd")), block, 80), 2);
  assert.equal(linesOf(symbols(Array<string>(40).fill("\u4f60\u597d")), block, 80), 2);
  assert.equal(linesOf(symbols(Array<string>(40).fill("\\n")), block, 80), 41);
});

const mode = (scale: Mode["scale"], low: number, high: number, values: (number | null)[]): Mode => ({ name: "x", unit: "", scale, low, high, values });

test("values fall on their scale, those past its ends on the ends, and no value has no colour", () => {
  const linear = mode("linear", 0, 10, [0, 5, 10, 99, -1, null]);
  assert.deepEqual(linear.values.map((one) => share(linear, one)), [0, 0.5, 1, 1, 0, null]);
  assert.deepEqual(linear.values.map((_, i) => shadeOf(linear, i)), ["q0", "q8", "q15", "q15", "q0", ""]);
  const log = mode("log", 1, 100, [10, 0, -5, 1000]);
  assert.deepEqual(log.values.map((one) => share(log, one)), [0.5, 0, 0, 1]);
  const both = mode("diverging", -2, 2, [-2, 0, 1, 9]);
  assert.deepEqual(both.values.map((_, i) => shadeOf(both, i)), ["d0", "d8", "d12", "d16"]);
  assert.deepEqual(both.values.map((_, i) => lineOf(both, i)), ["u4", "u0", "u2", "u4"]);
  assert.equal(share(mode("diverging", 0, 0, []), 3), 0);
  assert.equal(share(mode("linear", 3, 3, []), 3), 0);
  assert.equal(shadeOf(null, 0), "");
});

test("letters can be read on every colour, in both themes", () => {
  for (const night of [false, true]) {
    for (let x = 0; x <= 1; x += 0.01) {
      for (const [ground, ink] of [magnitude(x, night), difference(2 * x - 1, night)] as [Rgb, Rgb][]) {
        assert.ok(contrast(ground, ink) >= 4.5, `${x} ${night}: ${ground} ${ink}`);
      }
    }
  }
  assert.ok(Math.abs(contrast([0, 0, 0], [255, 255, 255]) - 21) < 1e-9);
});

test("rows without a value come last whichever way they are ordered, equal ones as they were", () => {
  assert.deepEqual(ordered([3, null, 1, 3, null], 5, false), [2, 0, 3, 1, 4]);
  assert.deepEqual(ordered([3, null, 1, 3, null], 5, true), [0, 3, 2, 1, 4]);
  assert.deepEqual(ordered(null, 3, true), [2, 1, 0]);
});

test("only the rows around those that are seen are drawn", () => {
  assert.deepEqual(seen(0, 600, 5), [0, 5]);
  const [first, last] = seen(30_000, 600, 32_768);
  assert.ok(first <= 1000 && first > 950 && last >= 1020 && last < 1060);
});
