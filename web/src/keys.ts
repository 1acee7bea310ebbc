// Keys that work everywhere on the page, but not while something is typed, nor where another part has taken them.

import { signal } from "@preact/signals";
import { modified } from "./elements";
import { go } from "./ribbon";
import { chooseLang, doc, lang, orderOf, part, range, selected, theme } from "./state";

export const help = signal(false);

/** Each with the word that says what it does. */
export const KEYS: [keys: string, word: string][] = [
  ["1 \u2013 9", "key_parts"], ["[  ]", "key_tokens"], ["\u2190 \u2192 \u2191 \u2193", "key_arrows"], ["Shift", "key_shift"], ["t", "key_table"],
  ["Esc", "key_escape"], ["g", "key_theme"], ["l", "key_lang"], ["?", "key_help"],
];

const SHADES = ["auto", "light", "dark"] as const;

export const nextTheme = (): void => void (theme.value = SHADES[(SHADES.indexOf(theme.value) + 1) % SHADES.length]!);
export const otherLang = (): void => chooseLang(lang.value === "en" ? "zh" : "en");

const typing = ({ target }: Event): boolean => target instanceof HTMLElement && target.matches("input, select, textarea, [contenteditable]");

export function act(key: string): boolean {
  const digit = doc.value?.tape && orderOf(doc.value)[Number(key) - 1];
  if (digit) part.value = digit;
  else if (key === "[") go((selected.value ?? 1) - 1);
  else if (key === "]") go((selected.value ?? -1) + 1);
  else if (key === "g") nextTheme();
  else if (key === "l") otherLang();
  else if (key === "?") help.value = true;
  else if (key === "Escape" && range.value) range.value = null;
  else if (key === "Escape" && selected.value !== null) selected.value = null;
  else return false;
  return true;
}

export function bindKeys(): void {
  addEventListener("keydown", (event) => {
    if (event.defaultPrevented || modified(event) || typing(event) || help.value) return;
    if (act(event.key)) event.preventDefault();
  });
}
