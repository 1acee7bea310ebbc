// The page says numbers as tokentape.views.units does: units.json holds what Python says (tests/views/page/test_units_vectors.py).

import assert from "node:assert/strict";
import { test } from "node:test";
import { bytes, duration, logTicks, number, scaleOf, three, tick, ticks } from "../src/chart/format";
import said from "./units.json";

const pairs = (name: keyof typeof said): [number, string][] => said[name] as [number, string][];

for (const [name, says] of [["duration", duration], ["bytes", bytes], ["three", three]] as const) {
  test(`${name} says what Python says`, () => {
    for (const [value, text] of pairs(name)) assert.equal(says(value), text, `${name}(${value})`);
  });
}

test("null is a dash, never zero", () => {
  for (const unit of ["ns", "bytes", "share", "nats", "count", ""] as const) {
    assert.equal(number(null, unit), "\u2013");
    assert.notEqual(number(0, unit), "\u2013");
  }
});

test("units stand beside the number", () => {
  assert.equal(number(0.1234, "share"), "12.3%");
  assert.equal(number(1.5, "nats"), "1.50 nats");
  assert.equal(number(1234, "tokens"), "1,234");
  assert.equal(number(2.5e12, "flops"), "2.50 TFLOP");
});

test("ticks are round, lie inside, and are written apart", () => {
  for (const [low, high] of [[0, 1], [0, 7.3], [2.9, 3.1], [-4, 4], [1e6, 1.0001e6], [0, 3e-7]] as const) {
    const found = ticks(low, high, 5);
    assert.ok(found.length >= 2 && found.length <= 12, `${low}..${high}: ${found}`);
    assert.ok(found.every((value) => value >= low - 1e-9 * high && value <= high + 1e-9 * Math.abs(high)));
    const texts = found.map((value) => tick(value, found[1]! - found[0]!));
    assert.equal(new Set(texts).size, texts.length, texts.join(" "));
  }
});

test("logarithmic ticks are powers of ten and what lies between few of them", () => {
  assert.deepEqual(logTicks(1, 1e6), [1, 10, 100, 1e3, 1e4, 1e5, 1e6]);
  assert.deepEqual(logTicks(1, 30), [1, 2, 5, 10, 20]);
  assert.ok(logTicks(3.1, 3.9).length >= 2);
});

test("an axis is written in the unit that its values fill", () => {
  assert.deepEqual(scaleOf(2.5e6, "ns"), { size: 1e6, name: "ms" });
  assert.deepEqual(scaleOf(900, "ns"), { size: 1, name: "ns" });
  assert.deepEqual(scaleOf(1, "share"), { size: 0.01, name: "%" });
  assert.deepEqual(scaleOf(5, ""), { size: 1, name: "" });
});

test("a probability that is neither nothing nor certain is told as neither", () => {
  assert.equal(number(1e-9, "share"), "<0.001%");
  assert.equal(number(0.99998, "share"), ">99.9%");
  assert.equal(number(0, "share"), "0%");
  assert.equal(number(1, "share"), "100%");
  assert.equal(number(0.9994, "share"), "99.9%");
});
