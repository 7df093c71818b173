// SPDX-License-Identifier: Apache-2.0

/** Event filters: from the URL to the API, and the one decision that the live stream leaves to its reader. */
import type { Document, Params } from "./api";

/** URL keys that filter events; "field.NAME" keys, short for a condition of "where", come on top. */
export const KEYS = ["kind", "severity", "q", "namespace", "pod", "container", "unit", "comm", "pid", "where"] as const;

/** filterOf picks the filters of a URL query. */
export function filterOf(query: URLSearchParams): Record<string, string> {
  const out: Record<string, string> = {};
  for (const [k, v] of query) if (v !== "" && ((KEYS as readonly string[]).includes(k) || k.startsWith("field."))) out[k] = v;
  return out;
}

/** streamParams are the filters to send to the live stream: it knows all but the search for words. */
export function streamParams(filter: Record<string, string>): Params {
  return Object.fromEntries(Object.entries(filter).filter(([k]) => k !== "q"));
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

/** matches decides whether a streamed event has the words that are searched for. */
export function matches(d: Document, q: string): boolean {
  const hay = JSON.stringify([d.title, d.kind, d.process, d.container, d.fields, d.kernel_stack, d.user_stack]).toLowerCase();
  return words(q).every((w) => hay.includes(w));
}

/** merge joins lists of events by id, newest first; ids are ULIDs and sort by time. */
export function merge(...lists: Document[][]): Document[] {
  const byID = new Map<string, Document>();
  for (const l of lists) for (const d of l) byID.set(d.id, d);
  return [...byID.values()].sort((a, b) => (a.id < b.id ? 1 : a.id > b.id ? -1 : 0));
}
