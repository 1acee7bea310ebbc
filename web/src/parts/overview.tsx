// What came of it: one sentence, five figures, what is worth a look.

import { Badge, Button, Command } from "../blocks";
import { ABSENT } from "../chart/format";
import type { Link } from "../document";
import { doc, part, selected, show } from "../state";
import { say, ui } from "../words";

/** Goes where a link leads. */
export function follow(link: Link): void {
  if (link.trace !== undefined) show(link.trace);
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
            <b>{one.text ?? ABSENT}</b>
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
              <li><Button class="link" onClick={() => follow(link)}><span>{say(text)}</span><span class="muted small">{ui(`part_${link.part}`)} {"\u2192"}</span></Button></li>
            ))}
          </ul>
        </section>
      )}
      <Again title="command" text={found.command} />
    </div>
  );
}

/** The command that made a tape, or makes it again. */
export const Again = ({ title, text }: { title: string; text: string | null }) => text !== null && <section><h3>{ui(title)}</h3><Command text={text} /></section>;
