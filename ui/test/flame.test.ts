// SPDX-License-Identifier: Apache-2.0

import assert from "node:assert/strict";
import { test } from "node:test";
import type { FlameGraph, Frame, FunctionChange, ProfileDiff } from "../src/api";
import { build, buildDiff, changed, collapse, deepest, find, functions, keyOf, kindOf, matches, matching, nameOf, nodeAt, pattern, sandwich, shareOf, step, visible, type Tree } from "../src/flame";

/** Makes a graph of folded stacks: "main;f;g 3". */
function graph(...folded: string[]): FlameGraph {
  const frames: Frame[] = [];
  const nodes: FlameGraph["nodes"] = [];
  let total = 0;
  for (const line of folded) {
    const [stack, n] = line.split(" ") as [string, string];
    let p = -1;
    for (const name of stack.split(";")) {
      let f = frames.findIndex((x) => x.function === name);
      if (f < 0) f = frames.push({ function: name, module: "/bin/x" }) - 1;
      let i = nodes.findIndex((x) => x.p === p && x.f === f);
      if (i < 0) i = nodes.push({ f, p, s: 0, t: 0 }) - 1;
      nodes[i]!.t += Number(n);
      p = i;
    }
    nodes[p]!.s += Number(n);
    total += Number(n);
  }
  return { type: "cpu", unit: "count", from: "", to: "", total, samples: total, frames, nodes };
}

/** The tree as "depth name total/self" lines, in the order of the rows. */
function lines(t: Tree): string[] {
  return t.rows.flatMap((row) => [...row].filter((i) => i > 0).map((i) => `${t.depth[i]} ${t.fns[t.fn[i]!]!.name} ${t.total[i]}/${t.self[i]}`));
}

const fnOf = (t: Tree, name: string) => t.fns.findIndex((f) => f.name === name);
const G = graph("main;f;g 3", "main;h 6", "main;f 1", "idle 2");

test("kinds and names of frames", () => {
  assert.equal(kindOf({ function: "schedule" }), "kernel");
  assert.equal(kindOf({ function: "xfs_write", module: "xfs" }), "kernel");
  assert.equal(kindOf({ function: "malloc", module: "/usr/lib/libc.so.6" }), "native");
  assert.equal(kindOf({ function: "main.main", module: "go" }), "native");
  assert.equal(kindOf({ function: "run", module: "cpython" }), "runtime");
  const unknown = { function: "[unknown]", module: "/usr/bin/x", offset: 255, missing: "file gone" };
  assert.equal(kindOf(unknown), "unknown");
  assert.equal(nameOf(unknown), "x+0xff");
  assert.notEqual(keyOf(unknown), keyOf({ ...unknown, offset: 254 }));
  assert.equal(nameOf({ function: "[unknown]", missing: "not in a file" }), "[unknown: not in a file]");
  assert.equal(keyOf({ function: "[unknown]", module: "unwinder", missing: "no stack" }), keyOf({ function: "[unknown]", missing: "no stack" }));
});

test("layout: children within their parents, the widest first, no overlap", () => {
  const t = build(G);
  assert.deepEqual(lines(t), ["1 main 10/0", "1 idle 2/2", "2 h 6/6", "2 f 4/1", "3 g 3/3"]);
  for (let i = 1; i < t.fn.length; i++) {
    const p = t.parent[i]!;
    assert.ok(t.x[i]! >= t.x[p]! - 1e-12 && t.x[i]! + t.w[i]! <= t.x[p]! + t.w[p]! + 1e-12, `node ${i}`);
  }
  for (const row of t.rows) for (let k = 1; k < row.length; k++) assert.ok(t.x[row[k]!]! >= t.x[row[k - 1]!]! + t.w[row[k - 1]!]! - 1e-12);
  assert.equal(t.w[0], 1);
});

test("one function in two lines is one node, and says no line", () => {
  const g = graph("main 5");
  g.frames = [{ function: "main", module: "/a", file: "a.c", line: 1 }, { function: "main", module: "/a", file: "a.c", line: 2 }];
  g.nodes = [{ f: 0, p: -1, s: 2, t: 2 }, { f: 1, p: -1, s: 3, t: 3 }];
  const t = build(g);
  assert.deepEqual(lines(t), ["1 main 5/5"]);
  assert.equal(t.fns[0]!.frame.line, undefined);
});

test("places: which nodes of a row are seen, and which is under the pointer", () => {
  const t = build(G);
  const seen = (a: number, b: number) => {
    const [from, to] = visible(t, t.rows[2]!, a, b);
    return [...t.rows[2]!].slice(from, to).map((i) => t.fns[t.fn[i]!]!.name);
  };
  assert.deepEqual(seen(0, 1), ["h", "f"]);
  assert.deepEqual(seen(0.6, 0.7), ["f"]);
  assert.deepEqual(seen(0, 0.1), ["h"]);
  assert.deepEqual(seen(0.9, 1), []);
  assert.equal(t.fns[t.fn[nodeAt(t, 2, 0.6)]!]!.name, "f");
  assert.equal(nodeAt(t, 2, 0.95), -1);
  assert.equal(nodeAt(t, 9, 0.1), -1);
});

test("how deep the part of a node goes", () => {
  const t = build(G);
  const at = (name: string) => t.fn.indexOf(fnOf(t, name));
  assert.equal(deepest(t, 0, 0), 3);
  assert.equal(deepest(t, 0, 0.3), 2, "g is a quarter of everything");
  assert.equal(deepest(t, at("f"), 0.3), 3, "and three quarters of f");
  assert.equal(deepest(t, at("h"), 0), 2);
  assert.equal(deepest(t, at("idle"), 0), 1);
});

test("arrow keys", () => {
  const t = build(G);
  const name = (i: number) => (i === 0 ? "all" : t.fns[t.fn[i]!]!.name);
  const main = step(t, 0, "child");
  assert.equal(name(main), "main");
  assert.equal(name(step(t, main, "right")), "idle");
  assert.equal(name(step(t, main, "left")), "main");
  assert.equal(name(step(t, step(t, main, "child"), "right")), "f");
  assert.equal(name(step(t, main, "parent")), "all");
  assert.equal(step(t, step(t, main, "right"), "child"), step(t, main, "right"), "a leaf has no child");
});

test("a node is found again in the next answer", () => {
  const t = build(G);
  const g = nodeAt(t, 3, 0.6);
  const next = build(graph("idle 50", "main;h 1", "main;f;g 2"));
  assert.equal(next.fns[next.fn[find(next, t.id[g]!)]!]!.name, "g");
  assert.equal(find(build(graph("idle 1")), t.id[g]!), 0);
  assert.equal(new Set(t.id).size, t.id.length);
});

const R = graph("main;fib;fib;fib 4", "main;fib;fib;add 2", "main;fib;add 1", "main;a;b;a 3");

test("folding recursion keeps all values", () => {
  const t = collapse(build(R));
  assert.deepEqual(lines(t), ["1 main 10/0", "2 fib 7/4", "2 a 3/0", "3 add 3/3", "3 b 3/0", "4 a 3/3"]);
  assert.equal(t.self.reduce((x, y) => x + y, 0), 10);
});

test("search counts a match below a match once", () => {
  const t = build(R);
  const share = (text: string) => shareOf(t, matching(t, pattern(text)!));
  assert.equal(share("fib"), 0.7);
  assert.equal(share("^FIB$"), 0, "capitals are meant");
  assert.equal(share("^a$"), 0.3);
  assert.equal(share("add|b"), 1 - 0, "fib contains b");
  assert.equal(share("nothing"), 0);
  assert.equal(pattern("("), null);
});

test("the table: recursion counts once in the total", () => {
  const t = build(R);
  const row = (name: string) => functions(t)[fnOf(t, name)]!;
  assert.deepEqual([row("fib").self, row("fib").total], [4, 7]);
  assert.deepEqual([row("a").self, row("a").total], [3, 3]);
  assert.deepEqual([row("main").self, row("main").total], [0, 10]);
});

test("sandwich: both sides have the function's total", () => {
  const t = build(graph("main;f;x;y 3", "main;g;x 2", "main;g;x;x;z 1", "main;g 4"));
  const { callers, callees } = sandwich(t, fnOf(t, "x"));
  assert.deepEqual(lines(callees), ["1 x 6/2", "2 y 3/3", "2 x 1/0", "3 z 1/1"]);
  assert.deepEqual(lines(callers), ["1 x 6/0", "2 f 3/0", "2 g 3/0", "3 main 3/0", "3 main 3/0"]);
  assert.equal(callers.total[0], callees.total[0]);
});

/** A comparison as the server sends it: "main;f before after". */
function comparison(...folded: string[]): ProfileDiff {
  const [before, after] = [1, 2].map((i) => graph(...folded.map((l) => `${l.split(" ")[0]} ${l.split(" ")[i]}`))) as [FlameGraph, FlameGraph];
  const nodes = after.nodes.map((n, i) => ({ ...n, sb: before.nodes[i]!.s, tb: before.nodes[i]!.t }));
  return { type: "cpu", unit: "count", before, after, functions: [], tested: 0, clear: 0, frames: after.frames, nodes };
}

test("a comparison: what is gone is still there", () => {
  const t = buildDiff(comparison("main;f 20 30", "main;new 0 10", "main;gone 20 0"));
  const node = (name: string) => t.fn.indexOf(fnOf(t, name));
  assert.deepEqual([t.total[node("f")], t.base![node("f")], t.baseSelf![node("f")]], [30, 20, 20]);
  assert.deepEqual([t.total[node("new")], t.base![node("new")]], [10, 0]);
  assert.deepEqual([t.total[node("gone")], t.base![node("gone")]], [0, 20]);
  assert.deepEqual([t.total[0], t.base![0], t.total[node("main")]], [40, 40, 40]);
  assert.ok(Math.abs(t.w[node("gone")]! - 0.25) < 1e-9, "the mean of both shares");
  assert.equal(collapse(t).base![0], 40);
  assert.equal(buildDiff(comparison("main;f 0 30")).base, undefined, "with nothing to compare with it is an ordinary graph");
});

test("changes are those of the server, in its order, with their place in the tree", () => {
  const d = comparison("main;f 20 30", "main;g 80 70");
  d.frames.push({ function: "[unknown]", module: "/bin/x", offset: 255, missing: "no symbols" }, { function: "[unknown]", module: "/bin/x", missing: "no stack" });
  d.nodes.push({ f: d.frames.length - 2, p: 0, sb: 0, tb: 0, s: 5, t: 5 }, { f: d.frames.length - 1, p: -1, sb: 0, tb: 0, s: 1, t: 1 });
  const t = buildDiff(d);
  const share = { before: 0.2, after: 0.3, before_samples: 20, after_samples: 30, z: 4, p: 0.0001 };
  const of = (name: string, module?: string): FunctionChange => ({ function: name, module, verdict: "regressed", self: share, total: share });
  const list = changed(t, [of("g", "/bin/x"), of("f", "/bin/x"), of("x+0xff", "/bin/x"), of("[unknown: no stack]", "/bin/x"), of("f", "/lib/other"), of("small")]);
  assert.deepEqual(list.map((c) => c.fn.name), ["g", "f", "x+0xff", "[unknown: no stack]", "f", "small"]);
  assert.deepEqual(list.map((c) => t.fns.includes(c.fn)), [true, true, true, true, false, false]);
  assert.equal(list[2]!.fn.kind, "unknown");
  assert.equal(list[5]!.fn.kind, "kernel");
  assert.ok(matches(list[4]!.fn, /other/) && !matches(list[1]!.fn, /other/));
});

test("ten thousand nodes are laid out in no time", () => {
  const frames = Array.from({ length: 500 }, (_, i): Frame => ({ function: `f${i}`, module: "/x" }));
  const nodes: FlameGraph["nodes"] = [{ f: 0, p: -1, s: 0, t: 30000 }];
  for (let i = 1; i < 30000; i++) nodes.push({ f: i % 500, p: Math.floor((i - 1) / 3), s: 1, t: 1 });
  const start = performance.now();
  const t = build({ ...graph("x 1"), frames, nodes, total: 30000 });
  functions(t);
  assert.ok(t.fn.length > 1000);
  assert.ok(performance.now() - start < 5000);
});
