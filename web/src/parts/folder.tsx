// The tapes of a folder: searched, sorted, and two of them compared.

import { useState } from "preact/hooks";
import { number } from "../chart/format";
import type { FolderTape } from "../document";
import { Rows } from "../rows";
import { doc } from "../state";
import { say, t } from "../words";

const HEAD = ["compare", "name", "state", "model", "tokens", "speed", "created", "prompt"] as const;
type Key = (typeof HEAD)[number];

/** Rows that have all words of the question, in the order asked for; what has no value comes last. */
export function found(tapes: FolderTape[], question: string, key: string, down: boolean): number[] {
  const words = question.toLowerCase().split(/\s+/);
  const rows = tapes.map((_, row) => row).filter((row) => {
    const { name, model, prompt, state } = tapes[row]!;
    const text = `${name} ${model} ${prompt} ${state}`.toLowerCase();
    return words.every((word) => text.includes(word));
  });
  const of = (row: number): string | number | null => tapes[row]![key as keyof FolderTape];
  return rows.sort((a, b) => {
    const [x, y] = [of(a), of(b)];
    if (x === y) return a - b;
    if (x === null || y === null) return x === null ? 1 : -1;
    const order = typeof x === "number" ? x - Number(y) : x.localeCompare(String(y), undefined, { numeric: true });
    return (down ? -order : order) || a - b;
  });
}

export function FolderPart() {
  const folder = doc.value?.folder;
  const [question, ask] = useState("");
  const [sort, setSort] = useState<{ key: string; down: boolean }>({ key: "created", down: true });
  const [ticked, tick] = useState<string[]>([]);
  if (!folder) return null;
  const { tapes } = folder;
  const rows = found(tapes, question, sort.key, sort.down);
  const pair = ticked.filter((link) => tapes.some((one) => one.link === link));
  const cell = (row: number, key: string) => {
    const one = tapes[row]!;
    const value = one[key as keyof FolderTape];
    switch (key as Key) {
      case "compare":
        return (
          <input
            type="checkbox" aria-label={t("page_live.tapes.choose", { name: one.name })} checked={pair.includes(one.link)} disabled={one.state === "unreadable"}
            onChange={(event) => tick(event.currentTarget.checked ? [...pair.slice(-1), one.link] : pair.filter((link) => link !== one.link))}
          />
        );
      case "name": return <a class="clip" href={`/tape?name=${one.link}`}>{one.name}</a>;
      case "state": return t(`page_live.state.${one.state}`);
      case "tokens": case "speed": return typeof value === "number" ? number(value, "count") : "\u2013";
      default: return <span class="clip" title={String(value ?? "")}>{value ?? "\u2013"}</span>;
    }
  };
  return (
    <div class="stack">
      <h2>{say(folder.title)}</h2>
      <p>{say(tapes.length ? folder.caption : { key: "page_live.tapes.none" })}</p>
      <div class="row spread">
        <label class="field">
          <input type="search" size={32} placeholder={t("page_live.tapes.search")} aria-label={t("page_live.tapes.search")} value={question} onInput={(event) => ask(event.currentTarget.value)} />
        </label>
        <span class="row">
          <span class="small muted" role="status">{t("page_live.tapes.found", { shown: rows.length, n: tapes.length })}</span>
          {pair.length === 2
            ? <a class="btn" href={`/compare?a=${pair[0]}&b=${pair[1]}`}>{t("page_live.tapes.compare")}</a>
            : <span class="small muted">{t("page_live.tapes.tick")}</span>}
        </span>
      </div>
      <Rows
        label={say(folder.title)} order={rows} cell={cell} selected={null} onSelect={() => {}} sort={sort}
        head={HEAD.map((key) => ({ key, title: key === "compare" ? "" : t(`page_live.tapes.${key}`), number: key === "tokens" || key === "speed" }))}
        onSort={(key) => key !== "compare" && setSort({ key, down: sort.key === key ? !sort.down : key === "created" })}
      />
    </div>
  );
}
