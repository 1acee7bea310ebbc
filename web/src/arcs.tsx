// Arcs on the ribbon from the selected token to what it rests on most, or to where the model looked.
//
//   <Arcs box={ref} cellOf={(place) => rect} reveal={(place) => ...}/>
//
// Put it beside the scrolling box `box`, inside of an element that is positioned and as large as the box: it lies over the box and takes no
// pointer but on its chips. `cellOf` gives the rectangle of a token that is in the page (as getClientRects does), nothing for one that is not.
// `reveal` scrolls to a place. It draws when the selection, the explanation or the box's scroll or size changes, in one frame, and never
// on hover.

import type { RefObject } from "preact";
import { effect, useSignal } from "@preact/signals";
import { useEffect } from "preact/hooks";
import { Button } from "./blocks";
import { number } from "./chart/format";
import { watchSize } from "./elements";
import { abs, max, min, round, sign } from "./maths";
import { sightOf, sourceText, topSources, type Sight, type TopSource } from "./relevance";
import { extra, selected, trace } from "./state";
import { t } from "./words";

export interface ArcsProps {
  box: RefObject<HTMLElement | null>;
  cellOf(place: number): DOMRect | undefined;
  reveal(place: number): void;
}

interface Drawn {
  paths: { d: string; x: number; y: number; width: number; against: boolean }[];
  hidden: TopSource[];
  sight: Sight;
}

const MOST = 6;
/** Sources below this part of the strongest get no arc. */
const LEAST = 0.05;

interface Spot {
  x: number;
  top: number;
  bottom: number;
}

/** An arc and where it begins, in the container's own pixels: within a line over it, or under it where there is no room; else from line to line. */
export function arcOf(from: Spot, to: Spot): { d: string; x: number; y: number } {
  const at = (...numbers: number[]): string => numbers.map((one) => round(one * 10) / 10).join(" ");
  let [y, end, out, back] = [from.bottom, to.top, 0, 0];
  if (abs(from.top - to.top) > 4) {
    if (from.top > to.top) [y, end] = [from.top, to.bottom];
    // the ends leave and arrive upright, so that they can be told from those of other arcs
    const bend = sign(end - y || 1) * max(14, abs(end - y) / 2);
    [out, back] = [y + bend, end - bend];
  } else {
    const over = from.top > 10;
    y = end = over ? min(from.top, to.top) : max(from.bottom, to.bottom);
    out = back = y + (over ? -1 : 1) * min(14, 6 + abs(to.x - from.x) / 12);
  }
  return { d: `M${at(from.x, y)}C${at(from.x, out, to.x, back, to.x, end)}`, x: from.x, y };
}

function drawn({ box: { current: container }, cellOf }: ArcsProps): Drawn | null {
  const shown = trace.value, place = selected.value;
  const sight = shown && place !== null ? sightOf(shown, place) : null;
  if (!shown || place === null || !sight || !container) return null;
  const outer = container.getBoundingClientRect(), top = topSources(shown, place, MOST, sight);
  const cell = (at: number): Spot | null => {
    const found = cellOf(at);
    const inside = found && found.bottom > outer.top && found.top < outer.bottom;
    return inside ? { x: (found.left + found.right) / 2 - outer.left, top: found.top - outer.top, bottom: found.bottom - outer.top } : null;
  };
  const to = cell(place), most = abs(top[0]?.value ?? 0) || 1, paths: Drawn["paths"] = [], hidden: TopSource[] = [];
  for (const one of to ? top : []) {
    const part = abs(one.value) / most;
    if (part < LEAST) continue;
    // the middle token of a source of several
    const from = cell((one.start + one.stop - 1) >> 1);
    if (from) paths.push({ ...arcOf(from, to!), width: 0.75 + 2.75 * part, against: one.value < 0 });
    else hidden.push(one);
  }
  return { paths, hidden, sight };
}

export function Arcs(props: ArcsProps) {
  const shown = useSignal<Drawn | null>(null);
  useEffect(() => {
    const container = props.box.current!;
    let frame = 0;
    // two frames: the ribbon scrolls to the selected token in the first
    const soon = (): void => void (frame ||= requestAnimationFrame(() => (frame = requestAnimationFrame(() => ((frame = 0), (shown.value = drawn(props)))))));
    const stop = effect(() => {
      void [trace.value, selected.value, extra.value];
      soon();
    });
    const unwatch = watchSize(container, soon);
    container.addEventListener("scroll", soon, { passive: true });
    return () => {
      stop();
      unwatch();
      container.removeEventListener("scroll", soon);
      cancelAnimationFrame(frame);
    };
  }, []);
  const of = trace.value;
  if (!shown.value || !of) return null;
  const { paths, hidden, sight } = shown.value;
  return (
    <div class={`arcs arcs-${sight}`}>
      <svg aria-hidden="true">
        {paths.map((one) => (
          <g class={one.against ? "against" : ""}>
            <path d={one.d} stroke-width={one.width} />
            <circle cx={one.x} cy={one.y} r={1 + one.width / 2} />
          </g>
        ))}
      </svg>
      {hidden.length > 0 && (
        <div class="row">
          {hidden.map((one) => {
            const value = number(one.value, sight === "attention" ? "share" : ""), text = sourceText(of, one.start, one.stop);
            return (
              <Button class="chip" title={t("page_attention.out_of_sight", { text, place: one.start, value })}
                onClick={() => props.reveal(one.start)}>
                <span class="tok clip">{text.trim() || "\u2423"}</span> {value}
              </Button>
            );
          })}
        </div>
      )}
    </div>
  );
}
