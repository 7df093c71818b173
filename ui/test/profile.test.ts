// SPDX-License-Identifier: Apache-2.0

import assert from "node:assert/strict";
import { test } from "node:test";
import { formatSel, heatAsk, parseSel, stretch } from "../src/heatgrid";
import { amount, diffParams, filterOf, grainOf, paramsOf, parseCompare, percent, points, valuesOf, windowOf } from "../src/profile";

test("the heat map asks whole columns", () => {
  assert.deepEqual(heatAsk(100.4, 400.2), { from: 100, to: 401, column: 0.05, grid: true });
  const long = heatAsk(0, 86400);
  assert.equal(long.grid, false);
  assert.ok(long.column * 240 >= 86400 && long.to % long.column === 0);
});

test("a drag over the grid goes through whole seconds, whichever way", () => {
  // Ten seconds: from 250 ms into the third to 500 ms into the fifth.
  const a = { x: 0.25, y: 0.26 };
  const b = { x: 0.45, y: 0.51 };
  const [from, to] = stretch(a, b, 10, 0.05, true);
  assert.ok(Math.abs(from - 2.25) < 1e-9 && Math.abs(to - 4.55) < 1e-9, `${from} ${to}`);
  assert.deepEqual(stretch(b, a, 10, 0.05, true), [from, to]);
  assert.deepEqual(stretch({ x: 0.5, y: 0 }, { x: 0.5, y: 1 }, 10, 60, false), [300, 360], "a click on a bar is the bar");
  assert.deepEqual(stretch({ x: -1, y: -1 }, { x: 2, y: 2 }, 10, 0.05, true), [0, 10], "outside is the edge");
});

test("a selection goes through the URL", () => {
  assert.deepEqual(parseSel(formatSel(1700000000.05, 1700000002.3)), [1700000000.05, 1700000002.3]);
  for (const bad of ["", "5", "5-", "7-5", "a-b"]) assert.equal(parseSel(bad), null);
  assert.deepEqual(windowOf(new URLSearchParams("sel=10-20"), { from: 0, to: 100 }), [10, 20]);
  assert.deepEqual(windowOf(new URLSearchParams("sel=x"), { from: 0, to: 100 }), [0, 100]);
});

test("what is compared with", () => {
  assert.deepEqual(parseCompare("before", [100, 160]), { ago: 60 });
  assert.deepEqual(parseCompare("3600", [100, 160]), { ago: 3600 });
  assert.deepEqual(parseCompare("process=a=b", [0, 1]), { label: "process", value: "a=b" });
  assert.equal(parseCompare("color=red", [0, 1]), null);
  assert.equal(parseCompare("", [0, 1]), null);
  const filter = filterOf(new URLSearchParams("process=x&unit=u&q=main&pid="));
  assert.deepEqual(filter, { process: "x", unit: "u" });
  const now = { type: "cpu", process: "x", unit: "u", from: "100.000", to: "160.000" };
  assert.deepEqual(diffParams("cpu", filter, [100, 160], { ago: 60 }, "self"), { ...now, of: "self", base_from: "40.000", base_to: "100.000" });
  assert.deepEqual(diffParams("cpu", filter, [100, 160], { label: "process", value: "y" }, "total"), { ...now, of: "total", base_from: "100.000", base_to: "160.000", base_process: "y" });
  assert.equal(paramsOf("cpu", {}, [1.23456, 2]).from, "1.235");
});

test("values of a label, among those that pass the other filters", () => {
  const s = (process: string, unit: string, value: number) => ({ labels: { process, unit }, value, samples: 1 });
  const list = [s("a", "x", 1), s("b", "x", 5), s("a", "y", 3), s("", "y", 9)];
  assert.deepEqual(valuesOf(list, "process", {}), [["b", 5], ["a", 4]]);
  assert.deepEqual(valuesOf(list, "process", { unit: "y", process: "b", pid: "3" }), [["a", 3]]);
  assert.deepEqual(valuesOf(list, "process", { thread: "t" }), [["b", 5], ["a", 4]], "a label that they do not tell apart hides none");
});

test("values and shares for people", () => {
  assert.equal(amount(1.5e9, "nanoseconds"), "1.5 s");
  assert.equal(amount(2 ** 20, "bytes"), "1 MiB");
  assert.equal(amount(12345, "count"), "12\u202f345");
  assert.equal(amount(3.21e9, "count"), "3.21 G");
  assert.equal(percent(0.1234), "12.3%");
  assert.equal(percent(0.00001), "<0.01%");
  assert.equal(points(-0.05), "−5%");
  assert.equal(points(0.05), "+5%");
  assert.equal(grainOf(900), 5);
  assert.equal(grainOf(7 * 86400), 60);
});
