// Layers by tokens: what each layer would have said, how its attention spread, what it added. The last layer is on top.

import { useMemo } from "preact/hooks";
import { denseRows, type View } from "../chart/cells";
import { number } from "../chart/format";
import { Heatmap } from "../chart/heatmap";
import { isMissing, type DirectMaps, type LayerMap, type LayerMaps, type LayersPart as Layers, type LensMaps, type Trace } from "../document";
import { nameOf } from "../layout";
import { Empty } from "../missing";
import { extra, range, selected, setExtra, trace } from "../state";
import { say, t } from "../words";

const of = (key: string, args?: Parameters<typeof t>[1]): string => t(`page_layers.${key}`, args);
const KINDS = ["lens", "attention", "direct"] as const;
const layerName = (layer: number): string => (layer ? of("layer_n", { layer: String(layer) }) : of("entry"));
const topFirst = <T,>(rows: T[]): T[] => [...rows].reverse();
const placed = (shown: Trace, place: number): string => `${place} ${nameOf(shown.symbols, place, 40)}`;

export function LayersPart() {
  const shown = trace.value;
  if (!shown) return null;
  const { layers } = shown;
  if (isMissing(layers)) return <Empty part={layers} />;
  const there = KINDS.flatMap((kind) => {
    const held = layers[kind];
    return isMissing(held) ? [] : [{ kind, held, maps: held.maps }];
  });
  const key = extra.value.layers, at = there.find(({ kind, maps }) => maps.some((one) => `${kind}.${one.key}` === key)) ?? there[0]!;
  const map = at.maps.find((one) => `${at.kind}.${one.key}` === key) ?? at.maps[0]!;
  const group = (kind: (typeof KINDS)[number], held: LayerMaps): string =>
    of(`group.${kind}`, kind === "direct" ? { what: (held as DirectMaps).what } : undefined);
  return (
    <div class="stack attention">
      <section class="panel stack tight">
        <label class="field">
          {of("quantity")}
          <select value={`${at.kind}.${map.key}`} onChange={(event) => setExtra("layers", event.currentTarget.value)}>
            {there.map(({ kind, held, maps }) => (
              <optgroup label={group(kind, held)}>{maps.map((one) => <option value={`${kind}.${one.key}`}>{of(one.key)}</option>)}</optgroup>
            ))}
          </select>
        </label>
        <p class="small">{of(`caveat.${at.kind}`)}</p>
        <p class={at.held.check.passed === false ? "note" : "small muted"}>{[at.held.check.text, ...at.held.notes].map(say).join(" ")}</p>
      </section>
      <section class="panel"><Matrix shown={shown} held={at.held} map={map} group={group(at.kind, at.held)} lens={at.kind === "lens" ? (at.held as LensMaps) : null} /></section>
      <section class="panel stack tight"><Column shown={shown} layers={layers} /></section>
      {KINDS.map((kind) => {
        const held = layers[kind];
        return isMissing(held) && <Empty part={held} />;
      })}
    </div>
  );
}

function Matrix({ shown, held, map, group, lens }: { shown: Trace; held: LayerMaps; map: LayerMap; group: string; lens: LensMaps | null }) {
  const { places } = held, last = held.first + map.values.length - 1, at = range.value;
  const cells = useMemo(() => denseRows(topFirst(map.values)), [map]);
  const best = useMemo(() => lens && ((layer: number, column: number): string => lens.names[lens.best[layer]![column] ?? -1] ?? ""), [lens]);
  const text = useMemo(() => (best ? (row: number, column: number): string => best(last - row, column) : undefined), [best]);
  const view = useMemo((): View | null => {
    const inside = at ? places.flatMap((place, i) => (place >= at[0] && place <= at[1] ? [i] : [])) : [];
    return inside.length ? { x0: inside[0]!, x1: inside.at(-1)! + 1, y0: 0, y1: map.values.length } : null;
  }, [at, held]);
  const mark = selected.value === null ? -1 : places.indexOf(selected.value);
  return (
    <Heatmap id="layers" title={of("title", { what: of(map.key), group })} caption={say(held.caption)} cells={cells} columns={places.length}
      rowTitle={of("layer")} columnTitle={of("token")} valueName={of(map.key)} unit={map.unit}
      rowName={(row) => layerName(last - row)} rowTick={(row) => String(last - row)}
      columnName={(column) => placed(shown, places[column]!)} columnTick={(column) => String(places[column])}
      scale={map.difference ? "difference" : "magnitude"} low={map.low} high={map.high} power={map.power} log={!!map.log}
      text={text} view={view} markedColumn={mark < 0 ? null : mark}
      onPick={(_, column) => (selected.value = places[column]!)}
      tell={(row, column, value) => {
        const layer = last - row, args = { token: placed(shown, places[column]!), layer: layerName(layer), value: `${of(map.key)} ${number(value, map.unit)}` };
        return lens ? of("cell_best", { ...args, best: best!(layer, column), share: number(lens.best_share[layer]![column], "share") }) : of("cell", args);
      }} />
  );
}

/** The selected token, layer by layer. */
function Column({ shown, layers }: { shown: Trace; layers: Layers }) {
  const place = selected.value;
  if (place === null) return <p>{of("choose")}</p>;
  const read = KINDS.flatMap((kind) => {
    const held = layers[kind];
    return isMissing(held) ? [] : [{ kind, held, at: held.places.indexOf(place) }];
  });
  const there = read.filter(({ at }) => at >= 0), token = placed(shown, place);
  if (!there.length) return <p>{of("not_read", { token, n: Math.max(...read.map(({ held }) => held.places.length)) })}</p>;
  const lens = there.find(({ kind }) => kind === "lens"), direct = there.find(({ kind }) => kind === "direct");
  const first = lens ? 0 : 1, last = Math.max(...there.map(({ held }) => held.first + held.maps[0]!.values.length - 1));
  /** Columns of the table: a name, what stands at a layer, and whether it is a number. */
  const columns: [string, (layer: number) => string, boolean?][] = [[of("layer"), (layer) => (layer ? String(layer) : of("entry"))]];
  const from = lens ? (lens.held as LensMaps).chosen_from[lens.at] : undefined;
  if (lens) {
    const { names, best, best_share } = lens.held as LensMaps;
    columns.push([of("best"), (layer) => names[best[layer]?.[lens.at] ?? -1] ?? number(null)], [of("best_share"), (layer) => number(best_share[layer]?.[lens.at], "share"), true]);
  }
  for (const { held, at } of there) {
    for (const { key, unit, values } of held.maps) {
      const nats = unit === "nats";
      columns.push([nats ? of("in_nats", { what: of(key) }) : of(key), (layer) => number(values[layer - held.first]?.[at], nats ? "" : unit), true]);
    }
  }
  if (direct) {
    const { head, head_value } = direct.held as DirectMaps;
    columns.push([of("head"), (layer) => {
      const which = head[layer - 1]?.[direct.at];
      return which == null ? number(null) : of("head_value", { head: which, value: number(head_value[layer - 1]![direct.at]) });
    }, true]);
  }
  return (
    <>
      <h3>{of("of_token", { token })}</h3>
      {lens && <p>{from == null ? of("not_chosen") : from ? of("chosen_from", { layer: from, layers: last }) : of("chosen_from_entry")}</p>}
      <div class="scroll" tabIndex={0} role="region" aria-label={of("of_token", { token })}><table class="table" style={{ whiteSpace: "nowrap" }}>
        <thead><tr>{columns.map(([name, , isNumber]) => <th scope="col" class={isNumber ? "num" : undefined} style={{ whiteSpace: "normal" }}>{name}</th>)}</tr></thead>
        <tbody>{Array.from({ length: last - first + 1 }, (_, i) => last - i).map((layer) => (
          <tr aria-selected={layer === from}>{columns.map(([, cell, isNumber], i) => <td class={isNumber ? "num" : i === 1 && lens ? "tok clip" : undefined}>{cell(layer)}</td>)}</tr>
        ))}</tbody>
      </table></div>
    </>
  );
}
