// SPDX-License-Identifier: Apache-2.0

import assert from "node:assert/strict";
import { test } from "node:test";
import type { CulpritPair } from "../src/api";
import { has, inOrder, labelsOf, matrixOf, NOBODY, shadeOf, sidesOf } from "../src/culprit";
import { TEXT } from "../src/i18n";

const NONE = { namespace: "", pod: "", container: "", unit: "" };
const WEB = { ...NONE, namespace: "shop", pod: "web-1", container: "app" };
const unit = (name: string) => ({ ...NONE, unit: name });
const pair = (victim: typeof NONE, kind: CulpritPair["culprit"]["kind"], culprit: typeof NONE, seconds: number, command?: string): CulpritPair =>
  ({ victim, culprit: { kind, ...culprit }, seconds, share: 0, victim_seconds: 0, command });

const PAIRS = [
  pair(WEB, "workload", unit("batch.service"), 6, "ffmpeg"),
  pair(WEB, "self", WEB, 3),
  pair(unit("batch.service"), "quota", NONE, 5),
  pair(unit("batch.service"), "workload", WEB, 2),
  pair(unit("cron.service"), "workload", unit("batch.service"), 1),
  pair(unit("cron.service"), "workload", unit("rare.service"), 0.5),
  pair(WEB, "other", NONE, 0.25),
];

test("the matrix has neighbours by time, then the rest", () => {
  const m = matrixOf(PAIRS, 8);
  assert.deepEqual(m.cols.map((c) => [c.name, c.seconds]), [["batch.service", 7], ["shop/web-1/app", 2], ["rare.service", 0.5], ["self", 3], ["quota", 5], ["other", 0.25]]);
  assert.equal(m.max, 6);
  const web = m.rows.find((r) => r.name === "shop/web-1/app")!;
  assert.equal(web.seconds, 9.25);
  assert.deepEqual(web.cells.get("=batch.service"), { seconds: 6, command: "ffmpeg" });
});

test("neighbours without a column are among the others, and no time is lost", () => {
  const m = matrixOf(PAIRS, 1);
  assert.deepEqual(m.cols.map((c) => c.id), ["=batch.service", "self", "quota", "other"]);
  assert.equal(m.cols.at(-1)!.seconds, 2.75);
  const sum = (l: number[]) => l.reduce((a, b) => a + b, 0);
  const all = sum(PAIRS.map((p) => p.seconds));
  assert.equal(sum(m.cols.map((c) => c.seconds)), all);
  assert.equal(sum(m.rows.map((r) => r.seconds)), all);
  assert.equal(sum(m.rows.flatMap((r) => [...r.cells.values()].map((c) => c.seconds))), all);
  assert.equal(matrixOf(PAIRS.filter((p) => p.culprit.kind !== "other"), 1).cols.at(-1)!.id, "other", "a column of others appears where there was none");
  assert.deepEqual(matrixOf([], 8), { cols: [], rows: [], max: 0 });
});

test("rows are in the order asked for", () => {
  const { rows } = matrixOf(PAIRS, 8);
  const names = (by: string, desc: boolean) => inOrder(rows, by, desc).map((r) => r.name);
  assert.deepEqual(names("", true), ["shop/web-1/app", "batch.service", "cron.service"]);
  assert.deepEqual(names("", false), ["cron.service", "batch.service", "shop/web-1/app"]);
  assert.deepEqual(names("quota", true), ["batch.service", "cron.service", "shop/web-1/app"]);
  assert.deepEqual(names("name", false), ["batch.service", "cron.service", "shop/web-1/app"]);
});

test("colours grow with time", () => {
  assert.deepEqual([0, 1, 4].map((v) => shadeOf(v, 4)), [0, 0.5, 1]);
  assert.equal(shadeOf(0, 0), 0);
});

test("a workload's two sides", () => {
  const match = labelsOf(unit("batch.service"));
  const { ran, kept } = sidesOf(PAIRS, match);
  assert.deepEqual(ran.map((p) => p.seconds), [5, 2]);
  assert.deepEqual(kept.map((p) => p.seconds), [6, 1]);
  const pod = sidesOf(PAIRS, { namespace: "shop", pod: "web-1" });
  assert.deepEqual(pod.ran.map((p) => p.seconds), [6, 3, 0.25]);
  assert.deepEqual(pod.kept.map((p) => p.seconds), [2]);
  assert.ok(has({ namespace: "", container: "app" }, { container: "app" }));
  assert.ok(!has({ namespace: "", container: "app" }, { namespace: "shop", container: "app" }));
});

test("what is no workload has its texts", () => {
  for (const n of NOBODY) for (const k of ["kind", "help"]) assert.ok(`culprit.${k}.${n}` in TEXT, n);
});
