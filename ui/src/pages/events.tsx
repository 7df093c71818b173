// SPDX-License-Identifier: Apache-2.0

/** Events: timeline, filters, table, live tail. */
import type { JSX } from "preact";
import { useMemo } from "preact/hooks";
import { api } from "../api";
import type { Key } from "../i18n";
import { PAGE, useFeed, type Feed } from "../parts/eventfeed";
import { EventTable } from "../parts/eventtable";
import { rangeKey } from "../parts/panel";
import { kindColor, Timeline } from "../parts/timeline";
import { Failure, Icon, Loading, Show } from "../parts/ui";
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
  const feed = useFeed(filter, live);
  const names = useMemo(() => kinds.map((k) => k.name), [kinds]);
  const line = useLoad(`timeline ${JSON.stringify(filter)} ${rangeKey(range)}`, tick, (s) => api.timeline({ ...filter, from: iso(range.from), to: iso(range.to), buckets: BUCKETS }, s));
  return (
    <div class="stack">
      <section class="card" aria-label={t("timeline.title")}>
        <Show of={line} height={140}>
          {(d) => <Timeline data={d} kinds={names} onBrush={(a, b) => setQuery({ ...absolutePatch(a, b), live: null })} onReset={() => setQuery(unzoomPatch)} />}
        </Show>
        <Kinds filter={filter} counts={countsOf(line.data)} names={names} />
      </section>
      <Filters filter={filter} live={live} feed={feed} />
      <section class="card flush" aria-label={t("nav.events")}><Rows feed={feed} filtered={Object.keys(filter).length > 0} /></section>
    </div>
  );
}

function countsOf(line: { buckets: { count: Record<string, number> | null }[] | null } | null): Record<string, number> {
  const sum: Record<string, number> = {};
  for (const b of line?.buckets ?? []) for (const [k, n] of Object.entries(b.count ?? {})) sum[k] = (sum[k] ?? 0) + n;
  return sum;
}

/** Kinds is the timeline's legend and the filter on kinds in one. */
function Kinds(p: { filter: Record<string, string>; counts: Record<string, number>; names: string[] }): JSX.Element {
  const { t, kinds, dark } = useApp();
  const on = (p.filter.kind ?? "").split(",");
  return (
    <div class="chips" role="group" aria-label={t("event.kind")}>
      {kinds.map((k) => (
        <Chip key={k.name} on={on.includes(k.name)} title={k.help} onClick={() => setQuery({ kind: toggled(p.filter.kind ?? "", k.name) })}>
          <span class="swatch" style={{ background: kindColor(k.name, p.names, dark) }} />{k.name} <b>{p.counts[k.name] ?? 0}</b>
        </Chip>
      ))}
    </div>
  );
}

function Filters({ filter, live, feed }: { filter: Record<string, string>; live: boolean; feed: Feed }): JSX.Element {
  const { t } = useApp();
  const extra = Object.keys(filter).filter((k) => k.startsWith("field.") || ["namespace", "pod", "unit"].includes(k));
  const severity = (filter.severity ?? "").split(",");
  const set = (k: string) => (v: string) => setQuery({ [k]: v || null }, true);
  return (
    <div class="filters">
      <Search value={filter.q ?? ""} label={t("events.search")} onInput={set("q")} />
      <div class="chips" role="group" aria-label={t("event.severity")}>
        {SEVERITIES.map((s) => <Chip on={severity.includes(s)} onClick={() => setQuery({ severity: toggled(filter.severity ?? "", s) })}><span class={`dot ${s}`} />{t(`severity.${s}` as Key)}</Chip>)}
      </div>
      <Field name="container" value={filter.container} onInput={set("container")} />
      <Field name="comm" value={filter.comm} onInput={set("comm")} />
      <Field name="pid" value={filter.pid} onInput={set("pid")} />
      {extra.map((k) => <button type="button" class="chip removable" aria-label={t("filter.remove", { name: k })} onClick={() => setQuery({ [k]: null })}>{k.replace(/^field\./, "")} = {filter[k]}<Icon name="close" /></button>)}
      {Object.keys(filter).length > 0 && <button type="button" class="btn small" onClick={() => setQuery(Object.fromEntries(Object.keys(filter).map((k) => [k, null])))}>{t("filter.clear")}</button>}
      <button type="button" class={`btn live ${feed.live}`} aria-pressed={live} onClick={() => setQuery({ live: live ? null : "1", ...(live ? {} : unzoomPatch) })}>
        <Icon name="live" />{t(`live.${feed.live}` as Key)}
      </button>
      {feed.lost > 0 && <span class="hint" role="status">{t("live.lost", { n: feed.lost })}</span>}
    </div>
  );
}

function Field(p: { name: "container" | "comm" | "pid"; value: string | undefined; onInput: (v: string) => void }): JSX.Element {
  const { t } = useApp();
  return <div class={`field ${p.name}`}><Search value={p.value ?? ""} label={t(`filter.${p.name}`)} onInput={p.onInput} /></div>;
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
