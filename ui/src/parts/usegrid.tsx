// SPDX-License-Identifier: Apache-2.0

/** The USE tiles and the sentence above them. */
import type { JSX } from "preact";
import { api, type Timeline } from "../api";
import type { Key } from "../i18n";
import { columns, selector, type Labels } from "../prom";
import { align, iso, rateWindow, stepOf } from "../range";
import { href } from "../router";
import { useApp, useLoad, type App, type Loaded } from "../state";
import { format, span } from "../units";
import { levelOf, nameKey, TILES, type Level, type UseRow, type UseTile } from "../use";
import { eventFilter } from "../workload";
import { last } from "./chart";
import { rangeKey } from "./panel";
import { Spark } from "./spark";
import { Failure } from "./ui";

/** Points of a sparkline: one per two pixels of its width. */
const POINTS = 60;

interface Reading {
  values: (number | null)[];
  value: number | null;
}

type Readings = Record<string, Reading>;

function fromEvents(row: UseRow, line: Timeline): Reading {
  const values = (line.buckets ?? []).map((b) => (row.events ?? []).reduce((s, k) => s + (b.count?.[k] ?? 0), 0));
  return { values, value: values.reduce((a, b) => a + b, 0) };
}

/** measured tells whether the agent has what a row needs. */
function measured(row: UseRow, app: App): boolean {
  return row.events !== undefined ? app.kinds.some((k) => row.events!.includes(k.name)) : app.metrics.some((m) => m.name === row.metric);
}

/** What the tiles are about: the node, or one workload. */
export interface Subject {
  tiles: UseTile[];
  match: Labels;
}

const NODE: Subject = { tiles: TILES, match: {} };

async function load(app: App, of: Subject, s: AbortSignal): Promise<Readings> {
  const { range } = app;
  const interval = app.node.store_interval_seconds || 5;
  const step = stepOf(range, interval, POINTS);
  const { start, end } = align(range, step);
  const window = `${rateWindow(step, interval)}s`;
  const rows = of.tiles.flatMap((t) => t.rows).filter((r) => measured(r, app));
  const kinds = rows.flatMap((r) => r.events ?? []);
  const line = kinds.length > 0
    ? api.timeline({ ...eventFilter(of.match), kind: kinds.join(","), from: iso(range.from), to: iso(range.to), buckets: POINTS }, s)
    : Promise.resolve(null);
  const one = async (r: UseRow): Promise<[string, Reading]> => {
    if (r.query === undefined) {
      const l = await line;
      return [r.id, l === null ? { values: [], value: null } : fromEvents(r, l)];
    }
    const result = await api.queryRange(r.query.replaceAll("$W", window).replaceAll("$M", () => selector(of.match).slice(1, -1)), start, end, step, s);
    const values = columns(result, start, end, step).y[0] ?? [];
    return [r.id, { values, value: last(values) }];
  };
  return Object.fromEntries(await Promise.all(rows.map(one)));
}

function useReadings(of: Subject): Loaded<Readings> {
  const app = useApp();
  return useLoad(`use ${selector(of.match)} ${rangeKey(app.range)}`, app.tick, (s) => load(app, of, s));
}

/** WorkTiles shows the tiles of one workload; what no probe here measures is left out. */
export function WorkTiles(of: Subject): JSX.Element {
  const app = useApp();
  const { data, error } = useReadings(of);
  const tiles = of.tiles.map((tile) => ({ ...tile, rows: tile.rows.filter((r) => measured(r, app)) })).filter((tile) => tile.rows.length > 0);
  return (
    <>
      {error !== null && <Failure error={error} />}
      <div class="tiles">{tiles.map((tile) => <Tile key={tile.id} tile={tile} readings={data} match={of.match} />)}</div>
    </>
  );
}

/** UseGrid shows the verdict and the four tiles. */
export function UseGrid(): JSX.Element {
  const { data, error } = useReadings(NODE);
  return (
    <>
      <Verdict readings={data} />
      {error !== null && <Failure error={error} />}
      <div class="tiles">{TILES.map((tile) => <Tile key={tile.id} tile={tile} readings={data} />)}</div>
    </>
  );
}

/** Verdict names every row over a threshold, worst first. */
function Verdict({ readings }: { readings: Readings | null }): JSX.Element {
  const { t, range, tick } = useApp();
  const probes = useLoad("probes", tick, api.probes).data ?? [];
  const broken = probes.filter((p) => p.state === "failed" || p.state === "degraded");
  const hits = TILES.flatMap((tile) => tile.rows.map((row) => ({ tile, row, level: levelOf(row, readings?.[row.id]?.value ?? null) })))
    .filter((h) => h.level === "bad" || h.level === "warn")
    .sort((a, b) => (a.level === b.level ? 0 : a.level === "bad" ? -1 : 1));
  const level: Level = readings === null ? "none" : hits[0]?.level ?? (broken.length > 0 ? "warn" : "ok");
  const title: Key = readings === null ? "loading" : `verdict.${level}` as Key;
  return (
    <section class={`verdict ${level}`} aria-live="polite" aria-label={t("verdict.label")}>
      <span class="dot" aria-hidden="true" />
      <strong>{t(title)}</strong>
      <ul>
        {hits.map(({ tile, row, level: l }) => (
          <li><a class={l} href={rowLink(row)}>{t(`use.${tile.id}` as Key)}: {t(nameKey(row))} {format(readings![row.id]!.value, row.unit, row.rate)}</a></li>
        ))}
        {broken.map((p) => <li><a class="warn" href={href(["system", "probe", p.name])}>{t("verdict.probe", { name: p.name, state: t(`state.${p.state}` as Key) })}</a></li>)}
        {level === "ok" && <li class="muted">{t("verdict.ok.why", { s: span(range.to - range.from) })}</li>}
      </ul>
    </section>
  );
}

function rowLink(row: UseRow, match: Labels = {}): string {
  return row.events !== undefined ? href(["events"], { kind: row.events.join(","), ...match }) : href(["metrics", row.metric], match);
}

function limits(row: UseRow, t: App["t"]): string {
  if (!Number.isFinite(row.warn)) return t(row.id === "network.use" ? "use.nolimit" : "use.work.open");
  return t("use.limits", { warn: format(row.warn, row.unit, row.rate), bad: format(row.bad, row.unit, row.rate) });
}

function Tile({ tile, readings, match }: { tile: UseTile; readings: Readings | null; match?: Labels }): JSX.Element {
  const app = useApp();
  const { t } = app;
  const name = t(`use.${tile.id}` as Key);
  return (
    <section class="card tile" aria-label={name}>
      <header><h2>{name}</h2></header>
      {tile.rows.map((row) => {
        const r = readings?.[row.id];
        const known = measured(row, app);
        const level = levelOf(row, r?.value ?? null);
        const text = !known ? t("use.unmeasured") : r === undefined ? "" : r.value === null ? t(row.absent ?? "use.nodata") : format(r.value, row.unit, row.rate);
        return (
          <a key={row.id} class={`use-row ${level}`} href={rowLink(row, match)} title={`${t(`use.${row.aspect}` as Key)}. ${limits(row, t)}`} data-use={row.id}>
            <span class="aspect" aria-hidden="true">{row.aspect}</span>
            <span class="what">{t(nameKey(row))}</span>
            <span class={`value ${r?.value === null || !known ? "absent" : ""}`}>{text}</span>
            {r !== undefined && r.values.length > 1 ? <Spark values={r.values} max={row.max} level={level} /> : <span class="spark" />}
          </a>
        );
      })}
    </section>
  );
}
