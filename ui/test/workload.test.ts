// SPDX-License-Identifier: Apache-2.0

import assert from "node:assert/strict";
import { test } from "node:test";
import type { Document } from "../src/api";
import { TEXT } from "../src/i18n";
import { unitBeside } from "../src/parts/fields";
import { arranged, orderOf, possible, shown, turned } from "../src/parts/worktable";
import type { Labels, PromSeries } from "../src/prom";
import {
  brief, COLUMNS, countEvents, eventFilter, kindOf, labelsAt, labelsOfEvent, partition, pathOf, pods, rowsOf, searched, sorted, SOURCES, type Row,
} from "../src/workload";

const source = (id: string) => SOURCES.find((s) => s.ids.includes(id))!;
const vector = (...list: [Labels, string][]): PromSeries[] => list.map(([metric, v]) => ({ metric, value: [0, v] }));
const A = { namespace: "prod", pod: "web-0", container: "web" };
const B = { namespace: "prod", pod: "web-0", container: "log" };
const U = { unit: "ssh.service" };

/** Rows of two containers of a pod and a unit. */
function rows(): Row[] {
  return rowsOf([
    [source("cpu"), vector([A, "0.5"], [B, "0.25"], [U, "0.1"])],
    [source("cpu_limit"), vector([A, "1"])],
    [source("cpu_psi"), vector([{ ...A, resource: "cpu" }, "0.2"], [{ ...A, resource: "io" }, "0.01"], [{ ...B, resource: "cpu" }, "0.4"])],
    [source("throttled"), vector([A, "NaN"])],
    [source("oom"), vector([B, "1.98"])],
    [source("wait"), vector([{ unit: "gone.service" }, "NaN"])],
  ]);
}
const find = (list: Row[], name: string) => list.find((r) => r.name === name)!;

test("kinds by labels", () => {
  const cases: [Labels, string][] = [
    [A, "container"], [{ container: "redis" }, "container"], [{ namespace: "prod", pod: "web-0" }, "pod"], [U, "unit"], [{ unit: "/batch" }, "cgroup"], [{ unit: "/" }, "cgroup"],
    [{ container: "other" }, "other"], [{ namespace: "n", pod: "p", container: "other" }, "container"],
  ];
  for (const [l, want] of cases) assert.equal(kindOf(l), want, JSON.stringify(l));
});

test("a workload's route leads back to its labels", () => {
  const none = { namespace: "", pod: "" };
  const cases: [Labels, string, Labels][] = [
    [A, "prod/web-0/web", A], [{ ...none, container: "redis" }, "redis", { ...none, container: "redis" }],
    [{ namespace: "default", pod: "", container: "x" }, "default//x", { namespace: "default", pod: "", container: "x" }],
    [{ namespace: "prod", pod: "web-0", container: "" }, "prod/web-0", { namespace: "prod", pod: "web-0" }],
    [{ pod: "uid" }, "uid", { namespace: "", pod: "uid" }],
    [U, "ssh.service", U], [{ unit: "/a/b" }, "/a/b", { unit: "/a/b" }], [{ unit: "/" }, "/", { unit: "/" }],
  ];
  for (const [l, name, match] of cases) {
    const [page, kind, got] = pathOf(l);
    assert.deepEqual([page, got], ["workloads", name]);
    assert.deepEqual(labelsAt(kind!, got!), match, name);
  }
  for (const [kind, name] of [["container", ""], ["node", "x"], ["pod", "a/b/c"]] as const) assert.equal(labelsAt(kind, name), null, `${kind} ${name}`);
});

test("answers are joined by workload", () => {
  const list = rows();
  assert.equal(list.length, 3);
  const a = find(list, "prod/web-0/web");
  assert.deepEqual([a.values.cpu, a.values.cpu_share, a.values.cpu_psi, a.values.io_psi], [0.5, 0.5, 0.2, 0.01]);
  assert.equal(a.values.throttled, undefined, "NaN is no value");
  assert.equal(find(list, "prod/web-0/log").values.cpu_share, null, "no limit, no share");
  assert.equal(find(list, "prod/web-0/log").values.oom, 2, "half a process is not killed");
  assert.deepEqual(shown(list).map((c) => c.id), ["cpu", "cpu_share", "cpu_psi", "oom", "io_psi"]);
});

const event = (container?: Document["container"]): Document => ({ id: "1", time: "", kind: "k", severity: "info", title: "", fields: {}, container });

test("events are counted for the workload that they name", () => {
  const list = rows();
  countEvents(list, [{ namespace: "prod", pod: "web-0", container: "web", kind: "a", count: 150 }, { namespace: "prod", pod: "web-0", container: "web", kind: "b", count: 2 }, { unit: "ssh.service", count: 1 }, { count: 9 }]);
  assert.deepEqual(list.map((r) => r.values.events), [152, 0, 1]);
  assert.equal(labelsOfEvent(event({ cgroup: "/x" })), null);
  assert.deepEqual(eventFilter({ namespace: "", pod: "", container: "redis" }), { container: "redis" });
});

test("a pod is the sum of its containers, or the worst where a sum means nothing", () => {
  const [pod, ...rest] = pods(rows());
  assert.equal(rest.length, 0, "a unit is no pod");
  assert.deepEqual([pod!.name, pod!.kind], ["prod/web-0", "pod"]);
  assert.deepEqual([pod!.values.cpu, pod!.values.cpu_psi, pod!.values.cpu_share, pod!.values.oom, pod!.values.memory], [0.75, 0.4, 0.5, 2, null]);
  const groups = partition(rows(), (r) => r.labels.namespace!, (k) => k || "none");
  assert.deepEqual(groups.map((g) => [g.head!.name, g.rows.length, g.head!.values.cpu]), [["prod", 2, 0.75], ["none", 1, 0.1]]);
});

test("sorting: either direction, what has no value last, equals by name", () => {
  const names = (column: string, descending: boolean) => sorted(rows(), column, descending).map((r) => r.name.split("/").pop());
  assert.deepEqual(names("cpu", true), ["web", "log", "ssh.service"]);
  assert.deepEqual(names("cpu", false), ["ssh.service", "log", "web"]);
  assert.deepEqual(names("cpu_psi", true), ["log", "web", "ssh.service"]);
  assert.deepEqual(names("cpu_psi", false), ["web", "log", "ssh.service"]);
  assert.deepEqual(names("memory", true), ["log", "web", "ssh.service"]);
  assert.deepEqual(names("name", true), ["ssh.service", "web", "log"]);
  const groups = partition(rows(), (r) => r.kind, (k) => k);
  assert.deepEqual(arranged(groups, { column: "cpu", descending: false }).map((g) => g.head!.name), ["unit", "container"]);
  assert.deepEqual(arranged(groups, { column: "cpu", descending: true })[0]!.rows.map((r) => r.labels.container), ["web", "log"]);
});

test("the order of the URL, and the one after a click", () => {
  const order = (q: string) => orderOf(new URLSearchParams(q));
  assert.deepEqual(order(""), { column: "cpu", descending: true });
  assert.deepEqual(order("sort=name"), { column: "name", descending: false });
  assert.deepEqual(order("sort=memory&dir=asc"), { column: "memory", descending: false });
  assert.deepEqual(order("sort=nonsense"), { column: "cpu", descending: true });
  assert.deepEqual(possible(order("sort=wait&dir=asc"), COLUMNS.slice(0, 2)), { column: "cpu", descending: true }, "a column without values is not there");
  assert.deepEqual(possible(order("sort=name"), []), { column: "name", descending: false });
  assert.deepEqual(turned(order(""), "cpu"), { sort: null, dir: "asc" });
  assert.deepEqual(turned(order("dir=asc"), "cpu"), { sort: null, dir: null });
  assert.deepEqual(turned(order(""), "memory"), { sort: "memory", dir: null });
  assert.deepEqual(turned(order("sort=name"), "name"), { sort: "name", dir: "desc" });
});

test("search finds every word in name or kind", () => {
  assert.deepEqual(searched(rows(), "prod WEB").length, 2);
  assert.deepEqual(searched(rows(), "unit").map((r) => r.name), ["ssh.service"]);
  assert.deepEqual(searched(rows(), "").length, 3);
  assert.deepEqual(searched(rows(), "prod ssh").length, 0);
});

test("queries select the workload and nothing else", () => {
  const w = { span: "900s", rate: "20s", step: "15s" };
  const match = { namespace: "", pod: "", container: "redis" };
  for (const s of SOURCES) {
    const q = s.query(w, match);
    const selectors = [...q.matchAll(/huatuo_container_\w+(\{[^}]*\})?/g)].map((m) => m[1] ?? "");
    assert.ok(selectors.length > 0 && selectors.every((x) => x.endsWith('namespace="",pod="",container="redis"}')), q);
    assert.ok(!s.query(w, {}).includes("{}"), q);
  }
  assert.match(source("oom").query(w, {}), /increase.* \+ .*min_over_time.* unless .*offset 900s/, "a series that is new in the range");
});

test("small values are not spelt out", () => {
  const text = (id: string, v: number | null) => brief(COLUMNS.find((c) => c.id === id)!, v);
  for (const [id, v, want] of [["cpu", 0.0631, "0.06"], ["cpu", 0.004, "<0.01"], ["cpu", 12.345, "12.3"], ["cpu", 0, "0"], ["cpu_psi", 0.000655, "<0.1%"], ["cpu_psi", 0.0765, "7.7%"],
    ["memory", 1024, "1 KiB"], ["io", 2048, "2 KiB/s"], ["oom", 3, "3"], ["wait", null, "–"]] as const) assert.equal(text(id, v), want, `${id} ${v}`);
});

test("every column has its texts and a source", () => {
  for (const c of COLUMNS) {
    for (const part of ["col", "full", "help"]) assert.ok(`work.${part}.${c.id}` in TEXT, c.id);
    if (c.id === "events") continue;
    for (const id of c.share ?? [c.id]) assert.ok(source(id) !== undefined, id);
  }
});

test("amounts by kind have the unit of what stands beside them", () => {
  assert.equal(unitBeside({ path: "/x", limit_bytes: 1, usage_bytes: 2, failures: 3, stat: {} }), "bytes");
  assert.equal(unitBeside({ wait_seconds: 1, size_bytes: 2 }), undefined);
  assert.equal(unitBeside({ pid: 1 }), undefined);
});
