// SPDX-License-Identifier: Apache-2.0

/** Kernel metrics: every metric of the catalogue by area, with the events of the time as markers. */
import type { JSX } from "preact";
import { useEffect, useState } from "preact/hooks";
import { api, type Schema } from "../api";
import type { Key } from "../i18n";
import { loadMarkers, type Marker } from "../markers";
import { Panel, rangeKey, short } from "../parts/panel";
import { Icon, Loading, Notice } from "../parts/ui";
import { selector, WORKLOAD, workloadOf, type Labels } from "../prom";
import { href, setQuery } from "../router";
import { useApp, useLoad } from "../state";

/** matchOf reads the workload filter of the URL. */
export function matchOf(query: URLSearchParams): Labels {
  return Object.fromEntries(WORKLOAD.map((k) => [k, query.get(k) ?? ""]).filter(([, v]) => v !== ""));
}

/** useMarkers loads the events of the range that pass a filter as markers. */
export function useMarkers(filter: Record<string, string> = {}): Marker[] {
  const { range, tick, kinds } = useApp();
  return useLoad(`markers ${JSON.stringify(filter)} ${rangeKey(range)}`, tick, (s) => loadMarkers(range, kinds, filter, s)).data ?? NONE;
}
const NONE: Marker[] = [];

/** Matches every metric of the agent. */
const ALL = '__name__=~"huatuo_.+"';

/**
 * usePresent tells which metrics have samples in the range, so that those
 * which have none do not fill the page with empty charts. null: not known yet.
 */
export function usePresent(match: Labels): ((s: Schema) => boolean) | null {
  const { range, tick } = useApp();
  const own = selector(match).slice(1, -1);
  const names = useLoad(`present ${own} ${rangeKey(range)}`, tick, async (s) => {
    const ask = (m: string) => api.labelValues("__name__", `{${m}}`, range.from, range.to, s);
    const [all, work] = await Promise.all([ask(ALL), own === "" ? null : ask(`${ALL},${own}`)]);
    return { all: new Set(all), work: work === null ? null : new Set(work) };
  });
  if (names.error !== null && names.data === null) return () => true;
  const d = names.data;
  return d === null ? null : (s) => (s.scope === "workload" && d.work !== null ? d.work : d.all).has(s.name);
}

/** found tells whether a metric answers to every word of a search. */
export function found(s: Schema, text: string): boolean {
  const hay = `${s.name} ${s.help} ${s.probe ?? ""} ${s.fields.map((f) => f.name).join(" ")}`.toLowerCase();
  return text.toLowerCase().split(/\s+/).every((w) => hay.includes(w));
}

export function MetricsPage({ query }: { query: URLSearchParams }): JSX.Element {
  const { t, metrics } = useApp();
  const markers = useMarkers();
  const [area, scope, q, match] = [query.get("area") ?? "", query.get("scope") ?? "", query.get("q") ?? "", matchOf(query)];
  const present = usePresent(match);
  const hits = metrics.filter((m) => found(m, q) && (scope === "" || m.scope === scope));
  const areas = [...new Set(metrics.map((m) => m.area))];
  const shown = area === "" ? areas : [area];
  const count = (a: string) => hits.filter((m) => m.area === a).length;
  return (
    <div class="stack">
      <div class="filters">
        <Search value={q} label={t("metrics.search")} onInput={(v) => setQuery({ q: v || null }, true)} />
        <Select label={t("metrics.scope")} value={scope} options={[["", t("metrics.scope.all")], ["host", t("metrics.scope.host")], ["workload", t("metrics.scope.workload")]]} onChange={(v) => setQuery({ scope: v || null })} />
        <WorkloadFilter match={match} />
      </div>
      <div class="chips" role="group" aria-label={t("metrics.area")}>
        <Chip on={area === ""} onClick={() => setQuery({ area: null })}>{t("all")} <b>{hits.length}</b></Chip>
        {areas.map((a) => <Chip on={area === a} onClick={() => setQuery({ area: area === a ? null : a })}>{t(`area.${a}` as Key)} <b>{count(a)}</b></Chip>)}
      </div>
      {hits.length === 0 && <Notice title={t("metrics.none")}>{t("metrics.none.do")}</Notice>}
      {present === null ? <Loading height={300} /> : shown.filter((a) => count(a) > 0).map((a) => (
        <Area key={a} area={a} list={hits.filter((m) => m.area === a)} present={present} match={match} markers={markers} />
      ))}
    </div>
  );
}

/** Area shows the charts of one area, and names the metrics that have none. by tells which labels make lines of their own, all when it is not given. */
export function Area(p: { area: string; list: Schema[]; present: (s: Schema) => boolean; match: Labels; by?: (s: Schema) => string[]; markers: Marker[] }): JSX.Element {
  const { t } = useApp();
  const name = t(`area.${p.area}` as Key);
  const absent = p.list.filter((m) => !p.present(m));
  return (
    <section aria-label={name}>
      <h2 class="area">{name}</h2>
      <div class="panels">{p.list.filter(p.present).map((m) => <Panel key={m.name} schema={m} match={p.match} by={p.by?.(m)} height={150} markers={p.markers} />)}</div>
      {absent.length > 0 && (
        <details class="absent">
          <summary>{t("metrics.absent", { n: absent.length })}</summary>
          <ul>{absent.map((m) => <li data-metric={m.name}><a href={href(["metrics", m.name])} title={m.help}>{short(m.name)}</a></li>)}</ul>
        </details>
      )}
    </section>
  );
}

/** Chip is a toggle. */
export function Chip(p: { on: boolean; onClick: () => void; children: preact.ComponentChildren; title?: string }): JSX.Element {
  return <button type="button" class="chip" aria-pressed={p.on} onClick={p.onClick} title={p.title}>{p.children}</button>;
}

/** Search is a text field that reports a moment after the last key, not at each. */
export function Search(p: { value: string; label: string; onInput: (v: string) => void }): JSX.Element {
  const [text, set] = useState(p.value);
  useEffect(() => set(p.value), [p.value]);
  useEffect(() => {
    if (text === p.value) return;
    const id = setTimeout(() => p.onInput(text.trim()), 250);
    return () => clearTimeout(id);
  }, [text]);
  return (
    <label class="search"><Icon name="search" />
      <input type="search" value={text} placeholder={p.label} aria-label={p.label} onInput={(e) => set(e.currentTarget.value)} />
    </label>
  );
}

/** Select is a labelled list of choices. */
export function Select(p: { label: string; value: string; options: [string, string][]; onChange: (v: string) => void }): JSX.Element {
  return (
    <label class="select"><span>{p.label}</span>
      <select value={p.value} onChange={(e) => p.onChange(e.currentTarget.value)}>
        {p.options.map(([v, text]) => <option value={v} selected={v === p.value}>{text}</option>)}
      </select>
    </label>
  );
}

/** WorkloadFilter narrows workload metrics to one workload. */
function WorkloadFilter({ match }: { match: Labels }): JSX.Element | null {
  const { t, range, tick, metrics } = useApp();
  const source = metrics.find((m) => m.name === "huatuo_container_cpu_seconds_total") ?? metrics.find((m) => m.scope === "workload" && m.type !== "histogram");
  const list = useLoad(source === undefined ? null : `workloads ${rangeKey(range)}`, tick, (s) => api.query(`group by (${WORKLOAD.join(", ")}) (${source!.name})`, range.to, s));
  if (source === undefined) return null;
  const key = (l: Labels) => selector(Object.fromEntries(WORKLOAD.map((k) => [k, l[k] ?? ""])));
  const known = new Map((list.data ?? []).map((s) => [key(s.metric), s.metric]));
  if (Object.keys(match).length > 0) known.set(key(match), match);
  const options = [...known].map(([k, l]): [string, string] => [k, workloadOf(l) || t("work.other")]).sort((a, b) => a[1].localeCompare(b[1]));
  const choose = (k: string) => setQuery(Object.fromEntries(WORKLOAD.map((name) => [name, known.get(k)?.[name] ?? null])));
  return <Select label={t("work.name")} value={key(match)} options={[["", t("all")], ...options]} onChange={choose} />;
}
