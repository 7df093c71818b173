// SPDX-License-Identifier: Apache-2.0

/** Events: timeline, filters, table, live tail. */
import type { JSX } from "preact";
import { useMemo, useState } from "preact/hooks";
import { api, exportURL } from "../api";
import type { Key } from "../i18n";
import { PAGE, useFeed, type Feed } from "../parts/eventfeed";
import { EventTable } from "../parts/eventtable";
import { Active, Adder } from "../parts/filterbar";
import { rangeKey } from "../parts/panel";
import { kindColor, Timeline } from "../parts/timeline";
import { Failure, Icon, IconButton, Loading, Show } from "../parts/ui";
import { filterOf, toggled } from "../filter";
import { absolutePatch, iso, unzoomPatch } from "../range";
import { setQuery } from "../router";
import { useApp, useLoad } from "../state";
import { Chip, Search } from "./metrics";

/** Bars of the timeline: wide enough to hit with a finger on a phone. */
const BUCKETS = 60;
const SEVERITIES = ["info", "warning", "critical"] as const;

export function EventsPage({ query }: { query: URLSearchParams }): JSX.Element {
  const { t, kinds, range, tick } = useApp();
  const filter = filterOf(query);
  const live = query.get("live") === "1";
  const [hold, setHold] = useState(false);
  const feed = useFeed(filter, live, hold && live);
  const names = useMemo(() => kinds.map((k) => k.name), [kinds]);
  const line = useLoad(`timeline ${JSON.stringify(filter)} ${rangeKey(range)}`, tick, (s) => api.timeline({ ...filter, from: iso(range.from), to: iso(range.to), buckets: BUCKETS }, s));
  return (
    <div class="stack">
      <section class="card" aria-label={t("timeline.title")}>
        <Show of={line} height={140}>
          {(d) => <Timeline data={d} kinds={names} onBrush={(a, b) => setQuery({ ...absolutePatch(a, b), live: null })} onReset={() => setQuery(unzoomPatch)} />}
        </Show>
        <Kinds filter={filter} names={names} />
      </section>
      <Filters filter={filter} live={live} feed={feed} hold={hold} setHold={setHold} />
      <Gap feed={feed} />
      <section class="card flush" aria-label={t("nav.events")}><Rows feed={feed} filtered={Object.keys(filter).length > 0} /></section>
    </div>
  );
}

/** Kinds is the timeline's legend and the filter on kinds in one. Those without events come last, behind a button. */
function Kinds(p: { filter: Record<string, string>; names: string[] }): JSX.Element {
  const { t, kinds, dark, range, tick } = useApp();
  const [all, setAll] = useState(false);
  const on = (p.filter.kind ?? "").split(",");
  // Of all kinds, also those that the filter leaves out: they are what one may switch to.
  const { kind: _, ...others } = p.filter;
  const list = useLoad(`kinds ${JSON.stringify(others)} ${rangeKey(range)}`, tick, (s) => api.count({ ...others, from: iso(range.from), to: iso(range.to), by: "kind" }, s));
  const counts = new Map((list.data ?? []).map((g) => [g.kind, g.count]));
  const some = kinds.filter((k) => on.includes(k.name) || counts.has(k.name));
  const rest = kinds.filter((k) => !some.includes(k));
  return (
    <div class="chips" role="group" aria-label={t("event.kind")}>
      {[...some, ...(all ? rest : [])].map((k) => (
        <Chip key={k.name} on={on.includes(k.name)} title={k.help} onClick={() => setQuery({ kind: toggled(p.filter.kind ?? "", k.name) })}>
          <span class="swatch" style={{ background: kindColor(k.name, p.names, dark) }} />{k.name} <b>{counts.get(k.name) ?? 0}</b>
        </Chip>
      ))}
      {rest.length > 0 && list.data !== null && <button type="button" class="chip quiet" aria-expanded={all} onClick={() => setAll(!all)}>{all ? t("hide") : t("kinds.none", { n: rest.length })}</button>}
    </div>
  );
}

/** Gap tells that the live stream left events out, and how to see them. */
function Gap({ feed }: { feed: Feed }): JSX.Element | null {
  const { t } = useApp();
  if (feed.lost === 0) return null;
  return <div class="gap" role="status">{t("live.lost", { n: feed.lost })} <button type="button" class="btn small" onClick={() => setQuery({ live: null })}>{t("live.reread")}</button></div>;
}

interface FiltersProps {
  filter: Record<string, string>;
  live: boolean;
  feed: Feed;
  hold: boolean;
  setHold: (h: boolean) => void;
}

function Filters({ filter, live, feed, hold, setHold }: FiltersProps): JSX.Element {
  const { t, range } = useApp();
  const severity = (filter.severity ?? "").split(",");
  const set = (k: string) => (v: string) => setQuery({ [k]: v || null }, true);
  return (
    <div class="filters events-filters">
      <Search value={filter.q ?? ""} label={t("events.search")} onInput={set("q")} />
      <div class="chips" role="group" aria-label={t("event.severity")}>
        {SEVERITIES.map((s) => <Chip on={severity.includes(s)} onClick={() => setQuery({ severity: toggled(filter.severity ?? "", s) })}><span class={`dot ${s}`} />{t(`severity.${s}` as Key)}</Chip>)}
      </div>
      <div class="tail">
        <a class="btn icon-btn export" href={exportURL({ ...filter, from: iso(range.from), to: iso(range.to) })} download title={t("events.export")} aria-label={t("events.export")}><Icon name="download" /></a>
        {live && <IconButton icon={hold ? "play" : "pause"} label={hold ? t("live.resume", { n: feed.held }) : t("live.pause")} pressed={hold} class="hold" onClick={() => setHold(!hold)} />}
        {live && hold && feed.held > 0 && <span class="hint num">+{feed.held}</span>}
        <button type="button" class={`btn live ${feed.live}`} aria-pressed={live} onClick={() => setQuery({ live: live ? null : "1", ...(live ? {} : unzoomPatch) })}>
          <Icon name="live" />{t(`live.${feed.live}` as Key)}
        </button>
      </div>
      <div class="more-filters">
        <Adder filter={filter} />
        <Active filter={filter} />
        {Object.keys(filter).length > 0 && <button type="button" class="btn small" onClick={() => setQuery(Object.fromEntries(Object.keys(filter).map((k) => [k, null])))}>{t("filter.clear")}</button>}
      </div>
    </div>
  );
}

function Rows({ feed, filtered }: { feed: Feed; filtered: boolean }): JSX.Element {
  const { t, kinds } = useApp();
  if (feed.events === null) return feed.error !== null ? <Failure error={feed.error} /> : <Loading height={300} />;
  return (
    <>
      {feed.error !== null && <Failure error={feed.error} />}
      <EventTable events={feed.events} kinds={kinds} empty={t(filtered ? "events.none.filter" : "events.none.range")} emptyDo={t(filtered ? "events.none.filter.do" : "events.none.do")} />
      {feed.more !== null && <button type="button" class="btn more" disabled={feed.loadingMore} onClick={feed.more}>{t("events.more", { n: PAGE })}</button>}
    </>
  );
}
