// SPDX-License-Identifier: Apache-2.0

/** Event filters: from the URL to the API, and the same decision for events of the live stream. */
import type { Document, Params } from "./api";

/** URL keys that filter events; "field.NAME" keys come on top. */
export const KEYS = ["kind", "severity", "q", "namespace", "pod", "container", "unit", "comm", "pid"] as const;

/** Filters that the live stream applies itself. */
const STREAM = ["kind", "severity", "namespace", "pod", "container", "unit", "comm", "pid"];

/** filterOf picks the filters of a URL query. */
export function filterOf(query: URLSearchParams): Record<string, string> {
  const out: Record<string, string> = {};
  for (const [k, v] of query) if (v !== "" && ((KEYS as readonly string[]).includes(k) || k.startsWith("field."))) out[k] = v;
  return out;
}

/** streamParams are the filters to send to the live stream. */
export function streamParams(filter: Record<string, string>): Params {
  return Object.fromEntries(Object.entries(filter).filter(([k]) => STREAM.includes(k)));
}

/** toggled adds value to a comma-separated list or takes it out; null when nothing is left. */
export function toggled(list: string, value: string): string | null {
  const set = new Set(list.split(",").filter((s) => s !== ""));
  if (!set.delete(value)) set.add(value);
  return set.size === 0 ? null : [...set].join(",");
}

/** words splits a full-text query: words, and "phrases" in quotes. */
export function words(q: string): string[] {
  return [...q.toLowerCase().matchAll(/"([^"]*)"?|(\S+)/g)].map((m) => m[1] ?? m[2] ?? "").filter((w) => w !== "");
}

/** matches decides whether a streamed event passes the filters that the stream does not know. */
export function matches(d: Document, filter: Record<string, string>): boolean {
  return Object.entries(filter).every(([k, v]) => {
    if (k.startsWith("field.")) return String(d.fields[k.slice(6)]) === v;
    if (k !== "q") return true;
    const hay = JSON.stringify([d.title, d.kind, d.process, d.container, d.fields, d.kernel_stack, d.user_stack]).toLowerCase();
    return words(v).every((w) => hay.includes(w));
  });
}

/** merge joins lists of events by id, newest first; ids are ULIDs and sort by time. */
export function merge(...lists: Document[][]): Document[] {
  const byID = new Map<string, Document>();
  for (const l of lists) for (const d of l) byID.set(d.id, d);
  return [...byID.values()].sort((a, b) => (a.id < b.id ? 1 : a.id > b.id ? -1 : 0));
}
