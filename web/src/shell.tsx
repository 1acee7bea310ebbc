// The page: its head, the ribbon, one part at a time.

import { Component, type ComponentChildren, type ComponentType } from "preact";
import { useEffect, useLayoutEffect, useRef } from "preact/hooks";
import { number } from "./chart/format";
import { PARTS, type Dropped, type PageDocument, type PartName } from "./document";
import { Inspector } from "./inspector";
import { help, KEYS, nextTheme, otherLang } from "./keys";
import { nameOf } from "./layout";
import { LiveChips } from "./live";
import { AttentionPart } from "./parts/attention";
import { ComparePart } from "./parts/compare";
import { CostPart } from "./parts/cost";
import { DistributionPart } from "./parts/distribution";
import { FolderPart } from "./parts/folder";
import { LawPart } from "./parts/law";
import { LayersPart } from "./parts/layers";
import { OverviewPart } from "./parts/overview";
import { ProvenancePart } from "./parts/provenance";
import { TimePart } from "./parts/time";
import { TokensPart } from "./parts/tokens";
import { printing } from "./print";
import { Ribbon } from "./ribbon";
import { doc, lang, part, range, selected, theme, trace, traceNumber } from "./state";
import { Empty } from "./missing";
import { say, ui } from "./words";

/** A law alone, in a notebook, and a folder's listing are no part of a tape. */
type Shown = PartName | "law" | "folder";

const COMPONENTS: Record<Shown, ComponentType> = {
  overview: OverviewPart, tokens: TokensPart, time: TimePart, distribution: DistributionPart, attention: AttentionPart,
  layers: LayersPart, cost: CostPart, compare: ComparePart, provenance: ProvenancePart, law: LawPart, folder: FolderPart,
};
/** Parts beside which the selected token is told about. */
const BESIDE: readonly Shown[] = ["tokens", "time", "distribution", "attention", "layers"];

export function Shell() {
  const page = doc.value!;
  const shown = partsOf(page);
  const now = shown.includes(part.value) ? part.value : shown[0]!;
  const stuck = useRef<HTMLDivElement>(null);
  useLayoutEffect(() => {
    // what scrolls to the top stops below what is stuck there
    const watch = new ResizeObserver(([one]) => document.documentElement.style.setProperty("--stuck", `${one!.contentRect.height}px`));
    watch.observe(stuck.current!);
    return () => watch.disconnect();
  }, []);
  return (
    <div class="tt">
      <a class="skip btn" href="#content" onClick={(event) => (event.preventDefault(), document.getElementById("content")?.focus())}>{ui("skip")}</a>
      <Head page={page} />
      <div ref={stuck} class="stuck">
        <Tabs parts={shown} now={now} />
        {trace.value && trace.value.symbols.text.length > 0 && <Ribbon key={trace.value.number} />}
      </div>
      <main id="content" tabIndex={-1}>
        {page.dropped.length > 0 && <Left dropped={page.dropped} />}
        {(printing.value ? shown : [now]).map((name) => <Part key={name} name={name} single={shown.length === 1} />)}
      </main>
      <footer class="row spread small muted">
        <span>{ui("made_by", { version: page.tokentape })}</span>
        <span>{ui(page.live ? "served" : "offline")}</span>
      </footer>
      <Help />
    </div>
  );
}

/** The parts that a document can have: all nine of a tape, else what it is about. */
export function partsOf(page: PageDocument): readonly Shown[] {
  return page.tape ? PARTS : [page.folder ? "folder" : page.law ? "law" : "compare"];
}

function Part({ name, single }: { name: Shown; single: boolean }) {
  const Body = COMPONENTS[name];
  const file = doc.value?.tape?.name ?? "a.tape";
  const tape = /^[\w./-]+$/.test(file) ? file : `'${file.replaceAll("'", "'\\''")}'`;
  const lone = name === "compare" && doc.value?.compare === null && { missing: { key: "page_ui.no_compare" }, run: `tokentape view ${tape} other.tape --html compared.html` };
  const beside = BESIDE.includes(name) && trace.value !== null && !(printing.value && name !== "tokens");
  return (
    <div
      class={`part part-${name}${beside ? " beside" : ""}`} id={`part-${name}`}
      role={single ? undefined : "tabpanel"} aria-labelledby={single ? undefined : `tab-${name}`}
    >
      <h2 class={printing.value ? "title" : "vh"}>{ui(`part_${name}`)}</h2>
      <div class="body"><Safe name={name}>{lone ? <Empty part={lone} /> : <Body />}</Safe></div>
      {beside && <aside><Safe name={name}><Inspector /></Safe></aside>}
    </div>
  );
}

/** A part that fails says so, and leaves the others as they are. */
class Safe extends Component<{ name: string; children: ComponentChildren }, { error: unknown }> {
  static override getDerivedStateFromError = (error: unknown): { error: unknown } => ({ error });
  override componentDidCatch(error: unknown): void {
    console.error(error);
  }
  render() {
    const { error } = this.state;
    return error ? <p class="note" role="alert">{ui("part_failed", { what: String(error) })}</p> : this.props.children;
  }
}

function Head({ page }: { page: PageDocument }) {
  const { tape } = page;
  return (
    <header class="head row spread">
      <div class="row grow">
        <h1 class="clip" title={page.title}>{page.title}</h1>
        {tape && tape.state !== "complete" && <span class="state" data-state={tape.state}>{ui(`state_${tape.state}`)}</span>}
        {tape && tape.traces.length > 1 && <Traces page={page} />}
        <LiveChips />
      </div>
      <div class="row">
        <button type="button" class="btn quiet" onClick={otherLang} title={`${ui("key_lang")} (l)`} lang={lang.value === "en" ? "zh-Hans" : "en"}>
          {lang.value === "en" ? "\u4e2d\u6587" : "English"}
        </button>
        <button type="button" class="btn quiet" onClick={nextTheme} title={`${ui("key_theme")} (g)`}>{ui(`theme_${theme.value}`)}</button>
        <button type="button" class="btn quiet" onClick={() => print()}>{ui("print")}</button>
        <button type="button" class="btn quiet" onClick={() => (help.value = true)} aria-label={ui("help")} title={`${ui("help")} (?)`}>?</button>
      </div>
    </header>
  );
}

const MANY = 40;

/** Which sequence: a list; a field to search in where there are many. */
function Traces({ page }: { page: PageDocument }) {
  const { traces, n_traces } = page.tape!;
  const label = (one: (typeof traces)[number]): string => {
    const from = Math.min(one.n_prompt, Math.max(0, one.symbols.text.length - 1));
    return `${one.number} \u00b7 ${one.symbols.text.length ? one.symbols.text.slice(from, from + 12).join("").slice(0, 40) || nameOf(one.symbols, from) : ""}`;
  };
  const pick = (number: number): void => {
    if (number === trace.value?.number || !traces.some((one) => one.number === number)) return;
    traceNumber.value = number;
    selected.value = range.value = null;
  };
  const now = trace.value?.number ?? 0;
  const note = n_traces > traces.length ? ui("traces_shown", { n: traces.length, all: n_traces }) : undefined;
  return (
    <label class="field" title={note}>
      {ui("trace")}
      {traces.length <= MANY ? (
        <select value={now} onChange={(event) => pick(Number(event.currentTarget.value))}>
          {traces.map((one) => <option value={one.number}>{label(one)}</option>)}
        </select>
      ) : (
        <>
          <input type="search" list="tt-traces" placeholder={label(trace.value!)} onChange={(event) => {
            pick(parseInt(event.currentTarget.value, 10));
            event.currentTarget.value = "";
          }} />
          <datalist id="tt-traces">{traces.map((one) => <option value={label(one)} />)}</datalist>
        </>
      )}
      {note && <span>{note}</span>}
    </label>
  );
}

function Tabs({ parts, now }: { parts: readonly Shown[]; now: Shown }) {
  const list = useRef<HTMLDivElement>(null);
  useEffect(() => {
    list.current?.querySelector("[aria-selected=true]")?.scrollIntoView?.({ block: "nearest", inline: "nearest" });
  }, [now]);
  if (parts.length < 2) return null;
  const press = (event: KeyboardEvent): void => {
    const by = { ArrowRight: 1, ArrowLeft: -1, Home: -parts.indexOf(now), End: -1 - parts.indexOf(now) }[event.key];
    if (by === undefined) return;
    event.preventDefault();
    part.value = PARTS[(parts.indexOf(now) + by + parts.length) % parts.length]!;
    document.getElementById(`tab-${part.value}`)?.focus();
  };
  return (
    <nav aria-label={ui("parts")}>
      <div ref={list} class="tabs" role="tablist" aria-label={ui("parts")} onKeyDown={press}>
        {parts.map((name) => (
          <button
            type="button" role="tab" id={`tab-${name}`} aria-selected={name === now} aria-controls={name === now ? `part-${name}` : undefined}
            tabIndex={name === now ? 0 : -1} onClick={() => (part.value = name as PartName)}
          >
            {ui(`part_${name}`)}
          </button>
        ))}
      </div>
    </nav>
  );
}

/** What the byte budget left out, and how to have it. */
function Left({ dropped }: { dropped: Dropped[] }) {
  return (
    <details class="left small muted">
      <summary>{ui("left_out", { n: dropped.length, size: number(dropped.reduce((sum, one) => sum + one.bytes, 0), "bytes") })}</summary>
      <ul>
        {dropped.map((one) => <li>{say(one.what)} <span class="muted num">({number(one.bytes, "bytes")})</span> <code class="mono">{one.flag}</code></li>)}
      </ul>
    </details>
  );
}

function Help() {
  const own = useRef<HTMLDialogElement>(null);
  useEffect(() => {
    if (help.value) own.current?.showModal();
    else own.current?.close();
  }, [help.value]);
  return (
    <dialog ref={own} class="dialog" aria-labelledby="tt-help" onClose={() => (help.value = false)} onClick={(event) => event.target === own.current && own.current?.close()}>
      <div class="row spread">
        <h2 id="tt-help">{ui("help")}</h2>
        <button type="button" class="btn quiet" aria-label={ui("close")} onClick={() => own.current?.close()}>{"\u2715"}</button>
      </div>
      <dl class="facts">{KEYS.map(([keys, word]) => <><dt><kbd>{keys}</kbd></dt><dd>{ui(`${word}`)}</dd></>)}</dl>
    </dialog>
  );
}
