// SPDX-License-Identifier: Apache-2.0

/** Answers of the Prometheus API, and the queries that the console asks. */
import { parseHist, type Hist, type WireHistogram } from "./hist";
import type { Schema } from "./api";

/** Label set of one series. */
export type Labels = Record<string, string>;

/** One series of a query_range (values, histograms) or query (value, histogram) answer. */
export interface PromSeries {
  metric: Labels;
  values?: [number, string][];
  histograms?: [number, WireHistogram][];
  value?: [number, string];
  histogram?: [number, WireHistogram];
}

/** The labels every workload metric ends with. */
export const WORKLOAD = ["namespace", "pod", "container", "unit"];

/** How many series one chart draws: more are not told apart by eye. */
export const TOP = 12;

/** number reads a Prometheus sample value. */
export function number(text: string): number {
  if (text === "+Inf") return Infinity;
  if (text === "-Inf") return -Infinity;
  return Number(text);
}

/** scalar is the value of the only series of an instant query; null when there is none or it is NaN. */
export function scalar(result: PromSeries[]): number | null {
  const v = result[0]?.value;
  const n = v ? number(v[1]) : NaN;
  return Number.isNaN(n) ? null : n;
}

/** Columns is a table for a chart: x in unix seconds, one column per series, null where a series has no sample. */
export interface Columns {
  x: number[];
  labels: Labels[];
  y: (number | null)[][];
}

/** gridOf lists the query's moments. */
function gridOf(start: number, end: number, step: number): number[] {
  const x: number[] = [];
  for (let i = 0; start + i * step <= end + step / 1e6; i++) x.push(start + i * step);
  return x;
}

/** columns puts range series on the query's grid. NaN and infinities become gaps. */
export function columns(result: PromSeries[], start: number, end: number, step: number): Columns {
  const x = gridOf(start, end, step);
  const y = result.map((s) => {
    const col: (number | null)[] = new Array(x.length).fill(null);
    for (const [t, v] of s.values ?? []) {
      const i = Math.round((t - start) / step);
      const n = number(v);
      if (i >= 0 && i < x.length && Number.isFinite(n)) col[i] = n;
    }
    return col;
  });
  return { x, labels: result.map((s) => s.metric), y };
}

/** hists puts the histograms of one series on the query's grid. */
export function hists(series: PromSeries | undefined, start: number, end: number, step: number): { x: number[]; hists: (Hist | null)[] } {
  const x = gridOf(start, end, step);
  const out: (Hist | null)[] = new Array(x.length).fill(null);
  for (const [t, h] of series?.histograms ?? []) {
    const i = Math.round((t - start) / step);
    if (i >= 0 && i < x.length) out[i] = parseHist(h);
  }
  return { x, hists: out };
}

/** selector writes {a="b",…}; an empty value selects the series without that label. */
export function selector(match: Labels): string {
  const parts = Object.entries(match).map(([k, v]) => `${k}=${JSON.stringify(v)}`);
  return parts.length > 0 ? `{${parts.join(",")}}` : "";
}

/** rateOf is true when a metric is shown as its increase per second. */
export function rateOf(s: Schema): boolean {
  return s.type === "counter" && s.unit !== "timestamp";
}

/** labelsOf lists the labels of a metric's series. */
export function labelsOf(s: Schema): string[] {
  const own = s.fields.map((f) => f.name);
  return s.scope === "workload" ? [...own, ...WORKLOAD] : own;
}

/** What a chart's query needs besides the schema. */
export interface QueryOptions {
  window: number; // seconds, of rate()
  span: number; // seconds, of the whole range
  match: Labels;
  by: string[] | null; // null: all labels
}

/**
 * queryOf is the PromQL of a metric's chart: counters as rates, histograms as
 * one summed rate, gauges as they are. With many series only those with the
 * largest average over the whole range are kept; "@ end()" makes that choice
 * once instead of anew at every step, so lines do not come and go.
 */
export function queryOf(s: Schema, o: QueryOptions): string {
  const sel = s.name + selector(o.match);
  if (s.type === "histogram") return `sum(rate(${sel}[${o.window}s]))`;
  const by = (o.by ?? labelsOf(s)).join(", ");
  const over = rateOf(s) ? "rate" : "avg_over_time";
  const agg = (e: string) => `sum by (${by}) (${e})`;
  const line = agg(rateOf(s) ? `rate(${sel}[${o.window}s])` : sel);
  if (by === "") return line;
  return `${line} and topk(${TOP}, ${agg(`${over}(${sel}[${Math.ceil(o.span)}s] @ end())`)})`;
}

/** nameOf is the short legend text of a series. */
export function nameOf(l: Labels, shown?: string[]): string {
  const keys = (shown ?? Object.keys(l)).filter((k) => k !== "__name__" && l[k] !== undefined && l[k] !== "");
  const work = workloadOf(l);
  const rest = keys.filter((k) => !WORKLOAD.includes(k)).map((k) => l[k]!);
  const hasWork = keys.some((k) => WORKLOAD.includes(k));
  return [...(hasWork && work !== "" ? [work] : []), ...rest].join(" · ");
}

/** workloadOf names a workload: namespace/pod/container, or the systemd unit. */
export function workloadOf(l: Labels): string {
  const parts = [l.namespace, l.pod, l.container].filter((p) => p !== undefined && p !== "");
  return parts.length > 0 ? parts.join("/") : (l.unit ?? "");
}

/** order sorts columns by their average, largest first, so colours and legend follow importance. */
export function order(c: Columns): Columns {
  const avg = (col: (number | null)[]) => col.reduce<number>((s, v) => s + (v ?? 0), 0);
  const idx = c.y.map((col, i) => [avg(col), i] as const).sort((a, b) => b[0] - a[0]).map(([, i]) => i);
  return { x: c.x, labels: idx.map((i) => c.labels[i]!), y: idx.map((i) => c.y[i]!) };
}
