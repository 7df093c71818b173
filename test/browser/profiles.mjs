// SPDX-License-Identifier: Apache-2.0

// The Profiles page with stacks of this machine. The browser itself is being
// profiled: it draws, so it uses CPU.
import { readFile } from "node:fs/promises";
import { assert, until } from "./assert.mjs";

const query = (page) => page.evaluate(() => Object.fromEntries(new URLSearchParams(location.hash.split("?")[1] ?? "")));

/** The busiest process, and the function with the largest share of its time that has a name. */
async function busiest(get) {
  for (let i = 0; ; i++) {
    const { series } = await get("/api/v1/profiles/series?by=process");
    for (const s of series.filter((x) => x.samples >= 20)) {
      const g = await get(`/api/v1/profiles/flame?process=${encodeURIComponent(s.labels.process)}`);
      const total = new Map();
      for (const n of g.nodes) {
        const f = g.frames[n.f];
        if (!f.missing && /^\w+$/.test(f.function)) total.set(f.function, (total.get(f.function) ?? 0) + n.s);
      }
      const best = [...total].sort((a, b) => b[1] - a[1])[0];
      if (best !== undefined && best[1] > 0) return { process: s.labels.process, fn: best[0], graph: g };
    }
    assert(i < 20, "no process has been profiled");
    await new Promise((r) => setTimeout(r, 1000));
  }
}

/** Whether anything is drawn on a canvas: how many colours it has. */
async function colours(page, selector) {
  return page.locator(selector).first().evaluate((c) => {
    const { data } = c.getContext("2d").getImageData(0, 0, c.width, c.height);
    const seen = new Set();
    for (let i = 0; i < data.length; i += 4 * 7) if (data[i + 3] > 0) seen.add((data[i] << 16) | (data[i + 1] << 8) | data[i + 2]);
    return seen.size;
  });
}

async function drawn(page, selector) {
  await page.waitForSelector(selector);
  for (let i = 0; await colours(page, selector) < 3; i++) {
    assert(i < 100, `nothing is drawn on ${selector}`);
    await page.waitForTimeout(100);
  }
}

/** The page has what belongs to the agent's state, and no horizontal scroll bar. */
async function fits(page) {
  const over = await page.evaluate(() => document.documentElement.scrollWidth - document.documentElement.clientWidth);
  assert(over <= 0, `the page is ${over} px wider than the screen`);
}

const hash = (b, more = "") => `#/profiles?last=1h&process=${encodeURIComponent(b.process)}${more}`;

/** What compares with another process. A difference needs enough samples of both to be no accident. */
async function against(page, get, b) {
  for (let i = 0; i < 60; i++, await page.waitForTimeout(1000)) {
    const { series } = await get("/api/v1/profiles/series?by=process");
    const rival = series.find((s) => s.labels.process && s.labels.process !== b.process && s.samples >= 200);
    if (rival) return `&cmp=${encodeURIComponent(`process=${rival.labels.process}`)}`;
  }
  throw new Error("no second process has 200 samples after a minute");
}

export const profiles = [
  {
    name: "profiles: a function in the table, searched, focused, downloaded",
    run: async ({ page, open, get, shot, base }) => {
      const b = await busiest(get);
      await open(hash(b));
      await drawn(page, ".flame canvas");
      await shot("profiles-desktop");
      await page.click('[role=group] .chip:text-is("Functions")');
      await page.waitForSelector(`tr[data-fn="${b.fn}"]`);
      await until(() => query(page), (q) => q.view === "table", "the view is not in the address");

      await page.fill('.profiles input[type="search"]', `^${b.fn}$`);
      await page.waitForFunction((want) => [...document.querySelectorAll(".functions tbody tr")].every((r) => r.dataset.fn === want), b.fn);
      await until(() => page.textContent(".matching"), (x) => /[1-9]/.test(x), "the share of what matches is not told");
      await page.fill('.profiles input[type="search"]', "(");
      await page.waitForSelector('.reason:has-text("no regular expression")');
      await page.fill('.profiles input[type="search"]', "");
      await page.waitForFunction(() => !location.hash.includes("q="));

      await page.click(`tr[data-fn="${b.fn}"] a`);
      await page.waitForSelector(".sandwich .chosen");
      await until(() => page.textContent(".sandwich .chosen code"), (x) => x === b.fn, "the sandwich is of something else");
      await drawn(page, ".sandwich .flame canvas");
      await shot("profiles-sandwich");

      await open(hash(b));
      await drawn(page, ".flame canvas");
      const box = await page.locator(".flame-box").boundingBox();
      await page.mouse.click(box.x + 20, box.y + 18 * 1.5);
      await page.waitForSelector(".profiles .chosen code");
      await until(() => query(page), (q) => q.focus !== undefined, "a click does not focus");
      await page.focus(".flame-box");
      await page.keyboard.press("ArrowDown");
      await page.waitForFunction(() => document.querySelector(".flame .sr").textContent.length > 3);
      await page.keyboard.press("Escape");
      await page.waitForFunction(() => !location.hash.includes("focus="));

      const href = await page.locator('.downloads a:text-is("pprof")').getAttribute("href");
      assert(href.includes(`process=${encodeURIComponent(b.process)}`), `the download forgets the filter: ${href}`);
      const r = await fetch(new URL(href.replace("format=pprof", "format=otlp"), `${base}/`));
      assert(r.headers.get("content-type") === "application/x-protobuf" && Buffer.from(await r.arrayBuffer()).includes(b.fn), `otlp: ${r.status}, without ${b.fn}`);
      const [file] = await Promise.all([page.waitForEvent("download"), page.click('.downloads a:text-is("pprof")')]);
      const bytes = await readFile(await file.path());
      assert(bytes.length > 100 && bytes[0] === 0x1f && bytes[1] === 0x8b, "the profile is not gzip");
      for (const format of ["folded", "svg", "speedscope"]) {
        const r = await fetch(new URL(href.replace("format=pprof", `format=${format}`), `${base}/`));
        const text = await r.text();
        assert(r.ok && text.includes(b.fn), `${format}: ${r.status}, without ${b.fn}`);
      }
      await fits(page);
    },
  },
  {
    name: "profiles: a stretch of time, a comparison, both ways up",
    run: async ({ page, open, get, shot }) => {
      const b = await busiest(get);
      await open("#/profiles?last=5m");
      await page.waitForSelector(".heatmap canvas");
      await drawn(page, ".flame canvas");
      const sum = await page.textContent(".stacks .hint.lead >> nth=-1");
      const area = await page.locator(".heatmap .area").boundingBox();
      await page.mouse.move(area.x + area.width * 0.9, area.y + 60);
      await page.mouse.down();
      await page.mouse.move(area.x + area.width * 0.96, area.y + 60, { steps: 4 });
      await page.mouse.up();
      await page.waitForSelector(".when .chip.removable");
      const [from, to] = (await query(page)).sel.split("-").map(Number);
      assert(to - from > 5 && to - from < 60, `the selection is ${to - from} s long`);
      await page.waitForFunction((old) => ![...document.querySelectorAll(".stacks .hint.lead")].at(-1).textContent.includes(old), sum);
      await shot("profiles-selected");
      await page.click(".when .chip.removable");
      await page.waitForFunction(() => !location.hash.includes("sel="));

      await page.click('.chip:text-is("Roots below")');
      await page.click('.chip:text-is("Fold recursion")');
      const q = await query(page);
      assert(q.up === "1" && q.fold === "1", `address: ${JSON.stringify(q)}`);
      await drawn(page, ".flame canvas");

      await open(hash(b, await against(page, get, b)));
      await page.waitForSelector(".kinds .grown");
      await drawn(page, ".flame canvas");
      await shot("profiles-diff");
      await page.click('[role=group] .chip:text-is("Functions")');
      await page.waitForSelector(".changes tbody tr .desk-only .badge");
      const change = await page.locator(".changes tbody tr").first().textContent();
      assert(/[+−][\d.]+%/.test(change), `no change: ${change}`);
      await shot("profiles-changes");
      // The table is the server's answer: its order and its verdicts.
      for (const rank of ["Self", "Total"]) {
        const answer = page.waitForResponse((r) => r.url().includes("/profiles/diff?") && r.url().includes(`of=${rank.toLowerCase()}`));
        await page.reload();
        if (rank === "Total") await page.click('.rank .chip:text-is("Total")');
        const { functions } = await (await answer).json();
        const want = functions.slice(0, 5).map((f) => `${f.function} ${f.verdict}`).join();
        await page.waitForFunction((w) => [...document.querySelectorAll(".changes tbody tr")].slice(0, 5).map((r) => `${r.dataset.fn} ${r.dataset.verdict}`).join() === w, want);
      }
      assert((await query(page)).rank === "total", "what changes are ranked by is not in the address");
      await fits(page);
    },
  },
  {
    name: "profiles: on a phone, in Chinese", view: "phone",
    run: async ({ page, open, get, shot }) => {
      const b = await busiest(get);
      await open(hash(b), "?lang=zh");
      await page.waitForSelector('.profiles :text("火焰图")');
      await drawn(page, ".flame canvas");
      await fits(page);
      await shot("profiles-phone");
      await page.click('.chip:text-is("函数")');
      await page.waitForSelector(`tr[data-fn="${b.fn}"]`);
      await fits(page);
      await shot("profiles-phone-table");
      await open(hash(b, `${await against(page, get, b)}&view=table`), "?lang=zh");
      await page.waitForSelector(".changes tbody tr .phone-only >> text=/显著|偶然/");
      await fits(page);
      await page.locator(".rank").evaluate((e) => e.scrollIntoView({ block: "center" }));
      await shot("profiles-phone-changes");
      await page.click('.chip:text-is("火焰图")');
      await drawn(page, ".flame canvas");
      await fits(page);
      await shot("profiles-phone-diff");
    },
  },
  {
    name: "profiles: off, impossible, failed, empty", allow: /profiles/,
    run: async ({ page, open }) => {
      let status = { state: "disabled", reason: "profiles.enabled is false", hertz: 0, samples: 0 };
      const types = [{ name: "cpu", unit: "nanoseconds", help: "Help.", read: "Read." }];
      await page.route("**/api/v1/profiles/types", (r) => r.fulfill({ json: { status, types, labels: [] } }));
      await open("#/profiles");
      await page.waitForSelector(':text("profiles.enabled: true")');
      assert(/huatuo profile/.test(await page.textContent("main")), "the command is not named");
      status = { ...status, state: "unsupported", reason: "kernel 4.18 has no such map" };
      await page.reload();
      await page.waitForSelector('.notice.error :text("kernel 4.18 has no such map")');
      status = { ...status, state: "failed", reason: "out of memory" };
      await page.route("**/api/v1/profiles/flame*", (r) => r.fulfill({ json: { type: "cpu", unit: "nanoseconds", from: "", to: "", total: 0, samples: 0, frames: [], nodes: [] } }));
      await page.reload();
      await page.waitForSelector('.notice.error :text("out of memory")');
      await page.waitForSelector(':text("There are no samples in this range.")');
    },
  },
];
