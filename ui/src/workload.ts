// SPDX-License-Identifier: Apache-2.0

/** Workloads: what they are called in labels and in URLs, what is asked about all of them at once, and the rows that the answers make. */
import { api, type Document, type EventCount } from "./api";
import { number, selector, WORKLOAD, workloadOf, type Labels, type PromSeries } from "./prom";
import { iso, rateWindow, stepOf } from "./range";
import type { App } from "./state";
import { format } from "./units";

export const KINDS = ["container", "pod", "unit", "cgroup", "other"] as const;

/** A workload is a container, the rest of a pod, a systemd unit, a cgroup of no known manager, or all those too short-lived for series of their own. */
export type Kind = (typeof KINDS)[number];

/** kindOf tells the kind by the labels. */
export function kindOf(l: Labels): Kind {
  if (l.container) return l.container === "other" && !l.namespace && !l.pod ? "other" : "container";
  if (l.pod) return "pod";
  return l.unit?.startsWith("/") ? "cgroup" : "unit";
}

/** The labels that make the name of a kind, outermost first. */
const NAMED: Record<Kind, string[]> = {
  container: ["namespace", "pod", "container"], pod: ["namespace", "pod"], unit: ["unit"], cgroup: ["unit"], other: ["namespace", "pod", "container"],
};

/** pathOf is the route of a workload's page. None of the joined names can have a slash in it. */
export function pathOf(l: Labels): string[] {
  const kind = kindOf(l);
  const name = NAMED[kind].map((k) => l[k] ?? "").join("/");
  return ["workloads", kind, kind === "cgroup" ? name : name.replace(/^\/+/, "")];
}

/**
 * labelsAt is the inverse of pathOf: the labels to select by, empty ones
 * included, or null when the route names none. A pod's say nothing of
 * containers, so they select all of its.
 */
export function labelsAt(kind: string, name: string): Labels | null {
  if (!(KINDS as readonly string[]).includes(kind) || name === "") return null;
  const keys = NAMED[kind as Kind];
  if (keys.length === 1) return { unit: name };
  const parts = name.split("/");
  if (parts.length > keys.length) return null;
  return Object.fromEntries(keys.map((k, i) => [k, parts[i - keys.length + parts.length] ?? ""]));
}

/** labelsOfEvent are the labels that the series of an event's workload have. */
export function labelsOfEvent(d: Document): Labels | null {
  const c = d.container;
  if (c === undefined) return null;
  const l = { namespace: c.namespace ?? "", pod: c.pod ?? "", container: c.name ?? "", unit: c.name ? "" : (c.unit ?? "") };
  return workloadOf(l) === "" ? null : l;
}

/** eventFilter selects a workload's events. */
export function eventFilter(match: Labels): Record<string, string> {
  return Object.fromEntries(Object.entries(match).filter(([, v]) => v !== ""));
}

/** Windows of a query, as PromQL durations. */
interface Windows {
  span: string;
  rate: string;
  step: string;
}

/** A question about all workloads, and the value of a row that each series of the answer is. */
interface Source {
  metric: string;
  ids: string[];
  id?: (l: Labels) => string;
  query: (w: Windows, match: Labels) => string;
}

const BY = WORKLOAD.join(", ");
const by = (match: Labels, metric: string, more = "") => (f: (sel: string) => string) => `sum by (${BY}${more}) (${f(metric + selector(match))})`;

/** The average over the part of the range in which the workload existed: rate() over all of it would make a container that started a minute ago look idle. */
const average = (metric: string, extra: Labels = {}, more = "") => (w: Windows, m: Labels) =>
  `avg_over_time(${by({ ...extra, ...m }, metric, more)((s) => `rate(${s}[${w.rate}])`)}[${w.span}:${w.step}])`;

/** A gathering that came late leaves no hole in a table. */
const now = (metric: string) => (w: Windows, m: Labels) => by(m, metric)((s) => `last_over_time(${s}[${w.rate}])`);

/**
 * What a counter of rare things counted in the range. Such a series begins
 * with the first of them, which increase() does not see: to a series that is
 * new in the range its least value is added.
 */
const counted = (metric: string) => (w: Windows, m: Labels) => {
  const total = by(m, metric);
  const more = total((s) => `increase(${s}[${w.span}])`);
  const first = `(${total((s) => `min_over_time(${s}[${w.span}])`)} unless ${total((s) => `last_over_time(${s}[${w.span}] offset ${w.span})`)})`;
  return `${more} + ${first} or ${more} or ${first}`;
};

const source = (id: string, metric: string, query: Source["query"]): Source => ({ ids: [id], metric, query });

/** Every source; each is one query, however many workloads there are. */
export const SOURCES: Source[] = [
  source("cpu", "huatuo_container_cpu_usage_seconds_total", average("huatuo_container_cpu_usage_seconds_total")),
  source("cpu_limit", "huatuo_container_cpu_limit_cores", now("huatuo_container_cpu_limit_cores")),
  source("throttled", "huatuo_container_cpu_throttled_periods_total", (w, m) =>
    ["throttled_periods", "periods"].map((p) => by(m, `huatuo_container_cpu_${p}_total`)((s) => `rate(${s}[${w.span}])`)).join(" / ")),
  source("wait", "huatuo_container_runqueue_wait_seconds", (w, m) =>
    `histogram_quantile(0.99, ${by(m, "huatuo_container_runqueue_wait_seconds")((s) => `rate(${s}[${w.span}])`)})`),
  { metric: "huatuo_container_pressure_stall_seconds_total", ids: ["cpu_psi", "memory_psi", "io_psi"], id: (l) => `${l.resource}_psi`,
    query: average("huatuo_container_pressure_stall_seconds_total", { kind: "some" }, ", resource") },
  source("memory", "huatuo_container_memory_working_set_bytes", now("huatuo_container_memory_working_set_bytes")),
  source("memory_limit", "huatuo_container_memory_limit_bytes", now("huatuo_container_memory_limit_bytes")),
  source("oom", "huatuo_container_oom_kills_total", counted("huatuo_container_oom_kills_total")),
  source("io", "huatuo_container_io_bytes_total", average("huatuo_container_io_bytes_total")),
  source("drops", "huatuo_container_network_drops_total", counted("huatuo_container_network_drops_total")),
  source("retransmits", "huatuo_container_tcp_retransmits_total", counted("huatuo_container_tcp_retransmits_total")),
];

export type Area = "cpu" | "memory" | "io" | "network" | "events";

/** A column of the table. Several workloads in one row are summed, or the worst of them is shown where a sum means nothing. */
export interface Column {
  id: string;
  area: Area;
  unit: string;
  rate?: boolean;
  worst?: boolean;
  /** Smaller values are not told apart. */
  least?: number;
  warn: number;
  bad: number;
  /** The values that it is the quotient of. */
  share?: [string, string];
}

const NONE = { warn: Infinity, bad: Infinity };
const PSI = { unit: "ratio", worst: true, least: 0.001, warn: 0.1, bad: 0.5 };
const FULL = { unit: "ratio", worst: true, least: 0.001, warn: 0.85, bad: 0.97 };

/** The columns in order. Thresholds are those of the Overview. */
export const COLUMNS: Column[] = [
  { id: "cpu", area: "cpu", unit: "", least: 0.01, ...NONE },
  { id: "cpu_share", area: "cpu", ...FULL, share: ["cpu", "cpu_limit"] },
  { id: "throttled", area: "cpu", ...PSI },
  { id: "wait", area: "cpu", unit: "seconds", worst: true, warn: 0.01, bad: 0.1 },
  { id: "cpu_psi", area: "cpu", ...PSI },
  { id: "memory", area: "memory", unit: "bytes", ...NONE },
  { id: "memory_share", area: "memory", ...FULL, warn: 0.9, share: ["memory", "memory_limit"] },
  { id: "memory_psi", area: "memory", ...PSI },
  { id: "oom", area: "memory", unit: "", warn: 1, bad: 1 },
  { id: "io", area: "io", unit: "bytes", rate: true, ...NONE },
  { id: "io_psi", area: "io", ...PSI },
  { id: "drops", area: "network", unit: "", ...NONE },
  { id: "retransmits", area: "network", unit: "", ...NONE },
  { id: "events", area: "events", unit: "", ...NONE },
];

/** brief writes a value in as few characters as tell it from others of its column. */
export function brief(c: Column, v: number | null): string {
  const { least } = c;
  if (v === null || v === 0 || least === undefined) return format(v, c.unit, c.rate);
  return v < least ? `<${format(least, c.unit)}` : format(Math.round(v / least) * least, c.unit, c.rate);
}

/** columnOf finds a column. */
export function columnOf(id: string): Column | undefined {
  return COLUMNS.find((c) => c.id === id);
}

/** A workload, or several in one, with its values by column. */
export interface Row {
  id: string;
  labels: Labels;
  kind: Kind;
  name: string;
  values: Record<string, number | null>;
}

/** idOf identifies a workload by its labels. */
export function idOf(l: Labels): string {
  return JSON.stringify(WORKLOAD.map((k) => l[k] ?? ""));
}

/** COUNTS are whole numbers, which increase() extrapolates to fractions. */
const COUNTS = ["oom", "drops", "retransmits"];

/** rowsOf joins the answers to the sources by workload. */
export function rowsOf(answers: [Pick<Source, "ids" | "id">, PromSeries[]][]): Row[] {
  const rows = new Map<string, Row>();
  for (const [src, series] of answers) {
    for (const { metric, value } of series) {
      const labels = Object.fromEntries(WORKLOAD.map((k) => [k, metric[k] ?? ""]));
      const id = idOf(labels);
      const v = value === undefined ? NaN : number(value[1]);
      if (!Number.isFinite(v)) continue;
      const row = rows.get(id) ?? { id, labels, kind: kindOf(labels), name: workloadOf(labels), values: {} };
      rows.set(id, row);
      const key = src.id?.(metric) ?? src.ids[0]!;
      row.values[key] = COUNTS.includes(key) ? Math.round(v) : v;
    }
  }
  for (const row of rows.values()) {
    for (const { id, share } of COLUMNS) {
      if (share === undefined) continue;
      const [part, whole] = share.map((k) => row.values[k] ?? 0) as [number, number];
      row.values[id] = row.values[share[0]] !== undefined && whole > 0 ? part / whole : null;
    }
  }
  return [...rows.values()];
}

/** countEvents sets the events column. */
export function countEvents(rows: Row[], groups: EventCount[]): void {
  const n = new Map<string, number>();
  for (const g of groups) {
    const l = { namespace: g.namespace ?? "", pod: g.pod ?? "", container: g.container ?? "", unit: g.unit ?? "" };
    n.set(idOf(l), (n.get(idOf(l)) ?? 0) + g.count);
  }
  for (const r of rows) r.values.events = n.get(r.id) ?? 0;
}

/** total makes one row of several. */
export function total(rows: Row[], id: string, name: string, labels: Labels): Row {
  const values: Row["values"] = {};
  for (const c of COLUMNS) {
    const v = rows.map((r) => r.values[c.id] ?? null).filter((x) => x !== null);
    values[c.id] = v.length === 0 ? null : c.worst ? Math.max(...v) : v.reduce((a, b) => a + b, 0);
  }
  return { id, labels, kind: kindOf(labels), name, values };
}

/** A part of the table; head is its sum, null for a table of one part. */
export interface Group {
  head: Row | null;
  rows: Row[];
}

/** partition puts rows with the same key into one group. */
export function partition(rows: Row[], key: (r: Row) => string, name: (key: string) => string): Group[] {
  const parts = new Map<string, Row[]>();
  for (const r of rows) parts.set(key(r), [...(parts.get(key(r)) ?? []), r]);
  return [...parts].map(([k, list]) => ({ head: total(list, k, name(k), {}), rows: list }));
}

/** pods makes one row of each pod's containers. */
export function pods(rows: Row[]): Row[] {
  const parts = new Map<string, Row[]>();
  for (const r of rows) {
    if (!r.labels.pod) continue;
    const id = idOf({ namespace: r.labels.namespace!, pod: r.labels.pod });
    parts.set(id, [...(parts.get(id) ?? []), r]);
  }
  return [...parts].map(([id, list]) => {
    const labels = { namespace: list[0]!.labels.namespace!, pod: list[0]!.labels.pod! };
    return total(list, id, workloadOf(labels), labels);
  });
}

/** sorted orders rows by a column, or by name; rows without a value come last in either direction, and equal ones by name. */
export function sorted(rows: Row[], column: string, descending: boolean): Row[] {
  const byName = (a: Row, b: Row) => a.name.localeCompare(b.name);
  const sign = descending ? -1 : 1;
  if (column === "name") return [...rows].sort((a, b) => sign * byName(a, b));
  return [...rows].sort((a, b) => {
    const [x, y] = [a.values[column] ?? null, b.values[column] ?? null];
    if (x === null || y === null) return x === y ? byName(a, b) : x === null ? 1 : -1;
    return x === y ? byName(a, b) : sign * (x - y);
  });
}

/** searched keeps the rows whose name or kind has every word. */
export function searched(rows: Row[], text: string): Row[] {
  const words = text.toLowerCase().split(/\s+/);
  return rows.filter((r) => words.every((w) => `${r.name} ${r.kind}`.toLowerCase().includes(w)));
}

/** sourcesFor lists the sources of some columns that the agent can answer. */
function sourcesFor(app: App, ids: string[]): Source[] {
  const need = new Set(ids.flatMap((id) => columnOf(id)?.share ?? [id]));
  return SOURCES.filter((s) => s.ids.some((id) => need.has(id)) && app.metrics.some((m) => m.name === s.metric));
}

/** measured tells whether the agent has what a column needs. */
export function measured(app: App, id: string): boolean {
  return id === "events" ? app.kinds.length > 0 : sourcesFor(app, [id]).length > 0;
}

/** loadRows asks for some columns of all workloads that match. */
export async function loadRows(app: App, ids: string[], match: Labels, s: AbortSignal): Promise<Row[]> {
  const interval = app.node.store_interval_seconds || 5;
  const step = stepOf(app.range, interval, 60);
  const window = rateWindow(step, interval);
  const w = { span: `${Math.max(Math.ceil(app.range.to - app.range.from), window)}s`, rate: `${window}s`, step: `${step}s` };
  const list = sourcesFor(app, ids);
  const answers = await Promise.all(list.map((src) => api.query(src.query(w, match), app.range.to, s)));
  return rowsOf(list.map((src, i) => [src, answers[i]!]));
}

/** loadTable asks for all columns. */
export async function loadTable(app: App, match: Labels, s: AbortSignal): Promise<Row[]> {
  const { from, to } = app.range;
  const [rows, groups] = await Promise.all([
    loadRows(app, COLUMNS.map((c) => c.id), match, s),
    api.count({ ...eventFilter(match), from: iso(from), to: iso(to), by: "workload" }, s),
  ]);
  countEvents(rows, groups);
  return rows;
}
