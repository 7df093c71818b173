// SPDX-License-Identifier: Apache-2.0

// Profiles that runtimes keep themselves. The agent's host runs a Go program that
// serves them, called "serve", and may run a JVM.
import { readFile } from "node:fs/promises";
import { assert, until } from "./assert.mjs";

async function open(page, go, search = "") {
  await go("#/profiles?last=5m", search);
  await page.click(".runtimes > summary");
  await page.waitForSelector(".runtimes select");
}

async function choose(page, part) {
  const value = await page.locator(".runtimes select option", { hasText: part }).first().getAttribute("value");
  await page.selectOption(".runtimes select", value);
}

async function fits(page) {
  const over = await page.evaluate(() => document.documentElement.scrollWidth - document.documentElement.clientWidth);
  assert(over <= 0, `the page is ${over} px wider than the screen`);
}

/** Whether there is a process to ask: where the harness has started none there is nothing to test. */
const some = async (get, name) => (await get("/api/v1/profiles/runtimes")).processes.some((p) => p.process === name);

export const runtimes = [
  {
    name: "runtimes: a Go program is asked, opened and saved",
    run: async ({ page, open: go, get, shot }) => {
      if (!await some(get, "serve")) return;
      let asked = 0;
      page.on("request", (r) => { if (r.method() === "POST" && /profiles\/runtimes/.test(r.url())) asked++; });
      await open(page, go);
      await choose(page, "serve (");
      await page.waitForTimeout(300);
      assert(asked === 0, "a process is asked before anybody wants that");
      await page.click('.runtimes button:text-is("Ask what it offers")');
      await page.waitForSelector('tr[data-profile="mutex"]');
      assert(await page.locator("tr[data-profile]").count() === 5, "not the five profiles of Go");
      await shot("runtimes-desktop");

      const heap = 'tr[data-profile="heap"]';
      const [file] = await Promise.all([page.waitForEvent("download"), page.click(`${heap} button:text-is("pprof")`)]);
      assert(/^huatuo-heap-\d+\.pb\.gz$/.test(file.suggestedFilename()), file.suggestedFilename());
      const bytes = await readFile(await file.path());
      assert(bytes.length > 100 && bytes[0] === 0x1f && bytes[1] === 0x8b, "the profile is not gzip");
      await page.waitForSelector(`${heap} button:not([disabled])`);
      await page.click(`${heap} button:text-is("Open")`);
      await page.waitForSelector("#own .flame canvas");
      await page.click('#own .chip:text-is("Functions")');
      await page.waitForSelector('#own tr[data-fn="main.leak"]');
      assert(/MiB|MB/.test(await page.textContent('#own tr[data-fn="main.leak"]')), "memory has no unit");
      await shot("runtimes-heap");
      await page.click('#own button:text-is("Close")');
      await page.waitForSelector("#own", { state: "detached" });
      await fits(page);
    },
  },
  {
    name: "runtimes: a JVM's classes, on a phone, in Chinese", view: "phone",
    run: async ({ page, open: go, get, shot }) => {
      if (!await some(get, "java")) return;
      await open(page, go, "?lang=zh");
      await choose(page, "jvm");
      await page.click('.runtimes button:text-is("询问可提供的剖析")');
      await page.waitForSelector('tr[data-profile="classes"]');
      await fits(page);
      await shot("runtimes-phone");
      await page.click('tr[data-profile="classes"] button:text-is("打开")');
      await page.waitForSelector("#own .flame canvas");
      await page.click('#own .chip:text-is("函数")');
      await page.waitForSelector('#own tr[data-fn="byte[]"]');
      await fits(page);
    },
  },
  {
    name: "runtimes: off, silent, and none", allow: /runtimes|403|502/,
    run: async ({ page, open: go }) => {
      const process = { pid: 7, process: "web", runtime: "go", listens: ["127.0.0.1:1"], profiles: [] };
      const refuse = (status, detail) => (r) => r.fulfill({ status, contentType: "application/problem+json", body: JSON.stringify({ title: "no", status, detail }) });
      await page.route("**/api/v1/profiles/runtimes", (r) => r.fulfill({ json: { processes: [process] } }));
      await page.route("**/api/v1/profiles/runtimes/7", refuse(502, "it does not answer in time"));
      await open(page, go);
      await choose(page, "web");
      await page.click('.runtimes button:text-is("Ask what it offers")');
      await page.waitForSelector('.runtimes .notice.error :text("it does not answer in time")');
      await page.route("**/api/v1/profiles/runtimes/7", (r) => r.fulfill({ json: { ...process, reason: "none of its ports serves it" } }));
      await page.click('.runtimes button:text-is("Ask what it offers")');
      await page.waitForSelector('.runtimes .notice :text("none of its ports serves it")');
      await page.route("**/api/v1/profiles/runtimes", refuse(403, "profiles.runtimes is false"));
      await page.reload();
      await page.click(".runtimes > summary");
      await page.waitForSelector('.runtimes .notice.error :text("profiles.runtimes is false")');
      await until(() => page.locator(".runtimes button").count(), (n) => n === 0, "what is off can be pressed");
    },
  },
];
