// SPDX-License-Identifier: Apache-2.0

import assert from "node:assert/strict";
import { test } from "node:test";
import { digits, format, grouped, increments, span, ticks } from "../src/units";

test("format writes base units for people", () => {
  const cases: [number | null, string, boolean, string][] = [
    [0, "seconds", false, "0 s"], [0.0000012, "seconds", false, "1.2 µs"], [0.05, "seconds", false, "50 ms"], [1.5, "seconds", false, "1.5 s"],
    [7200, "seconds", false, "2 h"], [0.2, "seconds", true, "200 ms/s"], [180, "seconds", true, "180 s/s"],
    [1023, "bytes", false, "1023 B"], [1024, "bytes", false, "1 KiB"], [1536 * 2 ** 20, "bytes", false, "1.5 GiB"], [2 ** 20, "bytes", true, "1 MiB/s"],
    [0.1234, "ratio", false, "12.3%"], [0, "ratio", false, "0%"], [1, "ratio", true, "100%"],
    [0, "", true, "0/s"], [12, "1", true, "12/s"], [1500, "", true, "1.5 k/s"], [2.5e6, "", false, "2.5 M"], [3, "cores", false, "3 cores"],
    [1764118758, "seconds", false, "2025-11-26 00:59:18 UTC"],
    [null, "bytes", false, "–"], [NaN, "bytes", false, "–"], [Infinity, "seconds", false, "∞"], [-0.5, "seconds", false, "-500 ms"],
  ];
  for (const [v, unit, rate, want] of cases) assert.equal(format(v, unit, rate), want, `${v} ${unit} ${rate}`);
});

test("digits keeps three significant digits", () => {
  for (const [v, want] of [[0, "0"], [0.05123, "0.0512"], [1.2345, "1.23"], [12.345, "12.3"], [123.45, "123"], [12345, "12345"], [2, "2"], [0.00001, "0"]] as const) assert.equal(digits(v), want);
});

test("ticks of an axis share one scale", () => {
  assert.deepEqual(ticks([0, 0.05, 0.1], "seconds"), ["0", "50 ms", "100 ms"]);
  assert.deepEqual(ticks([0, 512, 1024], "bytes"), ["0", "0.5 KiB", "1 KiB"]);
  assert.deepEqual(ticks([0, 0.5, 1], "ratio"), ["0", "50%", "100%"]);
});

test("increments are round in the unit", () => {
  assert.ok(increments("bytes").every((n) => Number.isInteger(Math.log2(n))));
  assert.ok(increments("seconds").includes(0.002));
  const inc = increments("");
  assert.deepEqual(inc, [...inc].sort((a, b) => a - b));
});

test("grouped and span", () => {
  assert.equal(grouped(1234567), "1\u202f234\u202f567");
  assert.equal(grouped(999), "999");
  for (const [s, want] of [[0, "0 s"], [59, "59 s"], [900, "15 min"], [3661, "1 h 1 min"], [90061, "1 d 1 h"], [86400, "1 d"], [86405, "1 d"]] as const) assert.equal(span(s), want);
});
