// SPDX-License-Identifier: Apache-2.0

/** One workload: what it is, how it is, all its metrics and its events. */
import type { JSX } from "preact";
import { api, type Schema } from "../api";
import type { Key } from "../i18n";
import { EventTable } from "../parts/eventtable";
import { CulpritSides } from "../parts/matrix";
import { rangeKey } from "../parts/panel";
import { Time } from "../parts/time";
import { Timeline } from "../parts/timeline";
import { Badge, Card, Icon, Loading, Notice, Pairs, Show } from "../parts/ui";
import { WorkTiles } from "../parts/usegrid";
import { orderOf, WorkTable } from "../parts/worktable";
import { number, selector, type Labels, type PromSeries } from "../prom";
import { absolutePatch, iso, unzoomPatch } from "../range";
import { href, setQuery } from "../router";
import { useApp, useLoad } from "../state";
import { digits, format } from "../units";
import { WORK_TILES } from "../use";
import { eventFilter, labelsAt, loadTable, pathOf, type Kind } from "../workload";
import { Area, Chip, useMarkers, usePresent } from "./metrics";

/** Newest events listed; the rest is one click away. */
const EVENTS = 15;
const BUCKETS = 60;

export function WorkloadPage({ kind, name, query }: { kind: string; name: string; query: URLSearchParams }): JSX.Element {
  const { t } = useApp();
  const match = labelsAt(kind, name);
  return (
    <div class="stack">
      <a class="back" href={href(["workloads"])}><Icon name="back" />{t("nav.workloads")}</a>
      {match === null
        ? <Notice kind="error" title={t("work.unknown", { name: name || kind })}><a href={href(["workloads"])}>{t("nav.workloads")}</a></Notice>
        : <Known kind={kind as Kind} name={name} match={match} query={query} />}
    </div>
  );
}

function Known({ kind, name, match, query }: { kind: Kind; name: string; match: Labels; query: URLSearchParams }): JSX.Element {
  const { t, metrics } = useApp();
  const present = usePresent(match);
  const work = metrics.filter((m) => m.scope === "workload" && m.name !== "huatuo_container_info");
  const gone = present !== null && !work.some(present);
  return (
    <>
      <Identity kind={kind} name={name} match={match} />
      {gone ? <section class="card"><Notice title={t("work.gone")}>{t("work.gone.do")}</Notice></section> : <WorkTiles tiles={WORK_TILES} match={match} />}
      {kind === "pod" && !gone && <Containers match={match} query={query} />}
      {!gone && <CulpritSides match={match} />}
      <Events match={match} />
      {present === null && <Loading height={300} />}
      {present !== null && !gone && <Charts work={work} match={match} present={present} area={query.get("area") ?? ""} />}
    </>
  );
}

/** Metrics whose one value or whose labels describe the workload. */
const ABOUT = "huatuo_container_(info|start_time_seconds|restarts|cpu_limit_cores|memory_limit_bytes|pids_limit)";

/** what finds the single value of a metric: of several containers' limits none is the pod's. */
function what(list: PromSeries[], metric: string): number | null {
  const hits = list.filter((s) => s.metric.__name__ === `huatuo_container_${metric}`);
  return hits.length === 1 && hits[0]!.value !== undefined ? number(hits[0]!.value[1]) : null;
}

function Identity({ kind, name, match }: { kind: Kind; name: string; match: Labels }): JSX.Element {
  const { t, range, tick } = useApp();
  const about = useLoad(`about ${name} ${rangeKey(range)}`, tick, (s) => api.query(selector(match).replace("{", `{__name__=~"${ABOUT}",`), range.to, s));
  const list = about.data ?? [];
  const info = list.filter((s) => s.metric.__name__ === "huatuo_container_info").map((s) => s.metric);
  const one = info.length === 1 ? info[0]! : {};
  const [start, restarts, cpu, memory, pids] = ["start_time_seconds", "restarts", "cpu_limit_cores", "memory_limit_bytes", "pids_limit"].map((m) => what(list, m));
  const extra = Object.entries(one).filter(([k]) => /^(label|annotation)_/.test(k));
  return (
    <section class="card work-head">
      <div class="meta"><h2>{kind === "other" ? t("work.other") : name}</h2><Badge kind="quiet">{t(`work.kind.${kind}` as Key)}</Badge></div>
      <Pairs rows={[
        [t("container.namespace"), match.namespace], [t("container.pod"), match.pod], [t("container.name"), kind === "container" && match.pod !== "" && match.container],
        [t("work.image"), one.image], [t("container.runtime"), one.runtime], ["QoS", info[0]?.qos], [t("work.id"), one.id && <code>{one.id}</code>],
        [t("work.started"), start !== null && start !== undefined && <Time at={iso(start)} full />], [t("work.restarts"), restarts],
        [t("work.cpulimit"), typeof cpu === "number" && t("work.cores", { n: digits(cpu) })], [t("work.memorylimit"), typeof memory === "number" && format(memory, "bytes")], [t("work.pidslimit"), pids],
        ...extra.map(([k, v]): [string, string] => [k.replace(/^(label|annotation)_/, ""), v]),
      ]} />
      <Actions kind={kind} match={match} />
    </section>
  );
}

function Actions({ kind, match }: { kind: Kind; match: Labels }): JSX.Element {
  const { t } = useApp();
  const { namespace = "", pod = "" } = match;
  return (
    <div class="actions">
      {kind === "container" && pod !== "" && <a class="btn small" href={href(pathOf({ namespace, pod }))}><Icon name="workloads" />{t("work.pod")}</a>}
      <a class="btn small" href={href(["events"], match)}><Icon name="events" />{t("work.allevents")}</a>
      <a class="btn small" href={href(["metrics"], { scope: "workload", ...match })}><Icon name="metrics" />{t("nav.metrics")}</a>
    </div>
  );
}

/** Containers of a pod, as the Workloads page shows them. */
function Containers({ match, query }: { match: Labels; query: URLSearchParams }): JSX.Element {
  const app = useApp();
  const table = useLoad(`table ${selector(match)} ${rangeKey(app.range)}`, app.tick, (s) => loadTable(app, match, s));
  return (
    <Card title={app.t("work.containers")} class="flush">
      <Show of={table} height={120}>
        {(all) => {
          const rows = all.filter((r) => r.kind === "container");
          return rows.length === 0 ? <Notice title={app.t("work.gone")}>{app.t("work.gone.do")}</Notice> : <WorkTable groups={[{ head: null, rows }]} order={orderOf(query)} />;
        }}
      </Show>
    </Card>
  );
}

function Events({ match }: { match: Labels }): JSX.Element {
  const { t, kinds, range, tick } = useApp();
  const filter = eventFilter(match);
  const window = { ...filter, from: iso(range.from), to: iso(range.to) };
  const both = useLoad(`events ${selector(match)} ${rangeKey(range)}`, tick, async (s) => {
    const [line, page] = await Promise.all([api.timeline({ ...window, buckets: BUCKETS }, s), api.events({ ...window, limit: EVENTS }, s)]);
    return { line, page };
  });
  return (
    <Card title={t("work.events")} note={<a href={href(["events"], match)}>{t("more")}</a>} class="flush work-events">
      <Show of={both} height={200}>
        {({ line, page }) => (
          <>
            {(page.events ?? []).length > 0 && <Timeline data={line} kinds={kinds.map((k) => k.name)} onBrush={(a, b) => setQuery(absolutePatch(a, b))} onReset={() => setQuery(unzoomPatch)} />}
            <EventTable events={page.events ?? []} kinds={kinds} one={match.pod === undefined || match.container !== undefined} empty={t("events.none.range")} emptyDo={t("events.none.do")} />
          </>
        )}
      </Show>
    </Card>
  );
}

/** Charts has every metric of the workload that has samples, by area, as on the Kernel metrics page. */
function Charts({ work, match, present, area }: { work: Schema[]; match: Labels; present: (s: Schema) => boolean; area: string }): JSX.Element {
  const { t } = useApp();
  const markers = useMarkers(eventFilter(match));
  const some = work.filter(present);
  const areas = [...new Set(some.map((m) => m.area))];
  // One line per container of a pod; of one workload its name would stand at each line.
  const more = match.pod !== undefined && match.container === undefined ? ["container"] : [];
  const by = (m: Schema) => [...m.fields.map((f) => f.name), ...more];
  return (
    <section class="stack" aria-label={t("work.metrics")}>
      <div class="chips" role="group" aria-label={t("metrics.area")}>
        <Chip on={area === ""} onClick={() => setQuery({ area: null })}>{t("all")} <b>{some.length}</b></Chip>
        {areas.map((a) => <Chip key={a} on={area === a} onClick={() => setQuery({ area: area === a ? null : a })}>{t(`area.${a}` as Key)} <b>{some.filter((m) => m.area === a).length}</b></Chip>)}
      </div>
      {areas.filter((a) => area === "" || a === area).map((a) => (
        <Area key={a} area={a} list={work.filter((m) => m.area === a)} present={present} match={match} by={by} markers={markers} />
      ))}
    </section>
  );
}
