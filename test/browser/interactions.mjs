// SPDX-License-Identifier: Apache-2.0

// What a person does with the pages.
import { assert, until } from "./assert.mjs";

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

/** Seconds that a cell shows; null for none. */
function seconds(text) {
  const m = /^([\d.]+) (ns|µs|ms|s|min)$/.exec(text.trim());
  return m === null ? null : Number(m[1]) * { ns: 1e-9, "µs": 1e-6, ms: 1e-3, s: 1, min: 60 }[m[2]];
}

/** Answers instant queries about CPU and memory as a node with one pod of two containers would. */
async function podded(route) {
  const q = new URL(route.request().url()).searchParams.get("query");
  const one = (container, v) => ({ metric: { namespace: "prod", pod: "web-0", container }, value: [0, String(v)] });
  const values = { cpu_usage_seconds_total: [0.5, 0.25], memory_working_set_bytes: [2 ** 20, 2 ** 20], memory_limit_bytes: [2 ** 21, 2 ** 24] };
  const hit = Object.entries(values).find(([k]) => q.includes(`huatuo_container_${k}`) && !q.includes("__name__"));
  await route.fulfill({ json: { status: "success", data: { resultType: "vector", result: hit === undefined ? [] : [one("web", hit[1][0]), one("log", hit[1][1])] } } });
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
      await open("#/workloads?last=1h");
      await page.waitForSelector('.worktable th:has-text("运行队列"), .worktable th:has-text("等待 p99")');
      await shot("workloads-zh");
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
      await until(() => background(page), (c) => c !== light, "dark looks like light");
      const dark = await background(page);
      await page.waitForSelector(".panel .legend .num");
      await shot("metrics-dark");
      await page.reload();
      await page.waitForSelector(".panel canvas");
      await until(() => background(page), (c) => c === dark, "the choice is forgotten");
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
      await until(() => page.textContent(".range-btn"), (x) => !x.includes("Last"), "the picker still says that the range moves");
      await page.waitForFunction(() => /\d/.test(document.querySelector("main .legend .num")?.textContent ?? ""));
      await shot("zoomed");
      await page.locator("main .u-over").dblclick();
      await page.waitForFunction(() => !location.hash.includes("from="));
      await until(() => query(page), (q) => q.last === "5m", "the range before the zoom is lost");
    },
  },
  {
    name: "range: preset, typed, and fixed ends; Escape closes the sheet",
    run: async ({ page, open }) => {
      await open("#/events");
      await page.click(".range-btn");
      await page.click('.presets >> text="1 h"');
      await until(() => query(page), (q) => q.last === "1h", "preset");
      await page.click(".range-btn");
      await page.fill('.sheet input[placeholder]', "90m");
      await page.keyboard.press("Enter");
      await until(() => query(page), (q) => q.last === "1h30m", "typed");
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
      await until(() => query(page), (q) => q.q === "load average", "the search is not in the URL");
      await page.fill(".search input", "no such metric");
      await page.waitForSelector('.notice >> text="No metric matches."');
    },
  },
  {
    name: "a workload of the overview leads to its page, and from there to its events",
    run: async ({ page, open }) => {
      await open("#/?last=1h");
      const name = await page.getAttribute(".workloads tbody a", "title");
      await page.click(".workloads tbody a");
      await page.locator(".panel").first().scrollIntoViewIfNeeded(); // charts are asked for when they come near
      await page.waitForSelector(".panel .legend .num");
      await until(() => page.textContent(".work-head h2"), (x) => x === name, (x) => `${x} is another workload than ${name}`);
      assert((await query(page)).last === "1h", "the range is lost");
      await page.click('.work-head .actions >> text="All its events"');
      await page.waitForFunction(() => location.hash.startsWith("#/events?"));
      await until(() => query(page), (q) => q.container || q.unit, (q) => `filters: ${JSON.stringify(q)}`);
    },
  },
  {
    name: "workloads: sorted by any column, in both directions, by keyboard too",
    run: async ({ page, open }) => {
      await open("#/workloads?last=1h&sort=name");
      await page.waitForSelector(".worktable tbody tr");
      await page.click('th[data-col="wait"] button');
      await page.waitForFunction(() => document.querySelector('th[data-col="wait"]').getAttribute("aria-sort") === "descending");
      await until(() => query(page), (q) => q.sort === "wait", "the order is not in the URL");
      const waits = async () => (await page.locator('td[data-col="wait"]').allTextContents()).map(seconds).filter((v) => v !== null);
      const ordered = (l, sign) => l.every((v, i) => i === 0 || sign * (v - l[i - 1]) >= 0);
      const down = await waits();
      assert(down.length >= 2 && ordered(down, -1), `not falling: ${down}`);
      await page.focus('th[data-col="wait"] button');
      await page.keyboard.press("Enter");
      await page.waitForFunction(() => document.querySelector('th[data-col="wait"]').getAttribute("aria-sort") === "ascending");
      const up = await waits();
      assert(ordered(up, 1), `not rising: ${up}`);
      await page.click('th[data-col="name"] button');
      await page.waitForSelector('th[data-col="name"][aria-sort="ascending"]');
      const names = await page.locator("[data-workload]").evaluateAll((l) => l.map((e) => e.dataset.workload));
      assert(names.join() === [...names].sort((a, b) => a.localeCompare(b, "en-US")).join(), `not by name: ${names}`);
    },
  },
  {
    name: "workloads: search, kind and group narrow and order the table; the URL keeps them",
    run: async ({ page, open, shot }) => {
      await open("#/workloads?last=1h&sort=name");
      await page.waitForSelector(".worktable tbody tr");
      const some = await page.locator("[data-workload]").last().getAttribute("data-workload");
      await page.fill(".filters .search input", some);
      await page.waitForFunction((n) => [...document.querySelectorAll("[data-workload]")].every((e) => e.dataset.workload.includes(n)), some);
      await until(() => query(page), (q) => q.q === some, "the search is not in the URL");
      await page.fill(".filters .search input", "no such workload");
      await page.waitForSelector('.notice >> text="No workload passes the filters."');
      await page.fill(".filters .search input", "");
      await page.waitForSelector("[data-workload]");
      await page.click('.chips .chip:has-text("Cgroups")');
      await page.waitForFunction(() => {
        const l = [...document.querySelectorAll("[data-workload]")];
        return l.length > 0 && l.every((e) => e.dataset.workload.startsWith("/"));
      });
      await page.click('.chips .chip:has-text("All")');
      await page.selectOption('select >> nth=0', "kind");
      await page.waitForSelector('.worktable .total:has-text("Cgroups")');
      await shot("workloads-grouped");
      await page.reload();
      await page.waitForSelector('.worktable .total:has-text("Cgroups")');
    },
  },
  {
    name: "workloads: a row leads to the workload, the way back is above it",
    run: async ({ page, open }) => {
      await open("#/workloads?last=1h&sort=wait");
      await page.waitForSelector("[data-workload]");
      const first = page.locator("[data-workload]:not(:has-text('short-lived'))").first();
      const name = await first.getAttribute("data-workload");
      await first.locator("a").click();
      await page.waitForFunction((n) => document.querySelector(".work-head h2")?.textContent === n, name);
      await until(() => page.title(), (x) => x.startsWith(name), (x) => `title: ${x}`);
      await page.click('.chips .chip:has-text("Scheduling")');
      await page.waitForFunction(() => document.querySelectorAll("h2.area").length === 1);
      await page.click(".back");
      await page.waitForSelector(".worktable");
    },
  },
  {
    name: "workloads: pods are the sum of their containers, and have a page with them",
    run: async ({ page, open, shot }) => {
      await page.route("**/api/v1/query?**", podded);
      await page.route("**/api/v1/label/__name__/values?**", (r) => r.fulfill({ json: { status: "success", data: ["huatuo_container_cpu_usage_seconds_total"] } }));
      await open("#/workloads?last=1h");
      await page.click('.chips .chip:has-text("Pods")');
      await page.waitForSelector('[data-workload="prod/web-0"]');
      assert(await page.locator("[data-workload]").count() === 1, "two containers of a pod make two rows");
      const cores = await page.textContent('[data-workload="prod/web-0"] [data-col="cpu"]');
      assert(cores.trim() === "0.75", `0.5 + 0.25 = ${cores}`);
      assert((await page.textContent('[data-workload="prod/web-0"] [data-col="memory_share"]')).trim() === "50%", "not the fullest container");
      await page.click('[data-workload="prod/web-0"] a');
      await page.waitForSelector('[data-workload="prod/web-0/web"]');
      await until(() => page.textContent(".work-head h2"), (x) => x === "prod/web-0", "not the pod's page");
      await shot("pod");
      await page.click('[data-workload="prod/web-0/web"] a');
      await page.waitForSelector('.work-head .actions >> text="Its pod"');
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
      await until(() => query(page), (q) => q.kind === undefined && q.q === undefined, "filters are left");
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
      await until(() => query(page), (q) => q.live === "1", "live is not in the URL");
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
      await until(() => page.evaluate(() => document.activeElement.className), (c) => c === "skip", "the first stop is not the skip link");
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
      for (const [i, title] of ["Overview", "Workloads", "Kernel metrics", "Events", "Profiles", "System"].entries()) {
        await page.locator(".side li a").nth(i).tap();
        await page.waitForFunction((t) => document.querySelector("h1")?.textContent === t, title);
      }
    },
  },
  {
    name: "phone: workloads are cards, sorted by a list, and a tap opens one",
    view: "phone",
    run: async ({ page, open }) => {
      await open("#/workloads?last=1h");
      await page.waitForSelector("[data-workload]");
      await page.selectOption(".phone-order select", "wait");
      await page.waitForFunction(() => location.hash.includes("sort=wait"));
      const card = page.locator("[data-workload]").first();
      const box = await card.boundingBox();
      assert(box.width > 300 && box.height > 50, `a card of ${box.width} × ${box.height}`);
      await card.tap({ position: { x: box.width - 20, y: box.height - 10 } });
      await page.waitForSelector(".work-head h2");
    },
  },
];
