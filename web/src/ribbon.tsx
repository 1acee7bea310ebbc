// The text's tokens, coloured by one measure and underlined by another. What everything below shares is selected here.
// Only the blocks of tokens that are near the reader's eye are in the page; nothing listens on a single token.

import type { JSX, RefObject } from "preact";
import { computed, effect, signal, useSignal, type Signal } from "@preact/signals";
import { useEffect, useLayoutEffect, useMemo, useRef } from "preact/hooks";
import { Arcs } from "./arcs";
import { Button, Pick } from "./blocks";
import { nanos, number, percent } from "./chart/format";
import type { Trace } from "./document";
import { modified, numbered, walked } from "./elements";
import { blocksOf, cellsOf, linesOf, nameOf, type Block, type Cell } from "./layout";
import { has, line, lineOf, LEVELS, MODES, shade, shadeOf, SIDES, type Mode } from "./measures";
import { abs, clamp, exp, known, max, min, round, times } from "./maths";
import { colour, growing, range, selected, trace, underline } from "./state";
import { printing } from "./print";
import { beside, t, ui } from "./words";

/** What is read out about the selected place. */
const told = signal("");
const active = computed(() => (selected.value === null ? undefined : `k${selected.value}`));
const hover = signal<{ place: number; box: DOMRect } | null>(null);

/** Selects a place and says what it is; `extend` takes the range along. */
export function go(place: number, extend = false): void {
  const shown = trace.value;
  if (!shown || !shown.symbols.text.length) return;
  const to = clamp(place, 0, shown.symbols.text.length - 1);
  const at = selected.value;
  if (extend && at !== null) {
    const [low, high] = range.value ?? [at, at];
    const other = at === low ? high : low;
    range.value = [min(other, to), max(other, to)];
  } else if (range.value && (to < range.value[0] || to > range.value[1])) range.value = null;
  selected.value = to;
  told.value = tell(shown, to);
}

/** A place in words: which token, its text, how long it took, how surprising it was. */
export function tell({ symbols, tokens, n_prompt }: Trace, place: number): string {
  const index = place - n_prompt, gap = tokens.gap_ns[index], surprise = tokens.surprise[index];
  return [
    ui("token_of", { i: place, n: symbols.text.length, text: nameOf(symbols, place) }), index < 0 && ui("of_prompt"), gap != null && nanos(gap),
    surprise != null && ui("surprise_is", { value: number(surprise, "nats") }), tokens.forced[index] && ui("forced"),
  ].filter(Boolean).join(ui("comma"));
}

/** Where a place is drawn, the first line of it; nothing where it is not in the page. */
const rectOf = (place: number): DOMRect | undefined => document.getElementById(`k${place}`)?.getClientRects()[0];

/** The place in the line above (-1) or below (1) that is nearest; null where there is none in the page. */
function across(place: number, way: number, n: number): number | null {
  const here = rectOf(place);
  let best: number | null = null, least = Infinity, row: number | undefined;
  for (let i = place + way; here && i >= 0 && i < n; i += way) {
    const there = rectOf(i), apart = (top: number): boolean => abs(there!.top - top) > here.height / 2;
    if (!there) break;
    if (!apart(here.top)) continue;
    row ??= there.top;
    if (apart(row)) break;
    const off = abs(there.left - here.left);
    if (off < least) [best, least] = [i, off];
  }
  return best;
}

const LINE = 27;
/** The ribbon's height at first: five lines. */
const USUAL = 5 * LINE + 8;
/** Tokens on paper. */
const PRINTED = 4096;

function press(event: KeyboardEvent): void {
  const from = selected.value ?? -1, n = trace.value?.symbols.text.length ?? 0, line = { ArrowUp: -1, ArrowDown: 1 }[event.key];
  const to = line && !modified(event) ? across(from, line, n) : walked(event, from, n, 50);
  if (to === undefined) return;
  event.preventDefault();
  if (to !== null) go(to, event.shiftKey);
}

export function Ribbon() {
  const shown = trace.value!;
  const box = useRef<HTMLDivElement>(null);
  const high = useSignal(USUAL);
  const drag = useRef<{ from: number; moved: boolean } | null>(null);
  // selects by click, a range by drag or Shift, and shows what is under the pointer
  const down = (event: PointerEvent): void => {
    const place = numbered(event, "p");
    if (place === null || event.button) return;
    go(place, event.shiftKey);
    drag.current = event.pointerType === "touch" ? null : { from: place, moved: false };
  };
  const move = (event: PointerEvent): void => {
    const place = numbered(event, "p"), held = event.buttons & 1 ? drag.current : null;
    if (place === null) return leave();
    if (held && (held.moved ||= place !== held.from)) range.value = [min(held.from, place), max(held.from, place)];
    if (hover.value?.place === place) return;
    hover.value = { place, box: (event.target as Element).getBoundingClientRect() };
  };
  const leave = (): void => void (hover.value = null);
  const n = shown.symbols.text.length;
  // the same nodes as long as the trace is the same: what changes in a stretch is its own affair
  const stretches = useMemo(
    () => blocksOf(shown.symbols).map((block) => <Stretch key={`${shown.number}.${block.from}`} shown={shown} block={block} />),
    [shown],
  );
  useEffect(() => effect(() => {
    const at = selected.value;
    if (at !== null) requestAnimationFrame(() => reveal(box.current, at));
  }), []);
  useEffect(() => {
    const at = box.current!;
    if (growing.value && selected.value === null) at.scrollTop = at.scrollHeight;
  }, [shown]);

  return (
    <section class="ribbon" aria-label={ui("ribbon")}>
      <Controls shown={shown} />
      <div class="scene">
        <div
          ref={box} class="text" tabIndex={0} role="listbox" aria-label={ui("ribbon_keys")} aria-multiselectable
          aria-activedescendant={active}
          style={{ maxHeight: printing.value ? "none" : `${high.value}px` }}
          onPointerDown={down} onPointerMove={move} onPointerUp={() => (drag.current = null)} onPointerLeave={leave} onScroll={leave} onKeyDown={press}
        >
          {stretches}
        </div>
        <Arcs box={box} cellOf={rectOf} reveal={(place) => reveal(box.current, place)} />
      </div>
      {printing.value && n > PRINTED && <p class="small muted controls">{ui("first_rows", { n: PRINTED, all: n })}</p>}
      <Handle box={box} high={high} />
      <p class="vh" aria-live="polite">{told}</p>
      <Tip />
    </section>
  );
}

/** Scrolls the ribbon, and nothing else, to a place. */
function reveal(box: HTMLElement | null, place: number): void {
  const inner = rectOf(place), outer = box?.getBoundingClientRect();
  if (!box || !inner || !outer) return;
  if (inner.top < outer.top + 2 || inner.bottom > outer.bottom - 2) box.scrollTop += inner.top - outer.top - outer.height / 2 + LINE / 2;
}

/** A block of tokens, or a space as high as it. */
function Stretch({ shown, block }: { shown: Trace; block: Block }) {
  const at = useRef<HTMLDivElement>(null);
  const height = useRef<number | null>(null);
  const near = useSignal(block.from === 0);
  // made anew with the bounds: a place may be selected together with the tokens that it is one of
  const here = useMemo(() => computed(() => {
    const place = selected.value;
    return place !== null && place >= block.from && place < block.to ? place : null;
  }), [block.from, block.to]);
  useLayoutEffect(() => {
    const watch = new IntersectionObserver((entries) => {
      const { isIntersecting, boundingClientRect } = entries.at(-1)!;
      if (!isIntersecting && boundingClientRect.height) height.current = boundingClientRect.height;
      near.value = isIntersecting;
    }, { root: at.current!.parentElement, rootMargin: "300px 0px" });
    watch.observe(at.current!);
    return () => watch.disconnect();
  }, []);
  const place = here.value;
  if (printing.value && block.from >= PRINTED) return null;
  if (!near.value && place === null && !printing.value) {
    const letters = max(20, ((at.current?.parentElement ?? document.body).clientWidth || 900) / 8);
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
  const alone = ({ from, to }: Cell): boolean => to - from === 1 || shown.symbols.hex[from] === null;
  return <>{cells.map((cell) => (alone(cell) ? [option(cell.to - 1, cell.text), cell.breaks && <br />] : joined(cell, option)))}</>;
}

/** A character whose bytes are in several tokens: drawn once, above the tokens, each of which can be selected. */
function joined(cell: Cell, option: Option) {
  const n = cell.to - cell.from;
  return (
    <>
      <span class="join" style={{ gridTemplateColumns: `repeat(${n}, auto)` }}>
        <span class="glyph" aria-hidden="true">{cell.text}</span>
        {times(n, (i) => option(cell.from + i, null, ui("byte_part", { i: i + 1, n, text: cell.text }), i + 1))}
      </span>
      {cell.breaks && <br />}
    </>
  );
}

/** What the ribbon's height is changed by. */
function Handle({ box, high }: { box: RefObject<HTMLElement | null>; high: Signal<number> }) {
  const set = (to: number): void => void (high.value = clamp(to, LINE + 8, innerHeight * 0.7));
  const press = (event: KeyboardEvent): void => {
    const by = { ArrowUp: -LINE, ArrowDown: LINE }[event.key];
    if (!by) return;
    event.preventDefault();
    set(high.value + by);
  };
  return (
    <div
      class="handle" role="separator" tabIndex={0} aria-orientation="horizontal" aria-label={ui("resize")} title={ui("resize")}
      aria-valuenow={round(high.value / LINE)} aria-valuemin={1} aria-valuemax={99} onKeyDown={press}
      onPointerDown={(event) => event.currentTarget.setPointerCapture(event.pointerId)}
      onPointerMove={(event) => event.buttons & 1 && set(event.clientY - 4 - box.current!.getBoundingClientRect().top)}
      onDblClick={() => set(high.value > 300 ? USUAL : innerHeight * 0.6)}
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
    const { width, height } = tip.getBoundingClientRect(), { left, top, bottom } = at.box;
    tip.style.left = `${clamp(left, 8, innerWidth - width - 8)}px`;
    tip.style.top = `${bottom + height + 10 > innerHeight ? top - height - 6 : bottom + 6}px`;
  });
  if (!at || !shown || at.place >= shown.symbols.text.length) return null;
  const index = at.place - shown.n_prompt;
  const fill = shade.value;
  const facts = beside(
    index < 0 ? ui("of_prompt") : nanos(shown.tokens.gap_ns[index]),
    shown.tokens.logprob[index] != null && `p ${percent(exp(shown.tokens.logprob[index]!))}`,
    fill && fill.name !== "latency" && fill.values[at.place] != null && `${ui(`mode_${fill.name}`)} ${number(fill.values[at.place], fill.unit)}`,
  );
  return (
    <div ref={own} class="tip" aria-hidden="true">
      <div class="row"><span class="muted num">#{at.place}</span><span class="tok clip">{nameOf(shown.symbols, at.place, 120)}</span></div>
      <div class="num">{facts}</div>
    </div>
  );
}

/** What colours, what underlines, and what the colours mean. */
function Controls({ shown }: { shown: Trace }) {
  const fill = shade.value;
  const ends = range.value;
  const select = (name: string, of: typeof colour) => (
    <Pick label={ui(name)} value={of.value} onPick={(to) => (of.value = to)}
      options={[["none", ui("mode_none")], ...MODES.map((mode) => [mode, ui(`mode_${mode}`), !has(shown, mode) && ui(`lacks_${mode}`)] as const)]} />
  );
  const flags = [shown.tokens.forced.some(Boolean) && "forced", known(shown.tokens.wanted) && "over"];
  return (
    <div class="row controls">
      {select("colour", colour)}
      {fill ? <Legend mode={fill} /> : <span class="small muted">{absent(shown)}</span>}
      {select("underline", underline)}
      {flags.map((one) => one && <span class="legend"><span class={`k ${one}`} aria-hidden="true">{"\u2003"}</span>{ui(`is_${one}`)}</span>)}
      {ends && (
        <Button quiet onClick={() => (range.value = null)} title={ui("range_clear")}>
          {ui("range", { from: ends[0], to: ends[1], n: ends[1] - ends[0] + 1 })} {"\u2715"}
        </Button>
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
      <span class="ramp" aria-hidden="true">{times(count, (i) => <i class={`${two ? "d" : "q"}${i}`} />)}</span>
      {number(mode.high, mode.unit)}
      {mode.scale === "log" && <span>{t("page_time.scale_log")}</span>}
    </span>
  );
}

