// The part Requests: what each request to a server took, and what changed at the same time.

import { computed } from "@preact/signals";
import { factOf, Facts, Panel, Pick, small } from "../blocks";
import { column } from "../chart/frame";
import { reading } from "../chart/picture";
import { lineOf, SeriesChart, type Spec } from "../chart/series";
import type { Message } from "../document";
import { known } from "../maths";
import { doc, extra, setExtra, show } from "../state";
import { beside, say, wordsOf } from "../words";

const w = wordsOf("requests");
const NS = "ns", ROOM = 90;

const held = computed(() => doc.value?.tape?.requests);
const course = computed(() => held.value?.courses[Number(extra.value["requests.course"])] ?? held.value?.courses[0]);
const named = (name: string | Message): string => (typeof name === "string" ? name : say(name));

const taken = computed<Spec | null>(() => {
  const of = held.value;
  if (!of) return null;
  const points = { kind: "points", width: of.trace.length > 1500 ? 1 : 1.75 } as const;
  const lines = [lineOf(w("answer_time"), NS, of.answer_ns, "--s2", points), lineOf(w("ttft"), NS, of.ttft_ns, "--s1", points)];
  if (known(of.ttft_due_ns)) lines.push(lineOf(w("ttft_due"), NS, of.ttft_due_ns, "--s4", { hidden: true, label: "" }));
  if (known(of.fault)) lines.push(lineOf(w("fault"), NS, of.fault_ns, "--s3", { kind: "rings", quiet: true }));
  return {
    x: { name: w("sent"), unit: NS, values: of.sent_ns, ends: [...of.span_ns] },
    y: { name: w("took"), unit: NS, log: true },
    lines,
    room: ROOM,
    also: [column(w("trace"), of.trace, "count"), column(w("tokens"), of.tokens, "tokens"), column(w("label"), of.label), column(w("fault"), of.fault), column(w("end"), of.end.map((i) => say(of.ends[i]!)))],
  };
});

const meanwhile = computed<Spec | null>(() => {
  const one = course.value;
  return one ? {
    x: { name: w("sent"), unit: NS, values: one.at_ns, ends: [...held.value!.span_ns] },
    y: { name: "", unit: "", holds: 0 },
    lines: [lineOf(named(one.name), "", one.values, "--s1", { label: "" })],
    room: ROOM,
  } : null;
});

export function RequestsPart() {
  const of = held.value, one = course.value;
  if (!of) return null;
  const told = (i: number): string => beside(`${w("trace")} ${of.trace[i]}`, reading(taken.value!, i), say(of.ends[of.end[i]!]!), of.fault[i]);
  return (
    <div class="stack">
      <Panel>
        <SeriesChart id="requests" title={w("title")} caption={say(of.caption)} spec={taken.value!} height={280} announce={told} onSelect={(i) => pick(of.trace[i]!)} />
        {one && (
          <SeriesChart
            id="meanwhile" title={w("beside")} caption={say(one.caption)} spec={meanwhile.value!} height={170}
            tools={<Pick label={w("show")} value={of.courses.indexOf(one)} options={of.courses.map((each, i) => [i, named(each.name)])} onPick={(to) => setExtra("requests.course", to, "0")} />}
          />
        )}
        {of.left_out && small(say(of.left_out))}
      </Panel>
      <Panel tight title={w("figures")}><Facts rows={of.figures.map(factOf)} /></Panel>
    </div>
  );
}

const pick = (number: number): void => {
  if (doc.value!.tape!.traces.some((one) => one.number === number)) show(number);
};
