// SPDX-License-Identifier: Apache-2.0

/** Where the Events page's rows come from: pages of the store, or the live stream on top of the first page. */
import { useEffect, useRef, useState } from "preact/hooks";
import { api, streamURL, type ApiError, type Document } from "../api";
import { matches, merge, streamParams } from "../filter";
import { iso } from "../range";
import { asError, useApp, useLoad } from "../state";
import { rangeKey } from "./panel";

/** Rows of one page. */
export const PAGE = 50;
/** A live view drops its oldest rows beyond this: a browser tab left open over night must not grow without end. */
const LIVE_MAX = 500;

export interface Feed {
  events: Document[] | null;
  error: ApiError | null;
  /** Set when older events exist. */
  more: (() => void) | null;
  loadingMore: boolean;
  live: "off" | "connecting" | "open" | "broken";
  /** Events that the stream could not deliver to this slow reader. */
  lost: number;
  /** Newer events that are held back while the list is held still. */
  held: number;
}

/** useTick is the refresh clock; it stands still while hold is set. */
function useTick(hold: boolean): number {
  const { tick } = useApp();
  const last = useRef(tick);
  if (!hold) last.current = tick;
  return last.current;
}

/** useFeed keeps the rows of one filter and range. hold keeps a live list still: what comes meanwhile is shown afterwards. */
export function useFeed(filter: Record<string, string>, live: boolean, hold: boolean): Feed {
  const { range } = useApp();
  const tick = useTick(live && hold);
  const key = JSON.stringify([filter, rangeKey(range)]);
  const first = useLoad(`feed ${key}`, tick, async (s) => ({ key, page: await api.events({ ...filter, from: iso(range.from), to: iso(range.to), limit: PAGE }, s) }));
  // Rows of a former filter must never mix with those of the present one, so all that is kept carries its key.
  const [kept, setKept] = useState<{ key: string; rows: Document[]; next: string | null }>({ key, rows: [], next: null });
  const [busy, setBusy] = useState(false);
  const [moreError, setMoreError] = useState<ApiError | null>(null);
  const [waiting, setWaiting] = useState<Document[]>([]);
  const push = (d: Document) => setKept((k) => ({ ...k, rows: merge([d], k.rows).slice(0, LIVE_MAX) }));
  const stream = useStream(filter, key, live, (d) => (hold ? setWaiting((w) => [d, ...w].slice(0, LIVE_MAX)) : push(d)));
  useEffect(() => {
    if (hold || waiting.length === 0) return;
    setKept((k) => ({ ...k, rows: merge(waiting, k.rows).slice(0, LIVE_MAX) }));
    setWaiting([]);
  }, [hold, waiting]);
  useEffect(() => setWaiting([]), [key, live]);
  const current = first.data?.key === key ? first.data.page : null;
  useEffect(() => {
    if (current === null) return;
    setKept((k) => (k.key === key
      ? { ...k, rows: merge(current.events ?? [], k.rows) }
      : { key, rows: current.events ?? [], next: current.next ?? null }));
  }, [current]);
  const mine = kept.key === key ? kept : { rows: current?.events ?? [], next: null };
  const next = kept.key === key ? (kept.next ?? (kept.rows.length <= PAGE ? current?.next ?? null : null)) : null;
  const more = async () => {
    setBusy(true);
    try {
      const page = await api.events({ ...filter, from: iso(range.from), to: iso(range.to), limit: PAGE, before: next });
      setKept((k) => (k.key === key ? { ...k, rows: merge(k.rows, page.events ?? []), next: page.next ?? "" } : k));
      setMoreError(null);
    } catch (e) {
      setMoreError(asError(e));
    }
    setBusy(false);
  };
  const inRange = mine.rows.filter((d) => live || Date.parse(d.time) / 1000 >= range.from);
  return {
    events: current === null && kept.key !== key ? null : inRange, error: first.error ?? moreError,
    more: next !== null && next !== "" ? more : null, loadingMore: busy, held: waiting.length, ...stream,
  };
}

/** useStream follows the live stream; the browser reconnects by itself and resumes by Last-Event-ID. */
function useStream(filter: Record<string, string>, key: string, on: boolean, push: (d: Document) => void): { live: Feed["live"]; lost: number } {
  const [live, setLive] = useState<Feed["live"]>("off");
  const [lost, setLost] = useState(0);
  const sink = useRef(push);
  sink.current = push;
  useEffect(() => {
    if (!on) {
      setLive("off");
      return;
    }
    setLive("connecting");
    setLost(0);
    const source = new EventSource(streamURL(streamParams(filter)));
    source.onopen = () => setLive("open");
    source.onerror = () => setLive(source.readyState === EventSource.CLOSED ? "broken" : "connecting");
    source.addEventListener("event", (e) => {
      const d = JSON.parse((e as MessageEvent<string>).data) as Document;
      if (matches(d, filter.q ?? "")) sink.current(d);
    });
    source.addEventListener("gap", (e) => setLost((n) => n + ((JSON.parse((e as MessageEvent<string>).data) as { lost?: number }).lost ?? 0)));
    return () => source.close();
  }, [key, on]);
  return { live, lost };
}
