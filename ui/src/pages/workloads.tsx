// SPDX-License-Identifier: Apache-2.0

/** Workloads: every container, pod, unit and other cgroup in one table, searched, filtered by kind, grouped, and sorted by any column. */
import type { JSX } from "preact";
import type { Key } from "../i18n";
import { CulpritMatrix } from "../parts/matrix";
import { rangeKey } from "../parts/panel";
import { Notice, Show } from "../parts/ui";
import { fullName, orderOf, WorkTable, type Order } from "../parts/worktable";
import { workloadOf } from "../prom";
import { setQuery } from "../router";
import { useApp, useLoad } from "../state";
import { COLUMNS, KINDS, loadTable, measured, partition, pods, searched, type Group, type Kind, type Row } from "../workload";
import { Chip, Search, Select } from "./metrics";

const GROUPINGS = ["kind", "namespace", "pod"] as const;

export function WorkloadsPage({ query }: { query: URLSearchParams }): JSX.Element {
  const app = useApp();
  const { t, range, tick } = app;
  const some = COLUMNS.some((c) => c.id !== "events" && measured(app, c.id));
  const table = useLoad(some ? `table ${rangeKey(range)}` : null, tick, (s) => loadTable(app, {}, s));
  if (!some) return <Notice title={t("use.unmeasured")}>{t("work.unmeasured")}</Notice>;
  return (
    <div class="stack">
      <Filters query={query} rows={table.data ?? []} />
      <section class="card flush" aria-label={t("nav.workloads")}>
        <Show of={table} height={420}>{(rows) => <Body query={query} rows={rows} />}</Show>
      </section>
      <CulpritMatrix query={query} />
    </div>
  );
}

/** ofKind keeps the rows of a kind. Containers are also what a pod consists of, so pods are a view of their own. */
function ofKind(rows: Row[], kind: string): Row[] {
  if (kind === "pod") return pods(rows);
  return kind === "" ? rows : rows.filter((r) => r.kind === kind);
}

function groupingOf(query: URLSearchParams): (typeof GROUPINGS)[number] | null {
  return GROUPINGS.find((g) => g === query.get("group")) ?? null;
}

function Filters({ query, rows }: { query: URLSearchParams; rows: Row[] }): JSX.Element {
  const { t } = useApp();
  const kind = query.get("kind") ?? "";
  const order = orderOf(query);
  const count = (k: string) => ofKind(rows, k).length;
  const kinds = KINDS.filter((k) => k !== "other" || count(k) > 0);
  return (
    <div class="filters">
      <Search value={query.get("q") ?? ""} label={t("work.search")} onInput={(v) => setQuery({ q: v || null }, true)} />
      <div class="chips" role="group" aria-label={t("work.kind")}>
        <Chip on={kind === ""} onClick={() => setQuery({ kind: null })}>{t("all")} <b>{rows.length}</b></Chip>
        {kinds.map((k: Kind) => <Chip key={k} on={kind === k} onClick={() => setQuery({ kind: kind === k ? null : k })} title={t(`work.kindhelp.${k}`)}>{t(`work.kinds.${k}`)} <b>{count(k)}</b></Chip>)}
      </div>
      <Select label={t("work.group")} value={groupingOf(query) ?? ""} onChange={(v) => setQuery({ group: v || null })}
        options={[["", t("work.group.none")], ...GROUPINGS.map((g): [string, string] => [g, t(`work.group.${g}`)])]} />
      <PhoneOrder order={order} />
    </div>
  );
}

/** On a phone the table has no head to click on. */
function PhoneOrder({ order }: { order: Order }): JSX.Element {
  const { t } = useApp();
  return (
    <div class="phone-order">
      <Select label={t("work.sort")} value={order.column} onChange={(v) => setQuery({ sort: v === "cpu" ? null : v, dir: null })}
        options={[["name", t("work.name")], ...COLUMNS.map((c): [string, string] => [c.id, fullName(c, t)])]} />
    </div>
  );
}

function groupKey(r: Row, by: (typeof GROUPINGS)[number]): string {
  const { namespace = "", pod = "" } = r.labels;
  return by === "kind" ? r.kind : by === "namespace" ? namespace : pod === "" ? "" : workloadOf({ namespace, pod });
}

function Body({ query, rows }: { query: URLSearchParams; rows: Row[] }): JSX.Element {
  const { t } = useApp();
  if (rows.length === 0) return <Notice title={t("work.none")}>{t("work.none.do")}</Notice>;
  const list = searched(ofKind(rows, query.get("kind") ?? ""), query.get("q") ?? "");
  if (list.length === 0) return <Notice title={t("work.none.filter")}>{t("work.none.filter.do")}</Notice>;
  const by = groupingOf(query);
  const groups: Group[] = by === null ? [{ head: null, rows: list }]
    : partition(list, (r) => groupKey(r, by), (k) => (by === "kind" ? t(`work.kinds.${k}` as Key) : k || t("work.group.without")));
  return <WorkTable groups={groups} order={orderOf(query)} />;
}
