// What leaves the page: hostile text stays text, numbers stay numbers, the picture is well-formed and shows the values.

import assert from "node:assert/strict";
import { test } from "node:test";
import { csvOf, folded, titled } from "../src/chart/export";
import { escaped, svgOf } from "../src/chart/pen";
import { columnsOf, labels, layout, limits, pictureOf, places, reading, yLimits, type Spec } from "../src/chart/picture";

const HOSTILE = ['</text></svg><script>alert(1)</script>', '" onload="alert(1)', "a&b", "\u202egnp.exe", "\u0000\u0007", "\ud83d", "\u2066x\u2069", "]]>"];

const spec = (more: Partial<Spec> = {}): Spec => ({
  x: { name: "step", unit: "count", values: [0, 1, 2, 3, 4] },
  y: { name: "time", unit: "ns", holds: 0 },
  lines: [{ name: "measured", unit: "ns", values: [1e6, 2e6, null, 4e6, 3e6], colour: "--s1" }],
  ...more,
});

const svg = (of: Spec, title = "t", caption = "c"): string =>
  svgOf(titled(pictureOf(of, layout(of, 640, 240, null)), title, caption), title, caption, (name) => `var-${name}`);

/** Every tag is closed, in order: what a reader of XML asks at least. */
function wellFormed(text: string): void {
  const open: string[] = [];
  for (const [, end, name, self] of text.replace(/<\?.*?\?>/, "").matchAll(/<(\/?)([A-Za-z]+)(?:\s+[\w:-]+="[^"<]*")*\s*(\/?)>/g)) {
    if (end) assert.equal(open.pop(), name);
    else if (!self) open.push(name!);
  }
  assert.deepEqual(open, []);
  assert.equal((text.match(/</g) ?? []).length, [...text.matchAll(/<(\?.*?\?|\/?[A-Za-z]+(?:\s+[\w:-]+="[^"<]*")*\s*\/?)>/g)].length);
}

test("hostile text in an SVG is text", () => {
  for (const one of HOSTILE) {
    const found = svg(spec({ y: { ...spec().y, name: one }, lines: [{ ...spec().lines[0]!, name: one }] }), one, one);
    wellFormed(found);
    assert.ok(!/<script|[\s"]onload="/.test(found), one);
    assert.ok(!/[\u0000-\u0008\u202a-\u202e\u2066-\u2069]/.test(found), one);
    assert.ok(!/[\ud800-\udbff](?![\udc00-\udfff])/.test(found), "a lone surrogate makes no XML");
  }
});

test("escaping keeps what may stay", () => assert.equal(escaped("a 你好 🙂\n<b>"), "a 你好 🙂\n&lt;b&gt;"));

test("a gap in a line is a gap, a sparse curve goes on", () => {
  const strokes = (text: string): string[] => [...text.matchAll(/<path d="([^"]+)" fill="none" stroke="var---s1"/g)].map((found) => found[1]!);
  assert.equal(strokes(svg(spec())).length, 2);
  assert.equal(strokes(svg(spec({ lines: [{ ...spec().lines[0]!, sparse: true }] }))).length, 1);
});

test("every value is a point where it belongs", () => {
  const found = svg(spec({ lines: [{ ...spec().lines[0]!, kind: "points" }] }));
  const points = [...found.matchAll(/<circle cx="([\d.]+)" cy="([\d.]+)"/g)].map((one) => [Number(one[1]), Number(one[2])] as const);
  assert.equal(points.length, 4);
  const [a, b, , d] = [points[0]!, points[1]!, points[2]!, points[3]!];
  // heights above the zero line are as the values
  const zero = a[1] + (a[1] - b[1]);
  assert.ok(Math.abs((zero - d[1]) / (zero - a[1]) - 3) < 0.02);
  assert.ok(Math.abs((points[2]![0] - a[0]) / (b[0] - a[0]) - 3) < 0.02, "the null's place stays free");
});

test("nothing is drawn of nothing, and it is still a picture", () => {
  const empty = spec({ x: { name: "step", unit: "count", values: [] }, lines: [{ ...spec().lines[0]!, values: [] }] });
  for (const one of [empty, spec({ lines: [{ ...spec().lines[0]!, values: [null, null, null, null, null] }] })]) {
    const found = svg(one);
    wellFormed(found);
    assert.ok(!found.includes("NaN") && !found.includes("Infinity"));
  }
});

test("a logarithmic axis leaves out what it cannot show", () => {
  const log = spec({ y: { name: "time", unit: "ns", log: true }, lines: [{ ...spec().lines[0]!, values: [0, 1e3, 1e6, -5, 1e9] }] });
  const [low, high] = yLimits(log, 0, 4);
  assert.ok(low > 0 && low < 1e3 && high > 1e9);
  assert.ok(!svg(log).includes("NaN"));
});

test("limits hold what they are told to", () => {
  assert.equal(limits({ name: "", unit: "", holds: 0 }, 3, 9)[0], 0);
  assert.deepEqual(limits({ name: "", unit: "share", ends: [0, 1] }, 0.2, 0.3), [0, 1]);
  const [low, high] = limits({ name: "", unit: "count", log: true }, 1, 1);
  assert.ok(low < 1 && high > 1);
});

test("ticks of whole things are whole", () => {
  assert.ok(places({ name: "", unit: "count" }, [0, 3], 10).at.every(Number.isInteger));
});

test("names at the right end stay apart and inside", () => {
  const lines = Array.from({ length: 6 }, (_, i) => ({ name: `n${i}`, unit: "" as const, values: [5, 5, 5, 5, 5], colour: "--s1" }));
  const found = labels(spec({ lines }), 0, 4, () => 100, 0, 200);
  for (let i = 1; i < found.length; i++) assert.ok(found[i]!.y - found[i - 1]!.y >= 14);
  assert.ok(found.every((one) => one.y >= 0 && one.y <= 200));
});

test("the table has what the chart has, and the reading leaves nulls out", () => {
  const of = spec({ also: [{ name: "token", unit: "", values: ["a", "b", "c", "d", "e"] }] });
  assert.deepEqual(columnsOf(of).map((one) => one.name), ["token", "step", "measured"]);
  assert.equal(reading(of, 1), "step 1 \u00b7 measured 2.00 ms");
  assert.equal(reading(of, 2), "step 2");
});

test("CSV: nulls are empty, quotes are doubled, no cell is a formula", () => {
  const found = csvOf([
    { name: "token", unit: "", values: ["=1+1", 'say "x", y', "a\nb", null, "-2"] },
    { name: "time", unit: "ns", values: [1, null, -3, 0, 1.5] },
  ]);
  assert.equal(found, "token,time (ns)\r\n'=1+1,1\r\n\"say \"\"x\"\", y\",\r\n\"a\nb\",-3\r\n,0\r\n'-2,1.5\r\n");
});

test("captions fold, Chinese between any two characters", () => {
  assert.deepEqual(folded("aaa bbb ccc", 7), ["aaa bbb", "ccc"]);
  const chinese = folded("每步延迟的中位数为二毫秒，最慢三毫秒。", 12);
  assert.ok(chinese.length > 1 && chinese.every((line) => line.length <= 7));
  assert.equal(chinese.join(""), "每步延迟的中位数为二毫秒，最慢三毫秒。");
  assert.deepEqual(folded("", 10), []);
});

test("a cell that a spreadsheet would take for a formula, or part at a semicolon, is text", () => {
  const cells = ["\uff1dcmd", "\uff20SUM", "a;=1+1"];
  assert.equal(csvOf([{ name: "x", unit: "", values: cells }]), "x\r\n'\uff1dcmd\r\n'\uff20SUM\r\n\"a;=1+1\"\r\n");
});
