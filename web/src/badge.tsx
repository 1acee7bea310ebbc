// Where a number comes from: measured, modelled, or not available.

import type { Figure } from "./document";
import { ui } from "./words";

export function Badge({ kind }: { kind: Figure["badge"] }) {
  return (
    <span class="badge" data-kind={kind} title={ui(`badge_${kind}_why`)}>
      {ui(`badge_${kind}`)}
    </span>
  );
}
