// SPDX-License-Identifier: Apache-2.0

/** A metric's chart: asks the query that its schema implies and draws the answer. */
import type { JSX } from "preact";
import { useMemo } from "preact/hooks";
import { api, type Schema } from "../api";
import { quantile } from "../hist";
import { markersFor, type Marker } from "../markers";
import { columns, hists, labelsOf, nameOf, order, queryOf, rateOf, TOP, type Labels, type PromSeries } from "../prom";
import { absolutePatch, align, formatDuration, rateWindow, stepOf, unzoomPatch, type Range } from "../range";
import { href, setQuery } from "../router";
import { useApp, useLoad, useSeen, type Loaded } from "../state";
import { Chart, type ChartData } from "./chart";
import { Badge, Failure, Loading, Notice } from "./ui";

/** The quantiles drawn over a heat map. */
const QUANTILES = [["p50", 0.5], ["p90", 0.9], ["p99", 0.99]] as const;

/** A drawn answer, with the series' labels for tables. */
export interface Answer {
  chart: ChartData;
  labels: Labels[];
  from: number;
  to: number;
}

/** rangeKey identifies a range for useLoad: a moving range stays the same while it moves. */
export function rangeKey(r: Range): string {
  return r.last !== null ? `last ${r.last}` : `${r.from}-${r.to}`;
}

/** short is a metric's name without the prefix that all share. */
export function short(name: string): string {
  return name.replace(/^huatuo_/, "");
}

function answer(s: Schema, by: string[] | null, result: PromSeries[], start: number, end: number, step: number): Answer {
  if (s.type === "histogram") {
    const h = hists(result[0], start, end, step);
    const y = QUANTILES.map(([, q]) => h.hists.map((d) => {
      const v = d === null ? NaN : quantile(d, q);
      return Number.isNaN(v) || v <= 0 ? null : v;
    }));
    const some = h.hists.some((d) => d !== null && d.buckets.length > 0);
    return { chart: { x: h.x, hists: h.hists, y: some ? y : [], names: some ? QUANTILES.map(([n]) => n) : [], step }, labels: [], from: start, to: end };
  }
  const c = order(columns(result, start, end, step));
  const names = c.labels.map((l) => nameOf(l, by ?? labelsOf(s)) || short(s.name));
  return { chart: { x: c.x, y: c.y, names, step }, labels: c.labels, from: start, to: end };
}

/** What to ask besides the schema. */
export interface SeriesOptions {
  match: Labels;
  by: string[] | null;
  points: number;
  /** Seconds: repeat each line as it was so long before. */
  earlier?: number | null;
}

/** withPast adds the lines of an earlier window, moved onto the present one and matched by name. */
export function withPast(now: Answer, then: Answer, ago: string): Answer {
  const keep = then.chart.names.map((n, i) => [now.chart.names.indexOf(n), i] as const).filter(([k]) => k >= 0);
  const { chart } = now;
  return {
    ...now,
    chart: {
      ...chart,
      names: [...chart.names, ...keep.map(([k]) => `${chart.names[k]!} −${ago}`)],
      y: [...chart.y, ...keep.map(([, i]) => then.chart.y[i]!)],
      past: [...chart.names.map(() => -1), ...keep.map(([k]) => k)],
    },
  };
}

/** useSeries loads a metric's series for the range of the URL. */
export function useSeries(s: Schema, o: SeriesOptions, enabled: boolean): Loaded<Answer> & { query: string } {
  const { range, node, tick } = useApp();
  const interval = node.store_interval_seconds || 5;
  const step = stepOf(range, interval, o.points);
  const query = queryOf(s, { window: rateWindow(step, interval), span: range.to - range.from, match: o.match, by: o.by });
  const earlier = o.earlier ?? 0;
  const loaded = useLoad(enabled ? `${query}|${step}|${earlier}|${rangeKey(range)}` : null, tick, async (signal) => {
    const { start, end } = align(range, step);
    const ask = async (ago: number) => answer(s, o.by, await api.queryRange(query, start - ago, end - ago, step, signal), start - ago, end - ago, step);
    if (earlier === 0) return ask(0);
    // Whole steps, so that both windows have the same grid.
    const [now, then] = await Promise.all([ask(0), ask(Math.ceil(earlier / step) * step)]);
    return withPast(now, then, formatDuration(earlier));
  });
  return { ...loaded, query };
}

export interface PanelProps {
  schema: Schema;
  match: Labels;
  by?: string[] | null;
  height: number;
  markers: Marker[];
  /** Given by a page that shows the query and the values too. */
  loaded?: Loaded<Answer>;
}

/** Zoom is what a drag over a chart and its undoing do; on most pages they change the range in the URL. */
export interface Zoom {
  set: (from: number, to: number) => void;
  reset: () => void;
  /** Whether there is something to undo; not given: when the range does not move. */
  zoomed?: boolean;
}

const ZOOM: Zoom = { set: (from, to) => setQuery(absolutePatch(from, to)), reset: () => setQuery(unzoomPatch) };

/** Plot draws a loaded answer, or says why there is none. */
export function Plot({ zoom = ZOOM, ...p }: { schema: Schema; loaded: Loaded<Answer>; height: number; markers: Marker[]; zoom?: Zoom }): JSX.Element {
  const { t } = useApp();
  const { data, error } = p.loaded;
  if (error !== null && data === null) return <Failure error={error} />;
  if (data === null) return <Loading height={p.height} />;
  if (data.chart.names.length === 0) return <Empty zoom={zoom} />;
  return (
    <>
      {error !== null && <Failure error={error} />}
      <Chart label={p.schema.name} data={data.chart} from={data.from} to={data.to} unit={p.schema.unit ?? ""} rate={rateOf(p.schema)} height={p.height}
        markers={p.markers} onZoom={zoom.set} onReset={zoom.reset}
        onMarker={(m) => { location.hash = m.href; }} />
      {data.chart.names.length >= TOP && <p class="hint">{t("metric.top", { n: TOP })}</p>}
    </>
  );
}

/** Empty stands for a chart without samples; zoomed into nothing, there must be a way back. */
function Empty({ zoom }: { zoom: Zoom }): JSX.Element {
  const { t, range } = useApp();
  return (
    <Notice title={t("metric.none")}>
      {t("metric.none.do")}
      {(zoom.zoomed ?? range.last === null) && <> <button type="button" class="btn small" onClick={zoom.reset}>{t("range.unzoom")}</button></>}
    </Notice>
  );
}

/** Panel is the card of one metric on the Kernel metrics page. */
export function Panel(p: PanelProps): JSX.Element {
  const { kinds, t } = useApp();
  const [ref, seen] = useSeen<HTMLElement>();
  const s = p.schema;
  const applies = s.scope === "workload" ? p.match : {};
  const loaded = useSeries(s, { match: applies, by: p.by ?? null, points: 180 }, seen);
  const markers = useMemo(() => markersFor(s.area, p.markers, kinds), [s.area, p.markers, kinds]);
  const link = href(["metrics", s.name], applies);
  return (
    <article class="card panel" ref={ref} aria-label={s.name} data-metric={s.name}>
      <header>
        <h3><a href={link} title={s.name}>{short(s.name)}</a></h3>
        <span class="note">{rateOf(s) && <Badge kind="quiet">{t("metric.rate")}</Badge>}{s.type === "histogram" && <Badge kind="quiet">{t("metric.heat")}</Badge>}</span>
      </header>
      <p class="help">{s.help}</p>
      <Plot schema={s} loaded={loaded} height={p.height} markers={markers} />
    </article>
  );
}
