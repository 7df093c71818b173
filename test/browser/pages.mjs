// SPDX-License-Identifier: Apache-2.0

// Every page with what it must show when the agent has data.
import { assert } from "./assert.mjs";

/** The newest event of a kind. */
async function newest(get, kind) {
  const { events } = await get(`/api/v1/events?kind=${kind}&limit=1`);
  assert(events?.length === 1, `the agent has no ${kind} event`);
  return events[0];
}

/** How many different colours a canvas shows: a blank one has one or none, an empty chart only its axes'. */
function colours(page, selector) {
  return page.evaluate((s) => {
    const c = document.querySelector(s);
    if (!c || c.width === 0 || c.height === 0) return 0; // about to be drawn anew
    const { data } = c.getContext("2d").getImageData(0, 0, c.width, c.height);
    const seen = new Set();
    for (let i = 0; i < data.length; i += 4) if (data[i + 3] > 200) seen.add((data[i] << 16) | (data[i + 1] << 8) | data[i + 2]);
    return seen.size;
  }, selector);
}

/** Waits until a chart has a line: the read-out of its legend is a number. */
async function drawn(page, within) {
  await page.waitForFunction((s) => /\d/.test(document.querySelector(`${s} .legend .num`)?.textContent ?? ""), within);
  let n = 0;
  for (let i = 0; i < 50 && n <= 3; i++) {
    n = await colours(page, `${within} canvas`);
    if (n <= 3) await page.waitForTimeout(100);
  }
  assert(n > 3, `${within}: the canvas has ${n} colours`);
}

/** The page of a workload that has stalled and lived for some samples. */
async function stalled(get) {
  const lived = "max by (namespace, pod, container, unit) (count_over_time(huatuo_container_runqueue_wait_seconds[1h])) >= 2";
  const { data } = await get(`/api/v1/query?query=${encodeURIComponent(lived)}`);
  for (const { metric: m } of data.result) {
    if (m.unit === "/" || m.container === "other") continue;
    const { events } = await get(`/api/v1/events?${new URLSearchParams({ ...m, kind: "sched_stall", limit: 1 })}`);
    if (events?.length !== 1) continue;
    const name = m.container ? [m.namespace, m.pod, m.container].map((x) => x ?? "").join("/").replace(/^\/+/, "") : m.unit;
    return `#/workloads/${m.container ? "container" : m.unit.startsWith("/") ? "cgroup" : "unit"}/${encodeURIComponent(name)}?last=1h`;
  }
  throw new Error(`none of ${data.result.length} workloads has a sched_stall event`);
}

const eventPage = (kind, more) => ({
  name: `event ${kind}`,
  hash: async (get) => `#/events/${(await newest(get, kind)).id}`,
  run: async ({ page, get }) => {
    const d = await newest(get, kind);
    await page.waitForSelector(".event-head h2");
    const title = await page.textContent(".event-head h2");
    assert(title.length > 5, `title: ${title}`);
    const kinds = (await get("/api/v1/event-kinds")).kinds;
    const helps = kinds.find((k) => k.name === kind).fields.filter((f) => d.fields[f.name] !== undefined);
    const rows = await page.locator("[data-field]").count();
    assert(rows >= helps.length, `${rows} fields shown of ${helps.length}`);
    assert((await page.textContent(".fields")).includes(helps[0].help), "the help of the first field is not shown");
    await page.waitForSelector(".events .here");
    const frames = await page.locator(".frames li .fn").allTextContents();
    assert(frames.some((f) => f !== "" && f !== "[unknown]"), `no symbolised frame in ${frames.length}`);
    await more?.(page);
  },
});

export const pages = [
  {
    name: "overview", hash: () => "#/?last=1h",
    run: async ({ page }) => {
      for (const id of ["cpu.use", "memory.use"]) {
        await page.waitForFunction((i) => /\d%/.test(document.querySelector(`[data-use="${i}"] .value`)?.textContent ?? ""), id);
      }
      await page.waitForFunction(() => /\d/.test(document.querySelector('[data-use="cpu.stalls"] .value')?.textContent ?? ""));
      assert(await page.locator(".use-row .spark path.line").count() >= 6, "fewer than six sparklines");
      await page.waitForSelector(".workloads tbody tr");
      await page.waitForSelector(".events tbody tr");
      await page.waitForFunction(() => /MiB/.test(document.querySelector(".cols.wide-left .pairs")?.textContent ?? ""));
      const absent = await page.locator(".use-row .value.absent").allTextContents();
      assert(!absent.includes("not measured"), "a row of the tiles names a metric or event that the agent does not have");
      const state = await page.getAttribute(".verdict", "class");
      assert(/\b(ok|warn|bad)\b/.test(state), `the verdict is ${state}`);
    },
  },
  {
    name: "workloads", hash: () => "#/workloads?last=1h",
    run: async ({ page, get }) => {
      await page.waitForSelector(".worktable tbody tr");
      const by = "sum by (namespace, pod, container, unit) (rate(huatuo_container_cpu_usage_seconds_total[1m]))";
      const { data } = await get(`/api/v1/query?query=${encodeURIComponent(by)}`);
      const names = await page.locator("[data-workload]").evaluateAll((l) => l.map((e) => e.dataset.workload));
      for (const { metric: m } of data.result) {
        if (m.container === "other") continue;
        const name = m.container || m.pod ? [m.namespace, m.pod, m.container].filter(Boolean).join("/") : m.unit;
        assert(names.includes(name) || names.length >= 50, `${name} is not listed`);
      }
      for (const col of ["wait", "events"]) {
        const cells = await page.locator(`td[data-col="${col}"]`).allTextContents();
        assert(cells.some((x) => /[1-9]/.test(x)), `no ${col} in ${cells}`);
      }
      assert(await page.locator('.worktable [aria-sort="descending"]').count() === 1, "the order is not told");
    },
  },
  {
    name: "one workload", hash: stalled,
    run: async ({ page }) => {
      await page.waitForSelector(".work-head h2");
      await page.waitForFunction(() => /\d (µs|ms|s)/.test(document.querySelector('[data-use="work.cpu.wait"] .value')?.textContent ?? ""));
      assert(/[1-9]/.test(await page.textContent('[data-use="work.cpu.stalls"] .value')), "its stalls are not counted");
      await page.waitForSelector(".work-events .timeline svg rect");
      await page.waitForSelector(".work-events .events tbody tr");
      const heat = '[data-metric="huatuo_container_runqueue_wait_seconds"]';
      await page.locator(heat).scrollIntoViewIfNeeded();
      await drawn(page, heat);
      assert((await page.textContent(`${heat} .legend`)).includes("p99"), "no heat map");
      const areas = await page.locator("h2.area").allTextContents();
      assert(areas.includes("Scheduling") && areas.includes("Processes"), `areas: ${areas}`);
      await page.evaluate(() => scrollTo(0, 0));
    },
  },
  {
    name: "kernel metrics", hash: () => "#/metrics?last=15m",
    run: async ({ page, get }) => {
      const { metrics } = await get("/api/v1/metrics");
      await page.waitForSelector(".panel");
      // Those without samples are listed below their area's charts.
      const shown = await page.locator("[data-metric]").evaluateAll((l) => l.map((e) => e.dataset.metric));
      const missing = metrics.filter((m) => !shown.includes(m.name)).map((m) => m.name);
      assert(missing.length === 0, `metrics that the page does not name: ${missing}`);
      assert(await page.locator(".panel").count() > 40, "fewer than 40 metrics have samples");
      await drawn(page, '[data-metric="huatuo_cpu_seconds_total"]');
    },
  },
  {
    name: "one metric", hash: () => "#/metrics/huatuo_cpu_seconds_total?last=15m",
    run: async ({ page }) => {
      await drawn(page, "main");
      await page.waitForSelector("main .table tbody tr");
      assert((await page.textContent(".query code")).includes("rate(huatuo_cpu_seconds_total"), "the query is not shown");
    },
  },
  {
    name: "heat map", hash: () => "#/metrics/huatuo_runqueue_wait_seconds?last=15m",
    run: async ({ page }) => {
      await drawn(page, "main");
      const n = await colours(page, "main canvas");
      assert(n > 12, `a heat map of ${n} colours`);
      const legend = await page.textContent(".legend");
      for (const q of ["p50", "p90", "p99"]) assert(legend.includes(q), `no ${q}`);
      assert(/p99[\d.]+ (ns|µs|ms|s)/.test(legend), `p99 has no unit: ${legend}`);
    },
  },
  {
    name: "events", hash: () => "#/events?last=1h",
    run: async ({ page }) => {
      await page.waitForSelector(".events tbody tr");
      await page.waitForSelector(".timeline svg rect");
      const first = await page.textContent(".events .title a");
      assert(first.length > 5, `title: ${first}`);
      const kinds = await page.locator(".chip b").allTextContents();
      assert(kinds.some((n) => Number(n) > 0), "no kind has a count");
    },
  },
  eventPage("sched_stall", async (page) => {
    assert(/^[\d.]+ (µs|ms|s)$/m.test((await page.locator("[data-field] td").allTextContents()).join("\n")), "no duration with a unit");
  }),
  eventPage("packet_drop"),
  {
    name: "profiles", hash: () => "#/profiles?last=15m",
    run: async ({ page }) => {
      await page.waitForSelector(".flame canvas", { timeout: 30000 });
      await page.waitForSelector(".heatmap canvas");
      assert((await page.locator(".downloads a").count()) === 5, "not every format is offered");
    },
  },
  {
    name: "system", hash: () => "#/system",
    run: async ({ page, get }) => {
      const { probes } = await get("/api/v1/probes");
      for (const p of probes) await page.waitForSelector(`[data-probe="${p.name}"] .badge`);
      const { accounts } = await get("/api/v1/system");
      for (const a of accounts) await page.waitForSelector(`[data-account="${a.probe}"] .badge`);
      // A record on its way makes the books look open for a moment, and no longer.
      await page.waitForFunction(() => document.querySelectorAll(".law .badge.critical").length === 0, undefined, { timeout: 30000 });
      assert((await page.textContent(".config")).includes(":"), "no configuration shown");
    },
  },
  {
    name: "probe", hash: () => "#/system/probe/runqueue",
    run: async ({ page, get }) => {
      await page.waitForSelector(".prose h4");
      const { readme } = await get("/api/v1/probes/runqueue");
      const want = [...readme.matchAll(/^## (.*)$/gm)].length;
      assert(await page.locator(".prose h4").count() === want, "not every heading of the README is shown");
      assert((await page.textContent(".signals")).includes("huatuo_runqueue_wait_seconds"), "its metric is not listed");
    },
  },
];
