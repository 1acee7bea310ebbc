// Every token with its figures, in any order.

import { useMemo } from "preact/hooks";
import { csvOf, save } from "../chart/export";
import { number } from "../chart/format";
import { fileName } from "../chart/frame";
import type { Trace, Unit, Values } from "../document";
import { piece } from "../inspector";
import { nameOf } from "../layout";
import { ordered } from "../order";
import { go } from "../ribbon";
import { Rows, type Head } from "../rows";
import { extra, range, selected, setExtra, trace } from "../state";
import { say, ui } from "../words";

const UNITS: Record<string, Unit> = { step: "count", rank: "count", gap: "ns", surprise: "nats", entropy: "nats", probability: "share", rules_probability: "share", removed: "nats", allowed: "count" };

/** The columns that a trace has values for; each has one entry a generated token. */
function columnsOf({ tokens }: Trace): [string, Values][] {
  const odds = (values: Values): Values => values.map((one) => (one === null ? null : Math.exp(one)));
  const all: [string, Values][] = [
    ["step", tokens.step], ["gap", tokens.gap_ns], ["probability", odds(tokens.logprob)], ["rank", tokens.rank], ["surprise", tokens.surprise],
    ["entropy", tokens.entropy], ["rules_probability", odds(tokens.rules_logprob)], ["allowed", tokens.allowed], ["removed", tokens.removed],
  ];
  return all.filter(([, values]) => values.some((one) => one !== null));
}

export function TokensPart() {
  const shown = trace.value;
  if (!shown) return null;
  return <Table key={shown.number} shown={shown} />;
}

function Table({ shown }: { shown: Trace }) {
  const { symbols, tokens, n_prompt } = shown;
  const n = symbols.text.length - n_prompt;
  const columns = useMemo(() => columnsOf(shown), [shown]);
  const [, key = "place", way] = /^(\w+)(-?)$/.exec(extra.value.sort ?? "place") ?? [];
  const ends = range.value;
  const values = columns.find(([name]) => name === key)?.[1] ?? null;
  const order = useMemo(() => {
    const rows = ordered(values, n, way === "-");
    return ends ? rows.filter((row) => row + n_prompt >= ends[0] && row + n_prompt <= ends[1]) : rows;
  }, [values, n, way, ends]);
  const named = tokens.forced.some(Boolean) || tokens.wanted.some((id) => id !== null);
  const head: Head[] = [
    { key: "place", title: "#", number: true },
    { key: "token", title: ui("token") },
    ...columns.map(([name]) => ({ key: name, title: ui(`f_${name}`) + (UNITS[name] === "nats" ? " (nats)" : ""), number: true })),
    ...(named ? [{ key: "rules", title: ui("f_rules") }] : []),
  ];
  const lookup = useMemo(() => new Map(columns), [columns]);
  const cell = (row: number, name: string) => {
    if (name === "place") return row + n_prompt;
    if (name === "token") return <span class="tok clip">{nameOf(symbols, row + n_prompt, 48)}</span>;
    if (name === "rules") return tokens.wanted[row] != null ? ui("instead_of", { what: piece(tokens.wanted[row]) }) : tokens.forced[row] ? ui("forced") : "";
    const unit = UNITS[name] ?? "";
    return number(lookup.get(name)?.[row], unit === "nats" ? "" : unit);
  };
  const csv = (): string =>
    csvOf([
      { name: "place", unit: "", values: order.map((row) => row + n_prompt) },
      { name: "id", unit: "", values: order.map((row) => symbols.ids[row + n_prompt]!) },
      { name: "text", unit: "", values: order.map((row) => symbols.text[row + n_prompt]!) },
      ...columns.map(([name, all]) => ({ name, unit: UNITS[name] ?? "", values: order.map((row) => all[row]!) })),
    ]);
  const at = selected.value;
  return (
    <div class="stack">
      <p class="row spread">
        <span class="lead">{ui("tokens_caption", { prompt: n_prompt, n, finish: say(shown.finish) })}</span>
        <span class="row">
          {ends && <span class="chip">{ui("rows_in_range", { n: order.length })}</span>}
          <button type="button" class="btn" onClick={() => save(fileName("tokens", "csv"), "text/csv;charset=utf-8", csv())}>CSV</button>
        </span>
      </p>
      <div class="panel flush">
        <Rows
          label={ui("part_tokens")} head={head} order={order} cell={cell} selected={at === null ? null : at - n_prompt} onSelect={(row) => go(row + n_prompt)}
          sort={{ key, down: way === "-" }} onSort={(by) => setExtra("sort", by === key && way !== "-" ? `${by}-` : by === "place" || by === "token" || by === "rules" ? null : by)}
        />
      </div>
    </div>
  );
}
