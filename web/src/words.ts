// Sentences in the reader's language: the catalogue's text with its places filled.

import type { Message } from "./document";
import { doc, lang } from "./state";

/** Fills `{name}` with an argument, and `{name|one|other}` with the word that fits its number. */
export function filled(template: string, args: Message["args"], say: (message: Message) => string): string {
  return template.replace(/\{(\w+)(?:\|([^|{}]*)\|([^|{}]*))?\}/g, (whole, name: string, one?: string, other?: string) => {
    const value = args?.[name];
    if (value === undefined) return whole;
    if (one !== undefined) return value === 1 ? one : (other ?? "");
    if (value === null) return "\u2013";
    if (typeof value === "object") return say(value);
    return typeof value === "number" ? value.toLocaleString("en-US", { maximumFractionDigits: 20 }) : value;
  });
}

/** A message in the language of the page; its key where the catalogue lacks it, which the tests do not let happen. */
export function say(message: Message): string {
  const words = doc.value?.words;
  const template = words?.[lang.value]?.[message.key] ?? words?.en[message.key];
  return template === undefined ? message.key : filled(template, message.args, say);
}

/** The same for a key of the page itself. */
export const t = (key: string, args?: Message["args"]): string => say(args ? { key, args } : { key });

/** The same for the keys of one area: `wordsOf("time")("axis")` is `page_time.axis`. */
export const wordsOf = (area: string) => (key: string, args?: Message["args"]): string => t(`page_${area}.${key}`, args);

export const ui = wordsOf("ui");

/** Facts that are there, one beside another. */
export const beside = (...facts: (string | false | null | undefined)[]): string => facts.filter(Boolean).join(" \u00b7 ");
