import assert from "node:assert/strict";
import { test } from "node:test";
import { blueOrange, cividis, rgb, table } from "../src/chart/colour";

const light = ([r, g, b]: readonly number[]): number => 0.2126 * r! + 0.7152 * g! + 0.0722 * b!;

test("cividis grows lighter all the way, and is clamped at its ends", () => {
  // ends as matplotlib has them
  assert.deepEqual(cividis(0), [0, 34, 78]);
  assert.deepEqual(cividis(1), [254, 232, 56]);
  for (let i = 1; i <= 100; i++) assert.ok(light(cividis(i / 100)) >= light(cividis((i - 1) / 100)) - 1);
  assert.deepEqual(cividis(-1), cividis(0));
  assert.deepEqual(cividis(2), cividis(1));
  assert.deepEqual(cividis(NaN), cividis(0));
});

test("blue and orange are symmetric in what they say: blue below, orange above, the ground between", () => {
  for (const night of [false, true]) {
    const [r0, , b0] = blueOrange(-1, night), [r1, , b1] = blueOrange(1, night);
    assert.ok(b0 > r0 && r1 > b1);
    const [r, g, b] = blueOrange(0, night);
    assert.ok(Math.max(r, g, b) - Math.min(r, g, b) < 12);
    assert.equal(light([r, g, b]) > 128, !night);
  }
});

test("a table has the ends of its scale", () => {
  const bytes = table(cividis, 4);
  assert.equal(bytes.length, 16);
  assert.deepEqual([...bytes.slice(0, 4)], [0, 34, 78, 255]);
  assert.deepEqual([...bytes.slice(12)], [254, 232, 56, 255]);
  assert.deepEqual([...table(blueOrange, 3).slice(0, 3)], blueOrange(-1));
  assert.equal(rgb([1, 2, 3]), "rgb(1 2 3)");
});
