// SPDX-License-Identifier: Apache-2.0

// Bundles the console into internal/console/dist under stable names, which the
// agent embeds. With --test it bundles the unit tests into .test/ instead,
// because Node 20 does not read TypeScript.
import { copyFile, mkdir, readdir, readFile, rm, writeFile } from "node:fs/promises";
import * as esbuild from "esbuild";

const dist = new URL("../internal/console/dist/", import.meta.url).pathname;
const here = new URL("./", import.meta.url).pathname;

async function tests() {
  const out = `${here}.test`;
  await rm(out, { recursive: true, force: true });
  const names = (await readdir(`${here}test`)).filter((n) => n.endsWith(".test.ts"));
  await esbuild.build({
    entryPoints: names.map((n) => `${here}test/${n}`),
    bundle: true, platform: "node", format: "esm", outdir: out, outExtension: { ".js": ".mjs" },
    external: ["node:*"], logLevel: "warning",
  });
}

/** What the bundle contains of others, with their licences. */
const BUNDLED = ["preact", "uplot"];

async function licenses() {
  const parts = await Promise.all(BUNDLED.map(async (name) => {
    const dir = `${here}node_modules/${name}/`;
    const { version, license } = JSON.parse(await readFile(`${dir}package.json`, "utf8"));
    return `${name} ${version} (${license})\n\n${(await readFile(`${dir}LICENSE`, "utf8")).trim()}\n`;
  }));
  await writeFile(`${dist}licenses.txt`, `The console contains:\n\n${parts.join("\n----\n\n")}`);
}

async function bundle() {
  await mkdir(dist, { recursive: true });
  const options = {
    entryPoints: { app: `${here}src/main.tsx` },
    bundle: true, minify: true, format: "esm", target: "es2022", charset: "utf8", legalComments: "inline",
    jsx: "automatic", jsxImportSource: "preact", outdir: dist, logLevel: "info",
    banner: { js: "// SPDX-License-Identifier: Apache-2.0" },
  };
  for (const f of ["index.html", "favicon.svg"]) await copyFile(`${here}static/${f}`, dist + f);
  await licenses();
  if (process.argv.includes("--watch")) await (await esbuild.context(options)).watch();
  else await esbuild.build(options);
}

await (process.argv.includes("--test") ? tests() : bundle());
