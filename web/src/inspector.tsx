// All that is known of the selected token.

import type { ComponentChildren } from "preact";
import { Bar, Button, Facts, small } from "./blocks";
import { ABSENT, nanos, number, percent } from "./chart/format";
import type { Run, Trace, Unit } from "./document";
import { nameOf } from "./layout";
import { Ask } from "./live";
import { abs, clamp, exp, max } from "./maths";
import { sourceText, topSources, type Sight } from "./relevance";
import { go } from "./ribbon";
import { doc, run, selected, selectedStep, trace } from "./state";
import { ui } from "./words";

/** A name of the vocabulary. */
export const piece = (id: number | null | undefined): string => (id == null ? ABSENT : doc.value?.tape?.pieces[id] ?? `#${id}`);

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
            <Button quiet disabled={place === 0} aria-label={ui("previous")} title={`${ui("previous")} [`} onClick={() => go(place - 1)}>{"\u2190"}</Button>
            <Button quiet disabled={place === n - 1} aria-label={ui("next")} title={`${ui("next")} ]`} onClick={() => go(place + 1)}>{"\u2192"}</Button>
          </span>
        )}
      </div>
      {place === null ? <p class="muted">{ui("select_first")}</p> : <Known shown={shown} place={place} />}
      <Ask />
    </section>
  );
}

type Known = [name: string, value: number | null | undefined, unit?: Unit];

/** Figures that are known, with their names; without a unit as they are. */
const figures = (rows: Known[]) => rows.map(([name, value, unit]) => [ui(`f_${name}`), value != null && (unit ? number(value, unit) : String(value))] as const);

function Known({ shown, place }: { shown: Trace; place: number }) {
  const { symbols, tokens } = shown, i = place - shown.n_prompt, wanted = tokens.wanted[i];
  const odds = (name: string, logprob: number | null | undefined) =>
    [ui(`f_${name}`), logprob != null && `${percent(exp(logprob))}  (${number(logprob, "nats")})`] as const;
  return (
    <>
      <Facts
        rows={[
          [ui("f_bytes"), symbols.hex[place]?.replace(/^[\da-f]+/i, (digits) => digits.match(/../g)!.join(" "))],
          ...figures([["id", symbols.ids[place]], ["position", symbols.position[place]]]),
          [ui("f_kind"), i < 0 ? ui("of_prompt") : symbols.special[place] ? ui("special") : null],
          ...figures([["step", tokens.step[i]], ["gap", tokens.gap_ns[i], "ns"]]),
          odds("probability", tokens.logprob[i]),
          ...figures([["rank", tokens.rank[i]], ["surprise", tokens.surprise[i], "nats"], ["entropy", tokens.entropy[i], "nats"]]),
          odds("rules_probability", tokens.rules_logprob[i]),
          ...figures([["allowed", tokens.allowed[i], "count"], ["removed", tokens.removed[i], "nats"]]),
          [ui("f_forced"), tokens.forced[i] ? ui("yes") : null],
          [ui("f_wanted"), wanted == null ? null : piece(wanted)],
        ]}
      />
      {i < 0 && small(ui("prompt_note"))}
      <Candidates shown={shown} index={i} />
      {run.value && selectedStep.value !== null && <StepTime of={run.value} step={selectedStep.value} />}
      <Sources shown={shown} place={place} sight="relevance" />
      <Sources shown={shown} place={place} sight="attention" />
    </>
  );
}

function Share({ name, part, text, kind = "", onPick }: { name: string; part: number; text: string; kind?: string; onPick?: () => void }) {
  const label = <span class="tok clip" title={name}>{/^ +$/.test(name) ? name.replaceAll(" ", "\u2423") : name}</span>;
  return (
    <li class={`share ${kind}`}>
      {onPick ? <Button class="link" onClick={onPick}>{label}</Button> : label}
      <Bar part={clamp(abs(part), 0, 1)} />
      <span class="num">{text}</span>
    </li>
  );
}

const Shares = ({ title, children }: { title: string; children: ComponentChildren }) => <><h3>{title}</h3><ol class="shares">{children}</ol></>;

/** The most likely tokens, and all others as one. */
function Candidates({ shown: { tokens, symbols, n_prompt }, index }: { shown: Trace; index: number }) {
  const ids = tokens.candidate_ids[index], shares = tokens.candidate_logprobs[index]?.map(exp);
  if (!ids?.length || !shares) return null;
  const rest = max(0, 1 - shares.reduce((sum, one) => sum + one, 0));
  return (
    <Shares title={ui("candidates")}>
      {ids.map((one, k) => <Share name={piece(one)} part={shares[k]!} text={percent(shares[k])} kind={one === symbols.ids[n_prompt + index] ? "taken" : ""} />)}
      <Share name={ui("rest_of_mass")} part={rest} text={percent(rest)} kind="rest" />
    </Shares>
  );
}

/** Where the time of a step went. */
function StepTime({ of, step }: { of: Run; step: number }) {
  const whole = of.step_ns[step], forward = of.forward_ns[step], rules = of.rules_ns[step];
  if (whole === undefined) return null;
  const rest = forward == null ? null : max(0, whole - forward - (rules ?? 0));
  const parts = ([["forward", forward], ["rules", rules], ["other", rest]] as const).filter(([, ns]) => ns != null);
  return (
    <>
      <Shares title={ui("step_time", { step, time: nanos(whole) })}>
        {parts.map(([name, ns]) => <Share name={ui(`f_${name}`)} part={whole ? ns! / whole : 0} text={nanos(ns)} kind="words" />)}
      </Shares>
      <Facts rows={figures([
        ["device", of.device_ns[step], "ns"], ["gc", of.gc_ns[step] || null, "ns"], ["pause", of.pause_ns[step], "ns"],
        ["context", of.context[step], "tokens"], ["batch", of.batch[step]! > 1 ? of.batch[step] : null],
      ])} />
    </>
  );
}

function Sources({ shown, place, sight }: { shown: Trace; place: number; sight: Sight }) {
  const found = topSources(shown, place, 5, sight), weighed = sight === "attention";
  return found.length > 0 && (
    <Shares title={ui(`top_${sight}`)}>
      {found.map((one) => (
        <Share
          name={sourceText(shown, one.start, one.stop)} part={one.value / abs(found[0]!.value)} kind={weighed ? "" : one.value < 0 ? "against" : "for"}
          text={number(one.share ?? one.value, weighed || one.share !== null ? "share" : "")} onPick={() => go(one.start)}
        />
      ))}
    </Shares>
  );
}
