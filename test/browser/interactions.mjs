// SPDX-License-Identifier: Apache-2.0

// What a person does with the pages.
import { assert } from "./assert.mjs";

const query = (page) => page.evaluate(() => Object.fromEntries(new URLSearchParams(location.hash.split("?")[1] ?? "")));
const background = (page) => page.evaluate(() => getComputedStyle(document.body).backgroundColor);

/** Drags horizontally over the middle of an element, from one share of its width to another. */
async function drag(page, selector, from, to) {
  const el = page.locator(selector).first();
  await el.scrollIntoViewIfNeeded();
  const b = await el.boundingBox();
  const y = b.y + b.height / 2;
  await page.mouse.move(b.x + b.width * from, y);
  await page.mouse.down();
  await page.mouse.move(b.x + b.width * ((from + to) / 2), y, { steps: 4 });
  await page.mouse.move(b.x + b.width * to, y, { steps: 4 });
  await page.mouse.up();
}

export const interactions = [
  {
    name: "language switch: all of the page changes, and it is remembered",
    run: async ({ page, open, shot }) => {
      await open("#/?last=1h");
      await page.waitForSelector('.side :text("Overview")');
      await page.click(".lang");
      await page.waitForSelector('.side :text("概览")');
      assert(await page.getAttribute("html", "lang") === "zh-CN", "the document's language is not set");
      await page.reload();
      await page.waitForSelector('.side :text("概览")');
      await page.waitForSelector(".workloads tbody tr");
      await shot("overview-zh");
      await open("#/events?last=1h");
      await page.waitForSelector(".events tbody tr");
      await shot("events-zh");
      await open("#/", "?lang=en");
      await page.waitForSelector('.side :text("Overview")');
    },
  },
  {
    name: "theme switch: light, dark, and as the system",
    run: async ({ page, open, shot }) => {
      await open("#/metrics?area=scheduling");
      await page.waitForSelector(".panel canvas");
      const light = await background(page);
      await page.click(".theme");
      assert(await background(page) === light, "the first step is light, which it was");
      await page.click(".theme");
      const dark = await background(page);
      assert(dark !== light, "dark looks like light");
      await page.waitForSelector(".panel .legend .num");
      await shot("metrics-dark");
      await page.reload();
      await page.waitForSelector(".panel canvas");
      assert(await background(page) === dark, "the choice is forgotten");
    },
  },
  {
    name: "zoom: a drag over a chart sets the range, a double click resets it",
    run: async ({ page, open, shot }) => {
      await open("#/metrics/huatuo_cpu_seconds_total?last=5m");
      await page.waitForSelector("main canvas");
      await drag(page, "main .u-over", 0.7, 0.95); // the newest part: the agent may run for a minute only
      await page.waitForFunction(() => location.hash.includes("from="));
      const q = await query(page);
      const span = (Date.parse(q.to) - Date.parse(q.from)) / 1000;
      assert(span > 60 && span < 90, `a quarter of 5 min is ${span} s`);
      assert(!(await page.textContent(".range-btn")).includes("Last"), "the picker still says that the range moves");
      await page.waitForFunction(() => /\d/.test(document.querySelector("main .legend .num")?.textContent ?? ""));
      await shot("zoomed");
      await page.locator("main .u-over").dblclick();
      await page.waitForFunction(() => !location.hash.includes("from="));
      assert((await query(page)).last === "5m", "the range before the zoom is lost");
    },
  },
  {
    name: "range: preset, typed, and fixed ends; Escape closes the sheet",
    run: async ({ page, open }) => {
      await open("#/events");
      await page.click(".range-btn");
      await page.click('.presets >> text="1 h"');
      assert((await query(page)).last === "1h", "preset");
      await page.click(".range-btn");
      await page.fill('.sheet input[placeholder]', "90m");
      await page.keyboard.press("Enter");
      assert((await query(page)).last === "1h30m", "typed");
      await page.click(".range-btn");
      await page.keyboard.press("Escape");
      await page.waitForSelector(".sheet", { state: "detached" });
    },
  },
  {
    name: "metrics: search narrows, an unknown word says so",
    run: async ({ page, open }) => {
      await open("#/metrics");
      await page.waitForSelector(".panel");
      const all = await page.locator(".panel").count();
      await page.fill(".search input", "load average");
      await page.waitForFunction((n) => document.querySelectorAll(".panel").length < n, all);
      assert((await query(page)).q === "load average", "the search is not in the URL");
      await page.fill(".search input", "no such metric");
      await page.waitForSelector('.notice >> text="No metric matches."');
    },
  },
  {
    name: "a workload of the overview leads to its metrics",
    run: async ({ page, open }) => {
      await open("#/?last=1h");
      await page.click(".workloads tbody a");
      await page.waitForSelector(".panel .legend .num");
      const q = await query(page);
      assert(q.scope === "workload" && (q.container || q.unit), `filters: ${JSON.stringify(q)}`);
    },
  },
  {
    name: "events: brush, kind, severity, full text and clear",
    run: async ({ page, open }) => {
      await open("#/events?last=1h");
      await page.waitForSelector(".events tbody tr");
      await page.click('.chips .chip:has-text("sched_stall")');
      await page.waitForFunction(() => location.hash.includes("kind=sched_stall"));
      await page.waitForFunction(() => {
        const kinds = [...document.querySelectorAll(".events td.kind")];
        return kinds.length > 0 && kinds.every((e) => e.textContent === "sched_stall");
      });
      await page.fill(".filters .search input", "zzzznothing");
      await page.waitForSelector('.notice >> text="No event passes the filters."');
      await page.click('text="Clear filters"');
      await page.waitForSelector(".events tbody tr");
      const before = await query(page);
      assert(before.kind === undefined && before.q === undefined, "filters are left");
      const word = (await page.textContent(".events td.kind")).trim();
      await page.fill(".filters .search input", word);
      await page.waitForFunction((w) => location.hash.includes(`q=${w}`), word);
      await page.waitForSelector(".events tbody tr");
      await page.click('text="Clear filters"');
      await page.waitForSelector(".timeline svg rect");
      await drag(page, ".timeline .area", 0.3, 0.9);
      await page.waitForFunction(() => location.hash.includes("from="));
      const q = await query(page);
      const span = (Date.parse(q.to) - Date.parse(q.from)) / 1000;
      assert(span > 1800 && span < 2500, `6/10 of an hour is ${span} s`);
    },
  },
  {
    name: "events: live tail connects and says so",
    run: async ({ page, open }) => {
      await open("#/events?last=1h");
      await page.waitForSelector(".events tbody tr");
      await page.click(".filters .live");
      await page.waitForSelector(".live.open");
      assert((await query(page)).live === "1", "live is not in the URL");
      await page.click(".filters .live");
      await page.waitForSelector(".live.off");
    },
  },
  {
    name: "one event: same-value search, raw JSON shown and downloaded",
    run: async ({ page, open, get }) => {
      const { events } = await get("/api/v1/events?kind=sched_stall&limit=1");
      await open(`#/events/${events[0].id}`);
      const [file] = await Promise.all([page.waitForEvent("download"), page.click(".download")]);
      assert(file.suggestedFilename() === `sched_stall-${events[0].id}.json`, file.suggestedFilename());
      const text = await (await import("node:fs/promises")).readFile(await file.path(), "utf8");
      assert(JSON.parse(text).id === events[0].id, "the file is another event");
      await page.hover(".fields tbody tr");
      await page.locator(".fields .find").first().click();
      await page.waitForFunction(() => location.hash.includes("field."));
      await page.waitForFunction(() => document.querySelectorAll(".events tbody tr, .notice").length > 0);
    },
  },
  {
    name: "refresh: a moving range asks again by itself, a paused one does not",
    run: async ({ page, open }) => {
      await open("#/metrics/huatuo_cpu_seconds_total?last=5m");
      await page.waitForSelector("main canvas");
      await page.waitForRequest((r) => r.url().includes("query_range"), { timeout: 9000 });
      await page.click('[aria-label="Pause refreshing every 5 s"]');
      await page.waitForTimeout(500);
      const asked = await page.waitForRequest((r) => r.url().includes("query_range"), { timeout: 6500 }).then(() => true, () => false);
      assert(!asked, "it asks although it is paused");
    },
  },
  {
    name: "keyboard: skip link, visible focus, reading a chart",
    run: async ({ page, open }) => {
      await open("#/metrics/huatuo_cpu_seconds_total?last=15m");
      await page.waitForSelector("main canvas");
      await page.keyboard.press("Tab");
      assert(await page.evaluate(() => document.activeElement.className) === "skip", "the first stop is not the skip link");
      const outline = await page.evaluate(() => getComputedStyle(document.activeElement).outlineStyle);
      assert(outline !== "none", "the focus cannot be seen");
      await page.keyboard.press("Enter");
      await page.focus("main .plot");
      await page.keyboard.press("ArrowLeft");
      await page.keyboard.press("ArrowLeft");
      await page.waitForSelector("main .tip:not([hidden]) .tip-row");
      await page.keyboard.press("+");
      await page.waitForFunction(() => location.hash.includes("from="));
      await page.keyboard.press("-");
      await page.waitForFunction(() => !location.hash.includes("from="));
    },
  },
  {
    name: "phone: all pages by the bar at the bottom",
    view: "phone",
    run: async ({ page, open }) => {
      await open("#/");
      for (const [i, title] of ["Overview", "Kernel metrics", "Events", "System"].entries()) {
        await page.locator(".side li a").nth(i).tap();
        await page.waitForFunction((t) => document.querySelector("h1")?.textContent === t, title);
      }
    },
  },
];
