// The tapes of a folder: searched, sorted, and two of them compared.

import { useSignal } from "@preact/signals";
import { ABSENT, number } from "../chart/format";
import type { FolderTape } from "../document";
import { ordered } from "../order";
import { Rows } from "../rows";
import { doc } from "../state";
import { say, wordsOf } from "../words";

const w = wordsOf("live");

const HEAD = ["compare", "name", "state", "model", "tokens", "speed", "created", "prompt"] as const;
type Key = (typeof HEAD)[number];

/** Rows that have all words of the question, in the order asked for; what has no value comes last. */
export function found(tapes: FolderTape[], question: string, key: string, down: boolean): number[] {
  const words = question.toLowerCase().split(/\s+/);
  return ordered(tapes.map((one) => one[key as keyof FolderTape]), tapes.length, down).filter((row) => {
    const { name, model, prompt, state } = tapes[row]!, text = `${name} ${model} ${prompt} ${state}`.toLowerCase();
    return words.every((word) => text.includes(word));
  });
}

export function FolderPart() {
  const folder = doc.value?.folder;
  const question = useSignal(""), sort = useSignal({ key: "created", down: true }), ticked = useSignal<string[]>([]);
  if (!folder) return null;
  const { tapes } = folder;
  const rows = found(tapes, question.value, sort.value.key, sort.value.down);
  const pair = ticked.value.filter((link) => tapes.some((one) => one.link === link));
  const cell = (row: number, key: string) => {
    const one = tapes[row]!;
    const value = one[key as keyof FolderTape];
    switch (key as Key) {
      case "compare":
        return (
          <input
            type="checkbox" aria-label={w("tapes.choose", { name: one.name })} checked={pair.includes(one.link)} disabled={one.state === "unreadable"}
            onChange={(event) => (ticked.value = event.currentTarget.checked ? [...pair.slice(-1), one.link] : pair.filter((link) => link !== one.link))}
          />
        );
      case "name": return <a class="clip" href={`/tape?name=${one.link}`}>{one.name}</a>;
      case "state": return w(`state.${one.state}`);
      case "tokens": case "speed": return typeof value === "number" ? number(value, "count") : ABSENT;
      default: return <span class="clip" title={String(value ?? "")}>{value ?? ABSENT}</span>;
    }
  };
  return (
    <div class="stack">
      <h2>{say(folder.title)}</h2>
      <p>{say(tapes.length ? folder.caption : { key: "page_live.tapes.none" })}</p>
      <div class="row spread">
        <label class="field">
          <input type="search" size={32} placeholder={w("tapes.search")} aria-label={w("tapes.search")} value={question.value} onInput={(event) => (question.value = event.currentTarget.value)} />
        </label>
        <span class="row">
          <span class="small muted" role="status">{w("tapes.found", { shown: rows.length, n: tapes.length })}</span>
          {pair.length === 2
            ? <a class="btn" href={`/compare?a=${pair[0]}&b=${pair[1]}`}>{w("tapes.compare")}</a>
            : <span class="small muted">{w("tapes.tick")}</span>}
        </span>
      </div>
      <Rows
        label={say(folder.title)} order={rows} cell={cell} selected={null} onSelect={() => {}} sort={sort.value}
        head={HEAD.map((key) => ({ key, title: key === "compare" ? "" : w(`tapes.${key}`), number: key === "tokens" || key === "speed" }))}
        onSort={(key) => key !== "compare" && (sort.value = { key, down: sort.value.key === key ? !sort.value.down : key === "created" })}
      />
    </div>
  );
}
