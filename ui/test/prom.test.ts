// SPDX-License-Identifier: Apache-2.0

import assert from "node:assert/strict";
import { test } from "node:test";
import type { Document, Schema } from "../src/api";
import { filterOf, matches, merge, streamParams, toggled, words } from "../src/filter";
import { columns, hists, nameOf, order, queryOf, scalar, selector, workloadOf } from "../src/prom";
import { withPast, type Answer } from "../src/parts/panel";
import { levelOf, TILES } from "../src/use";

const schema = (s: Partial<Schema>): Schema => ({ name: "huatuo_x_total", kind: "metric", type: "counter", area: "cpu", help: "", fields: [{ name: "mode", help: "" }], ...s });
const opt = { window: 20, span: 900, match: {}, by: null };

test("queryOf follows the schema's type", () => {
  assert.equal(queryOf(schema({}), opt), "sum by (mode) (rate(huatuo_x_total[20s])) and topk(12, sum by (mode) (rate(huatuo_x_total[900s] @ end())))");
  assert.equal(queryOf(schema({ type: "gauge", name: "g", fields: [] }), opt), "sum by () (g)");
  assert.equal(queryOf(schema({ type: "histogram", name: "h" }), { ...opt, match: { mode: 'a"b' } }), 'sum(rate(h{mode="a\\"b"}[20s]))');
  assert.match(queryOf(schema({ scope: "workload", fields: [] }), opt), /^sum by \(namespace, pod, container, unit\)/);
  assert.match(queryOf(schema({}), { ...opt, by: [] }), /^sum by \(\) \(rate/);
});

test("columns puts samples on the grid and leaves gaps", () => {
  const c = columns([{ metric: { a: "1" }, values: [[10, "1"], [30, "3"], [40, "NaN"], [50, "+Inf"]] }], 10, 50, 10);
  assert.deepEqual(c.x, [10, 20, 30, 40, 50]);
  assert.deepEqual(c.y[0], [1, null, 3, null, null]);
  assert.deepEqual(order({ x: [1], labels: [{ a: "s" }, { a: "l" }], y: [[1], [5]] }).labels.map((l) => l.a), ["l", "s"]);
});

test("hists puts histograms on the grid", () => {
  const h = hists({ metric: {}, histograms: [[20, { count: "1", sum: "1", buckets: [[0, "1", "2", "1"]] }]] }, 10, 30, 10);
  assert.equal(h.hists[0], null);
  assert.equal(h.hists[1]!.buckets[0]!.hi, 2);
  assert.equal(hists(undefined, 0, 10, 10).hists.length, 2);
});

test("names of series and workloads", () => {
  assert.equal(nameOf({ namespace: "p", pod: "r-0", container: "redis", mode: "user" }, ["mode", "namespace", "pod", "container", "unit"]), "p/r-0/redis · user");
  assert.equal(nameOf({ device: "sda", op: "read" }), "sda · read");
  assert.equal(workloadOf({ unit: "ssh.service", container: "" }), "ssh.service");
  assert.equal(selector({ a: "", b: "x" }), '{a="",b="x"}', "an empty value is the absence of the label");
  assert.equal(scalar([{ metric: {}, value: [1, "NaN"] }]), null);
  assert.equal(scalar([{ metric: {}, value: [1, "2.5"] }]), 2.5);
});

const doc = (d: Partial<Document>): Document => ({ id: "1", time: "", kind: "k", severity: "info", title: "redis waited", fields: { cpu: 3 }, ...d });

test("the live stream's words are searched as the store does", () => {
  const d = doc({ process: { pid: 7, comm: "redis" }, container: { namespace: "prod" } });
  for (const [q, want] of [["redis wait", true], ['"waited redis"', false], ["", true], ["prod 3", true], ["nobody", false]] as [string, boolean][]) assert.equal(matches(d, q), want, q);
  assert.deepEqual(words('a "b c" d'), ["a", "b c", "d"]);
});

test("filters of the URL", () => {
  const f = filterOf(new URLSearchParams("kind=a&last=1h&field.cpu=3&where=verdict+contains+x&live=1&pid=&q=x"));
  assert.deepEqual(f, { kind: "a", "field.cpu": "3", where: "verdict contains x", q: "x" });
  assert.deepEqual(streamParams(f), { kind: "a", "field.cpu": "3", where: "verdict contains x" }, "all but the words");
  assert.equal(toggled("a,b", "a"), "b");
  assert.equal(toggled("a", "a"), null);
  assert.equal(toggled("", "a"), "a");
  assert.deepEqual(merge([doc({ id: "2" })], [doc({ id: "3" }), doc({ id: "2" })]).map((d) => d.id), ["3", "2"]);
});

test("levels of the USE rows", () => {
  const row = TILES[0]!.rows[0]!;
  assert.equal(levelOf(row, null), "none");
  assert.equal(levelOf(row, 0.5), "ok");
  assert.equal(levelOf(row, 0.9), "warn");
  assert.equal(levelOf(row, 0.99), "bad");
});

test("an earlier window is matched by name and keeps its colour", () => {
  const answer = (names: string[], y: number[][]): Answer => ({ chart: { x: [1, 2], names, y, step: 1 }, labels: [], from: 1, to: 2 });
  const a = withPast(answer(["user", "idle"], [[1, 2], [3, 4]]), answer(["idle", "gone"], [[5, 6], [7, 8]]), "1h");
  assert.deepEqual(a.chart.names, ["user", "idle", "idle −1h"]);
  assert.deepEqual(a.chart.y[2], [5, 6]);
  assert.deepEqual(a.chart.past, [-1, -1, 1]);
});
