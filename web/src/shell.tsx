// The page: its head, the ribbon, one part at a time.

import { Component, type ComponentChildren, type ComponentType } from "preact";
import { useEffect, useLayoutEffect, useRef } from "preact/hooks";
import { Button, Empty, Facts, Pick } from "./blocks";
import { number } from "./chart/format";
import { type Dropped, type PageDocument, type PartName, type Trace } from "./document";
import { walked, watchSize } from "./elements";
import { Inspector } from "./inspector";
import { help, KEYS, nextTheme, otherLang } from "./keys";
import { nameOf } from "./layout";
import { LiveChips } from "./live";
import { clamp, max, min } from "./maths";
import { AttentionPart } from "./parts/attention";
import { ComparePart } from "./parts/compare";
import { CostPart } from "./parts/cost";
import { DistributionPart } from "./parts/distribution";
import { FolderPart } from "./parts/folder";
import { LawPart } from "./parts/law";
import { LayersPart } from "./parts/layers";
import { OverviewPart } from "./parts/overview";
import { ProvenancePart } from "./parts/provenance";
import { RequestsPart } from "./parts/requests";
import { TimePart } from "./parts/time";
import { TokensPart } from "./parts/tokens";
import { printing } from "./print";
import { Ribbon } from "./ribbon";
import { doc, lang, orderOf, part, show, theme, trace } from "./state";
import { say, ui } from "./words";

/** A law alone, in a notebook, and a folder's listing are no part of a tape. */
type Shown = PartName | "law" | "folder";

const COMPONENTS: Record<Shown, ComponentType> = {
  overview: OverviewPart, tokens: TokensPart, time: TimePart, distribution: DistributionPart, attention: AttentionPart,
  layers: LayersPart, cost: CostPart, compare: ComparePart, provenance: ProvenancePart, requests: RequestsPart, law: LawPart, folder: FolderPart,
};
/** Parts beside which the selected token is told about. */
const BESIDE: readonly Shown[] = ["tokens", "time", "distribution", "attention", "layers"];

export function Shell() {
  const page = doc.value!;
  const shown = partsOf(page);
  const now = shown.includes(part.value) ? part.value : shown[0]!;
  const stuck = useRef<HTMLDivElement>(null);
  // what scrolls to the top stops below what is stuck there
  useLayoutEffect(() => watchSize(stuck.current!, (box) => document.documentElement.style.setProperty("--stuck", `${box.height}px`)), []);
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

/** The parts that a document can have: those of a tape, else what it is about. */
export const partsOf = (page: PageDocument): readonly Shown[] => (page.tape ? orderOf(page) : [page.folder ? "folder" : page.law ? "law" : "compare"]);

function Part({ name, single }: { name: Shown; single: boolean }) {
  const Body = COMPONENTS[name];
  const { tape, compare } = doc.value!, alone = name === "compare" && compare === null && tape?.alone;
  const beside = BESIDE.includes(name) && trace.value !== null && !(printing.value && name !== "tokens");
  return (
    <div
      class={`part part-${name}${beside ? " beside" : ""}`} id={`part-${name}`}
      role={single ? undefined : "tabpanel"} aria-labelledby={single ? undefined : `tab-${name}`}
    >
      <h2 class={printing.value ? "title" : "vh"}>{ui(`part_${name}`)}</h2>
      <div class="body"><Safe name={name}>{alone ? <Empty part={alone} /> : <Body />}</Safe></div>
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
        <Button quiet onClick={otherLang} title={`${ui("key_lang")} (l)`} lang={lang.value === "en" ? "zh-Hans" : "en"}>
          {lang.value === "en" ? "\u4e2d\u6587" : "English"}
        </Button>
        <Button quiet onClick={nextTheme} title={`${ui("key_theme")} (g)`}>{ui(`theme_${theme.value}`)}</Button>
        <Button quiet onClick={() => print()}>{ui("print")}</Button>
        <Button quiet onClick={() => (help.value = true)} aria-label={ui("help")} title={`${ui("help")} (?)`}>?</Button>
      </div>
    </header>
  );
}

const MANY = 40;

/** Which sequence: a list; a field to search in where there are many. */
function Traces({ page }: { page: PageDocument }) {
  const { traces, n_traces } = page.tape!, now = trace.value!;
  const label = ({ number, n_prompt, symbols }: Trace): string => {
    const n = symbols.text.length, from = min(n_prompt, max(0, n - 1));
    return `${number} \u00b7 ${n ? symbols.text.slice(from, from + 12).join("").slice(0, 40) || nameOf(symbols, from) : ""}`;
  };
  const pick = (to: string): void => {
    const number = parseInt(to, 10);
    if (traces.some((one) => one.number === number)) show(number);
  };
  const note = n_traces > traces.length ? ui("traces_shown", { n: traces.length, all: n_traces }) : undefined;
  return (
    <span class="field" title={note}>
      {traces.length <= MANY ? (
        <Pick label={ui("trace")} value={now.number} onPick={pick} options={traces.map((one) => [one.number, label(one)])} />
      ) : (
        <label class="field">
          {ui("trace")}
          <input type="search" list="tt-traces" placeholder={label(now)} onChange={(event) => {
            pick(event.currentTarget.value);
            event.currentTarget.value = "";
          }} />
          <datalist id="tt-traces">{traces.map((one) => <option value={label(one)} />)}</datalist>
        </label>
      )}
      {note}
    </span>
  );
}

function Tabs({ parts, now }: { parts: readonly Shown[]; now: Shown }) {
  const list = useRef<HTMLDivElement>(null);
  // only the list is scrolled, and not the page, which may stand in a notebook
  useEffect(() => {
    const box = list.current, tab = box?.querySelector<HTMLElement>("[aria-selected=true]");
    if (box && tab) box.scrollLeft = clamp(box.scrollLeft, tab.offsetLeft + tab.offsetWidth - box.clientWidth, tab.offsetLeft);
  }, [now]);
  if (parts.length < 2) return null;
  const press = (event: KeyboardEvent): void => {
    const n = parts.length, to = walked(event, parts.indexOf(now), n);
    if (to === undefined || event.key.startsWith("Page")) return;
    event.preventDefault();
    part.value = parts[(to + n) % n] as PartName;
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
  const own = useRef<HTMLDialogElement>(null), close = (): void => void (help.value = false);
  useEffect(() => {
    if (help.value) own.current?.showModal();
    else own.current?.close();
  }, [help.value]);
  return (
    <dialog ref={own} class="dialog" aria-labelledby="tt-help" onClose={close} onClick={(event) => event.target === own.current && close()}>
      <div class="row spread">
        <h2 id="tt-help">{ui("help")}</h2>
        <Button quiet aria-label={ui("close")} onClick={close}>{"\u2715"}</Button>
      </div>
      <Facts rows={KEYS.map(([keys, word]) => [<kbd>{keys}</kbd>, ui(word)])} />
    </dialog>
  );
}
