// SPDX-License-Identifier: Apache-2.0
import { test } from "node:test";
import assert from "node:assert/strict";
import type { Document, Neighbour } from "../src/api";
import { groupsOf } from "../src/parts/neighbours";
import { ofHost, ofWorkload } from "../src/parts/resources";

const doc = (id: string): Document => ({ id, time: "", kind: "k", severity: "info", title: "", fields: {} });

test("neighbours are parted by relation, the newest first", () => {
  const list: Neighbour[] = [{ relation: "cause", event: doc("3") }, { relation: "process", event: doc("1") }, { relation: "process", event: doc("5") }, { relation: "host", event: doc("2") }];
  assert.deepEqual(groupsOf(list).map((g) => [g.relation, g.events.map((e) => e.id).join()]), [["cause", "3"], ["process", "5,1"], ["host", "2"]]);
  assert.deepEqual(groupsOf([]), []);
});

test("amounts have their limits, and what is not known is left out", () => {
  const host = ofHost({ load1: 2, runnable: 3, memory_total_bytes: 100, memory_available_bytes: 25 });
  assert.deepEqual(host.map((a) => [a.key, a.value, a.of]), [["res.load", 2, undefined], ["res.runnable", 3, undefined], ["res.memory", 75, 100]]);
  const pressure = { cpu_some: 0.5, memory_some: 0, memory_full: 0, io_some: 0, io_full: 0 };
  const work = ofWorkload({ memory_used_bytes: 9, memory_limit_bytes: 10, pids: 4, pressure });
  assert.deepEqual(work.map((a) => a.key).slice(0, 3), ["res.memory", "res.tasks", "res.psi.cpu_some"]);
  assert.equal(work[0]!.of, 10);
  assert.equal(work[1]!.of, undefined, "no limit, no share");
  assert.equal(work[2]!.of, 1);
});
