// What it was made with, and how to make it again.

import { Command } from "../missing";
import { doc } from "../state";
import { say, ui } from "../words";

export function ProvenancePart() {
  const found = doc.value?.tape?.provenance;
  if (!found) return null;
  return (
    <div class="stack">
      {found.again !== null && (
        <section>
          <h3>{ui("again")}</h3>
          <Command text={found.again} />
        </section>
      )}
      {found.notes.length > 0 && <ul class="muted">{found.notes.map((one) => <li>{say(one)}</li>)}</ul>}
      <div class="columns">
        {found.groups.map((group) => (
          <section class="panel">
            <h2>{say(group.title)}</h2>
            <dl class="facts">{group.rows.map(({ name, value }) => <><dt>{name}</dt><dd class="mono">{value}</dd></>)}</dl>
          </section>
        ))}
      </div>
    </div>
  );
}
