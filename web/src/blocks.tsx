// What the parts are made of: buttons, choices, facts, tables, and how what is missing is told.

import { useSignal } from "@preact/signals";
import type { ComponentChildren, JSX, Ref } from "preact";
import { ABSENT } from "./chart/format";
import { isMissing, type Figure, type Maybe, type Missing } from "./document";
import { say, ui } from "./words";

/** A button of the page's own kind, unless it has another class. */
export function Button({ quiet, ...rest }: JSX.IntrinsicElements["button"] & { quiet?: boolean }) {
  return <button type="button" class={quiet ? "btn quiet" : "btn"} {...rest} />;
}

export type Option = readonly [value: string | number, words: string, why_not?: string | false];

/** A list to choose from. An option that cannot be chosen says why. */
export function Pick({ label, value, options, onPick }: {
  label: string;
  value: string | number;
  options: readonly (Option | { group: string; options: readonly Option[] })[];
  onPick(to: string): void;
}) {
  const option = ([one, words, why]: Option) => <option value={one} disabled={!!why} title={why || undefined}>{words}</option>;
  return (
    <label class="field">
      {label}
      <select value={value} onChange={(event) => onPick(event.currentTarget.value)}>
        {options.map((one) => ("group" in one ? <optgroup label={one.group}>{one.options.map(option)}</optgroup> : option(one)))}
      </select>
    </label>
  );
}

/** A few joined buttons, of which one is pressed. */
export function Choice<T extends string>({ label, value, options, onPick }: { label: string; value: T; options: readonly (readonly [T, string])[]; onPick(to: T): void }) {
  return (
    <span class="seg" role="group" aria-label={label} title={label}>
      {options.map(([one, words]) => <Button aria-pressed={one === value} onClick={() => onPick(one)}>{words}</Button>)}
    </span>
  );
}

export type Fact = readonly [name: ComponentChildren, value: ComponentChildren];

/** What is known, as a list; what is not known is not listed. */
export function Facts({ rows }: { rows: Fact[] }) {
  const known = rows.filter(([, value]) => value);
  return known.length ? <dl class="facts">{known.map(([name, value]) => <><dt>{name}</dt><dd>{value}</dd></>)}</dl> : null;
}

export const factOf = ({ label, text, note }: Figure): Fact => [say(label), <>{text ?? ABSENT}{note && <span class="small muted"> {say(note)}</span>}</>];

/** A table of its own region; the columns in `left` are text, the others numbers. The first names the row. */
export function Grid({ title, head, rows, left = [0], marked, box }: {
  title: string;
  head: ComponentChildren[];
  rows: ComponentChildren[][];
  left?: number[];
  /** A row that is selected. */
  marked?: number | null;
  box?: Ref<HTMLDivElement>;
}) {
  const how = (i: number): string => (left.includes(i) ? "" : "num");
  return (
    <div ref={box} class="scroll" tabIndex={0} role="region" aria-label={title}>
      <table class="table">
        <thead><tr>{head.map((one, i) => <th scope="col" class={how(i)}>{one}</th>)}</tr></thead>
        <tbody>
          {rows.map((row, at) => (
            <tr aria-selected={at === marked}>{row.map((one, i) => (i ? <td class={how(i)}>{one}</td> : <th scope="row" class={how(i)}>{one}</th>))}</tr>
          ))}
        </tbody>
      </table>
    </div>
  );
}

/** A share as a horizontal bar. */
export const Bar = ({ part }: { part: number }) => <span class="bar" style={{ "--w": `${100 * part}%` }} />;

/** Where a number comes from: measured, modelled, or not available. */
export const Badge = ({ kind }: { kind: Figure["badge"] }) => <span class="badge" data-kind={kind} title={ui(`badge_${kind}_why`)}>{ui(`badge_${kind}`)}</span>;

/** A sentence with where its numbers come from. */
export const Sourced = ({ kind, children }: { kind: Figure["badge"]; children: ComponentChildren }) => (
  <p class="row small muted"><Badge kind={kind} /><span class="grow">{children}</span></p>
);

/** A sentence that matters less, where there is one. */
export const small = (...words: ComponentChildren[]) => words.some(Boolean) && <p class="small muted">{words}</p>;

/** What belongs together, with a name. */
export const Panel = ({ title, tight, children }: { title?: string; tight?: boolean; children: ComponentChildren }) => (
  <section class={tight ? "panel stack tight" : "panel stack"}>
    {title && <h3>{title}</h3>}
    {children}
  </section>
);

/** A command and the button that copies it. */
export function Command({ text }: { text: string }) {
  const done = useSignal(false);
  const copy = async (): Promise<void> => {
    done.value = await copied(text);
    setTimeout(() => (done.value = false), 2000);
  };
  return (
    <div class="cmd">
      <code tabIndex={0}>{text}</code>
      <Button onClick={copy} aria-live="polite">{ui(done.value ? "copied" : "copy")}</Button>
    </div>
  );
}

/** What stands where nothing was recorded: why, and the command that fills it. */
export function Empty({ part }: { part: Missing }) {
  return (
    <div class="missing">
      <p>{say(part.missing)}</p>
      {part.run !== null && <Command text={part.run} />}
    </div>
  );
}

/** What is there, drawn; what is missing says so. */
export const orEmpty = <T extends object>(part: Maybe<T>, draw: (part: T) => ComponentChildren): ComponentChildren =>
  isMissing(part) ? <Empty part={part} /> : draw(part);

/** Copies a text; a page opened from a file may not have the clipboard's own interface. */
export async function copied(text: string): Promise<boolean> {
  try {
    await navigator.clipboard.writeText(text);
    return true;
  } catch {
    const box = Object.assign(document.createElement("textarea"), { value: text, className: "vh" });
    document.body.append(box);
    box.select();
    const done = document.execCommand("copy");
    box.remove();
    return done;
  }
}
