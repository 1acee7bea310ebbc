// Every token with its figures, in any order.

import { useMemo } from "preact/hooks";
import { Button } from "../blocks";
import { column, CSV, csvOf, save } from "../chart/export";
import { number } from "../chart/format";
import { fileName } from "../chart/frame";
import type { Trace, Unit, Values } from "../document";
import { piece } from "../inspector";
import { nameOf } from "../layout";
import { exp, known } from "../maths";
import { ordered } from "../order";
import { go } from "../ribbon";
import { Rows, type Head } from "../rows";
import { extra, range, selected, setExtra, trace } from "../state";
import { say, ui } from "../words";

type Named = [name: string, unit: Unit, values: Values];

/** The columns that a trace has values for; each has one entry a generated token. */
function columnsOf({ tokens }: Trace): Named[] {
  const odds = (values: Values): Values => values.map((one) => (one === null ? null : exp(one)));
  const all: Named[] = [
    ["step", "count", tokens.step], ["gap", "ns", tokens.gap_ns], ["probability", "share", odds(tokens.logprob)], ["rank", "count", tokens.rank], ["surprise", "nats", tokens.surprise],
    ["entropy", "nats", tokens.entropy], ["rules_probability", "share", odds(tokens.rules_logprob)], ["allowed", "count", tokens.allowed], ["removed", "nats", tokens.removed],
  ];
  return all.filter(([, , values]) => known(values));
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
  const values = columns.find(([name]) => name === key)?.[2] ?? null;
  const order = useMemo(() => {
    const rows = ordered(values, n, way === "-");
    return ends ? rows.filter((row) => row + n_prompt >= ends[0] && row + n_prompt <= ends[1]) : rows;
  }, [values, n, way, ends]);
  const named = tokens.forced.some(Boolean) || known(tokens.wanted);
  const head: Head[] = [
    { key: "place", title: "#", number: true },
    { key: "token", title: ui("token") },
    ...columns.map(([key, unit]) => ({ key, title: ui(`f_${key}`) + (unit === "nats" ? " (nats)" : ""), number: true })),
    ...(named ? [{ key: "rules", title: ui("f_rules") }] : []),
  ];
  const cell = (row: number, name: string) => {
    if (name === "place") return row + n_prompt;
    if (name === "token") return <span class="tok clip">{nameOf(symbols, row + n_prompt, 48)}</span>;
    if (name === "rules") return tokens.wanted[row] != null ? ui("instead_of", { what: piece(tokens.wanted[row]) }) : tokens.forced[row] ? ui("forced") : "";
    const [, unit, values] = columns.find(([one]) => one === name)!;
    return number(values[row], unit === "nats" ? "" : unit);
  };
  const csv = (): string =>
    csvOf([
      column("place", order.map((row) => row + n_prompt)), column("id", order.map((row) => symbols.ids[row + n_prompt]!)), column("text", order.map((row) => symbols.text[row + n_prompt]!)),
      ...columns.map(([name, unit, all]) => column(name, order.map((row) => all[row]!), unit)),
    ]);
  const at = selected.value;
  return (
    <div class="stack">
      <p class="row spread">
        <span class="lead">{ui("tokens_caption", { prompt: symbols.position[n_prompt] ?? n_prompt, n, finish: say(shown.finish) })}</span>
        <span class="row">
          {ends && <span class="chip">{ui("rows_in_range", { n: order.length })}</span>}
          <Button onClick={() => save(fileName("tokens", "csv"), CSV, csv())}>CSV</Button>
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
