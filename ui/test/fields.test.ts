// SPDX-License-Identifier: Apache-2.0

import assert from "node:assert/strict";
import { test } from "node:test";
import type { Document, Schema } from "../src/api";
import { fromEvents, fromTimeline, markersFor } from "../src/markers";
import { richFields } from "../src/parts/fields";
import { age } from "../src/pages/system";

const kind = (name: string, area: string): Schema => ({ name, kind: "event", area, severity: "warning", help: "", fields: [{ name: "host", help: "memory" }] });
const doc = (fields: Record<string, unknown>): Document => ({ id: "A", time: "2026-01-01T00:00:00Z", kind: "oom_kill", severity: "critical", title: "t", fields });

Object.assign(globalThis, { location: { hash: "#/metrics?last=1h" } });

test("what needs room gets a card of its own", () => {
  const many = Object.fromEntries([..."abcdefg"].map((k) => [k, 1]));
  const d = doc({ host: many, pid: 1, few: { a: 1 }, nested: { p: { a: 1 } }, log: [..."abcdefg"], text: "a\nb", stack: [{ function: "f" }], list: [1, 2] });
  assert.deepEqual(richFields(d, kind("oom_kill", "memory")).map((f) => f.name), ["host", "nested", "log", "text", "stack"]);
  assert.equal(richFields(d, kind("oom_kill", "memory"))[0]!.help, "memory", "the schema's help goes along");
});

test("markers: one per event, or one per interval and kind", () => {
  const m = fromEvents([doc({})]);
  assert.deepEqual([m[0]!.time, m[0]!.href], [Date.parse("2026-01-01T00:00:00Z") / 1000, "#/events/A?last=1h"]);
  const line = { from: "", to: "", step_seconds: 60, buckets: [{ time: "2026-01-01T00:00:00Z", count: { a: 2, b: 0 } }, { time: "2026-01-01T00:01:00Z", count: null }] };
  const counted = fromTimeline(line, [kind("a", "cpu")]);
  assert.equal(counted.length, 1);
  assert.equal(counted[0]!.title, "a × 2");
  assert.equal(counted[0]!.severity, "warning");
  assert.match(counted[0]!.href, /from=2026-01-01T00:00:00.000Z&to=2026-01-01T00:01:00.000Z&kind=a/);
});

test("scheduling events mark CPU charts, others stay in their area", () => {
  const kinds = [kind("sched_stall", "scheduling"), kind("oom_kill", "memory")];
  const all = ["sched_stall", "oom_kill"].map((k) => ({ time: 0, kind: k, severity: "info" as const, title: "", href: "" }));
  assert.deepEqual(markersFor("cpu", all, kinds).map((m) => m.kind), ["sched_stall"]);
  assert.deepEqual(markersFor("memory", all, kinds).map((m) => m.kind), ["oom_kill"]);
  assert.deepEqual(markersFor("network", all, kinds), []);
});

test("age reads Go's durations", () => {
  assert.equal(age("360h0m0s"), "15 d");
  assert.equal(age("1h30m0s"), "1 h 30 min");
  assert.equal(age("forever"), "forever");
});
