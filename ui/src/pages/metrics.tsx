// SPDX-License-Identifier: Apache-2.0

/** Kernel metrics: every metric of the catalogue by area, with the events of the time as markers. */
import type { JSX } from "preact";
import { useEffect, useState } from "preact/hooks";
import { api, type Schema } from "../api";
import type { Key } from "../i18n";
import { Panel, rangeKey } from "../parts/panel";
import { Icon, Notice } from "../parts/ui";
import { selector, WORKLOAD, workloadOf, type Labels } from "../prom";
import { iso } from "../range";
import { setQuery } from "../router";
import { useApp, useLoad } from "../state";

/** Markers on a chart; more would hide it. */
const MARKERS = 300;

/** matchOf reads the workload filter of the URL. */
export function matchOf(query: URLSearchParams): Labels {
  return Object.fromEntries(WORKLOAD.map((k) => [k, query.get(k) ?? ""]).filter(([, v]) => v !== ""));
}

/** useMarkers loads the events of the range. */
export function useMarkers() {
  const { range, tick } = useApp();
  const page = useLoad(`markers ${rangeKey(range)}`, tick, (s) => api.events({ from: iso(range.from), to: iso(range.to), limit: MARKERS }, s));
  return page.data?.events ?? NONE;
}
const NONE: never[] = [];

/** found tells whether a metric answers to every word of a search. */
export function found(s: Schema, text: string): boolean {
  const hay = `${s.name} ${s.help} ${s.probe ?? ""} ${s.fields.map((f) => f.name).join(" ")}`.toLowerCase();
  return text.toLowerCase().split(/\s+/).every((w) => hay.includes(w));
}

export function MetricsPage({ query }: { query: URLSearchParams }): JSX.Element {
  const { t, metrics } = useApp();
  const markers = useMarkers();
  const [area, scope, q, match] = [query.get("area") ?? "", query.get("scope") ?? "", query.get("q") ?? "", matchOf(query)];
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
      {shown.filter((a) => count(a) > 0).map((a) => (
        <section key={a} aria-label={t(`area.${a}` as Key)}>
          <h2 class="area">{t(`area.${a}` as Key)}</h2>
          <div class="panels">{hits.filter((m) => m.area === a).map((m) => <Panel key={m.name} schema={m} match={match} height={150} markers={markers} />)}</div>
        </section>
      ))}
    </div>
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
