// What stands where nothing was recorded: why, and the command that fills it.

import { useState } from "preact/hooks";
import type { Missing } from "./document";
import { say, ui } from "./words";

/** A command and the button that copies it. */
export function Command({ text }: { text: string }) {
  const [done, setDone] = useState(false);
  const copy = async (): Promise<void> => {
    setDone(await copied(text));
    setTimeout(() => setDone(false), 2000);
  };
  return (
    <div class="cmd">
      <code tabIndex={0}>{text}</code>
      <button type="button" class="btn" onClick={copy} aria-live="polite">
        {ui(done ? "copied" : "copy")}
      </button>
    </div>
  );
}

export function Empty({ part }: { part: Missing }) {
  return (
    <div class="missing">
      <p>{say(part.missing)}</p>
      {part.run !== null && <Command text={part.run} />}
    </div>
  );
}

/** Copies a text; a page opened from a file may not have the clipboard's own interface. */
export async function copied(text: string): Promise<boolean> {
  try {
    await navigator.clipboard.writeText(text);
    return true;
  } catch {
    const box = document.createElement("textarea");
    box.value = text;
    box.className = "vh";
    document.body.append(box);
    box.select();
    const done = document.execCommand("copy");
    box.remove();
    return done;
  }
}
