// SPDX-License-Identifier: Apache-2.0

/**
 * Flame graphs as numbers: layout, search, folding of recursion, the table of
 * functions, and the sandwich of one of them. What changed between two graphs is
 * the server's to say. Nothing here draws. Trees are flat arrays with parents before children, so
 * that ten thousand nodes are passed over in one loop.
 */
import type { FlameGraph, Frame, FunctionChange, ProfileDiff } from "./api";

/** What kind of code a frame is. */
export type Kind = "kernel" | "native" | "runtime" | "unknown";

/** A function, whatever the line in it. */
export interface Fn {
  key: string;
  name: string;
  frame: Frame;
  kind: Kind;
}

/** A laid out tree. Node 0 stands for everything; x and w are shares of it. */
export interface Tree {
  fns: Fn[];
  fn: Int32Array; // index of fns; -1 for node 0
  parent: Int32Array; // -1 for node 0
  depth: Int32Array;
  self: Float64Array;
  total: Float64Array;
  x: Float64Array;
  w: Float64Array;
  /** Says which node it is across reloads: made of the functions from the root to it. */
  id: Uint32Array;
  /** Nodes of each depth, from left to right. */
  rows: Int32Array[];
  /** In a tree of differences: totals of what is compared with. */
  base?: Float64Array;
  /** The same for values of their own. */
  baseSelf?: Float64Array;
}

/** Names that the unwinder gives to runtimes; other modules without a path are the kernel's. */
const RUNTIMES = new Set(["cpython", "python", "php", "jvm", "ruby", "perl", "v8js", "dotnet", "beam", "luajit", "apm-integration", "unknown", "[jit]"]);

/** kindOf tells kernel, compiled and interpreted code apart. */
export function kindOf(f: Frame): Kind {
  const module = f.module ?? "";
  if (f.missing !== undefined && f.missing !== "") return "unknown";
  if (RUNTIMES.has(module)) return "runtime";
  if (module === "go" || /[/[.:]/.test(module)) return "native";
  return "kernel";
}

/** nameOf is what a frame is called in a graph, here and on the server: an unknown one by its file and where in it, else by why it is unknown. */
export function nameOf(f: Frame): string {
  const module = f.module ?? "";
  if (!f.missing) return f.function;
  return f.offset ? `${module.slice(module.lastIndexOf("/") + 1)}+0x${f.offset.toString(16)}` : `[unknown: ${f.missing}]`;
}

/** keyOf identifies a function. */
export function keyOf(f: Frame): string {
  return `${nameOf(f)}@${f.missing && !f.offset ? "" : (f.module ?? "")}`;
}

/** Collects nodes, then lays them out. */
class Builder {
  readonly fns: Fn[] = [];
  readonly fn: number[] = [-1];
  readonly parent: number[] = [-1];
  readonly self: number[] = [0];
  readonly total: number[] = [0];
  readonly base: number[] = [0];
  readonly baseSelf: number[] = [0];
  private readonly known = new Map<string, number>();
  private readonly children = new Map<number, Map<number, number>>();

  /** intern gives a function its number. */
  intern(f: Frame): number {
    const key = keyOf(f);
    const old = this.known.get(key);
    if (old !== undefined) {
      const had = this.fns[old]!.frame;
      if (had.line !== f.line && had.line !== undefined) this.fns[old]!.frame = { ...had, line: undefined };
      return old;
    }
    this.known.set(key, this.fns.length);
    this.fns.push({ key, name: nameOf(f), frame: f, kind: kindOf(f) });
    return this.fns.length - 1;
  }

  /** child finds or makes the node of a function under another node. */
  child(parent: number, fn: number): number {
    let of = this.children.get(parent);
    if (of === undefined) this.children.set(parent, (of = new Map()));
    let n = of.get(fn);
    if (n === undefined) {
      n = this.fn.length;
      of.set(fn, n);
      this.fn.push(fn);
      this.parent.push(parent);
      for (const a of [this.self, this.total, this.base, this.baseSelf]) a.push(0);
    }
    return n;
  }

  tree(diff: boolean, fns: Fn[] = this.fns): Tree {
    const t = {
      fns, fn: Int32Array.from(this.fn), parent: Int32Array.from(this.parent), self: Float64Array.from(this.self), total: Float64Array.from(this.total),
      ...(diff && { base: Float64Array.from(this.base), baseSelf: Float64Array.from(this.baseSelf) }),
    };
    return layout(t);
  }
}

/** weights are the widths of nodes: their share, in a difference the mean of both shares, so that what is gone still shows. */
function weights(t: Pick<Tree, "total" | "base">): Float64Array {
  const { total, base } = t;
  const now = total[0]! || 1;
  if (base === undefined) return total.map((v) => v / now);
  const then = base[0]! || 1;
  return total.map((v, i) => (v / now + base[i]! / then) / 2);
}

function hash(s: string): number {
  let h = 0x811c9dc5;
  for (let i = 0; i < s.length; i++) h = Math.imul(h ^ s.charCodeAt(i), 0x01000193);
  return h >>> 0;
}

/** layout computes the places: children side by side under their parent, the widest first. */
export function layout(t: Omit<Tree, "x" | "w" | "id" | "rows" | "depth">): Tree {
  const n = t.fn.length;
  const w = weights(t);
  const depth = new Int32Array(n);
  const x = new Float64Array(n);
  const id = new Uint32Array(n);
  const names = t.fns.map((f) => hash(f.key));
  const lists: number[][] = [[0]];
  id[0] = 1;
  w[0] = 1;
  for (let i = 1; i < n; i++) {
    const p = t.parent[i]!;
    depth[i] = depth[p]! + 1;
    id[i] = (Math.imul(id[p]! ^ names[t.fn[i]!]!, 0x9e3779b1) + 0x7f4a7c15) >>> 0;
    (lists[depth[i]!] ??= []).push(i);
  }
  const at = new Int32Array(n); // place within the row above
  const next = new Float64Array(n);
  const rows = lists.map((list, d) => {
    if (d > 0) list.sort((a, b) => at[t.parent[a]!]! - at[t.parent[b]!]! || w[b]! - w[a]! || (t.fns[t.fn[a]!]!.key < t.fns[t.fn[b]!]!.key ? -1 : 1));
    list.forEach((i, k) => {
      at[i] = k;
      const p = t.parent[i]!;
      if (p >= 0) {
        x[i] = next[p]!;
        next[p] = next[p]! + w[i]!;
      }
      next[i] = x[i]!;
    });
    return Int32Array.from(list);
  });
  return { ...t, x, w, id, rows, depth };
}

/** build makes a tree of an answer; frames of one function in different lines become one. */
export function build(g: Pick<FlameGraph, "frames" | "nodes" | "total">): Tree {
  const b = new Builder();
  add(b, g, (i, n) => {
    b.self[i] = b.self[i]! + n.s;
    b.total[i] = b.total[i]! + n.t;
  });
  b.total[0] = g.total;
  return b.tree(false);
}

function add<N extends { f: number; p: number }>(b: Builder, g: { frames: Frame[]; nodes: N[] }, each: (node: number, n: N) => void): void {
  const fn = g.frames.map((f) => b.intern(f));
  const node: number[] = [];
  g.nodes.forEach((n, i) => {
    node[i] = b.child(n.p < 0 ? 0 : node[n.p]!, fn[n.f]!);
    each(node[i]!, n);
  });
}

/** buildDiff makes a tree of a comparison. When there is nothing to compare with it is an ordinary one. */
export function buildDiff(d: ProfileDiff): Tree {
  if (d.before.total <= 0) return build({ ...d, total: d.after.total });
  const b = new Builder();
  add(b, d, (i, n) => {
    b.self[i] = b.self[i]! + n.s;
    b.total[i] = b.total[i]! + n.t;
    b.baseSelf[i] = b.baseSelf[i]! + n.sb;
    b.base[i] = b.base[i]! + n.tb;
  });
  b.total[0] = d.after.total;
  b.base[0] = d.before.total;
  return b.tree(true);
}

/** changed finds the functions that changed in the tree of both; one that is too small for the tree comes without its place there. */
export function changed(t: Tree, list: FunctionChange[]): { fn: Fn; change: FunctionChange }[] {
  const known = new Map<string, Fn>();
  for (const f of t.fns) {
    known.set(f.key, f);
    known.set(`${f.name}@${f.frame.module ?? ""}`, f);
  }
  return list.map((change) => {
    const key = `${change.function}@${change.module ?? ""}`;
    const frame: Frame = { function: change.function, module: change.module, file: change.file };
    return { fn: known.get(key) ?? known.get(`${change.function}@`) ?? { key, name: change.function, frame, kind: kindOf(frame) }, change };
  });
}

/** collapse folds direct recursion: a function called by itself becomes part of its caller. */
export function collapse(t: Tree): Tree {
  const b = new Builder();
  const to = new Int32Array(t.fn.length);
  b.total[0] = t.total[0]!;
  b.base[0] = t.base?.[0] ?? 0;
  for (let i = 1; i < t.fn.length; i++) {
    const p = to[t.parent[i]!]!;
    const own = b.fn[p] === t.fn[i];
    const n = own ? p : b.child(p, t.fn[i]!);
    to[i] = n;
    b.self[n] = b.self[n]! + t.self[i]!;
    b.baseSelf[n] = b.baseSelf[n]! + (t.baseSelf?.[i] ?? 0);
    if (own) continue; // the caller's total has it already
    b.total[n] = b.total[n]! + t.total[i]!;
    b.base[n] = b.base[n]! + (t.base?.[i] ?? 0);
  }
  return b.tree(t.base !== undefined, t.fns);
}

/** pattern reads what was typed into the search: a regular expression, of any case unless it has capitals; null when it is none. */
export function pattern(text: string): RegExp | null {
  try {
    return new RegExp(text, /[A-Z]/.test(text) ? "" : "i");
  } catch {
    return null;
  }
}

/** matches says whether a function has the pattern in its name, module or file. */
export function matches(f: Fn, re: RegExp): boolean {
  return re.test(f.name) || re.test(f.frame.module ?? "") || re.test(f.frame.file ?? "");
}

/** matching says which functions of a tree do. */
export function matching(t: Tree, re: RegExp): Uint8Array {
  return Uint8Array.from(t.fns, (f) => (matches(f, re) ? 1 : 0));
}

/** shareOf is the share of everything that is in matching functions; one below another counts once. */
export function shareOf(t: Tree, matched: Uint8Array): number {
  const under = new Uint8Array(t.fn.length);
  let sum = 0;
  for (let i = 1; i < t.fn.length; i++) {
    const inside = under[t.parent[i]!]!;
    const hit = matched[t.fn[i]!]!;
    under[i] = inside | hit;
    if (hit === 1 && inside === 0) sum += t.total[i]!;
  }
  return t.total[0]! > 0 ? sum / t.total[0]! : 0;
}

/** outermost tells for each node whether its function occurs nowhere between it and the root. */
function outermost(t: Tree): Uint8Array {
  const out = new Uint8Array(t.fn.length);
  for (let i = 1; i < t.fn.length; i++) {
    let p = t.parent[i]!;
    while (p > 0 && t.fn[p] !== t.fn[i]) p = t.parent[p]!;
    out[i] = p > 0 ? 0 : 1;
  }
  return out;
}

/** A row of the table of functions. */
export interface Row {
  fn: number;
  self: number;
  total: number;
}

/** functions sums up the nodes of each function; recursion counts once in the total. */
export function functions(t: Tree): Row[] {
  const first = outermost(t);
  const rows = t.fns.map((_, fn): Row => ({ fn, self: 0, total: 0 }));
  for (let i = 1; i < t.fn.length; i++) {
    const r = rows[t.fn[i]!]!;
    r.self += t.self[i]!;
    if (first[i] === 1) r.total += t.total[i]!;
  }
  return rows;
}

/** sandwich gives the callers of a function, as a tree that begins at it, and its callees. Both have its recursion-safe total. */
export function sandwich(t: Tree, fn: number): { callers: Tree; callees: Tree } {
  const first = outermost(t);
  const up = new Builder();
  const down = new Builder();
  const upRoot = up.child(0, fn);
  const downRoot = down.child(0, fn);
  const to = new Int32Array(t.fn.length).fill(-1);
  for (let i = 1; i < t.fn.length; i++) {
    const top = t.fn[i] === fn && first[i] === 1;
    if (!top && to[t.parent[i]!]! < 0) continue;
    to[i] = top ? downRoot : down.child(to[t.parent[i]!]!, t.fn[i]!);
    down.self[to[i]!] = down.self[to[i]!]! + t.self[i]!;
    down.total[to[i]!] = down.total[to[i]!]! + t.total[i]!;
    if (!top) continue;
    let n = upRoot;
    up.total[n] = up.total[n]! + t.total[i]!;
    for (let p = t.parent[i]!; p > 0; p = t.parent[p]!) {
      n = up.child(n, t.fn[p]!);
      up.total[n] = up.total[n]! + t.total[i]!;
    }
  }
  up.total[0] = up.total[upRoot]!;
  down.total[0] = down.total[downRoot]!;
  return { callers: up.tree(false, t.fns), callees: down.tree(false, t.fns) };
}

/** visible gives the range of a row's nodes that touch the stretch [a, b) of the x axis. */
export function visible(t: Tree, row: Int32Array, a: number, b: number): [number, number] {
  const search = (at: number, edge: (i: number) => number) => {
    let lo = 0;
    let hi = row.length;
    while (lo < hi) {
      const mid = (lo + hi) >> 1;
      if (edge(row[mid]!) <= at) lo = mid + 1;
      else hi = mid;
    }
    return lo;
  };
  return [search(a, (i) => t.x[i]! + t.w[i]!), search(b - 1e-15, (i) => t.x[i]!)];
}

/** deepest is the depth that nodes reach within a node, those below the least share of it left out. */
export function deepest(t: Tree, focus: number, least: number): number {
  const [a, w] = [t.x[focus]!, t.w[focus]!];
  let depth = t.depth[focus]!;
  for (let i = focus; i < t.fn.length; i++) {
    if (t.depth[i]! > depth && t.w[i]! >= least * w && t.x[i]! >= a - 1e-12 && t.x[i]! < a + w) depth = t.depth[i]!;
  }
  return depth;
}

/** nodeAt finds the node of a row at a place of the x axis, -1 for none. */
export function nodeAt(t: Tree, depth: number, x: number): number {
  const row = t.rows[depth];
  if (row === undefined) return -1;
  const [a] = visible(t, row, x, x);
  const i = row[a];
  return i !== undefined && t.x[i]! <= x && x < t.x[i]! + t.w[i]! ? i : -1;
}

/** step is where an arrow key leads from a node. */
export function step(t: Tree, node: number, way: "parent" | "child" | "left" | "right"): number {
  if (way === "parent") return Math.max(0, t.parent[node]!);
  if (way === "child") {
    const row = t.rows[t.depth[node]! + 1];
    return row?.find((i) => t.parent[i] === node) ?? node;
  }
  const row = t.rows[t.depth[node]!]!;
  return row[row.indexOf(node) + (way === "left" ? -1 : 1)] ?? node;
}

/** find gives the node of an id, 0 when there is none any more. */
export function find(t: Tree, id: number): number {
  return Math.max(0, t.id.indexOf(id));
}
