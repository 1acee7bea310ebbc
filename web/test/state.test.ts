import assert from "node:assert/strict";
import { test } from "node:test";
import { act } from "../src/keys";
import { blocksOf } from "../src/layout";
import { go, tell } from "../src/ribbon";
import {
  chooseLang, colour, doc, extra, hashOf, lang, part, placeOfStep, range, readHash, selected, selectedStep, setExtra, theme, trace, traceNumber, underline,
} from "../src/state";
import { fixture } from "./fixture";

function opened(hash = ""): void {
  doc.value = fixture({ n: 60, prompt: 8 });
  readHash(hash, "en");
}

test("a hash says what it was made from", () => {
  opened();
  assert.equal(hashOf(), "");
  part.value = "time";
  traceNumber.value = 1;
  selected.value = 12;
  range.value = [9, 20];
  colour.value = "surprise";
  underline.value = "entropy";
  theme.value = "dark";
  chooseLang("zh");
  setExtra("axis", "a&b=c#d");
  const hash = hashOf();
  opened();
  assert.equal(selected.value, null);
  readHash(`#${hash}`, "en");
  assert.equal(hashOf(), hash);
  assert.deepEqual(
    [part.value, traceNumber.value, selected.value, range.value, colour.value, underline.value, theme.value, lang.value, extra.value],
    ["time", 1, 12, [9, 20], "surprise", "entropy", "dark", "zh", { axis: "a&b=c#d" }],
  );
});

test("a hash that says nothing sensible leaves the page as it begins", () => {
  opened("#part=nonsense&trace=-1&at=999999&range=9-3&theme=pink&lang=xx&at=__proto__");
  assert.equal(hashOf(), "");
  assert.equal(trace.value?.number, 0);
  assert.equal(lang.value, "en");
});

test("a step and the place of its token lead to each other, and a place of the prompt has none", () => {
  opened();
  selected.value = 8 + 5;
  assert.equal(selectedStep.value, 5);
  assert.equal(placeOfStep(5), 13);
  selected.value = 3;
  assert.equal(selectedStep.value, null);
  assert.equal(placeOfStep(60), null);
});

test("going past an end stays there; with shift the range follows from where it began", () => {
  opened();
  go(-5);
  assert.equal(selected.value, 0);
  go(1000);
  assert.equal(selected.value, 67);
  go(20);
  go(22, true);
  assert.deepEqual(range.value, [20, 22]);
  go(23, true);
  assert.deepEqual(range.value, [20, 23]);
  go(18, true);
  assert.deepEqual(range.value, [18, 20]);
  go(19);
  assert.deepEqual(range.value, [18, 20]); // a look inside keeps it
  go(40);
  assert.equal(range.value, null);
});

test("keys go to parts and tokens, and Escape lets go of one thing at a time", () => {
  opened();
  assert.ok(act("3"));
  assert.equal(part.value, "time");
  assert.ok(act("]"));
  assert.equal(selected.value, 0);
  act("]");
  act("[");
  assert.equal(selected.value, 0);
  range.value = [0, 4];
  assert.ok(act("Escape"));
  assert.deepEqual([range.value, selected.value], [null, 0]);
  assert.ok(act("Escape"));
  assert.equal(selected.value, null);
  assert.equal(act("Escape"), false);
  assert.equal(act("0"), false);
  assert.equal(act("Tab"), false);
});

test("a place is told with what is known of it", () => {
  doc.value = fixture({
    n: 12, prompt: 8,
    words: { en: { "page_ui.token_of": "token {i} of {n}: '{text}'", "page_ui.of_prompt": "prompt", "page_ui.surprise_is": "surprise {value}", "page_ui.comma": ", ", "page_ui.forced": "forced" }, zh: {} },
  });
  readHash("", "en");
  const shown = trace.value!;
  assert.equal(tell(shown, 2), "token 2 of 20: ' a', prompt");
  assert.match(tell(shown, 12), /^token 12 of 20: ' on', [\d.]+ ms, surprise [\d.]+ nats, forced$/);
  shown.tokens.gap_ns[2] = shown.tokens.surprise[2] = null;
  assert.equal(tell(shown, 10), "token 10 of 20: ' that'");
  // both parts of a character are called by it
  assert.ok(tell(shown, 15).startsWith("token 15 of 20: ' \u{1f600}'"));
  assert.equal(blocksOf(shown.symbols).length, 1);
});
