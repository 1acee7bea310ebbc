// Layers by tokens: what each layer would have said, how its attention spread, what it added. The last layer is on top.

import { useMemo } from "preact/hooks";
import { Empty, Grid, orEmpty, Panel, Pick } from "../blocks";
import { denseRows, type View } from "../chart/cells";
import { number, percent } from "../chart/format";
import { Heatmap } from "../chart/heatmap";
import { isMissing, present, type DirectMaps, type LayerMap, type LayerMaps, type LayersPart as Layers, type LensMaps, type Trace } from "../document";
import { max, times, where } from "../maths";
import { extra, range, selected, setExtra, trace } from "../state";
import { say, wordsOf } from "../words";
import { Check, placed } from "./attention";

const w = wordsOf("layers");
const KINDS = ["lens", "attention", "direct"] as const;
const layerName = (layer: number): string => (layer ? w("layer_n", { layer: String(layer) }) : w("entry"));

export function LayersPart() {
  const shown = trace.value;
  if (!shown) return null;
  const { layers } = shown;
  if (isMissing(layers)) return <Empty part={layers} />;
  const all = KINDS.flatMap((kind) => {
    const held = present<LayerMaps>(layers[kind]);
    return (held?.maps ?? []).map((map) => ({ kind, held: held!, map, key: `${kind}.${map.key}` }));
  });
  const { kind, held, map, key } = all.find((one) => one.key === extra.value.layers) ?? all[0]!;
  const group = (kind: string): string => w(`group.${kind}`, kind === "direct" ? { what: (layers.direct as DirectMaps).what } : undefined);
  return (
    <div class="stack attention">
      <Panel tight>
        <Pick label={w("quantity")} value={key} onPick={(to) => setExtra("layers", to)}
          options={KINDS.map((kind) => ({ kind, options: all.filter((one) => one.kind === kind).map((one) => [one.key, w(one.map.key)] as const) }))
            .flatMap(({ kind, options }) => (options.length ? [{ group: group(kind), options }] : []))} />
        <p class="small">{w(`caveat.${kind}`)}</p>
        <Check of={held.check} also={held.notes} />
      </Panel>
      <Panel><Matrix shown={shown} held={held} map={map} group={group(kind)} lens={kind === "lens" ? (held as LensMaps) : null} /></Panel>
      <Panel tight><Column shown={shown} layers={layers} /></Panel>
      {KINDS.map((kind) => orEmpty<object>(layers[kind], () => null))}
    </div>
  );
}

function Matrix({ shown, held, map, group, lens }: { shown: Trace; held: LayerMaps; map: LayerMap; group: string; lens: LensMaps | null }) {
  const { places } = held, last = held.first + map.values.length - 1, at = range.value;
  const cells = useMemo(() => denseRows(map.values.toReversed()), [map]);
  const best = useMemo(() => lens && ((layer: number, column: number): string => lens.names[lens.best[layer]![column] ?? -1] ?? ""), [lens]);
  const text = useMemo(() => (best ? (row: number, column: number): string => best(last - row, column) : undefined), [best]);
  const view = useMemo((): View | null => {
    const inside = at ? where(places, (place) => place >= at[0] && place <= at[1]) : [];
    return inside.length ? { x0: inside[0]!, x1: inside.at(-1)! + 1, y0: 0, y1: map.values.length } : null;
  }, [at, held]);
  const mark = places.indexOf(selected.value!);
  return (
    <Heatmap id="layers" title={w("title", { what: w(map.key), group })} caption={say(held.caption)} cells={cells} columns={places.length}
      rowTitle={w("layer")} columnTitle={w("token")} valueName={w(map.key)} unit={map.unit}
      rowName={(row) => layerName(last - row)} rowTick={(row) => String(last - row)}
      columnName={(column) => placed(shown, places[column]!)} columnTick={(column) => String(places[column])}
      difference={!!map.difference} low={map.low} high={map.high} power={map.power} log={!!map.log}
      text={text} view={view} markedColumn={mark < 0 ? null : mark}
      onPick={(_, column) => (selected.value = places[column]!)}
      tell={(row, column, value) => {
        const layer = last - row, args = { token: placed(shown, places[column]!), layer: layerName(layer), value: `${w(map.key)} ${number(value, map.unit)}` };
        return lens ? w("cell_best", { ...args, best: best!(layer, column), share: percent(lens.best_share[layer]![column]) }) : w("cell", args);
      }} />
  );
}

/** The selected token, layer by layer. */
function Column({ shown, layers }: { shown: Trace; layers: Layers }) {
  const place = selected.value;
  if (place === null) return <p>{w("choose")}</p>;
  const read = KINDS.flatMap((kind) => present<LayerMaps>(layers[kind]) ?? []), there = read.filter(({ places }) => places.includes(place)), token = placed(shown, place);
  if (!there.length) return <p>{w("not_read", { token, n: max(...read.map(({ places }) => places.length)) })}</p>;
  const [lens, direct] = [there.find((one) => one === layers.lens) as LensMaps | undefined, there.find((one) => one === layers.direct) as DirectMaps | undefined];
  const last = max(...there.map(({ first, maps }) => first + maps[0]!.values.length - 1)), from = lens?.chosen_from[lens.places.indexOf(place)];
  /** Columns of the table: a name, and what stands at a layer. */
  const columns: [string, (layer: number) => string][] = [[w("layer"), (layer) => (layer ? String(layer) : w("entry"))]];
  const value = ({ places }: LayerMaps, row: readonly (number | null)[] | undefined) => row?.[places.indexOf(place)];
  if (lens) columns.push([w("best"), (layer) => lens.names[value(lens, lens.best[layer]) ?? -1] ?? number(null)], [w("best_share"), (layer) => percent(value(lens, lens.best_share[layer]))]);
  for (const held of there) {
    for (const { key, unit, values } of held.maps) {
      const nats = unit === "nats";
      columns.push([nats ? w("in_nats", { what: w(key) }) : w(key), (layer) => number(value(held, values[layer - held.first]), nats ? "" : unit)]);
    }
  }
  if (direct) {
    columns.push([w("head"), (layer) => {
      const head = value(direct, direct.head[layer - 1]);
      return head == null ? number(null) : w("head_value", { head, value: number(value(direct, direct.head_value[layer - 1])) });
    }]);
  }
  return (
    <>
      <h3>{w("of_token", { token })}</h3>
      {lens && <p>{from == null ? w("not_chosen") : from ? w("chosen_from", { layer: from, layers: last }) : w("chosen_from_entry")}</p>}
      <Grid
        title={w("of_token", { token })} head={columns.map(([name]) => name)} left={lens ? [0, 1] : [0]} marked={from == null ? null : last - from}
        rows={times(last + (lens ? 1 : 0), (i) => columns.map(([, cell], k) => (k === 1 && lens ? <span class="tok clip">{cell(last - i)}</span> : cell(last - i))))}
      />
    </>
  );
}
