// SPDX-License-Identifier: Apache-2.0

/** Profiles: where the time goes, in which function of whom, and when. All of the view's state is in its URL. */
import type { JSX } from "preact";
import { useMemo, useState } from "preact/hooks";
import { api, profileURL, type FlameGraph, type ProfileDiff, type ProfileTypes } from "../api";
import { build, buildDiff, collapse, find, matching, pattern, sandwich, shareOf, type Fn, type Kind, type Tree } from "../flame";
import { formatSel, heatAsk, parseSel } from "../heatgrid";
import { Flame } from "../parts/flame";
import { HeatMap } from "../parts/heatmap";
import { rangeKey } from "../parts/panel";
import { Changes, Functions, rankOf, where, type Names } from "../parts/proftables";
import { Runtimes, type Opened } from "../parts/runtimes";
import { clock } from "../parts/time";
import { Card, Copy, Icon, Notice, Show } from "../parts/ui";
import { changeColor, flameColor } from "../palette";
import { amount, diffParams, EARLIER, filterOf, grainOf, LABELS, paramsOf, parseCompare, percent, points, valuesOf, windowOf } from "../profile";
import { formatHash, patched, setQuery } from "../router";
import { useApp, useLoad } from "../state";
import { grouped, span } from "../units";
import { Chip, Search, Select } from "./metrics";

/** Nodes with a smaller share would be thinner than half a pixel until one zooms in far. */
const LEAST_SHARE = 0.0001;

const KINDS: Kind[] = ["native", "runtime", "kernel", "unknown"];
const FORMATS = ["pprof", "folded", "svg", "speedscope", "otlp"];
/** Functions of a comparison: more than one reads, so that a search finds what it should. */
const MOST_CHANGES = 1000;

export function ProfilesPage({ query }: { query: URLSearchParams }): JSX.Element {
  const { tick } = useApp();
  const types = useLoad("profile types", tick, api.profileTypes);
  return <Show of={types} height={320}>{(d) => <Known types={d} query={query} />}</Show>;
}

/** Standing says why no stacks are being taken; null when they are. */
function Standing({ status }: { status: ProfileTypes["status"] }): JSX.Element | null {
  const { t } = useApp();
  const why = status.reason ? <code class="wrap">{status.reason}</code> : null;
  switch (status.state) {
    case "disabled": return <Card title={t("nav.profiles")}><Notice title={t("prof.off")}>{t("prof.off.do")}</Notice></Card>;
    case "unsupported": return <Card title={t("nav.profiles")}><Notice kind="error" title={t("prof.unsupported")}>{why}</Notice></Card>;
    case "failed": return <Notice kind="error" title={t("prof.failed")}>{why} {t("prof.failed.do")}</Notice>;
    case "degraded": return <Notice title={t("prof.degraded")}>{why}</Notice>;
    case "shed": return <Notice kind="error" title={t("prof.shed")}>{why}</Notice>;
    case "starting": return <Notice title={t("prof.starting")}>{why}</Notice>;
    default: return null;
  }
}

function Known({ types, query }: { types: ProfileTypes; query: URLSearchParams }): JSX.Element {
  const { range, tick } = useApp();
  const list = types.types ?? [];
  const type = list.find((p) => p.name === query.get("type")) ?? list[0];
  const { state } = types.status;
  // A moving range is asked anew more seldom the longer it is.
  const grain = grainOf(range.to - range.from);
  const turn = range.last === null ? tick : Math.floor(range.to / grain);
  const [opened, open] = useState<Opened | null>(null);
  const runtimes = <Runtimes filter={filterOf(query)} onOpen={open} />;
  const own = opened !== null && <Own opened={opened} query={query} onClose={() => open(null)} />;
  if (type === undefined || state === "disabled" || state === "unsupported") return <div class="stack profiles"><Standing status={types.status} />{own}{runtimes}</div>;
  return (
    <div class="stack profiles">
      <Standing status={types.status} />
      <Filters types={list} status={types.status} type={type.name} query={query} turn={turn} />
      <When type={type.name} unit={type.unit} hertz={types.status.hertz} query={query} turn={turn} />
      {own || <Stacks type={type} absent={absent(types.status, type.name)} query={query} turn={turn} />}
      {runtimes}
    </div>
  );
}

/** Own shows a profile of a process' own runtime in place of the stacks. */
function Own({ opened, query, onClose }: { opened: Opened; query: URLSearchParams; onClose: () => void }): JSX.Element {
  const { t } = useApp();
  const shown = useMemo((): Shown => ({ graph: opened.graph, diff: null }), [opened]);
  const note = <button type="button" class="btn small" onClick={onClose}><Icon name="close" />{t("prof.rt.close")}</button>;
  return (
    <Card title={opened.title} note={note} id="own" class="flush stacks">
      <p class="hint lead">{opened.help}</p>
      {opened.graph.total === 0 ? <Notice title={t("prof.rt.empty")}>{t("prof.rt.empty.do")}</Notice> : <Graph shown={shown} names={{ base: "", own: "" }} query={query} stale={false} />}
    </Card>
  );
}

/** absent tells why no stacks of a type are being taken: a reason of the kernel's, "" when nobody has asked for them, null when they are. */
function absent(status: ProfileTypes["status"], type: string): string | null {
  const states = status.types ?? [];
  const own = states.find((s) => s.name === type);
  if (own !== undefined) return own.on ? null : (own.reason ?? "");
  return states.length === 0 || type === "cpu" ? null : "";
}

function Filters({ types, status, type, query, turn }: { types: NonNullable<ProfileTypes["types"]>; status: ProfileTypes["status"]; type: string; query: URLSearchParams; turn: number }): JSX.Element {
  const { t, range } = useApp();
  const filter = filterOf(query);
  const ask = paramsOf(type, {}, [range.from, range.to]);
  const few = LABELS.filter((l) => l !== "thread").join(",");
  const series = useLoad(`profile series ${type} ${rangeKey(range)}`, turn, (s) => api.profileSeries({ ...ask, by: few }, s));
  const { thread: _, ...others } = filter;
  const threads = useLoad(`profile threads ${type} ${JSON.stringify(others)} ${rangeKey(range)}`, turn, (s) => api.profileSeries({ ...ask, ...others, by: "thread" }, s));
  const values = (l: string) => {
    const list = l === "thread" ? valuesOf(threads.data ?? [], l, {}) : valuesOf(series.data ?? [], l, filter);
    const chosen = filter[l];
    return chosen !== undefined && !list.some(([v]) => v === chosen) ? [[chosen, 0] as [string, number], ...list] : list;
  };
  const offered = LABELS.map((l) => [l, values(l)] as const).filter(([, v]) => v.length > 0);
  // What to compare with: other values of a label that is filtered by, else of the process.
  const label = LABELS.find((l) => filter[l] !== undefined && l !== "thread") ?? "process";
  const rivals = (offered.find(([l]) => l === label)?.[1] ?? []).filter(([v]) => v !== filter[label]).map(([v]): [string, string] => [`${label}=${v}`, `${label} ${v}`]);
  const compare = query.get("cmp") ?? "";
  const options: [string, string][] = [["", t("prof.compare.none")], ["before", t("prof.compare.before")],
    ...EARLIER.map(([s]): [string, string] => [String(s), t("prof.compare.ago", { s: span(s) })]), ...(filter[label] === undefined ? [] : rivals)];
  if (!options.some(([v]) => v === compare)) options.push([compare, compare.replace("=", " ")]);
  return (
    <div class="filters">
      <Select label={t("prof.type")} value={type} options={types.map((p) => {
        const name = `${p.name} · ${t(`prof.unit.${p.unit}`)}`;
        return [p.name, absent(status, p.name) === null ? name : t("prof.type.off", { s: name })];
      })} onChange={(v) => setQuery({ type: v, focus: null })} />
      {offered.map(([l, v]) => (
        <Select key={l} label={l} value={filter[l] ?? ""} options={[["", t("all")], ...v.map(([name]): [string, string] => [name, name])]} onChange={(to) => setQuery({ [l]: to || null, pid: null, focus: null })} />
      ))}
      {filter.pid !== undefined && <button type="button" class="chip removable" aria-label={t("filter.remove", { name: "pid" })} onClick={() => setQuery({ pid: null })}><code>pid = {filter.pid}</code><Icon name="close" /></button>}
      <Select label={t("prof.compare")} value={compare} options={options} onChange={(v) => setQuery({ cmp: v || null })} />
    </div>
  );
}

function When({ type, unit, hertz, query, turn }: { type: string; unit: string; hertz: number; query: URLSearchParams; turn: number }): JSX.Element {
  const { t, range } = useApp();
  const filter = filterOf(query);
  const ask = heatAsk(range.from, range.to);
  const heat = useLoad(`profile heat ${type} ${JSON.stringify(filter)} ${rangeKey(range)}`, turn, async (s) => ({
    grid: ask.grid, data: await api.profileHeat({ ...paramsOf(type, filter, [ask.from, ask.to]), column: ask.column }, s),
  }));
  const sel = parseSel(query.get("sel") ?? "");
  const chip = sel !== null && (
    <button type="button" class="chip removable" aria-label={t("filter.remove", { name: t("prof.heat") })} onClick={() => setQuery({ sel: null })}>
      {t("prof.selected", { a: clock(new Date(sel[0] * 1000), true), b: clock(new Date(sel[1] * 1000), true) })}<Icon name="close" />
    </button>
  );
  return (
    <Card title={t("prof.heat")} note={chip || undefined} class="when">
      <Show of={heat} height={150}>
        {(h) => <HeatMap data={h.data} grid={h.grid} hertz={hertz} selected={sel} amount={(v) => amount(v, unit)} onSelect={(a, b) => setQuery({ sel: formatSel(a, b) })} />}
      </Show>
    </Card>
  );
}

/** What the graph is of: samples, or samples compared with others. */
type Shown = { graph: FlameGraph; diff: null } | { graph: null; diff: ProfileDiff };

/** A sum of samples, as one line tells it. */
interface Sum {
  unit: string;
  total: number;
  samples: number;
  dropped: number;
  truncated: number;
}

function sumOf({ graph, diff }: Shown): Sum {
  const of = diff === null ? graph : diff.after;
  return { unit: (diff ?? graph).unit, total: of.total, samples: of.samples, dropped: (diff ?? graph).dropped_nodes ?? 0, truncated: of.truncated ?? 0 };
}

function Stacks({ type, absent, query, turn }: { type: NonNullable<ProfileTypes["types"]>[number]; absent: string | null; query: URLSearchParams; turn: number }): JSX.Element {
  const { t, range } = useApp();
  const filter = filterOf(query);
  const sel = query.get("sel") ?? "";
  const cmp = query.get("cmp") ?? "";
  const window = windowOf(query, range);
  const compare = parseCompare(cmp, window);
  const ask = paramsOf(type.name, filter, window);
  // Another workload is not what was before.
  const names: Names = compare !== null && "label" in compare ? { base: compare.value, own: filter[compare.label] ?? t("prof.after") } : { base: t("prof.before"), own: t("prof.after") };
  const rank = rankOf(query);
  const key = `flame ${type.name} ${JSON.stringify(filter)} ${compare === null ? "" : `${cmp} ${rank}`} ${sel || rangeKey(range)}`;
  const loaded = useLoad(key, sel === "" ? turn : 0, async (s): Promise<Shown> => {
    const least = { min_share: LEAST_SHARE };
    if (compare === null) return { graph: await api.flame({ ...ask, ...least }, s), diff: null };
    return { graph: null, diff: await api.profileDiff({ ...diffParams(type.name, filter, window, compare, rank), ...least, limit: MOST_CHANGES }, s) };
  });
  const note = (
    <span class="downloads"><Icon name="download" /><span class="desk-only">{t("prof.download")}</span>
      {FORMATS.map((f) => <a key={f} href={profileURL({ ...ask, format: f })} download>{f}</a>)}
    </span>
  );
  return (
    <Card title={<span title={`${type.help} ${type.read}`}>{type.name}</span>} note={note} class="flush stacks">
      <p class="hint lead">{type.help} {type.read}</p>
      <Show of={loaded} height={400}>{(shown) => sumOf(shown).total === 0 ? <Empty absent={absent} /> : <Graph shown={shown} names={names} query={query} stale={loaded.loading} />}</Show>
    </Card>
  );
}

/** Empty says why there is nothing to see. */
function Empty({ absent }: { absent: string | null }): JSX.Element {
  const { t } = useApp();
  if (absent === null) return <Notice title={t("prof.none")}>{t("prof.none.do")}</Notice>;
  return <Notice title={t("prof.absent")}>{absent === "" ? t("prof.absent.do") : <code class="wrap">{absent}</code>}</Notice>;
}

type ViewName = "graph" | "table" | "sandwich";

function Graph({ shown, names, query, stale }: { shown: Shown; names: Names; query: URLSearchParams; stale: boolean }): JSX.Element {
  const { t } = useApp();
  const fold = query.get("fold") === "1";
  const diff = shown.diff !== null && shown.diff.before.total > 0 ? shown.diff : null;
  const tree = useMemo(() => {
    const whole = shown.diff === null ? build(shown.graph) : buildDiff(shown.diff);
    return fold ? collapse(whole) : whole;
  }, [shown, fold]);
  const q = query.get("q") ?? "";
  const re = useMemo(() => (q === "" ? null : pattern(q)), [q]);
  const matched = useMemo(() => (re === null ? null : matching(tree, re)), [tree, re]);
  const asked = query.get("view");
  const view: ViewName = asked === "table" || asked === "sandwich" ? asked : "graph";
  const link = (f: Fn) => formatHash(["profiles"], patched(query, { view: "sandwich", fn: f.key }));
  const sum = sumOf(shown);
  return (
    <div aria-busy={stale}>
      <div class="filters bar-row">
        <div class="chips" role="group" aria-label={t("prof.view")}>
          {(["graph", "table", "sandwich"] as const).map((v) => <Chip key={v} on={view === v} onClick={() => setQuery({ view: v === "graph" ? null : v })}>{t(`prof.view.${v}`)}</Chip>)}
        </div>
        <Search value={q} label={t("prof.search")} onInput={(v) => setQuery({ q: v || null }, true)} />
        {q !== "" && <span class={re === null ? "reason" : "muted matching"} role="status">{matched === null ? t("prof.search.bad") : t("prof.matching", { s: percent(shareOf(tree, matched)) })}</span>}
        {view === "graph" && <Chip on={query.get("up") === "1"} onClick={() => setQuery({ up: query.get("up") === "1" ? null : "1" })}>{t("prof.up")}</Chip>}
        <Chip on={fold} onClick={() => setQuery({ fold: fold ? null : "1", focus: null })}>{t("prof.fold")}</Chip>
        {query.has("focus") && <button type="button" class="btn small" onClick={() => setQuery({ focus: null })}>{t("prof.reset")}</button>}
      </div>
      {shown.diff !== null && diff === null && <Notice title={t("prof.compare.empty")} />}
      {view === "graph" && <Whole tree={tree} base={names.base} unit={sum.unit} query={query} matched={matched} link={link} />}
      {view === "table" && (diff !== null ? <Changes tree={tree} diff={diff} names={names} re={re} query={query} link={link} /> : <Functions tree={tree} unit={sum.unit} matched={matched} query={query} link={link} />)}
      {view === "sandwich" && <Sandwich tree={tree} unit={sum.unit} query={query} matched={matched} />}
      <Legend compared={diff !== null && view === "graph"} />
      <p class="hint lead">
        {t("prof.sum", { v: amount(sum.total, sum.unit), n: grouped(sum.samples) })}
        {sum.dropped > 0 && ` · ${t("prof.dropped", { n: grouped(sum.dropped) })}`}
        {sum.truncated > 0 && ` · ${t("prof.truncated", { s: percent(sum.truncated / sum.total) })}`}
      </p>
    </div>
  );
}

function Legend({ compared }: { compared: boolean }): JSX.Element {
  const { t } = useApp();
  return (
    <ul class="kinds">
      {compared ? <><li><i class="swatch less" />{t("prof.less")}</li><li><i class="swatch grown" />{t("prof.more")}</li></>
        : KINDS.map((k) => <li key={k}><i class={`swatch kind-${k}`} />{t(`prof.kind.${k}`)}</li>)}
    </ul>
  );
}

/** useFace gives a tree's colours and texts. */
function useFace(tree: Tree, unit: string, base = "") {
  const { t, dark } = useApp();
  return useMemo(() => {
    const all = tree.total[0] || 1;
    const then = tree.base?.[0] || 1;
    const fill = tree.fns.map((f) => flameColor(f.kind, f.key, dark));
    const grown = (i: number) => tree.total[i]! / all - (tree.base?.[i] ?? 0) / then;
    const color = (i: number) => (i === 0 ? (dark ? "#8b8f9c" : "#c9ccd6") : tree.base === undefined ? fill[tree.fn[i]!]! : changeColor(grown(i), dark));
    const name = (i: number) => (i === 0 ? t("prof.everything") : tree.fns[tree.fn[i]!]!.name);
    const tip = (i: number) => {
      const lines = [name(i)];
      const f = tree.fns[tree.fn[i]!];
      if (f !== undefined) lines.push(where(f), f.frame.missing ? t("prof.missing", { s: f.frame.missing }) : "", f.frame.build_id ? t("prof.build", { s: f.frame.build_id }) : "");
      const value = (v: number, word: string) => `${word} ${amount(v, unit)} (${percent(v / all)})`;
      lines.push(value(tree.total[i]!, t("prof.total")), value(tree.self[i]!, t("prof.self")));
      if (tree.base !== undefined) lines.push(`${base} ${percent(tree.base[i]! / then)}, ${t("prof.change")} ${points(grown(i))}`);
      return lines.filter((l) => l !== "");
    };
    return { color, name, tip };
  }, [tree, unit, base, dark, t]);
}

interface GraphProps {
  tree: Tree;
  unit: string;
  query: URLSearchParams;
  matched: Uint8Array | null;
}

function Whole({ tree, base, unit, query, matched, link }: GraphProps & { base: string; link: (f: Fn) => string }): JSX.Element {
  const { t } = useApp();
  const face = useFace(tree, unit, base);
  const [at, setAt] = useState(0); // id of the node that the keyboard is at
  const focus = find(tree, Number(query.get("focus") ?? 0));
  const cursor = at === 0 ? -1 : find(tree, at);
  const shown = cursor > 0 ? cursor : focus;
  const f = tree.fns[tree.fn[shown]!];
  return (
    <>
      <Flame tree={tree} {...face} label={t("prof.graph.label")} up={query.get("up") === "1"} matched={matched} focus={focus} cursor={cursor}
        onFocus={(n) => setQuery({ focus: n <= 0 ? null : String(tree.id[n]!) })} onCursor={(n) => setAt(tree.id[n]!)} />
      {f !== undefined && (
        <div class="chosen">
          <code class="wrap">{f.name}</code><span class="help wrap">{face.tip(shown).slice(1).join(" · ")}</span>
          <span class="acts"><a class="btn small" href={link(f)}>{t("prof.view.sandwich")}</a><Copy text={f.name} /></span>
        </div>
      )}
    </>
  );
}

function Sandwich({ tree, unit, query, matched }: GraphProps): JSX.Element {
  const { t } = useApp();
  const fn = tree.fns.findIndex((f) => f.key === query.get("fn"));
  const sides = useMemo(() => (fn < 0 ? null : sandwich(tree, fn)), [tree, fn]);
  if (sides === null) return <Notice title={t("prof.sandwich.none")}>{t("prof.sandwich.none.do")} <a href={formatHash(["profiles"], patched(query, { view: "table" }))}>{t("prof.view.table")}</a></Notice>;
  const f = tree.fns[fn]!;
  const all = tree.total[0] || 1;
  const total = sides.callees.total[0]!;
  return (
    <div class="sandwich">
      <div class="chosen"><code class="wrap">{f.name}</code><span class="help wrap">{[where(f), `${t("prof.total")} ${amount(total, unit)} (${percent(total / all)})`].filter((l) => l !== "").join(" · ")}</span></div>
      <h3>{t("prof.callers")}</h3>
      <Half tree={sides.callers} unit={unit} matched={matched} up label={t("prof.callers")} />
      <h3>{t("prof.callees")}</h3>
      <Half tree={sides.callees} unit={unit} matched={matched} label={t("prof.callees")} />
    </div>
  );
}

function Half({ tree, unit, matched, up, label }: Omit<GraphProps, "query"> & { up?: boolean; label: string }): JSX.Element {
  const face = useFace(tree, unit);
  const [focus, setFocus] = useState(0);
  const [at, setAt] = useState(0);
  return <Flame tree={tree} {...face} label={label} up={up === true} matched={matched} height={320} skip={1} focus={find(tree, focus)} cursor={at === 0 ? -1 : find(tree, at)} onFocus={(n) => setFocus(n <= 0 ? 0 : tree.id[n]!)} onCursor={(n) => setAt(tree.id[n]!)} />;
}
