// SPDX-License-Identifier: Apache-2.0

// What the console says when the agent refuses, is gone or has nothing, and
// that data cannot become markup. The agent's answers are replaced on the way.
import { assert } from "./assert.mjs";

const json = (status, body, type = "application/problem+json") => (route) => route.fulfill({ status, contentType: type, body: JSON.stringify(body) });
const ANY = /.*/;

export const faults = [
  {
    name: "401: says that a sign-in is needed and how", allow: ANY,
    run: async ({ page, open, shot }) => {
      await page.route("**/api/v1/**", json(401, { title: "Unauthorized", status: 401, detail: "needs a credential" }));
      await open("#/");
      await page.waitForSelector('[role="alert"] >> text="This agent demands a sign-in."');
      assert(await page.isVisible('text="Reload"'), "no button to try again");
      await shot("error-401");
    },
  },
  {
    name: "agent gone: says so, and comes back by itself", allow: ANY,
    run: async ({ page, open }) => {
      await page.route("**/api/v1/**", (r) => r.abort());
      await open("#/");
      await page.waitForSelector('[role="alert"] >> text="The agent does not answer."');
      await page.unroute("**/api/v1/**");
      await page.waitForSelector(".side", { timeout: 12000 });
    },
  },
  {
    name: "a refused query shows the engine's sentence beside the chart", allow: /./,
    run: async ({ page, open }) => {
      await page.route("**/query_range**", json(422, { status: "error", errorType: "execution", error: "query processing would load too many samples" }, "application/json"));
      await open("#/metrics/huatuo_cpu_seconds_total");
      await page.waitForSelector('[role="alert"] >> text="query processing would load too many samples"');
    },
  },
  {
    name: "workloads: a refused query, no samples, no such workload", allow: /./,
    run: async ({ page, open, shot }) => {
      await page.route("**/api/v1/query?**", json(422, { status: "error", errorType: "execution", error: "query processing would load too many samples" }, "application/json"));
      await open("#/workloads");
      await page.waitForSelector('[role="alert"] >> text="query processing would load too many samples"');
      await page.unroute("**/api/v1/query?**");
      await page.route("**/api/v1/query?**", json(200, { status: "success", data: { resultType: "vector", result: [] } }, "application/json"));
      await open("#/workloads?last=30m");
      await page.waitForSelector('.notice >> text="No workload used anything in this range."');
      await page.unroute("**/api/v1/query?**");
      await open("#/workloads/unit/no-such.service");
      await page.waitForSelector('.notice >> text="It has no samples in this range."');
      await shot("workload-gone");
      await open("#/workloads/planet/earth");
      await page.waitForSelector('[role="alert"] >> text="There is no workload earth."');
    },
  },
  {
    name: "an unknown event and an unknown page say so", allow: /404|events\/NOSUCH/,
    run: async ({ page, open }) => {
      await open("#/events/NOSUCH");
      await page.waitForSelector('[role="alert"]');
      await open("#/nowhere");
      await page.waitForSelector('text="Go to the overview"');
    },
  },
  {
    name: "no events: a sentence instead of a blank",
    run: async ({ page, open, shot }) => {
      await page.route("**/api/v1/events?**", json(200, { events: [] }, "application/json"));
      await open("#/events");
      await page.waitForSelector('.notice >> text="No events in this range."');
      await shot("events-empty");
    },
  },
  {
    name: "markup in data stays text",
    run: async ({ page, open, get }) => {
      const { events } = await get("/api/v1/events?kind=sched_stall&limit=1");
      const evil = '<img src=x onerror="window.owned=1"><script>window.owned=1</script>';
      await page.route("**/api/v1/query?**", json(200, { status: "success", data: { resultType: "vector", result: [{ metric: { container: evil }, value: [0, "1"] }] } }, "application/json"));
      const doc = { ...events[0], title: evil, process: { pid: 1, comm: evil, cmdline: evil }, fields: { ...events[0].fields, extra: evil }, kernel_stack: [{ function: evil, module: evil }], verdict: evil, known: [evil], links: [{ id: evil, kind: evil, relation: "cause", title: evil }] };
      await page.route(`**/api/v1/events/${doc.id}/neighbours?**`, json(200, { window_seconds: 60, total: 2, neighbours: [{ relation: "host", event: { ...doc, id: `${doc.id}X` } }] }, "application/json"));
      await page.route("**/api/v1/events/values?**", json(200, { values: [{ value: evil, count: 1 }] }, "application/json"));
      await page.route(`**/api/v1/events/${doc.id}`, json(200, doc, "application/json"));
      await page.route("**/api/v1/events?**", json(200, { events: [doc] }, "application/json"));
      await page.route("**/api/v1/probes/runqueue", async (route) => {
        const r = await route.fetch();
        await route.fulfill({ json: { ...(await r.json()), readme: `# x\n\n${evil}\n\n[click](javascript:window.owned=1)\n\n| a |\n|---|\n| ${evil} |\n` } });
      });
      for (const hash of [`#/events/${doc.id}`, "#/events", "#/workloads", "#/system/probe/runqueue"]) {
        await open(hash);
        await page.waitForFunction((text) => document.querySelector("main")?.textContent.includes(text), '<img src=x onerror="window.owned=1">');
        assert(await page.evaluate(() => window.owned === undefined && document.querySelector("main img, main script, a[href^='javascript']") === null), `${hash}: markup got through`);
      }
    },
  },
];
