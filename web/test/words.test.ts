import assert from "node:assert/strict";
import { readFileSync, readdirSync } from "node:fs";
import { join } from "node:path";
import { test } from "node:test";
import { doc, lang } from "../src/state";
import { filled, say, t } from "../src/words";
import { fixture } from "./fixture";

const never = (): string => assert.fail("no message inside");

test("places are filled as Python fills them", () => {
  assert.equal(filled("{n} {n|step|steps}, {who}", { n: 1, who: null }, never), "1 step, \u2013");
  assert.equal(filled("{n} {n|step|steps}, {who}", { n: 12345, who: "x" }, never), "12,345 steps, x");
  assert.equal(filled("{n|one|}", { n: 2 }, never), "");
  assert.equal(filled("{text} {text}", { text: "$& {n} <b>" }, never), "$& {n} <b> $& {n} <b>");
  assert.equal(filled("{missing}", {}, never), "{missing}");
});

test("a sentence comes in the language of the page, English where that lacks it, else its key", () => {
  doc.value = fixture({ words: { en: { "page_ui.a": "so: {what}", "page_ui.b": "{n} left" }, zh: { "page_ui.a": "\u5373\uff1a{what}" } } });
  const message = { key: "page_ui.a", args: { what: { key: "page_ui.b", args: { n: 2 } } } };
  lang.value = "en";
  assert.equal(say(message), "so: 2 left");
  lang.value = "zh";
  assert.equal(say(message), "\u5373\uff1a2 left");
  assert.equal(t("page_ui.c"), "page_ui.c");
});

const root = process.cwd();

/** The source files below a folder. */
function sources(folder: string): string[] {
  return readdirSync(folder, { withFileTypes: true }).flatMap((one) =>
    one.isDirectory() ? sources(join(folder, one.name)) : /\.tsx?$/.test(one.name) ? [join(folder, one.name)] : [],
  );
}

test("every word that the page names is in the catalogue", () => {
  const folder = join(root, "../src/tokentape/words");
  const known = new Set<string>();
  for (const name of readdirSync(folder)) {
    if (!name.startsWith("page_") || !name.endsWith(".toml")) continue;
    for (const [, key] of readFileSync(join(folder, name), "utf8").matchAll(/^\["([^"]+)"\]/gm)) known.add(key!);
  }
  const absent: string[] = [];
  for (const file of sources(join(root, "src"))) {
    const text = readFileSync(file, "utf8");
    for (const [, key] of text.matchAll(/["'`](page_[a-z]+\.[\w.]+)["'`]/g)) if (!known.has(key!)) absent.push(`${file}: ${key}`);
    for (const [, key] of text.matchAll(/\bui\("([\w.]+)"/g)) if (!known.has(`page_ui.${key}`)) absent.push(`${file}: page_ui.${key}`);
    for (const [, start] of text.matchAll(/\bui\(`([\w.]+)\$\{/g)) if (![...known].some((key) => key.startsWith(`page_ui.${start}`))) absent.push(`${file}: ${start}...`);
    // a key that is put together must have at least one that begins so
    for (const [, start] of text.matchAll(/`(page_[a-z]+\.[\w.]*)\$\{/g)) if (![...known].some((key) => key.startsWith(start!))) absent.push(`${file}: ${start}...`);
  }
  assert.deepEqual(absent, []);
});
