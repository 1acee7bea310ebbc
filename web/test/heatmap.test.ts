// The heat map's arithmetic against a full matrix: what is looked up, pooled, zoomed and labelled.

import assert from "node:assert/strict";
import { test } from "node:test";
import { arcOf } from "../src/arcs";
import {
  cellOf, denseRows, entries, labelled, nearest, offsetsOf, onScale, panned, placeOf, pooled, poolFactor, showing, zoomed, type View,
} from "../src/chart/cells";
import { cut, svgOf, widthOf } from "../src/chart/pen";
import type { SparseRows } from "../src/document";

/** A generator of numbers in 0..1 that gives the same ones each time. */
function random(seed: number): () => number {
  return () => ((seed = (seed * 1103515245 + 12345) & 0x7fffffff), seed / 0x7fffffff);
}

/** Sparse rows and the same as a full matrix. */
function made(rows: number, columns: number, seed = 1): { cells: SparseRows; full: (number | null)[][] } {
  const next = random(seed);
  const full = Array.from({ length: rows }, (_, row) => Array.from({ length: columns }, () => (row % 5 === 3 || next() < 0.6 ? null : Math.round(next() * 2000) - 1000)));
  const counts = full.map((row) => row.filter((value) => value !== null).length);
  const places = full.flatMap((row) => row.flatMap((value, column) => (value === null ? [] : [column])));
  const values = full.flat().filter((value) => value !== null);
  return { cells: { counts, columns: places, values, per: 1000 }, full };
}

test("a cell is what the matrix has there", () => {
  const { cells, full } = made(17, 23);
  for (let row = 0; row < 17; row++)
    for (let column = 0; column < 23; column++) assert.equal(cellOf(cells, row, column), full[row]![column] === null ? null : full[row]![column]! / 1000);
  assert.equal(cellOf(cells, 17, 0), null);
  assert.equal(cellOf(cells, 0, -1), null);
  full.forEach((row, i) =>
    assert.deepEqual(entries(cells, i), row.flatMap((value, column) => (value === null ? [] : [[column, value / 1000]]))));
  assert.deepEqual(entries(cells, 99), []);
});

test("every entry knows its place", () => {
  const { cells, full } = made(17, 23, 7);
  let entry = 0;
  full.forEach((row, i) => row.forEach((value, column) => value !== null && assert.deepEqual(placeOf(cells, entry++), [i, column])));
  assert.equal(offsetsOf(cells).at(-1), entry);
});

test("the nearest entry of a row", () => {
  const { cells, full } = made(17, 23, 3);
  for (let row = 0; row < 17; row++)
    for (let column = -3; column < 26; column++) {
      const found = nearest(cells, row, column), there = full[row]!.flatMap((value, at) => (value === null ? [] : [at]));
      if (!there.length) assert.equal(found, -1);
      else assert.equal(Math.abs(placeOf(cells, found)[1] - column), Math.min(...there.map((at) => Math.abs(at - column))));
    }
});

test("full rows have nulls where there is no value", () => {
  const cells = denseRows([[1, null, 3], [4, 5, 6]]);
  assert.deepEqual([cellOf(cells, 0, 1), cellOf(cells, 0, 2), cellOf(cells, 1, 0), cellOf(cells, 1, 3)], [null, 3, 4, null]);
  assert.deepEqual(entries(cells, 0), [[0, 1], [2, 3]]);
  assert.deepEqual(placeOf(cells, 4), [1, 1]);
});

test("pooling keeps the largest by size of each field, and nothing is lost", () => {
  const { cells, full } = made(19, 22, 5);
  for (const [across, down] of [[1, 1], [2, 2], [4, 2], [8, 16]] as const) {
    for (const region of [{ x0: 0, x1: 22, y0: 0, y1: 19 }, { x0: 4, x1: 21, y0: 3, y1: 18 }]) {
      const found = pooled(cells, region, across, down);
      for (let y = 0; y < found.height; y++)
        for (let x = 0; x < found.width; x++) {
          let best = NaN;
          for (let row = region.y0 + y * down; row < Math.min(region.y1, region.y0 + (y + 1) * down); row++)
            for (let column = region.x0 + x * across; column < Math.min(region.x1, region.x0 + (x + 1) * across); column++) {
              const value = full[row]![column];
              if (value !== null && value !== undefined && !(Math.abs(best) >= Math.abs(value / 1000))) best = value / 1000;
            }
          assert.ok(Object.is(found.values[y * found.width + x], Math.fround(best)), `${x} ${y}`);
        }
    }
  }
});

test("so many cells go into a pixel that none is skipped", () => {
  assert.deepEqual([0.1, 1, 1.01, 2, 3.4, 8.1].map(poolFactor), [1, 1, 2, 2, 4, 16]);
});

const inside = (view: View, columns: number, rows: number): void => {
  assert.ok(view.x0 >= 0 && view.y0 >= 0 && view.x1 <= columns + 1e-9 && view.y1 <= rows + 1e-9, JSON.stringify(view));
  assert.ok(view.x1 - view.x0 >= Math.min(4, columns) - 1e-9 && view.y1 - view.y0 >= Math.min(4, rows) - 1e-9, JSON.stringify(view));
};

test("zooming keeps the point under the pointer, and stays within the map", () => {
  const all = { x0: 0, x1: 2048, y0: 0, y1: 100 };
  const near = zoomed(all, 0.5, 512, 50, 2048, 100);
  assert.deepEqual(near, { x0: 256, x1: 1280, y0: 25, y1: 75 });
  assert.equal((512 - near.x0) / (near.x1 - near.x0), 512 / 2048);
  assert.deepEqual(zoomed(near, 2, 512, 50, 2048, 100), all);
  const next = random(9);
  let view: View = all;
  for (let i = 0; i < 500; i++) {
    const x = view.x0 + next() * (view.x1 - view.x0), y = view.y0 + next() * (view.y1 - view.y0);
    view = next() < 0.7 ? zoomed(view, Math.exp(next() * 2 - 1), x, y, 2048, 100) : panned(view, next() * 500 - 250, next() * 50 - 25, 2048, 100);
    inside(view, 2048, 100);
  }
  for (const factor of [0.01, 100]) inside(zoomed({ x0: 0, x1: 2, y0: 0, y1: 1 }, factor, 1, 0.5, 2, 1), 2, 1);
});

test("a cell comes into sight by the shortest way", () => {
  const view = { x0: 10, x1: 20, y0: 10, y1: 20 };
  assert.deepEqual(showing(view, 12, 15, 100, 100), view);
  assert.deepEqual(showing(view, 20, 9, 100, 100), { x0: 9, x1: 19, y0: 11, y1: 21 });
  assert.deepEqual(showing(view, 99, 0, 100, 100), { x0: 0, x1: 10, y0: 90, y1: 100 });
});

test("labels stand at round places and do not touch", () => {
  assert.deepEqual(labelled(0, 5, 500, 13), { step: 1, at: [0, 1, 2, 3, 4] });
  assert.deepEqual(labelled(0, 100, 500, 13).at.slice(0, 3), [0, 5, 10]);
  for (const [low, high, pixels] of [[3.5, 77.2, 300], [0, 2048, 480], [1000, 1004, 480], [0, 32768, 90]] as const) {
    const { step, at } = labelled(low, high, pixels, 13);
    assert.ok((step * pixels) / (high - low) >= 13 - 1e-9);
    assert.ok(at.length > 0 && at.every((one) => one % step === 0 && one + 0.5 >= low && one + 0.5 <= high));
  }
});

test("a scale has its ends, is clamped, and keeps the sign of a difference", () => {
  assert.deepEqual([0, 0.25, 1, 9].map((value) => onScale(value, 0, 1, false, 0.5)), [0, 0.5, 1, 1]);
  assert.deepEqual([-2, -0.5, 0, 2].map((value) => onScale(value, 0, 2, true)), [-1, -0.25, 0, 1]);
  assert.equal(onScale(3, 3, 3, false), 0);
  assert.equal(onScale(0, 0, 0, true), 0);
});

test("words are cut, and hostile ones stay words in an SVG", () => {
  assert.equal(cut("cat", 100, widthOf), "cat");
  const short = cut("a".repeat(100_000), 60, widthOf);
  assert.ok(widthOf(short) <= 60 && short.endsWith("\u2026"));
  assert.ok(!/[\ud800-\udbff]\u2026/.test(cut("\ud83d\ude00".repeat(50), 70, widthOf)));
  const svg = svgOf({
    width: 9, height: 9,
    draw(pen) {
      pen.text(1, 2, '</text><script>"\u202e', "red");
      pen.rect(1, 2, 3, 4, '"/><script>');
    },
  }, "<script>", "\u202e<script>");
  assert.ok(!svg.includes("<script") && !svg.includes("\u202e"));
});

test("an arc goes from source to target: within a line over it, between lines from one to the other", () => {
  const cell = (x: number, top: number) => ({ x, top, bottom: top + 20 });
  assert.deepEqual(arcOf(cell(10, 40), cell(100, 40)), { d: "M10 40C10 26.5 100 26.5 100 40", x: 10, y: 40 });
  assert.deepEqual(arcOf(cell(10, 4), cell(100, 4)), { d: "M10 24C10 37.5 100 37.5 100 24", x: 10, y: 24 });
  assert.equal(arcOf(cell(50, 10), cell(80, 70)).d, "M50 30C50 50 80 50 80 70");
  assert.equal(arcOf(cell(50, 10), cell(80, 32)).d, "M50 30C50 44 80 18 80 32");
  assert.equal(arcOf(cell(50, 70), cell(80, 10)).d, "M50 70C50 50 80 50 80 30");
});
