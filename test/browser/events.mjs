// SPDX-License-Identifier: Apache-2.0

// Events in depth: filters on any field, live tail, one event with what is
// around it, export.
import { readFile } from "node:fs/promises";
import { assert } from "./assert.mjs";

const query = (page) => page.evaluate(() => Object.fromEntries(new URLSearchParams(location.hash.split("?")[1] ?? "")));
const rows = (page) => page.locator(".events tbody tr").count();

/** The newest stall of a workload that has lived for some samples, and so has charts. */
async function stalled(get) {
  const lived = "max by (namespace, pod, container, unit) (count_over_time(huatuo_container_runqueue_wait_seconds[1h])) >= 3";
  const { data } = await get(`/api/v1/query?query=${encodeURIComponent(lived)}`);
  for (const { metric: m } of data.result) {
    if (m.unit === "/" || m.container === "other") continue;
    const { events } = await get(`/api/v1/events?${new URLSearchParams({ ...m, kind: "sched_stall", limit: 1 })}`);
    if (events.length === 1) return events[0];
  }
  throw new Error(`none of ${data.result.length} workloads has a sched_stall event`);
}

const sse = (...parts) => `retry: 300\n\n${parts.join("")}`;
const sent = (d) => `id: ${d.id}\nevent: event\ndata: ${JSON.stringify(d)}\n\n`;

export const events = [
  {
    name: "events: a condition on a field, suggested, added and removed",
    run: async ({ page, open, get, shot }) => {
      const { events } = await get("/api/v1/events?kind=sched_stall&limit=200");
      const waits = events.map((e) => e.fields.wait_seconds).sort((a, b) => a - b);
      const middle = waits[Math.floor(waits.length / 2)];
      await open("#/events?last=1h&kind=sched_stall");
      await page.waitForSelector(".events tbody tr");
      const names = await page.locator("#filter-names option").evaluateAll((l) => l.map((o) => o.value));
      assert(names.includes("field.wait_seconds") && names.includes("verdict") && !names.includes("field.reason"), `names of the kind: ${names}`);
      await page.fill('[aria-label="Field"]', "wait_seconds");
      await page.selectOption(".adder .op", ">=");
      await page.fill('[aria-label="Value"]', "long");
      assert(await page.isDisabled(".adder button"), "a word is taken for a number");
      await page.fill('[aria-label="Value"]', `${middle * 1000}ms`);
      await page.keyboard.press("Enter");
      await page.waitForFunction(() => location.hash.includes("where="));
      const { where } = await query(page);
      assert(where === `field.wait_seconds >= ${middle * 1000}ms`, `where: ${where}`);
      await page.waitForSelector(".chip.removable");
      await page.waitForFunction(() => document.querySelectorAll(".events tbody tr").length > 0);
      const { events: some } = await get(`/api/v1/events?${new URLSearchParams({ kind: "sched_stall", where, limit: 1000 })}`);
      assert(some.length > 0 && some.every((e) => e.fields.wait_seconds >= middle * 0.999999), "the API lets others through");
      const ids = new Set(some.map((e) => e.id));
      const shown = await page.locator(".events tbody tr").evaluateAll((l) => l.map((e) => e.dataset.id));
      assert(shown.every((id) => ids.has(id)), "a row does not pass the filter");
      await page.fill('[aria-label="Field"]', "comm");
      await page.waitForFunction(() => document.querySelectorAll("#filter-values option").length > 0);
      await page.selectOption(".adder .op", "=");
      await page.fill('[aria-label="Value"]', await page.locator("#filter-values option").first().getAttribute("value"));
      await page.keyboard.press("Enter");
      await page.waitForFunction(() => location.hash.includes("comm="));
      await shot("events-filtered");
      await page.reload(); // the URL is the state
      await page.locator('.chip.removable:has-text("wait_seconds")').click();
      await page.waitForFunction(() => !location.hash.includes("where=") && location.hash.includes("comm="));
    },
  },
  {
    name: "events: what the API refuses of a typed URL is said, and can be removed", allow: /422|where=/,
    run: async ({ page, open }) => {
      await open("#/events?where=nonsense");
      await page.waitForSelector('[role="alert"] >> text=NAME OP VALUE');
      await page.click('.chip.removable:has-text("nonsense")');
      await page.waitForFunction(() => !location.hash.includes("where="));
    },
  },
  {
    name: "events: the live tail keeps to the filters, tells of a gap, and holds still",
    run: async ({ page, open, get }) => {
      const [d] = (await get("/api/v1/events?kind=sched_stall&limit=1")).events;
      const now = new Date().toISOString();
      const event = (id, title) => ({ ...d, id, title, time: now });
      const asked = [];
      let second = false;
      await page.route("**/api/v1/events/stream?**", (r) => {
        asked.push(new URL(r.request().url()).searchParams);
        const parts = [sent(event("7ZZZZZZZZZZZZZZZZZZZZZZZZ1", "the first of the stream")), 'event: gap\ndata: {"lost":3}\n\n'];
        if (second) parts.push(sent(event("7ZZZZZZZZZZZZZZZZZZZZZZZZ2", "the second of the stream")));
        return r.fulfill({ contentType: "text/event-stream", body: sse(...parts) });
      });
      await open("#/events?last=1h&live=1&kind=sched_stall&where=field.wait_seconds+%3E+1ms");
      await page.waitForSelector('.events >> text="the first of the stream"');
      assert(asked[0].get("where") === "field.wait_seconds > 1ms" && asked[0].get("kind") === "sched_stall", `the stream is asked for ${asked[0]}`);
      await page.waitForSelector('.gap >> text=/has a gap: \\d+ events/');
      await page.click('[aria-label="Hold the list still"]');
      second = true;
      await page.waitForSelector('.filters .hint:has-text("+")');
      assert(await page.locator('.events >> text="the second of the stream"').count() === 0, "the list moves while it is held");
      await page.click(".filters .hold");
      await page.waitForSelector('.events >> text="the second of the stream"');
      await page.click('.gap >> text="Read them from the store"');
      await page.waitForSelector(".live.off");
    },
  },
  {
    name: "one event: neighbours by relation and window, charts with the moment",
    run: async ({ page, open, get, shot }) => {
      const d = await stalled(get);
      await open(`#/events/${d.id}`);
      await page.waitForSelector(".neighbours [data-relation] .here");
      const order = await page.locator("[data-relation]").evaluateAll((l) => l.map((e) => e.dataset.relation));
      const ranks = order.map((r) => ["cause", "effect", "same", "process", "workload", "cpu", "host"].indexOf(r));
      assert(ranks.every((r, i) => r >= 0 && (i === 0 || r > ranks[i - 1])), `order: ${order}`);
      await Promise.all([page.waitForRequest((r) => r.url().includes("/neighbours?window=300")), page.click('.segments >> text="5 min"')]);
      const { charts } = await get(`/api/v1/events/${d.id}/charts`);
      assert(charts.length >= 4, `${charts.length} charts`);
      const metrics = charts.map((c) => c.metric);
      assert(metrics[0] === "huatuo_container_runqueue_wait_seconds" && metrics.includes("huatuo_signals_total"), `charts: ${metrics}`);
      await page.locator(`[data-metric="${metrics[0]}"]`).scrollIntoViewIfNeeded();
      await page.waitForFunction((m) => /\d/.test(document.querySelector(`[data-metric="${m}"] .legend .num`)?.textContent ?? ""), metrics[0]);
      const asked = page.waitForRequest((r) => r.url().includes("query_range"));
      const box = await page.locator(`[data-metric="${metrics[0]}"] .u-over`).boundingBox();
      await page.mouse.move(box.x + box.width * 0.3, box.y + 40);
      await page.mouse.down();
      await page.mouse.move(box.x + box.width * 0.6, box.y + 40, { steps: 5 });
      await page.mouse.up();
      const zoomed = new URL((await asked).url()).searchParams;
      assert(Number(zoomed.get("end")) - Number(zoomed.get("start")) < 300, "a drag does not zoom");
      assert((await query(page)).from === undefined, "the zoom of these charts changes the page's range");
      await shot("event-around");
    },
  },
  {
    name: "one event: verdict, links, known issues and resources",
    run: async ({ page, open, get, shot }) => {
      const d = await stalled(get);
      const full = {
        ...d, verdict: "The quota of the group was used up.", known: ["slow-disk"], links: [{ id: d.id, kind: "io_stall", relation: "cause", title: "a disk stood still" }],
        resources: {
          host: { load1: 12.5, runnable: 9, memory_total_bytes: 2 ** 30, memory_available_bytes: 2 ** 28, pressure: { cpu_some: 0.9, memory_some: 0, memory_full: 0, io_some: 0.2, io_full: 0.1 } },
          workload: { memory_used_bytes: 990 * 2 ** 20, memory_limit_bytes: 2 ** 30, cpu_limit_cores: 0.5, throttled_seconds: 3.5 },
        },
        registers: { rip: "schedule" },
      };
      await page.route(`**/api/v1/events/${d.id}`, (r) => r.fulfill({ json: full }));
      await open(`#/events/${d.id}`);
      await page.waitForSelector('.verdict >> text="The quota of the group was used up."');
      await page.waitForSelector('.links >> text="a disk stood still"');
      assert((await page.textContent(".resources")).includes("990 MiB / 1 GiB"), await page.textContent(".resources"));
      assert(await page.locator(".resources meter.warn, .resources meter.bad").count() >= 1, "a limit nearly reached looks like any other");
      await shot("event-full");
      await page.click('text="known issue: slow-disk"');
      await page.waitForFunction(() => location.hash.includes("where=known"));
    },
  },
  {
    name: "export: one HTML file that opens from disk, without network or script",
    run: async ({ page, open, get, shot }) => {
      const d = await stalled(get);
      await open(`#/events/${d.id}`);
      const [file] = await Promise.all([page.waitForEvent("download"), page.click(".actions .export")]);
      assert(file.suggestedFilename() === `sched_stall-${d.id}.html`, file.suggestedFilename());
      const path = `${await file.path()}.html`;
      await file.saveAs(path);
      const context = await page.context().browser().newContext({ offline: true, viewport: { width: 1280, height: 900 } });
      const alone = await context.newPage();
      const asked = [];
      alone.on("request", (r) => asked.push(r.url()));
      const bad = [];
      alone.on("console", (m) => { if (m.type() === "error") bad.push(m.text()); });
      await alone.goto(`file://${path}`);
      assert(await alone.textContent("h1") === d.title, "another title");
      const drawn = await alone.evaluate(() => ({
        scripts: document.scripts.length, lines: document.querySelectorAll("svg.plot polyline").length, moments: document.querySelectorAll("svg.plot .moment").length,
        near: document.querySelectorAll(".near tr").length, wide: document.documentElement.scrollWidth - document.documentElement.clientWidth,
      }));
      assert(drawn.scripts === 0 && drawn.lines > 0 && drawn.moments > 0 && drawn.near > 0 && drawn.wide <= 0, JSON.stringify(drawn));
      assert(asked.length === 1 && bad.length === 0, `it asks for ${asked}; ${bad}`);
      await alone.setViewportSize({ width: 390, height: 844 });
      assert(await alone.evaluate(() => document.documentElement.scrollWidth <= document.documentElement.clientWidth), "wider than a phone");
      await context.close();
      await shot("event-export");
    },
  },
  {
    name: "export: the list as a file, with its filters",
    run: async ({ page, open }) => {
      await open("#/events?last=1h&kind=sched_stall&where=field.wait_seconds+%3E+60ms");
      await page.waitForFunction(() => document.querySelectorAll(".events tbody tr, .notice").length > 0);
      const [file] = await Promise.all([page.waitForEvent("download"), page.click(".filters .export")]);
      assert(/^huatuo-events-\d{8}T\d{6}Z\.ndjson$/.test(file.suggestedFilename()), file.suggestedFilename());
      const lines = (await readFile(await file.path(), "utf8")).trim().split("\n").filter(Boolean).map((l) => JSON.parse(l));
      assert(lines.every((d) => d.kind === "sched_stall" && d.fields.wait_seconds > 0.06), "an event in the file does not pass the filters");
      assert(lines.length >= Math.min(1, await rows(page)), "the file is empty");
    },
  },
];
