// SPDX-License-Identifier: Apache-2.0

import assert from "node:assert/strict";
import { test } from "node:test";
import { absolutePatch, align, DEFAULT_LAST, formatDuration, lastPatch, parseDuration, parseTime, rangeOf, rateWindow, stepOf } from "../src/range";
import { formatHash, parseHash, patched } from "../src/router";

const q = (s: string) => new URLSearchParams(s);

test("durations round-trip and nonsense is refused", () => {
  for (const s of ["5m", "1h30m", "2d", "45s", "1d12h"]) assert.equal(formatDuration(parseDuration(s)!), s);
  assert.equal(parseDuration("1w"), 604800);
  for (const s of ["", "m", "5", "5x", "-5m", "0m", "5m!", "1.5h"]) assert.equal(parseDuration(s), null, s);
});

test("rangeOf reads the URL and falls back", () => {
  assert.deepEqual(rangeOf(q(""), 10000), { from: 10000 - DEFAULT_LAST, to: 10000, last: DEFAULT_LAST });
  assert.deepEqual(rangeOf(q("last=1h"), 10000), { from: 6400, to: 10000, last: 3600 });
  assert.deepEqual(rangeOf(q("from=1970-01-01T00:00:10Z&to=20.5"), 1), { from: 10, to: 20.5, last: null });
  assert.equal(rangeOf(q("from=20&to=10"), 10000).last, DEFAULT_LAST, "an inverted range is none");
  assert.equal(rangeOf(q("from=x&to=10&last=5m"), 10000).last, 300);
});

test("a zoom keeps the moving range in the URL, so that unzooming finds it", () => {
  const zoomed = patched(q("last=1h&kind=a"), absolutePatch(1000, 2000));
  assert.deepEqual(rangeOf(zoomed, 1), { from: 1000, to: 2000, last: null });
  assert.equal(rangeOf(patched(zoomed, { from: null, to: null }), 10000).last, 3600);
  assert.equal(zoomed.get("kind"), "a");
  assert.deepEqual(lastPatch(DEFAULT_LAST), { last: null, from: null, to: null });
});

test("a zoom is never narrower than the shortest span", () => {
  const r = rangeOf(q(new URLSearchParams(absolutePatch(1000, 1000.1) as Record<string, string>).toString()), 1);
  assert.ok(Math.abs(r.to - r.from - 10) < 0.01);
  assert.ok(Math.abs((r.to + r.from) / 2 - 1000.05) < 0.01);
});

test("steps are round, at least the interval, and the window covers them", () => {
  const r = (s: number) => ({ from: 0, to: s, last: s });
  assert.equal(stepOf(r(900), 5, 180), 5);
  assert.equal(stepOf(r(300), 5, 180), 5);
  assert.equal(stepOf(r(86400), 5, 180), 600);
  assert.equal(stepOf(r(86400 * 3650), 5, 180), 86400);
  assert.equal(rateWindow(5, 5), 20);
  assert.equal(rateWindow(600, 5), 600);
  assert.deepEqual(align({ from: 12, to: 28, last: null }, 10), { start: 10, end: 30 });
});

test("parseTime", () => {
  assert.equal(parseTime("1700000000.5"), 1700000000.5);
  assert.equal(parseTime("2023-11-14T22:13:20Z"), 1700000000);
  assert.equal(parseTime("yesterday"), null);
});

test("routes round-trip", () => {
  const r = parseHash("#/events/01HX?kind=a%2Cb&q=x%26y");
  assert.deepEqual(r.path, ["events", "01HX"]);
  assert.equal(r.query.get("kind"), "a,b");
  assert.equal(r.query.get("q"), "x&y");
  assert.equal(formatHash(["a b", "c"], q("kind=a,b")), "#/a%20b/c?kind=a,b");
  assert.deepEqual(parseHash("").path, []);
  assert.deepEqual(parseHash("#/%").path, ["%"]);
});
