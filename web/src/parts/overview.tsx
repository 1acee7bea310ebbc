// What came of it: one sentence, five figures, what is worth a look.

import { Badge } from "../badge";
import type { Link } from "../document";
import { Command } from "../missing";
import { doc, part, range, selected, traceNumber } from "../state";
import { say, ui } from "../words";

/** Goes where a link leads. */
export function follow(link: Link): void {
  if (link.trace !== undefined && link.trace !== traceNumber.value) {
    traceNumber.value = link.trace;
    range.value = selected.value = null;
  }
  if (link.place !== undefined) selected.value = link.place;
  part.value = link.part;
}

export function OverviewPart() {
  const found = doc.value?.tape?.overview;
  if (!found) return null;
  return (
    <div class="stack overview">
      <p class="verdict">{say(found.verdict)}</p>
      <ul class="figures">
        {found.figures.map((one) => (
          <li class="figure">
            <span class="muted small">{say(one.label)}</span>
            <b>{one.text ?? "\u2013"}</b>
            {one.note && <span class="small muted">{say(one.note)}</span>}
            <span><Badge kind={one.badge} /></span>
          </li>
        ))}
      </ul>
      {found.findings.length > 0 && (
        <section>
          <h3>{ui("findings")}</h3>
          <ul class="findings">
            {found.findings.map(({ text, link }) => (
              <li><button type="button" class="link" onClick={() => follow(link)}><span>{say(text)}</span><span class="muted small">{ui(`part_${link.part}`)} {"\u2192"}</span></button></li>
            ))}
          </ul>
        </section>
      )}
      {found.command !== null && (
        <section>
          <h3>{ui("command")}</h3>
          <Command text={found.command} />
        </section>
      )}
    </div>
  );
}
