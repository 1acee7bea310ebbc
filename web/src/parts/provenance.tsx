// What it was made with, and how to make it again.

import { Facts, Panel } from "../blocks";
import { doc } from "../state";
import { say } from "../words";
import { Again } from "./overview";

export function ProvenancePart() {
  const found = doc.value?.tape?.provenance;
  if (!found) return null;
  return (
    <div class="stack">
      <Again title="again" text={found.again} />
      {found.notes.length > 0 && <ul class="muted">{found.notes.map((one) => <li>{say(one)}</li>)}</ul>}
      <div class="columns">
        {found.groups.map((group) => (
          <Panel tight>
            <h2>{say(group.title)}</h2>
            <Facts rows={group.rows.map(({ name, value }) => [name, <span class="mono">{value}</span>])} />
          </Panel>
        ))}
      </div>
    </div>
  );
}
