// What is asked of elements and events in many places.

/** Tells the size of what an element holds, now and whenever it changes; until what it returns is called. */
export function watchSize(element: Element, tell: (box: DOMRectReadOnly) => void): () => void {
  const watch = new ResizeObserver(([one]) => tell(one!.contentRect));
  watch.observe(element);
  return () => watch.disconnect();
}

/** Whether a key is pressed together with one that makes it the browser's. */
export const modified = (event: KeyboardEvent): boolean => event.ctrlKey || event.metaKey || event.altKey;

/** Keeps an event from the browser, and from what is around. */
export function take(event: Event): void {
  event.preventDefault();
  event.stopPropagation();
}

/** Where a key goes from thing `at` (-1 for none) in a row of `n`, maybe beyond its ends; undefined where it goes nowhere. */
export const walked = (event: KeyboardEvent, at: number, n: number, page = 10): number | undefined =>
  modified(event) ? undefined : { ArrowLeft: at - 1, ArrowRight: at + 1, PageUp: at - page, PageDown: at + page, Home: 0, End: n - 1 }[event.key];

/** The number that the nearest element around an event's target has as data of that name; null where there is none. */
export function numbered(event: Event, name: string): number | null {
  const found = event.target instanceof Element ? event.target.closest<HTMLElement>(`[data-${name}]`) : null;
  return found ? Number(found.dataset[name]) : null;
}
