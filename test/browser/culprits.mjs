// SPDX-License-Identifier: Apache-2.0

// Who ran while whom waited for a CPU: the matrix, the list that a phone shows
// instead, and the two sides on a workload's page.
import { assert, until } from "./assert.mjs";

const DESK = { viewport: { width: 1440, height: 900 } };
const query = (page) => page.evaluate(() => Object.fromEntries(new URLSearchParams(location.hash.split("?")[1] ?? "")));
const nameOf = (w) => [w.namespace, w.pod, w.container].filter(Boolean).join("/") || w.unit;

/** What the API says of the last hour, longest first. */
async function pairs(get) {
  const list = (await get("/api/v1/workloads/culprits")).pairs;
  assert(list.length > 0, "the agent knows of nobody who waited for a CPU");
  return list;
}

async function fits(page) {
  const over = await page.evaluate(() => document.documentElement.scrollWidth - document.documentElement.clientWidth);
  assert(over <= 0, `the page is ${over} px wider than the screen`);
}

export const culprits = [
  {
    name: "culprits: the matrix of victims and culprits, by any column", context: DESK,
    run: async ({ page, open, get, shot }) => {
      const list = await pairs(get);
      await open("#/workloads?last=1h");
      await page.waitForSelector(".matrix tbody tr");
      await page.locator(".matrix").scrollIntoViewIfNeeded();
      assert(!await page.locator(".culprits .ranked").isVisible(), "the list of a phone is shown on a desk");
      const rows = await page.locator(".matrix [data-victim]").evaluateAll((l) => l.map((e) => e.dataset.victim));
      for (const p of list.slice(0, 3)) assert(rows.includes(nameOf(p.victim)) || rows.length >= 15, `${nameOf(p.victim)} waited, and has no row in ${rows}`);
      const cols = await page.locator(".matrix th[data-culprit]").evaluateAll((l) => l.map((e) => e.dataset.culprit));
      const first = list[0].culprit.kind === "workload" ? `=${nameOf(list[0].culprit)}` : list[0].culprit.kind;
      assert(cols.includes(first), `${first} ran longest, and has no column in ${cols}`);
      const shades = await page.locator(".matrix .cell").evaluateAll((l) => new Set(l.map((e) => getComputedStyle(e).backgroundColor)).size);
      assert(shades > 1, "all cells have one colour");
      assert(await page.locator(".matrix .cell.strong").count() > 0, "the largest cell does not stand out");
      const title = await page.locator(".matrix .cell").first().getAttribute("title");
      assert(/waited .* of its wait/.test(title), `title: ${title}`);
      await shot("matrix-1440");

      await page.click(`.matrix th[data-culprit="${first}"] button`);
      await until(() => query(page), (q) => q.waits === first, "the order is not in the address");
      await until(() => page.getAttribute(`.matrix th[data-culprit="${first}"]`, "aria-sort"), (a) => a === "descending", "the order is not told");
      const at = cols.indexOf(first);
      const top = await page.locator(".matrix tbody tr").first().locator("td").nth(at - 1).textContent();
      assert(/\d/.test(top), `the first row by ${first} has no value there`);
      await page.click('.matrix th[data-culprit="name"] button');
      await until(() => page.getAttribute('.matrix th[data-culprit="name"]', "aria-sort"), (a) => a === "ascending", "not by name");
      assert(await page.locator(".matrix tbody th").count() > 0, "no row is left");
      await page.click('.matrix th[data-culprit=""] button');
      await until(() => query(page), (q) => q.waits === undefined && q.wdir === undefined, (q) => `the usual order is ${JSON.stringify(q)}`);
      await fits(page);
    },
  },
  {
    name: "culprits: on a phone the worst pairs in a list", view: "phone",
    run: async ({ page, open, get, shot }) => {
      const list = await pairs(get);
      await open("#/workloads?last=1h");
      await page.waitForSelector(".culprits .ranked tbody tr");
      await page.locator(".culprits .ranked tbody tr").first().scrollIntoViewIfNeeded();
      assert(!await page.locator(".matrix").isVisible(), "the matrix is shown on a phone");
      await until(() => page.locator(".culprits .ranked tbody tr").count(), (n) => n <= 15 && n >= Math.min(15, list.length) - 3, (n) => `${n} pairs of ${list.length}`);
      assert((await page.textContent(".culprits .ranked tbody tr")).includes("%"), "no share");
      await fits(page);
      await shot("matrix-390");
    },
  },
  {
    name: "culprits: both sides on a workload's page, in both languages", context: DESK,
    run: async ({ page, open, get, shot }) => {
      const p = (await pairs(get)).find((x) => x.culprit.kind === "workload" && nameOf(x.culprit) !== "" && nameOf(x.victim) !== "other");
      assert(p !== undefined, "nobody waited for a neighbour");
      const pageOf = (w) => `#/workloads/${w.container ? "container" : w.unit.startsWith("/") ? "cgroup" : "unit"}/${encodeURIComponent(w.container ? nameOf(w) : w.unit)}?last=1h`;
      await open(pageOf(p.victim));
      await page.waitForSelector('.culprits.ran [data-pair="workload"]');
      const ran = await page.textContent(".culprits.ran tbody");
      assert(ran.includes(p.culprit.unit === "/" ? "the host itself" : nameOf(p.culprit)), `${nameOf(p.culprit)} is not among those who ran: ${ran}`);
      await open(pageOf(p.culprit));
      await page.waitForSelector('.culprits.kept [data-pair="workload"]');
      const kept = await page.textContent(".culprits.kept tbody");
      assert(kept.includes(p.victim.unit === "/" ? "the host itself" : nameOf(p.victim)), `${nameOf(p.victim)} is not among those kept waiting: ${kept}`);
      await page.locator(".culprits.kept").scrollIntoViewIfNeeded();
      await shot("culprits-1440");
      await page.click(".lang");
      await page.waitForSelector(':text("它让谁等待")');
      await open("#/workloads?last=1h");
      await page.waitForSelector('.matrix th:has-text("等待者")');
      await page.locator(".matrix").scrollIntoViewIfNeeded();
      await shot("matrix-zh");
      await fits(page);
    },
  },
  {
    name: "culprits: nobody waited, or the agent cannot say", context: DESK, allow: /workloads\/culprits|50[03]/,
    run: async ({ page, open }) => {
      await page.route("**/api/v1/workloads/culprits*", (r) => r.fulfill({ json: { from: "", to: "", pairs: [] } }));
      await open("#/workloads?last=15m");
      await page.waitForSelector('.culprits :text("Nobody waited for a CPU in this range.")');
      await page.unroute("**/api/v1/workloads/culprits*");
      await page.route("**/api/v1/workloads/culprits*", (r) => r.fulfill({ status: 503, contentType: "application/problem+json", body: JSON.stringify({ title: "Service Unavailable", status: 503, detail: "no history" }) }));
      await open("#/workloads?last=30m");
      await page.waitForSelector(".culprits .notice.error");
      assert((await page.textContent(".culprits")).includes("no history"), "the reason is not shown");
    },
  },
];
