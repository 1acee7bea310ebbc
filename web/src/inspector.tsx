// All that is known of the selected token.

import { number } from "./chart/format";
import type { Run, Trace } from "./document";
import { nameOf } from "./layout";
import { Ask } from "./live";
import { sourceText, topSources, type Sight } from "./relevance";
import { go } from "./ribbon";
import { doc, run, selected, selectedStep, trace } from "./state";
import { ui } from "./words";

/** A name of the vocabulary. */
export const piece = (id: number | null | undefined): string => (id == null ? "\u2013" : doc.value?.tape?.pieces[id] ?? `#${id}`);

const share = (logprob: number): number => Math.exp(logprob);

export function Inspector() {
  const shown = trace.value;
  const place = selected.value;
  if (!shown) return null;
  const n = shown.symbols.text.length;
  return (
    <section class="panel inspector" aria-label={ui("inspector")}>
      <div class="row spread">
        <h2>{place === null ? ui("inspector") : <><span class="muted num">#{place}</span> <span class="tok name">{nameOf(shown.symbols, place, 2000)}</span></>}</h2>
        {place !== null && (
          <span class="row">
            <button type="button" class="btn quiet" disabled={place === 0} aria-label={ui("previous")} title={`${ui("previous")} [`} onClick={() => go(place - 1)}>{"\u2190"}</button>
            <button type="button" class="btn quiet" disabled={place === n - 1} aria-label={ui("next")} title={`${ui("next")} ]`} onClick={() => go(place + 1)}>{"\u2192"}</button>
          </span>
        )}
      </div>
      {place === null ? <p class="muted">{ui("select_first")}</p> : <Known shown={shown} place={place} />}
      <Ask />
    </section>
  );
}

type Fact = [name: string, value: string | null | undefined | false];

/** What is known, as a list; what is not is not listed. */
function Facts({ rows }: { rows: Fact[] }) {
  const known = rows.filter((row): row is [string, string] => !!row[1]);
  return known.length ? <dl class="facts">{known.map(([name, value]) => <><dt>{ui(name)}</dt><dd>{value}</dd></>)}</dl> : null;
}

const some = (value: number | null | undefined, write: (value: number) => string): string | null => (value == null ? null : write(value));

function Known({ shown, place }: { shown: Trace; place: number }) {
  const { symbols, tokens } = shown;
  const i = place - shown.n_prompt;
  const hex = symbols.hex[place];
  const odds = (logprob: number): string => `${number(share(logprob), "share")}  (${number(logprob, "nats")})`;
  const wanted = tokens.wanted[i];
  return (
    <>
      <Facts
        rows={[
          ["f_bytes", hex && hex.replace(/^[\da-f]+/i, (digits) => digits.match(/../g)!.join(" "))],
          ["f_id", some(symbols.ids[place], String)],
          ["f_position", String(symbols.position[place])],
          ["f_kind", i < 0 ? ui("of_prompt") : symbols.special[place] ? ui("special") : null],
          ["f_step", some(tokens.step[i], String)],
          ["f_gap", some(tokens.gap_ns[i], (ns) => number(ns, "ns"))],
          ["f_probability", some(tokens.logprob[i], odds)],
          ["f_rank", some(tokens.rank[i], String)],
          ["f_surprise", some(tokens.surprise[i], (v) => number(v, "nats"))],
          ["f_entropy", some(tokens.entropy[i], (v) => number(v, "nats"))],
          ["f_rules_probability", some(tokens.rules_logprob[i], odds)],
          ["f_allowed", some(tokens.allowed[i], (v) => number(v, "count"))],
          ["f_removed", some(tokens.removed[i], (v) => number(v, "nats"))],
          ["f_forced", tokens.forced[i] ? ui("yes") : null],
          ["f_wanted", wanted == null ? null : piece(wanted)],
        ]}
      />
      {i < 0 && <p class="small muted">{ui("prompt_note")}</p>}
      <Candidates shown={shown} index={i} />
      {run.value && selectedStep.value !== null && <StepTime of={run.value} step={selectedStep.value} />}
      <Sources shown={shown} place={place} sight="relevance" />
      <Sources shown={shown} place={place} sight="attention" />
    </>
  );
}

function Bar({ name, part, text, kind, onPick }: { name: string; part: number; text: string; kind?: string; onPick?: () => void }) {
  const label = <span class="tok clip" title={name}>{/^ +$/.test(name) ? name.replaceAll(" ", "\u2423") : name}</span>;
  return (
    <li class={`share ${kind ?? ""}`}>
      {onPick ? <button type="button" class="link" onClick={onPick}>{label}</button> : label}
      <span class="bar" style={{ "--w": `${Math.max(0, Math.min(100, 100 * Math.abs(part)))}%` }} />
      <span class="num">{text}</span>
    </li>
  );
}

/** The most likely tokens, and all others as one. */
function Candidates({ shown, index }: { shown: Trace; index: number }) {
  const ids = shown.tokens.candidate_ids[index];
  const logprobs = shown.tokens.candidate_logprobs[index];
  if (!ids?.length || !logprobs) return null;
  const rest = Math.max(0, 1 - logprobs.reduce((sum, one) => sum + share(one), 0));
  const id = shown.symbols.ids[shown.n_prompt + index];
  return (
    <>
      <h3>{ui("candidates")}</h3>
      <ol class="shares">
        {ids.map((one, k) => <Bar name={piece(one)} part={share(logprobs[k]!)} text={number(share(logprobs[k]!), "share")} kind={one === id ? "taken" : ""} />)}
        <Bar name={ui("rest_of_mass")} part={rest} text={number(rest, "share")} kind="rest" />
      </ol>
    </>
  );
}

/** Where the time of a step went. */
function StepTime({ of: all, step }: { of: Run; step: number }) {
  const whole = all.step_ns[step];
  if (whole === undefined) return null;
  const [forward, rules] = [all.forward_ns[step], all.rules_ns[step]];
  const rest = forward == null ? null : Math.max(0, whole - forward - (rules ?? 0));
  const parts = ([["forward", forward], ["rules", rules], ["other", rest]] as const).filter(([, ns]) => ns != null);
  const time = (ns: number | null | undefined): string | null => some(ns, (value) => number(value, "ns"));
  return (
    <>
      <h3>{ui("step_time", { step, time: number(whole, "ns") })}</h3>
      {parts.length > 0 && (
        <ol class="shares">{parts.map(([name, ns]) => <Bar name={ui(`f_${name}`)} part={whole ? ns! / whole : 0} text={number(ns, "ns")} kind="words" />)}</ol>
      )}
      <Facts
        rows={[
          ["f_device", time(all.device_ns[step])],
          ["f_gc", all.gc_ns[step] ? time(all.gc_ns[step]) : null],
          ["f_pause", time(all.pause_ns[step])],
          ["f_context", some(all.context[step], (v) => number(v, "tokens"))],
          ["f_batch", all.batch[step]! > 1 ? String(all.batch[step]) : null],
        ]}
      />
    </>
  );
}

function Sources({ shown, place, sight }: { shown: Trace; place: number; sight: Sight }) {
  const found = topSources(shown, place, 5, sight);
  if (!found.length) return null;
  const most = Math.abs(found[0]!.value);
  return (
    <>
      <h3>{ui(`top_${sight}`)}</h3>
      <ol class="shares">
        {found.map((one) => (
          <Bar
            name={sourceText(shown, one.start, one.stop)} part={one.value / most} kind={sight === "attention" ? "" : one.value < 0 ? "against" : "for"}
            text={one.share !== null ? number(one.share, "share") : sight === "attention" ? number(one.value, "share") : number(one.value)}
            onPick={() => go(one.start)}
          />
        ))}
      </ol>
    </>
  );
}
