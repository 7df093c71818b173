// SPDX-License-Identifier: Apache-2.0

/** Conditions on members of events, in the form of the API's parameter "where": NAME OP VALUE, joined by "and". */
import type { Field, Schema } from "./api";

export const OPS = ["=", "!=", ">", ">=", "<", "<=", "contains"] as const;
export type Op = (typeof OPS)[number];

/** One condition; path is as in the API: field.NAME for the body. */
export interface Condition {
  path: string;
  op: Op;
  value: string;
}

/** parseWhere reads conditions; what is not one ends the list, and the API tells what is wrong with it. */
export function parseWhere(text: string): Condition[] {
  const out: Condition[] = [];
  const one = /^\s*([A-Za-z_][\w.]*)\s*(!=|>=|<=|=|>|<|contains(?=[\s"]))\s*("(?:[^"\\]|\\.)*"|[^\s"]\S*)\s*/;
  for (let rest = text; ;) {
    const m = one.exec(rest);
    if (m === null) return out;
    out.push({ path: m[1]!, op: m[2] as Op, value: m[3]!.startsWith('"') ? m[3]!.slice(1, -1).replace(/\\(.)/g, "$1") : m[3]! });
    rest = rest.slice(m[0].length).replace(/^and\s+/i, "");
  }
}

function quoted(v: string): string {
  return v !== "" && !/[\s"\\]/.test(v) ? v : `"${v.replace(/[\\"]/g, "\\$&")}"`;
}

/** formatWhere is the inverse of parseWhere; null when there is none. */
export function formatWhere(list: Condition[]): string | null {
  return list.length === 0 ? null : list.map((c) => `${c.path} ${c.op} ${quoted(c.value)}`).join(" and ");
}

/** withCondition adds c, unless it is there already. */
export function withCondition(where: string, c: Condition): string | null {
  const list = parseWhere(where);
  return formatWhere(list.some((x) => x.path === c.path && x.op === c.op && x.value === c.value) ? list : [...list, c]);
}

/** Filters that the API has a parameter of its own for, and the member that other comparisons look at. */
export const PLAIN: Record<string, string> = {
  container: "container.name", pod: "container.pod", namespace: "container.namespace", unit: "container.unit", comm: "process.comm", pid: "process.pid",
};

/** Members that every event may have. */
const ENVELOPE: Field[] = [
  { name: "verdict", help: "" }, { name: "known", help: "" }, { name: "process.exe", help: "" }, { name: "process.parent", help: "" }, { name: "container.image", help: "" },
  { name: "kernel_stack.function", help: "" }, { name: "user_stack.function", help: "" }, { name: "resources.host.load1", type: "number", help: "" },
  { name: "resources.workload.memory_used_bytes", type: "number", unit: "bytes", help: "" },
];

/** A member that can be filtered on. */
export interface Member {
  name: string;
  unit: string;
  help: string;
  numeric: boolean;
}

/** membersOf lists what events of some kinds can be filtered on: the plain names, the bodies' members, the envelope. */
export function membersOf(kinds: Schema[]): Member[] {
  const member = (f: Field, name = f.name): Member => ({ name, unit: f.unit ?? "", help: f.help, numeric: f.type === "number" || f.type === "integer" });
  const out = new Map<string, Member>();
  for (const name of Object.keys(PLAIN)) out.set(name, member({ name, help: "" }));
  for (const k of kinds) {
    for (const f of k.fields) {
      const name = `field.${f.name}`;
      if (f.type !== "object" && !out.has(name)) out.set(name, member(f, name));
    }
  }
  for (const f of ENVELOPE) out.set(f.name, member(f));
  return [...out.values()];
}

/** patchFor is the change of the URL that adds a condition: a parameter of its own where there is one. */
export function patchFor(where: string, c: Condition): Record<string, string | null> {
  const member = PLAIN[c.path];
  if (member !== undefined && c.op === "=") return { [c.path]: c.value };
  return { where: withCondition(where, { ...c, path: member ?? c.path }) };
}

/** ordered tells whether a comparison needs a number. */
export function ordered(op: Op): boolean {
  return op === ">" || op === ">=" || op === "<" || op === "<=";
}

/** isNumber tells whether the API reads a value as a number, with or without a unit. */
export function isNumber(v: string): boolean {
  return /^-?(\d+\.?\d*|\.\d+)(e[-+]?\d+)?\s*(ns|us|µs|ms|s|min|h|d|B|KiB|MiB|GiB|TiB|k|M|G|%)?$/.test(v);
}
