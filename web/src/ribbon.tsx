// The text's tokens, coloured by one measure and underlined by another. What everything below shares is selected here.
// Only the blocks of tokens that are near the reader's eye are in the page; nothing listens on a single token.

import type { JSX } from "preact";
import { computed, signal, useComputed, useSignalEffect } from "@preact/signals";
import { useEffect, useLayoutEffect, useMemo, useRef, useState } from "preact/hooks";
import { Arcs } from "./arcs";
import { number } from "./chart/format";
import type { Trace } from "./document";
import { blocksOf, cellsOf, linesOf, nameOf, type Block, type Cell } from "./layout";
import { has, line, lineOf, LEVELS, MODES, shade, shadeOf, SIDES, type Mode } from "./measures";
import { colour, doc, range, selected, trace, underline } from "./state";
import { printing } from "./print";
import { ui } from "./words";

/** What is read out about the selected place. */
const told = signal("");
const hover = signal<{ place: number; x: number; y: number; above: number } | null>(null);

/** Selects a place and says what it is; `extend` takes the range along. */
export function go(place: number, extend = false): void {
  const shown = trace.value;
  if (!shown || !shown.symbols.text.length) return;
  const to = Math.max(0, Math.min(shown.symbols.text.length - 1, place));
  const at = selected.value;
  if (extend && at !== null) {
    const [low, high] = range.value ?? [at, at];
    const other = at === low ? high : low;
    range.value = [Math.min(other, to), Math.max(other, to)];
  } else if (range.value && (to < range.value[0] || to > range.value[1])) range.value = null;
  selected.value = to;
  told.value = tell(shown, to);
}

/** A place in words: which token, its text, how long it took, how surprising it was. */
export function tell(shown: Trace, place: number): string {
  const index = place - shown.n_prompt;
  const { gap_ns, surprise } = shown.tokens;
  const n = shown.symbols.text.length;
  const facts = [ui("token_of", { i: place + 1, n, text: nameOf(shown.symbols, place) })];
  if (index < 0) facts.push(ui("of_prompt"));
  else {
    if (gap_ns[index] != null) facts.push(number(gap_ns[index], "ns"));
    if (surprise[index] != null) facts.push(ui("surprise_is", { value: number(surprise[index], "nats") }));
    if (shown.tokens.forced[index]) facts.push(ui("forced"));
  }
  return facts.join(ui("comma"));
}

const placeAt = (target: EventTarget | null): number | null => {
  const found = target instanceof Element ? target.closest<HTMLElement>("[data-p]") : null;
  return found ? Number(found.dataset.p) : null;
};
const spanOf = (place: number): HTMLElement | null => document.getElementById(`k${place}`);

/** The place in the line above (-1) or below (1) that is nearest; null where there is none in the page. */
function across(place: number, way: number, n: number): number | null {
  const here = spanOf(place)?.getClientRects()[0];
  if (!here) return null;
  let best: number | null = null;
  let least = Infinity;
  let row: number | null = null;
  for (let i = place + way; i >= 0 && i < n; i += way) {
    const there = spanOf(i)?.getClientRects()[0];
    if (!there) break;
    if (Math.abs(there.top - here.top) < here.height / 2) continue;
    row ??= there.top;
    if (Math.abs(there.top - row) > here.height / 2) break;
    const off = Math.abs(there.left - here.left);
    if (off < least) [best, least] = [i, off];
  }
  return best;
}

const LINE = 27;
const LINES_SHOWN = 5;
/** Tokens on paper. */
const PRINTED = 4096;

function press(event: KeyboardEvent): void {
  if (event.ctrlKey || event.metaKey || event.altKey) return;
  const from = selected.value ?? -1;
  const n = trace.value?.symbols.text.length ?? 0;
  const ways: Record<string, () => number | null> = {
    ArrowLeft: () => from - 1, ArrowRight: () => from + 1, Home: () => 0, End: () => n - 1,
    ArrowUp: () => across(from, -1, n), ArrowDown: () => across(from, 1, n), PageUp: () => from - 50, PageDown: () => from + 50,
  };
  const to = ways[event.key]?.();
  if (to === undefined) return;
  event.preventDefault();
  if (to !== null) go(to, event.shiftKey);
}

/** Selects by click, a range by drag or Shift, and shows what is under the pointer. */
function usePointer() {
  const drag = useRef<{ from: number; moved: boolean } | null>(null);
  const down = (event: PointerEvent): void => {
    const place = placeAt(event.target);
    if (place === null || event.button !== 0) return;
    go(place, event.shiftKey);
    drag.current = event.pointerType === "touch" ? null : { from: place, moved: false };
  };
  const move = (event: PointerEvent): void => {
    const place = placeAt(event.target);
    if (place === null) return void (hover.value = null);
    const held = event.buttons & 1 ? drag.current : null;
    if (held && (held.moved ||= place !== held.from)) range.value = [Math.min(held.from, place), Math.max(held.from, place)];
    if (hover.value?.place === place) return;
    const { left, bottom, top } = (event.target as Element).getBoundingClientRect();
    hover.value = { place, x: left, y: bottom, above: top };
  };
  return { onPointerDown: down, onPointerMove: move, onPointerUp: () => (drag.current = null), onPointerLeave: () => (hover.value = null) };
}

export function Ribbon() {
  const shown = trace.value!;
  const box = useRef<HTMLDivElement>(null);
  const [high, setHigh] = useState<number | null>(null);
  const [stage, setStage] = useState<HTMLElement | null>(null);
  useLayoutEffect(() => setStage(box.current), []);
  const pointer = usePointer();
  const watch = useWatcher(box);
  const n = shown.symbols.text.length;
  // the same nodes as long as the trace is the same: what changes in a stretch is its own affair
  const stretches = useMemo(
    () => blocksOf(shown.symbols).map((block) => <Stretch key={`${shown.number}.${block.from}`} shown={shown} block={block} watch={watch} />),
    [shown],
  );
  const active = useComputed(() => (selected.value === null ? undefined : `k${selected.value}`));

  useSignalEffect(() => {
    const at = selected.value;
    if (at !== null) requestAnimationFrame(() => reveal(box.current, at));
  });
  useEffect(() => {
    const at = box.current;
    if (doc.value?.tape?.state === "recording" && selected.value === null && at) at.scrollTop = at.scrollHeight;
  }, [shown]);

  return (
    <section class="ribbon" aria-label={ui("ribbon")}>
      <Controls shown={shown} />
      <div
        ref={box} class="text" tabIndex={0} role="listbox" aria-label={ui("ribbon_keys")} aria-multiselectable
        aria-activedescendant={active}
        style={{ maxHeight: printing.value ? "none" : `${high ?? LINES_SHOWN * LINE + 8}px` }}
        {...pointer} onScroll={() => (hover.value = null)} onKeyDown={press}
      >
        {stretches}
      </div>
      {printing.value && n > PRINTED && <p class="small muted controls">{ui("first_rows", { n: PRINTED, all: n })}</p>}
      {stage && <Arcs container={stage} cellOf={(place) => spanOf(place)?.getClientRects()[0] ?? null} reveal={(place) => reveal(stage, place)} />}
      <Handle box={box} high={high} onHigh={setHigh} />
      <p class="vh" aria-live="polite">{told}</p>
      <Tip />
    </section>
  );
}

/** Scrolls the ribbon, and nothing else, to a place. */
function reveal(box: HTMLElement | null, place: number): void {
  const span = spanOf(place);
  if (!box || !span) return;
  const outer = box.getBoundingClientRect();
  const inner = span.getBoundingClientRect();
  if (inner.top < outer.top + 2 || inner.bottom > outer.bottom - 2) box.scrollTop += inner.top - outer.top - outer.height / 2 + LINE / 2;
}

type Watch = (element: Element, seen: (near: boolean, height: number) => void) => () => void;

/** One observer for all blocks of the ribbon. */
function useWatcher(root: { current: HTMLElement | null }): Watch {
  return useMemo(() => {
    const known = new Map<Element, (near: boolean, height: number) => void>();
    let observer: IntersectionObserver | null = null;
    return (element, seen) => {
      observer ??= new IntersectionObserver(
        (entries) => entries.forEach((one) => known.get(one.target)?.(one.isIntersecting, one.boundingClientRect.height)),
        { root: root.current, rootMargin: "300px 0px" },
      );
      known.set(element, seen);
      observer.observe(element);
      return () => {
        known.delete(element);
        observer!.unobserve(element);
      };
    };
  }, []);
}

/** A block of tokens, or a space as high as it. */
function Stretch({ shown, block, watch }: { shown: Trace; block: Block; watch: Watch }) {
  const at = useRef<HTMLDivElement>(null);
  const height = useRef<number | null>(null);
  const [near, setNear] = useState(block.from === 0);
  // made anew with the bounds: a place may be selected together with the tokens that it is one of
  const here = useMemo(() => computed(() => {
    const place = selected.value;
    return place !== null && place >= block.from && place < block.to ? place : null;
  }), [block.from, block.to]);
  useLayoutEffect(
    () =>
      watch(at.current!, (now, high) => {
        if (!now && high) height.current = high;
        setNear(now);
      }),
    [],
  );
  const place = here.value;
  if (printing.value && block.from >= PRINTED) return null;
  if (!near && place === null && !printing.value) {
    const letters = Math.max(20, ((at.current?.parentElement ?? document.body).clientWidth || 900) / 8);
    return <div ref={at} style={{ height: `${height.current ?? linesOf(shown.symbols, block, letters) * LINE}px` }} />;
  }
  return (
    <div ref={at} dir="auto" role="presentation">
      <Tokens shown={shown} block={block} chosen={place} />
    </div>
  );
}

type Option = (place: number, text: string | null, label?: string, column?: number) => JSX.Element;

function Tokens({ shown, block, chosen }: { shown: Trace; block: Block; chosen: number | null }) {
  const cells = useMemo(() => cellsOf(shown.symbols, block), [shown, block.from, block.to]);
  const [fill, rule, ends] = [shade.value, line.value, range.value];
  const { special } = shown.symbols;
  const { forced, wanted } = shown.tokens;
  const option: Option = (place, text, label, column) => {
    const index = place - shown.n_prompt;
    const inside = ends && place >= ends[0] && place <= ends[1];
    const paint = ends && !inside ? "" : shadeOf(fill, place);
    const marks = [
      "k", paint, lineOf(rule, place), (index < 0 || ends) && !paint && !(inside && index >= 0) && "prompt", special[place] && "special", forced[index] && "forced",
      wanted[index] != null && "over", inside && "in", place === chosen && "sel",
    ];
    return (
      <span key={place} id={`k${place}`} data-p={place} role="option" aria-selected={place === chosen} aria-label={label ?? (text!.trim() ? undefined : "\u2423")}
        class={marks.filter(Boolean).join(" ")} style={column ? { gridColumn: column } : undefined}>
        {text}
      </span>
    );
  };
  return <>{cells.map((cell) => (cell.to - cell.from === 1 ? [option(cell.from, cell.text), cell.breaks && <br />] : <Joined cell={cell} option={option} />))}</>;
}

/** A character whose bytes are in several tokens: drawn once, above the tokens, each of which can be selected. */
function Joined({ cell, option }: { cell: Cell; option: Option }) {
  const n = cell.to - cell.from;
  const parts = Array.from({ length: n }, (_, i) => option(cell.from + i, null, ui("byte_part", { i: i + 1, n, text: cell.text }), i + 1));
  return (
    <>
      <span class="join" style={{ gridTemplateColumns: `repeat(${n}, auto)` }}>
        <span class="glyph" aria-hidden="true">{cell.text}</span>
        {parts}
      </span>
      {cell.breaks && <br />}
    </>
  );
}

function Handle({ box, high, onHigh }: { box: { current: HTMLElement | null }; high: number | null; onHigh(to: number): void }) {
  const now = (): number => high ?? LINES_SHOWN * LINE + 8;
  const set = (to: number): void => onHigh(Math.max(LINE + 8, Math.min(innerHeight * 0.7, to)));
  const start = (event: PointerEvent): void => {
    const handle = event.currentTarget as HTMLElement;
    const from = event.clientY - (box.current?.clientHeight ?? 0);
    handle.setPointerCapture(event.pointerId);
    handle.onpointermove = (next) => set(next.clientY - from);
    handle.onpointerup = handle.onpointercancel = () => (handle.onpointermove = null);
  };
  const press = (event: KeyboardEvent): void => {
    const by = { ArrowUp: -LINE, ArrowDown: LINE }[event.key];
    if (by === undefined) return;
    event.preventDefault();
    set(now() + by);
  };
  return (
    <div
      class="handle" role="separator" tabIndex={0} aria-orientation="horizontal" aria-label={ui("resize")} title={ui("resize")}
      aria-valuenow={Math.round(now() / LINE)} aria-valuemin={1} aria-valuemax={99} onPointerDown={start} onKeyDown={press}
      onDblClick={() => set(now() > 300 ? LINES_SHOWN * LINE + 8 : innerHeight * 0.6)}
    />
  );
}

function Tip() {
  const at = hover.value;
  const shown = trace.value;
  const own = useRef<HTMLDivElement>(null);
  useLayoutEffect(() => {
    const tip = own.current;
    if (!at || !tip) return;
    const { width, height } = tip.getBoundingClientRect();
    tip.style.left = `${Math.max(8, Math.min(at.x, innerWidth - width - 8))}px`;
    tip.style.top = `${at.y + height + 10 > innerHeight ? at.above - height - 6 : at.y + 6}px`;
  });
  if (!at || !shown || at.place >= shown.symbols.text.length) return null;
  const index = at.place - shown.n_prompt;
  const fill = shade.value;
  const facts = [
    index < 0 ? ui("of_prompt") : number(shown.tokens.gap_ns[index], "ns"),
    shown.tokens.logprob[index] != null && `p ${number(Math.exp(shown.tokens.logprob[index]!), "share")}`,
    fill && !["latency"].includes(fill.name) && fill.values[at.place] != null && `${ui(`mode_${fill.name}`)} ${number(fill.values[at.place], fill.unit)}`,
  ];
  return (
    <div ref={own} class="tip" aria-hidden="true">
      <div class="row"><span class="muted num">#{at.place}</span><span class="tok clip">{nameOf(shown.symbols, at.place, 120)}</span></div>
      <div class="num">{facts.filter(Boolean).join("  \u00b7  ")}</div>
    </div>
  );
}

/** What colours, what underlines, and what the colours mean. */
function Controls({ shown }: { shown: Trace }) {
  const fill = shade.value;
  const ends = range.value;
  const select = (name: string, value: string, onPick: (to: string) => void) => (
    <label class="field">
      {ui(`${name}`)}
      <select value={value} onChange={(event) => onPick(event.currentTarget.value)}>
        <option value="none">{ui("mode_none")}</option>
        {MODES.map((mode) => {
          const there = has(shown, mode);
          return <option value={mode} disabled={!there} title={there ? undefined : ui(`lacks_${mode}`)}>{ui(`mode_${mode}`)}</option>;
        })}
      </select>
    </label>
  );
  const flags = (["forced", "over"] as const).filter((one) => (one === "forced" ? shown.tokens.forced.some(Boolean) : shown.tokens.wanted.some((id) => id !== null)));
  return (
    <div class="row controls">
      {select("colour", colour.value, (to) => (colour.value = to))}
      {fill ? <Legend mode={fill} /> : <span class="small muted">{absent(shown)}</span>}
      {select("underline", underline.value, (to) => (underline.value = to))}
      {flags.map((one) => <span class="legend"><span class={`k ${one}`} aria-hidden="true">{"\u2003"}</span>{ui(`is_${one}`)}</span>)}
      {ends && (
        <button type="button" class="btn quiet" onClick={() => (range.value = null)} title={ui("range_clear")}>
          {ui("range", { from: ends[0], to: ends[1], n: ends[1] - ends[0] + 1 })} {"\u2715"}
        </button>
      )}
    </div>
  );
}

function absent(shown: Trace): string {
  const name = colour.value;
  if (name === "none") return "";
  if (!has(shown, name)) return ui((MODES as readonly string[]).includes(name) ? `lacks_${name}` : "mode_none");
  return ui(selected.value === null ? "select_first" : "not_explained");
}

function Legend({ mode }: { mode: Mode }) {
  const two = mode.scale === "diverging";
  const count = two ? 2 * SIDES + 1 : LEVELS;
  return (
    <span class="legend" title={mode.scale === "log" ? ui("log_scale") : undefined}>
      {number(mode.low, mode.unit)}
      <span class="ramp" aria-hidden="true">{Array.from({ length: count }, (_, i) => <i class={`${two ? "d" : "q"}${i}`} />)}</span>
      {number(mode.high, mode.unit)}
      {mode.scale === "log" && <span>log</span>}
    </span>
  );
}

