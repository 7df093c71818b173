// SPDX-License-Identifier: Apache-2.0

import assert from "node:assert/strict";
import { test } from "node:test";
import { bounds, mean, parseHist, peak, quantile, shade } from "../src/hist";

const wire = { count: "30", sum: "0.09", buckets: [[0, "0.002", "0.004", "20"], [0, "0.001", "0.002", "10"], [0, "0.004", "0.008", "0"]] as [number, string, string, string][] };
const close = (a: number, b: number) => assert.ok(Math.abs(a - b) < 1e-9 * Math.max(1, Math.abs(b)), `${a} is not ${b}`);

test("parseHist sorts and drops empty buckets", () => {
  const h = parseHist(wire);
  assert.deepEqual(h.buckets, [{ lo: 0.001, hi: 0.002, n: 10 }, { lo: 0.002, hi: 0.004, n: 20 }]);
  close(mean(h), 0.003);
  assert.deepEqual(parseHist({ count: "0", sum: "0" }).buckets, []);
});

// Prometheus 3: within an exponential bucket, lower * (upper/lower)^fraction.
test("quantile interpolates on the logarithm, as Prometheus does", () => {
  const h = parseHist(wire);
  close(quantile(h, 1 / 3), 0.002);
  close(quantile(h, 1), 0.004);
  close(quantile(h, 0.5), 0.002 * 2 ** 0.25);
  close(quantile(h, 1 / 6), 0.001 * 2 ** 0.5);
});

test("quantile is linear in the bucket around zero and NaN without observations", () => {
  close(quantile(parseHist({ count: "4", sum: "0", buckets: [[3, "-0.001", "0.001", "4"]] }), 0.5), 0.0005);
  assert.ok(Number.isNaN(quantile(parseHist({ count: "0", sum: "0" }), 0.5)));
});

test("bounds and peak span several histograms", () => {
  const a = parseHist(wire);
  const b = parseHist({ count: "7", sum: "1", buckets: [[0, "0.5", "1", "7"]] });
  assert.deepEqual(bounds([a, b]), { lo: 0.001, hi: 1 });
  assert.equal(peak([a, b]), 20);
  assert.equal(bounds([parseHist({ count: "0", sum: "0" })]), null);
});

test("shade shows a single observation beside a million", () => {
  assert.equal(shade(0, 10), 0);
  assert.equal(shade(10, 10), 1);
  assert.ok(shade(1, 1e6) > 0.08);
  assert.ok(shade(2, 10) < shade(3, 10));
});
