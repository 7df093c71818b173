// SPDX-License-Identifier: Apache-2.0

/** The time range of a view: pure arithmetic between the URL and the API. */

/** Range in unix seconds. last is set when the range is "the last N seconds" and so moves with the clock. */
export interface Range {
  from: number;
  to: number;
  last: number | null;
}

/** Shown when the URL names no range: long enough to see a trend, short enough that 5 s samples fill the chart. */
export const DEFAULT_LAST = 15 * 60;

/** Ranges offered by the picker, in seconds. */
export const PRESETS = [300, 900, 1800, 3600, 3 * 3600, 6 * 3600, 12 * 3600, 86400, 2 * 86400, 7 * 86400];

/** A chart cannot be zoomed further in than this: the finest store interval is 1 s. */
export const MIN_SPAN = 10;

const UNITS: Record<string, number> = { s: 1, m: 60, h: 3600, d: 86400, w: 604800 };

/** parseDuration reads "90s", "15m", "1h30m", "7d"; null when it is none. */
export function parseDuration(text: string): number | null {
  if (!/^(\d+[smhdw])+$/.test(text)) return null;
  let total = 0;
  for (const [, n, u] of text.matchAll(/(\d+)([smhdw])/g)) total += Number(n) * UNITS[u!]!;
  return total > 0 ? total : null;
}

/** formatDuration is the inverse of parseDuration, in the fewest parts. */
export function formatDuration(seconds: number): string {
  let rest = Math.max(1, Math.round(seconds));
  let out = "";
  for (const u of ["d", "h", "m", "s"]) {
    const n = Math.floor(rest / UNITS[u]!);
    if (n > 0) out += `${n}${u}`;
    rest -= n * UNITS[u]!;
  }
  return out;
}

/** parseTime reads RFC 3339 or unix seconds; null when it is neither. */
export function parseTime(text: string): number | null {
  if (/^\d+(\.\d+)?$/.test(text)) return Number(text);
  const ms = Date.parse(text);
  return Number.isNaN(ms) ? null : ms / 1000;
}

/** rangeOf reads the range of a URL query; a malformed one falls back to the default. */
export function rangeOf(query: URLSearchParams, now: number): Range {
  const from = parseTime(query.get("from") ?? "");
  const to = parseTime(query.get("to") ?? "");
  if (from !== null && to !== null && to > from) return { from, to, last: null };
  const last = parseDuration(query.get("last") ?? "") ?? DEFAULT_LAST;
  return { from: now - last, to: now, last };
}

/** unzoomPatch returns to the moving range. */
export const unzoomPatch: Patch = { from: null, to: null };

/** Patch of URL query values; null removes the key. */
export type Patch = Record<string, string | null>;

/** absolutePatch is the URL form of a fixed range. The moving range stays in the URL beside it: unzooming drops from and to, and is back. */
export function absolutePatch(from: number, to: number): Patch {
  const mid = (from + to) / 2;
  const half = Math.max(to - from, MIN_SPAN) / 2;
  return { from: iso(mid - half), to: iso(mid + half) };
}

/** lastPatch is the URL form of a moving range. */
export function lastPatch(seconds: number): Patch {
  return { last: seconds === DEFAULT_LAST ? null : formatDuration(seconds), from: null, to: null };
}

/** iso formats unix seconds as RFC 3339 in UTC with milliseconds. */
export function iso(seconds: number): string {
  return new Date(Math.round(seconds * 1000)).toISOString();
}

const STEPS = [1, 2, 5, 10, 15, 30, 60, 120, 300, 600, 900, 1800, 3600, 7200, 14400, 43200, 86400];

/** stepOf chooses the query step: about points samples, never finer than the store's interval, from a list of round numbers. */
export function stepOf(range: Range, interval: number, points: number): number {
  const want = Math.max((range.to - range.from) / points, interval);
  return STEPS.find((s) => s >= want) ?? STEPS[STEPS.length - 1]!;
}

/** rateWindow is the window for rate(): at least four samples, so that one missed gathering leaves no hole, and never shorter than the step, so that nothing between two points is lost. */
export function rateWindow(step: number, interval: number): number {
  return Math.max(step, Math.ceil(4 * interval));
}

/** align moves a range outwards to multiples of step, so that refreshed charts keep their points. */
export function align(range: Range, step: number): { start: number; end: number } {
  return { start: Math.floor(range.from / step) * step, end: Math.ceil(range.to / step) * step };
}
