// SPDX-License-Identifier: Apache-2.0

/** What the Profiles page asks: from its URL to the API, and how its values are written. */
import type { Params, ProfileSeries } from "./api";
import { formatDuration } from "./range";
import { parseSel } from "./heatgrid";
import { format, grouped } from "./units";

/** Labels to filter by, in the order in which they are shown. */
export const LABELS = ["namespace", "pod", "container", "unit", "process", "thread"] as const;

/** Values that a list of one label offers. */
const OFFERED = 60;

/** amount writes a value of a profile's unit. */
export function amount(v: number, unit: string): string {
  if (unit === "nanoseconds") return format(v / 1e9, "seconds");
  if (unit === "bytes") return format(v, "bytes");
  return Math.abs(v) < 1e6 ? grouped(v) : format(v, "count"); // there are billions of cycles
}

/** percent writes a share. */
export function percent(v: number): string {
  if (v > 0 && v < 0.0001) return `<${format(0.0001, "ratio")}`;
  return format(Math.round(v * 10000) / 10000, "ratio");
}

/** points writes a change of a share, signed. */
export function points(v: number): string {
  return `${v > 0 ? "+" : v < 0 ? "−" : ""}${percent(Math.abs(v))}`;
}

/** filterOf picks what narrows the samples: labels and the process id. */
export function filterOf(query: URLSearchParams): Record<string, string> {
  const out: Record<string, string> = {};
  for (const k of [...LABELS, "pid"]) if (query.get(k)) out[k] = query.get(k)!;
  return out;
}

/** A window in unix seconds. */
export type Window = [from: number, to: number];

/** windowOf is what the graph shows: the selected stretch, else the range. */
export function windowOf(query: URLSearchParams, range: { from: number; to: number }): Window {
  return parseSel(query.get("sel") ?? "") ?? [range.from, range.to];
}

/** paramsOf asks for the samples of a window. */
export function paramsOf(type: string, filter: Record<string, string>, [from, to]: Window): Params {
  return { type, ...filter, from: from.toFixed(3), to: to.toFixed(3) };
}

/** What a graph is compared with: an earlier window, or the same window of another workload ("process=nginx"). */
export type Compare = { ago: number } | { label: string; value: string };

/** parseCompare reads the URL's form; null for none. */
export function parseCompare(text: string, [from, to]: Window): Compare | null {
  if (text === "before") return { ago: to - from };
  if (/^\d+$/.test(text)) return { ago: Number(text) };
  const m = /^(\w+)=(.+)$/s.exec(text);
  return m !== null && (LABELS as readonly string[]).includes(m[1]!) ? { label: m[1]!, value: m[2]! } : null;
}

/** diffParams asks for the samples of a window compared with others; functions are ranked by what they take themselves, or with all that they call. */
export function diffParams(type: string, filter: Record<string, string>, window: Window, c: Compare, of: "self" | "total"): Params {
  const [from, to] = window.map((t) => t - ("ago" in c ? c.ago : 0)) as Window;
  return { ...paramsOf(type, filter, window), of, base_from: from.toFixed(3), base_to: to.toFixed(3), ...("label" in c && { [`base_${c.label}`]: c.value }) };
}

/** valuesOf sums series by one label, largest first, among those that pass the other filters. */
export function valuesOf(series: ProfileSeries[], label: string, filter: Record<string, string>): [value: string, sum: number][] {
  const others = Object.entries(filter).filter(([k]) => k !== label && k !== "pid");
  const sums = new Map<string, number>();
  for (const s of series) {
    const v = s.labels[label] ?? "";
    if (v === "" || !others.every(([k, want]) => !(k in s.labels) || want.split(",").includes(s.labels[k]!))) continue;
    sums.set(v, (sums.get(v) ?? 0) + s.value);
  }
  return [...sums].sort((a, b) => b[1] - a[1]).slice(0, OFFERED);
}

/** grainOf is how often a moving range of so many seconds is asked anew: a long one changes little in 5 s, and costs more. */
export function grainOf(seconds: number): number {
  return Math.max(5, Math.min(60, seconds / 180));
}

/** windowName names the earlier windows that are offered, in seconds. */
export const EARLIER: [seconds: number, text: string][] = [3600, 86400, 604800].map((s) => [s, formatDuration(s)]);
