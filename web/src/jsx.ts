// What the bundler makes elements with.

export { Fragment, h } from "preact";
