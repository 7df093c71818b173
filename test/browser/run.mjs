// SPDX-License-Identifier: Apache-2.0

// Opens the console of a running agent in headless Chromium and checks it with
// the agent's real data. The agent must have at least one event of the kinds
// sched_stall, of a container or cgroup, and packet_drop in the last hour.
//
//   node run.mjs --url http://localhost:19704 --out /tmp/screenshots
//
// CHROMIUM names the browser, /usr/bin/chromium by default.
import { mkdir } from "node:fs/promises";
import { parseArgs } from "node:util";
import { chromium } from "playwright-core";
import { assert } from "./assert.mjs";
import { culprits } from "./culprits.mjs";
import { events } from "./events.mjs";
import { faults } from "./faults.mjs";
import { interactions } from "./interactions.mjs";
import { pages } from "./pages.mjs";
import { profiles } from "./profiles.mjs";
import { runtimes } from "./runtimes.mjs";

const { values: args } = parseArgs({
  options: { url: { type: "string", default: "http://localhost:19704" }, out: { type: "string", default: "screenshots" }, only: { type: "string", default: "" } },
});

/** Watches a page for everything that must not happen: console errors, exceptions, failed requests. */
function watch(page, allow) {
  const bad = [];
  page.on("console", (m) => {
    if (m.type() === "error" && !allow.test(m.text())) bad.push(`console: ${m.text()}`);
  });
  page.on("pageerror", (e) => bad.push(`exception: ${e.message}`));
  page.on("requestfailed", (r) => {
    // A view that is left aborts its queries; that is no failure.
    if (!/ERR_ABORTED/.test(r.failure()?.errorText ?? "") && !allow.test(r.url())) bad.push(`request: ${r.url()} ${r.failure()?.errorText}`);
  });
  page.on("response", (r) => {
    if (r.status() >= 400 && !allow.test(r.url())) bad.push(`answer: ${r.status()} ${r.url()}`);
  });
  return bad;
}

const VIEWS = {
  desktop: { viewport: { width: 1280, height: 900 }, colorScheme: "light" },
  phone: { viewport: { width: 390, height: 844 }, colorScheme: "dark", hasTouch: true, isMobile: true, deviceScaleFactor: 2 },
};

const NOTHING = /^$/;

async function main() {
  await mkdir(args.out, { recursive: true });
  const browser = await chromium.launch({
    executablePath: process.env.CHROMIUM || "/usr/bin/chromium",
    args: ["--no-sandbox", "--disable-gpu", "--disable-quic", "--no-first-run", "--disable-background-networking", "--disable-component-update", "--disable-sync"],
  });
  const get = async (path) => {
    const r = await fetch(new URL(path, args.url));
    assert(r.ok, `GET ${path}: ${r.status}`);
    return r.json();
  };
  let passed = 0;
  const failed = [];
  const late = [];
  const once = async (name, view, options, body) => {
    const context = await browser.newContext({ locale: "en-US", acceptDownloads: true, ...VIEWS[view], ...options.context });
    const page = await context.newPage();
    page.setDefaultTimeout(15000);
    const bad = watch(page, options.allow ?? NOTHING);
    const shot = (label) => page.screenshot({ path: `${args.out}/${label}.png` });
    try {
      await body({ page, get, shot, base: args.url, open: (hash, search = "") => page.goto(`${args.url}/${search}${hash}`) });
      assert(bad.length === 0, bad.join("\n    "));
      return true;
    } catch (e) {
      console.log(`FAIL  ${name}\n    ${e.message}`);
      await shot(`failed-${name.replace(/\W+/g, "-")}`).catch(() => {});
      return false;
    } finally {
      await context.close();
    }
  };
  // The data of a live host move below a check's feet: what fails is tried once more, and named.
  const check = async (name, view, options, body) => {
    if (!name.includes(args.only)) return;
    if (await once(name, view, options, body)) {
      passed++;
      console.log(`ok    ${name}`);
    } else if (await once(name, view, options, body)) {
      passed++;
      late.push(name);
      console.log(`ok    ${name}, when it was tried again`);
    } else failed.push(name);
  };
  try {
    for (const view of Object.keys(VIEWS)) {
      for (const p of pages) await check(`${view}: ${p.name}`, view, {}, async (t) => openPage(p, view, t));
    }
    for (const i of [...interactions, ...events, ...culprits, ...profiles, ...runtimes, ...faults]) await check(i.name, i.view ?? "desktop", i, i.run);
  } finally {
    await browser.close();
  }
  console.log(`${passed} passed, ${failed.length} failed, ${late.length} passed in their second try: ${late.join("; ") || "none"}`);
  process.exitCode = failed.length > 0 || passed === 0 ? 1 : 0;
}

/** Opens one page, lets it assert its data, and keeps its picture. */
async function openPage(p, view, t) {
  await t.open(await p.hash(t.get));
  await p.run(t);
  const over = await t.page.evaluate(() => document.documentElement.scrollWidth - document.documentElement.clientWidth);
  assert(over <= 0, `the page is ${over} px wider than the screen`);
  const nameless = await t.page.evaluate(() => [...document.querySelectorAll("button, a, input, select")]
    .filter((e) => !(e.getAttribute("aria-label") || e.textContent.trim() || e.closest("label")?.textContent.trim())).map((e) => e.outerHTML.slice(0, 120)));
  assert(nameless.length === 0, `controls without a name: ${nameless.join(" ")}`);
  await t.shot(`${p.name.replace(/\W+/g, "-")}-${view}`);
}

await main();
