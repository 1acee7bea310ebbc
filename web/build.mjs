// Builds the page's script and style into the package. `node build.mjs --out DIR` writes them elsewhere, to compare.
import { build } from "esbuild";
import { stat } from "node:fs/promises";
import { dirname, join } from "node:path";
import { fileURLToPath } from "node:url";

const here = dirname(fileURLToPath(import.meta.url));
const asked = process.argv.indexOf("--out");
const out = asked < 0 ? join(here, "../src/tokentape/views/static") : process.argv[asked + 1];
const LIMITS = { "view.js": 120 * 1024, "view.css": 15 * 1024 };

await build({
  absWorkingDir: here,
  entryPoints: [{ in: "src/main.tsx", out: "view" }, { in: "src/style.css", out: "view" }],
  outdir: out,
  bundle: true,
  minify: true,
  format: "iife",
  target: ["chrome110", "firefox115", "safari16"],
  charset: "ascii",
  legalComments: "none",
  // an element is `h(type, props, ...children)`: shorter than the automatic form, which has its children among the props
  jsx: "transform",
  jsxFactory: "h",
  jsxFragment: "Fragment",
  inject: ["src/jsx.ts"],
  // in the place of tsconfig.json, whose own form of elements would come first
  tsconfigRaw: { compilerOptions: { verbatimModuleSyntax: true } },
});

for (const [name, limit] of Object.entries(LIMITS)) {
  const { size } = await stat(join(out, name));
  console.log(`${name}: ${size.toLocaleString("en")} of ${limit.toLocaleString("en")} bytes`);
  if (size > limit) {
    console.error(`${name} is over its limit`);
    process.exitCode = 1;
  }
}
