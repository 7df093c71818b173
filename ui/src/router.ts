// SPDX-License-Identifier: Apache-2.0

/**
 * Routes live in the URL's fragment, "#/events/01H…?last=1h&kind=oom_kill":
 * no server path can collide with them, and the console works below any
 * reverse proxy's path. The state of a view is its URL and nothing else.
 */
import { useEffect, useState } from "preact/hooks";
import type { Patch } from "./range";

/** A parsed fragment. */
export interface Route {
  path: string[];
  query: URLSearchParams;
}

/** Query keys that a link to another page carries along. */
const STICKY = ["last", "from", "to"];

/** parseHash splits "#/a/b?x=1". */
export function parseHash(hash: string): Route {
  const [path = "", query = ""] = hash.replace(/^#/, "").split(/\?(.*)/s);
  return { path: path.split("/").filter((p) => p !== "").map(decode), query: new URLSearchParams(query) };
}

function decode(part: string): string {
  try {
    return decodeURIComponent(part);
  } catch {
    return part; // a hand-typed "%" is no reason for a blank page
  }
}

/** formatHash is the inverse of parseHash. */
export function formatHash(path: string[], query: URLSearchParams): string {
  const q = query.toString().replace(/%2C/g, ",").replace(/%3A/g, ":");
  return `#/${path.map(encodeURIComponent).join("/")}${q === "" ? "" : `?${q}`}`;
}

/** patched returns a copy of query with patch applied. */
export function patched(query: URLSearchParams, patch: Patch): URLSearchParams {
  const q = new URLSearchParams(query);
  for (const [k, v] of Object.entries(patch)) {
    if (v === null || v === "") q.delete(k);
    else q.set(k, v);
  }
  return q;
}

/** href makes a link to path that keeps the current time range. */
export function href(path: string[], patch: Patch = {}): string {
  const now = parseHash(location.hash).query;
  const kept = new URLSearchParams();
  for (const k of STICKY) if (now.has(k)) kept.set(k, now.get(k)!);
  return formatHash(path, patched(kept, patch));
}

/** setQuery changes the query of the current view; replace leaves no history entry, for typing in a field. */
export function setQuery(patch: Patch, replace = false): void {
  const r = parseHash(location.hash);
  const next = formatHash(r.path, patched(r.query, patch));
  if (next === location.hash) return;
  if (replace) {
    history.replaceState(null, "", next);
    dispatchEvent(new HashChangeEvent("hashchange"));
  } else {
    location.hash = next;
  }
}

/** useRoute re-renders whenever the fragment changes. */
export function useRoute(): Route {
  const [hash, set] = useState(location.hash);
  useEffect(() => {
    const on = () => set(location.hash);
    addEventListener("hashchange", on);
    return () => removeEventListener("hashchange", on);
  }, []);
  return parseHash(hash);
}
