// SPDX-License-Identifier: Apache-2.0

/** Who ran while whom waited for a CPU: pairs as the API gives them, and the matrix that they make. */
import type { CulpritPair } from "./api";
import { WORKLOAD, workloadOf, type Labels } from "./prom";
import { idOf } from "./workload";

/** The metric that the pairs are made of. */
export const CULPRIT_METRIC = "huatuo_container_runqueue_culprit_seconds_total";

/** Culprits that are no other workload, in the order of their columns. */
export const NOBODY = ["self", "quota", "idle", "other"] as const;
export type Nobody = (typeof NOBODY)[number];

/** labelsOf are the labels of a victim or culprit. */
export function labelsOf(w: CulpritPair["victim"]): Labels {
  return Object.fromEntries(WORKLOAD.map((k) => [k, w[k as keyof typeof w] ?? ""]));
}

/** A column of the matrix: a neighbour, or what stands for no other workload. */
export interface Col {
  /** As the URL has it. */
  id: string;
  nobody: Nobody | null;
  labels: Labels;
  name: string;
  seconds: number;
}

/** A row of the matrix: who waited, and for whom, by column. */
export interface Line {
  id: string;
  labels: Labels;
  name: string;
  seconds: number;
  cells: Map<string, { seconds: number; command: string }>;
}

export interface Matrix {
  cols: Col[];
  rows: Line[];
  /** The largest cell. */
  max: number;
}

function colOf(p: CulpritPair): Col {
  const { kind } = p.culprit;
  if (kind !== "workload") return { id: kind, nobody: kind, labels: {}, name: kind, seconds: 0 };
  const labels = labelsOf(p.culprit);
  const name = workloadOf(labels);
  return { id: `=${name}`, nobody: null, labels, name, seconds: 0 };
}

/** Neighbours first, those that ran longest before the others; then the rest in its fixed order. */
function ordered(cols: Col[]): Col[] {
  const rank = (c: Col) => (c.nobody === null ? -1 : NOBODY.indexOf(c.nobody));
  return [...cols].sort((a, b) => rank(a) - rank(b) || b.seconds - a.seconds || a.name.localeCompare(b.name));
}

/** matrixOf makes a row of each victim and a column of each culprit; neighbours beyond a number of columns are among the others. */
export function matrixOf(pairs: CulpritPair[], most: number): Matrix {
  const cols = new Map<string, Col>();
  for (const p of pairs) {
    const c = colOf(p);
    const have = cols.get(c.id) ?? c;
    have.seconds += p.seconds;
    cols.set(c.id, have);
  }
  const kept = new Set(ordered([...cols.values()].filter((c) => c.nobody === null)).slice(0, most).map((c) => c.id));
  const other: Col = cols.get("other") ?? { id: "other", nobody: "other", labels: {}, name: "other", seconds: 0 };
  for (const [id, c] of cols) {
    if (c.nobody !== null || kept.has(id)) continue;
    other.seconds += c.seconds;
    cols.delete(id);
    cols.set("other", other);
  }
  const rows = new Map<string, Line>();
  for (const p of pairs) {
    const labels = labelsOf(p.victim);
    const row = rows.get(idOf(labels)) ?? { id: idOf(labels), labels, name: workloadOf(labels), seconds: 0, cells: new Map() };
    rows.set(row.id, row);
    const c = colOf(p).id;
    const id = cols.has(c) ? c : "other";
    const cell = row.cells.get(id) ?? { seconds: 0, command: "" };
    row.cells.set(id, { seconds: cell.seconds + p.seconds, command: cell.command || (p.command ?? "") });
    row.seconds += p.seconds;
  }
  const lines = [...rows.values()];
  return { cols: ordered([...cols.values()]), rows: lines, max: Math.max(0, ...lines.flatMap((r) => [...r.cells.values()].map((c) => c.seconds))) };
}

/** inOrder sorts rows by name, by a column, or by all that they waited. */
export function inOrder(rows: Line[], by: string, descending: boolean): Line[] {
  const value = (r: Line) => (by === "" ? r.seconds : (r.cells.get(by)?.seconds ?? 0));
  const sign = descending ? -1 : 1;
  const byName = (a: Line, b: Line) => a.name.localeCompare(b.name);
  return [...rows].sort((a, b) => (by === "name" ? sign * byName(a, b) : sign * (value(a) - value(b)) || byName(a, b)));
}

/** shadeOf is how strong a cell's colour is, 0 to 1. The root lets small ones be seen beside a large one. */
export function shadeOf(seconds: number, max: number): number {
  return max > 0 ? Math.sqrt(Math.max(0, seconds) / max) : 0;
}

/** has tells whether labels are those of the workload that match selects; keys that it lacks may have any value. */
export function has(match: Labels, l: Labels): boolean {
  return Object.entries(match).every(([k, v]) => (l[k] ?? "") === v);
}

/** sidesOf splits pairs into those who ran while a workload waited, and those whom it kept waiting. Its own part is in the first only. */
export function sidesOf(pairs: CulpritPair[], match: Labels): { ran: CulpritPair[]; kept: CulpritPair[] } {
  const ran = pairs.filter((p) => has(match, labelsOf(p.victim)));
  return { ran, kept: pairs.filter((p) => p.culprit.kind === "workload" && has(match, labelsOf(p.culprit)) && !ran.includes(p)) };
}
