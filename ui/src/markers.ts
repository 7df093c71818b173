// SPDX-License-Identifier: Apache-2.0

/** Events as markers on charts: one by one while they are few, by interval and kind when they are many. */
import { api, type Document, type Schema, type Severity, type Timeline } from "./api";
import { absolutePatch, iso, type Range } from "./range";
import { href } from "./router";

/** A moment worth a look on a chart. */
export interface Marker {
  time: number;
  kind: string;
  severity: Severity;
  title: string;
  href: string;
}

/** More single events than this are neither told apart on a chart nor worth their transfer every five seconds. */
export const SINGLE = 100;
/** Intervals when they are counted instead: one per ten pixels of a wide chart. */
const BUCKETS = 90;

/** fromEvents makes a marker of each event. */
export function fromEvents(events: Document[]): Marker[] {
  return events.map((d) => ({ time: Date.parse(d.time) / 1000, kind: d.kind, severity: d.severity, title: d.title, href: href(["events", d.id]) }));
}

/** fromTimeline makes a marker of each interval and kind that has events; it leads to them. */
export function fromTimeline(line: Timeline, kinds: Schema[], filter: Record<string, string> = {}): Marker[] {
  const severity = new Map(kinds.map((k) => [k.name, k.severity ?? "info"]));
  return (line.buckets ?? []).flatMap((b) => {
    const from = Date.parse(b.time) / 1000;
    const to = from + line.step_seconds;
    return Object.entries(b.count ?? {}).filter(([, n]) => n > 0).map(([kind, n]): Marker => ({
      time: (from + to) / 2, kind, severity: severity.get(kind) ?? "info", title: `${kind} × ${n}`,
      href: href(["events"], { ...absolutePatch(from, to), ...filter, kind }),
    }));
  });
}

/** loadMarkers reads the events of a range in the form that their number calls for. */
export async function loadMarkers(range: Range, kinds: Schema[], filter: Record<string, string>, s: AbortSignal): Promise<Marker[]> {
  const window = { ...filter, from: iso(range.from), to: iso(range.to) };
  const page = await api.events({ ...window, limit: SINGLE }, s);
  if ((page.next ?? "") === "") return fromEvents(page.events ?? []);
  return fromTimeline(await api.timeline({ ...window, buckets: BUCKETS }, s), kinds, filter);
}

/** markersFor keeps the markers that concern an area; the CPU is where scheduling happens. */
export function markersFor(area: string, markers: Marker[], kinds: Schema[]): Marker[] {
  const areas = area === "cpu" || area === "scheduling" ? ["cpu", "scheduling"] : [area];
  const names = new Set(kinds.filter((k) => areas.includes(k.area)).map((k) => k.name));
  return markers.filter((m) => names.has(m.kind));
}
