// SPDX-License-Identifier: Apache-2.0

/** One metric: a large chart, filters on each label, break-down, the query and the values. */
import type { JSX } from "preact";
import { api, type Schema } from "../api";
import { markersFor } from "../markers";
import { last } from "../parts/chart";
import { Plot, rangeKey, useSeries, type Answer } from "../parts/panel";
import { Badge, Card, Copy, Icon, Notice, Pairs } from "../parts/ui";
import type { Key } from "../i18n";
import { labelsOf, nameOf, rateOf, selector, type Labels } from "../prom";
import { parseDuration } from "../range";
import { href, setQuery } from "../router";
import { useApp, useLoad } from "../state";
import { format, span } from "../units";
import { Chip, Select, useMarkers } from "./metrics";

/** Earlier windows to compare with: the last hour, yesterday and the same day of last week are what "normal" is measured by. */
const COMPARE = ["15m", "1h", "1d", "7d"];

export function MetricPage({ name, query }: { name: string; query: URLSearchParams }): JSX.Element {
  const { t, metrics } = useApp();
  const s = metrics.find((m) => m.name === name);
  if (s === undefined) return <Notice kind="error" title={t("metric.unknown", { name })}><a href={href(["metrics"])}>{t("nav.metrics")}</a></Notice>;
  return <Known s={s} query={query} />;
}

function Known({ s, query }: { s: Schema; query: URLSearchParams }): JSX.Element {
  const { t, kinds } = useApp();
  const labels = labelsOf(s);
  const match: Labels = Object.fromEntries(labels.map((l) => [l, query.get(l) ?? ""]).filter(([, v]) => v !== ""));
  const by = query.has("by") ? query.get("by")!.split(",").filter((l) => labels.includes(l)) : null;
  const loaded = useSeries(s, { match, by, points: 300, earlier: parseDuration(query.get("compare") ?? "") }, true);
  const markers = markersFor(s.area, useMarkers(), kinds);
  return (
    <div class="stack">
      <a class="back" href={href(["metrics"], { area: s.area })}><Icon name="back" />{t(`area.${s.area}` as Key)}</a>
      <section class="card">
        <header><h2 class="mono">{s.name}</h2><div class="note"><Badge kind="quiet">{s.type}</Badge>{s.unit !== undefined && s.unit !== "1" && <Badge kind="quiet">{s.unit}</Badge>}</div></header>
        <p class="help">{s.help}{s.read !== undefined && ` ${s.read}`}</p>
        <div class="filters">
          <LabelFilters s={s} match={match} />
          <Select label={t("metric.compare")} value={query.get("compare") ?? ""} onChange={(v) => setQuery({ compare: v || null })}
            options={[["", t("metric.compare.none")], ...COMPARE.map((d): [string, string] => [d, t("metric.compare.ago", { s: span(parseDuration(d)!) })])]} />
        </div>
        {s.type !== "histogram" && labels.length > 0 && <By labels={labels} by={by} />}
        <Plot schema={s} loaded={loaded} height={320} markers={markers} />
        {query.has("compare") && loaded.data !== null && loaded.data.chart.past?.some((i) => i >= 0) !== true && <p class="hint">{t("metric.compare.empty")}</p>}
        <div class="query"><code>{loaded.query}</code><Copy text={loaded.query} /></div>
      </section>
      {loaded.data !== null && loaded.data.labels.length > 0 && <Values s={s} answer={loaded.data} by={by ?? labels} />}
      <Card title={t("metric.about")}>
        <Pairs rows={[
          [t("metric.probe"), s.probe !== undefined && s.probe !== "" && <a href={href(["system", "probe", s.probe])}>{s.probe}</a>],
          [t("metric.scope"), t(`metrics.scope.${s.scope ?? "host"}` as Key)],
          ...s.fields.map((f): [JSX.Element, string] => [<code>{f.name}</code>, f.help + (f.values ? ` (${f.values.join(", ")})` : "")]),
        ]} />
      </Card>
    </div>
  );
}

/** LabelFilters has one list of values per label. */
function LabelFilters({ s, match }: { s: Schema; match: Labels }): JSX.Element | null {
  const { t, range, tick } = useApp();
  const labels = labelsOf(s);
  // Histograms have no plain value to group; count() works for every type.
  const all = useLoad(labels.length === 0 ? null : `labels ${s.name} ${rangeKey(range)}`, tick, (sig) => api.query(`count by (${labels.join(", ")}) (last_over_time(${s.name}[5m]))`, range.to, sig));
  const values = (l: string) => [...new Set([...(all.data ?? []).map((r) => r.metric[l] ?? ""), match[l] ?? ""])].filter((v) => v !== "").sort();
  const used = labels.filter((l) => values(l).length > 0);
  if (used.length === 0) return null;
  return (
    <>
      {used.map((l) => <Select key={l} label={l} value={match[l] ?? ""} options={[["", t("all")], ...values(l).map((v): [string, string] => [v, v])]} onChange={(v) => setQuery({ [l]: v || null })} />)}
    </>
  );
}

/** By chooses the labels that make separate lines. */
function By({ labels, by }: { labels: string[]; by: string[] | null }): JSX.Element {
  const { t } = useApp();
  const on = by ?? labels;
  const toggle = (l: string) => {
    const next = labels.filter((x) => (x === l ? !on.includes(x) : on.includes(x)));
    setQuery({ by: next.length === labels.length ? null : next.join(",") || "-" });
  };
  return (
    <div class="chips" role="group" aria-label={t("metric.by")}>
      <span class="muted">{t("metric.by")}</span>
      {labels.map((l) => <Chip on={on.includes(l)} onClick={() => toggle(l)}>{l}</Chip>)}
    </div>
  );
}

function Values({ s, answer, by }: { s: Schema; answer: Answer; by: string[] }): JSX.Element {
  const { t } = useApp();
  const rate = rateOf(s);
  const stat = (col: (number | null)[]) => {
    const v = col.filter((n): n is number => n !== null);
    return [last(col), Math.min(...v), v.reduce((a, b) => a + b, 0) / v.length, Math.max(...v)];
  };
  return (
    <Card title={t("metric.values")}>
      <div class="scroll">
        <table class="table">
          <thead><tr><th scope="col">{t("metric.series")}</th>{(["last", "min", "avg", "max"] as const).map((k) => <th scope="col" class="r">{t(`metric.${k}`)}</th>)}</tr></thead>
          <tbody>
            {answer.labels.map((l, i) => (
              <tr><th scope="row" title={selector(l)}>{nameOf(l, by) || s.name}</th>{stat(answer.chart.y[i]!).map((v) => <td class="r num">{format(v, s.unit, rate)}</td>)}</tr>
            ))}
          </tbody>
        </table>
      </div>
    </Card>
  );
}
