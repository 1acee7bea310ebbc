// The page as it is served: rows that come while a tape grows, how the connection is, and a question to the server's model.

import { batch, effect, signal, useSignal } from "@preact/signals";
import { Button } from "./blocks";
import type { FolderPart, Measure, PageDocument, RowsEvent, Trace } from "./document";
import { max } from "./maths";
import { doc, following, growing, selected, trace, traceNumber } from "./state";
import { wordsOf } from "./words";

const w = wordsOf("live");

interface Told {
  what: string;
  why: string;
  fix: string;
}

const plain = (what: unknown): Told => ({ what: String(what), why: "", fix: "" });

const connection = signal<"live" | "lost" | "refused">("live");
const trouble = signal<Told | null>(null);
/** Whether the tape was seen growing. */
let grew = false;

/** Measures of the tokens that are columns of theirs; those of places are computed with the other parts. */
const COLUMN: Partial<Record<Measure["name"], keyof Trace["tokens"]>> = {
  latency: "gap_ns", surprise: "surprise", entropy: "entropy", constraint: "removed",
};

/** Columns with new entries in the place of those from `from` on; what is no column stays. */
function grown<T extends object>(old: T, fresh: { from: number }): T {
  const next = { ...old } as Record<string, unknown>;
  for (const [name, values] of Object.entries(fresh)) {
    if (Array.isArray(values)) next[name] = (next[name] as unknown[]).slice(0, fresh.from).concat(values);
  }
  return next as T;
}

/** Measures as long as the columns that they are of, the first `kept` tokens as they are. */
function measured(of: Trace, kept = Infinity): Measure[] {
  return of.measures.map((one) => {
    const column = COLUMN[one.name];
    if (!column) return one;
    const values = one.values.slice(0, of.n_prompt + kept);
    return { ...one, values: values.concat(of.tokens[column].slice(max(0, values.length - of.n_prompt)) as Measure["values"]) };
  });
}

/** A document with new rows. */
export function withRows(page: PageDocument, rows: RowsEvent): PageDocument {
  const { tape } = page;
  if (!tape) return page;
  const traces = tape.traces.map((one) => {
    const fresh = rows.traces.find(({ number }) => number === one.number);
    if (!fresh) return one;
    const next = { ...one, tokens: grown(one.tokens, fresh.tokens), symbols: grown(one.symbols, fresh.symbols) };
    return { ...next, measures: measured(next, fresh.tokens.from) };
  });
  const runs = tape.runs.map((one) => (one.number === rows.run.number ? grown(one, rows.run) : one));
  return { ...page, tape: { ...tape, state: rows.state, traces, runs, pieces: { ...tape.pieces, ...rows.pieces } } };
}

/** A document with parts that were computed anew; the columns are those it has. */
export function withSections(page: PageDocument, fresh: PageDocument): PageDocument {
  const [had, now] = [page.tape, fresh.tape];
  if (!had || !now) return page;
  const traces = had.traces.map((one) => {
    const next = { ...one, ...now.traces.find(({ number }) => number === one.number), tokens: one.tokens, symbols: one.symbols };
    return { ...next, measures: measured(next) };
  });
  const runs = had.runs.map((one) => ({ ...one, ...now.runs.find(({ number }) => number === one.number) }));
  return { ...page, ...fresh, tape: { ...now, traces, runs, pieces: { ...had.pieces, ...now.pieces } } };
}

let waiting: ((page: PageDocument) => PageDocument)[] = [];
/** The place that was selected for the reader, not by him. */
let placed: number | null = null;

/** Changes the document before the next frame is drawn, with all that comes until then. */
function later(change: (page: PageDocument) => PageDocument): void {
  waiting.push(change);
  if (waiting.length > 1) return;
  requestAnimationFrame(() => batch(() => {
    const changes = waiting;
    waiting = [];
    doc.value = changes.reduce((page, one) => one(page), doc.value!);
    follow();
  }));
}

/** Selects the newest token of the newest run, where that is wanted. */
function follow(): void {
  const tape = doc.value?.tape;
  if (!following.value || !tape) return;
  const last = tape.runs.at(-1)?.number;
  if (trace.value?.run !== last) traceNumber.value = tape.traces.find((one) => one.run === last)?.number ?? traceNumber.value;
  const shown = trace.value;
  placed = shown?.tokens.step.length ? shown.symbols.text.length - 1 : null;
  selected.value = placed;
  if (!growing.value) following.value = false;
}

/** Listens to the server for as long as the page is open and seen. */
export function startLive(page: PageDocument): void {
  const { live } = page;
  if (!live?.events) return;
  const path = `${live.events}${live.events.includes("?") ? "&" : "?"}since=`;
  let { since } = live;
  let source: EventSource | null = null;
  let timer = 0;
  following.value = growing.value && selected.value === null;
  effect(() => {
    if (selected.value !== placed) following.value = false;
  });

  const close = (): void => {
    source?.close();
    source = null;
    clearTimeout(timer);
  };
  const connect = (): void => {
    close();
    if (document.hidden) return;
    source = new EventSource(path + encodeURIComponent(since));
    const on = <T,>(name: string, take: (data: T) => void): void =>
      source!.addEventListener(name, (event) => {
        since = event.lastEventId || since;
        take(JSON.parse(event.data) as T);
      });
    source.onopen = () => (connection.value = "live");
    source.onerror = async () => {
      close();
      connection.value = "lost";
      timer = window.setTimeout(connect, 1000);
      const answer = await fetch("/static/view.css", { method: "HEAD" }).catch(() => null);
      if (answer?.status === 403) connection.value = "refused";
    };
    on<RowsEvent>("rows", (rows) => later((now) => withRows(now, rows)));
    on<{ document: PageDocument }>("sections", (fresh) => later((now) => withSections(now, fresh.document)));
    on<{ document: PageDocument }>("document", (fresh) => later((now) => {
      // another recording has begun in the place of what was shown
      if (fresh.document.tape?.state === "recording" && now.tape?.state !== "recording") [following.value, placed] = [true, selected.value];
      return fresh.document;
    }));
    on<{ folder: FolderPart }>("folder", ({ folder }) => later((now) => ({ ...now, folder })));
    on<Told | null>("trouble", (told) => (trouble.value = told));
  };
  addEventListener("pagehide", close);
  addEventListener("pageshow", (event) => event.persisted && connect());
  // a browser lets six connections stand to one server, whose pages may be many
  document.addEventListener("visibilitychange", connect);
  connect();
}

/** How the page stands to its server. */
export function LiveChips() {
  const page = doc.value;
  const live = page?.live;
  if (!live) return null;
  grew ||= growing.value;
  const word = trouble.value ? "gone" : connection.value !== "live" ? connection.value : growing.value || !page.tape ? "live" : grew && "settled";
  return (
    <>
      {live.events && word && (
        <span class="chip live" data-state={word} role="status" title={w(`${word}.title`, { what: trouble.value?.what ?? "" })}>{w(word)}</span>
      )}
      {growing.value && (
        <Button quiet aria-pressed={following.value} title={w("follow.title")} onClick={toggle}>{w("follow")}</Button>
      )}
      {live.folder && !page.folder && <a class="btn quiet" href={live.folder}>{w("folder")}</a>}
    </>
  );
}

function toggle(): void {
  batch(() => {
    following.value = !following.value;
    follow();
  });
}

/** Asks the server to explain the selected token; the answer comes as an event, when it is in the tape. */
export function Ask() {
  const busy = useSignal(false), failed = useSignal<Told | null>(null);
  const { explain, proof, events } = doc.value?.live ?? {}, shown = trace.value, place = selected.value, wait = growing.value;
  if (!explain || !shown || place === null || place < shown.n_prompt) return null;
  const ask = async (): Promise<void> => {
    busy.value = true;
    failed.value = null;
    try {
      const answer = await fetch(explain, {
        method: "POST",
        headers: { "content-type": "application/json", "x-tokentape-proof": proof ?? "" },
        body: JSON.stringify({ tape: decodeURIComponent(events!.split("tape=")[1] ?? ""), trace: shown.number, place }),
      });
      const said = (await answer.json().catch(() => null)) as Told | null;
      if (!answer.ok) failed.value = said ?? plain(`HTTP ${answer.status}`);
    } catch (error) {
      failed.value = plain(error);
    }
    busy.value = false;
  };
  return (
    <p class="row">
      <Button disabled={busy.value || wait} title={wait ? w("explain.wait") : undefined} onClick={ask}>{w(busy.value ? "explain.busy" : "explain")}</Button>
      {failed.value && <span class="note" role="alert">{w("explain.failed", { ...failed.value })}</span>}
    </p>
  );
}
