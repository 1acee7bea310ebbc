// Where the page begins: it reads its document and draws it.

import { effect } from "@preact/signals";
import { render } from "preact";
import type { Lang, PageDocument } from "./document";
import { bindKeys } from "./keys";
import { startLive } from "./live";
import { bindPalette } from "./palette";
import { bindPrint } from "./print";
import { Shell } from "./shell";
import { bindHash, doc, lang, readHash, theme } from "./state";

export interface Options {
  lang?: Lang;
  theme?: "auto" | "light" | "dark";
  /** Whether the state is kept in the address; not in a frame, whose address nobody sees. */
  hash?: boolean;
}

let bound = false;

/** Draws a document into an element. */
export function mount(element: Element, data: PageDocument, options: Options = {}): void {
  if (data?.schema !== 1 || typeof data.words?.en !== "object") throw new Error(`this page draws documents of form 1, not ${data?.schema}`);
  doc.value = data;
  const preferred = options.lang ?? data.lang ?? (navigator.languages.find((one) => /^(en|zh)\b/.test(one))?.startsWith("zh") ? "zh" : "en");
  if (options.hash === false) readHash("", preferred);
  else bindHash(preferred);
  if (options.theme) theme.value = options.theme;
  if (!bound) {
    bound = true;
    bindPalette();
    bindPrint();
    bindKeys();
    effect(() => {
      document.documentElement.lang = lang.value === "zh" ? "zh-Hans" : "en";
    });
  }
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
    // a frame's address is nobody's to see, and that of a srcdoc frame cannot be written
    mount(element, JSON.parse(chunks.map((one) => one.textContent).join("")) as PageDocument, { hash: parent === window });
  } catch (error) {
    refuse(element, error);
  }
}

if (typeof document !== "undefined") {
  if (document.readyState === "loading") addEventListener("DOMContentLoaded", start);
  else start();
}
