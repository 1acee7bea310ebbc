// Where the page begins: it reads its document and draws it.

import { effect } from "@preact/signals";
import { render } from "preact";
import type { PageDocument } from "./document";
import { bindKeys } from "./keys";
import { startLive } from "./live";
import { bindPalette } from "./palette";
import { bindPrint } from "./print";
import { Shell } from "./shell";
import { bindHash, doc, lang, readHash } from "./state";

/** Draws a document into an element. A frame's address is nobody's to see, and that of a srcdoc frame cannot be written. */
function mount(element: Element, data: PageDocument): void {
  if (data?.schema !== 1 || typeof data.words?.en !== "object") throw new Error(`this page draws documents of form 1, not ${data?.schema}`);
  doc.value = data;
  const preferred = data.lang ?? (navigator.languages.find((one) => /^(en|zh)\b/.test(one))?.startsWith("zh") ? "zh" : "en");
  if (parent === window) bindHash(preferred);
  else readHash("", preferred);
  bindPalette();
  bindPrint();
  bindKeys();
  effect(() => {
    document.documentElement.lang = lang.value === "zh" ? "zh-Hans" : "en";
  });
  element.replaceChildren();
  render(<Shell />, element);
  if (data.live) startLive(data);
}

/** Says what went wrong in the place of the page; in both languages, as the words are in the document. */
function refuse(element: Element, error: unknown): void {
  const note = document.createElement("p");
  note.className = "broken";
  note.setAttribute("role", "alert");
  note.textContent = `tokentape: this page's data cannot be read (${String(error)}). Make the page again from its tape. / \u672c\u9875\u6570\u636e\u65e0\u6cd5\u8bfb\u53d6\uff0c\u8bf7\u7528\u8bb0\u5f55\u6587\u4ef6\u91cd\u65b0\u751f\u6210\u3002`;
  element.replaceChildren(note);
  console.error(error);
}

function start(): void {
  const chunks = [...document.querySelectorAll('script[type="application/json"][id^="tokentape-data"]')];
  const element = document.getElementById("tokentape");
  if (!element || !chunks.length) return;
  try {
    mount(element, JSON.parse(chunks.map((one) => one.textContent).join("")) as PageDocument);
  } catch (error) {
    refuse(element, error);
  }
}

if (document.readyState === "loading") addEventListener("DOMContentLoaded", start);
else start();
