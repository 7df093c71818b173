// SPDX-License-Identifier: Apache-2.0

/** Workloads as a table that is sorted by any column; on a phone each row becomes a card. */
import type { JSX } from "preact";
import { useState } from "preact/hooks";
import type { Key } from "../i18n";
import { href, setQuery } from "../router";
import { useApp, type App } from "../state";
import { format } from "../units";
import { levelOf } from "../use";
import { brief, COLUMNS, pathOf, sorted, type Area, type Column, type Group, type Row } from "../workload";
import { Badge } from "./ui";

/** More rows than this are asked for with a button: nobody reads them, and drawing them every five seconds costs. */
const PAGE = 50;

/** Order of the table, as the URL has it. */
export interface Order {
  column: string;
  descending: boolean;
}

/** orderOf reads the order of a URL; the busiest come first. */
export function orderOf(query: URLSearchParams): Order {
  const column = query.get("sort") ?? "cpu";
  const known = column === "name" || COLUMNS.some((c) => c.id === column);
  const dir = query.get("dir");
  return { column: known ? column : "cpu", descending: dir === null ? column !== "name" : dir === "desc" };
}

/** turned is the order after a click on a column: the other direction, or the one that is of use first. */
export function turned(o: Order, column: string): { sort: string | null; dir: string | null } {
  const first = column !== "name";
  const descending = o.column === column ? !o.descending : first;
  return { sort: column === "cpu" ? null : column, dir: descending === first ? null : descending ? "desc" : "asc" };
}

/** Name of a workload; the host's own cgroup and the collected rest need a word. */
export function Name({ of }: { of: Row }): JSX.Element {
  const { t } = useApp();
  if (of.kind === "other") return <>{t("work.other")}</>;
  return <>{of.name}{of.kind === "cgroup" && of.name === "/" && <span class="muted"> {t("work.host")}</span>}</>;
}

export interface WorkTableProps {
  groups: Group[];
  order: Order;
}

/** shown lists the columns in which some row has a value. */
export function shown(rows: Row[]): Column[] {
  return COLUMNS.filter((c) => rows.some((r) => (r.values[c.id] ?? null) !== null));
}

/** WorkTable draws groups of rows in the given order. */
export function WorkTable({ groups, order: asked }: WorkTableProps): JSX.Element {
  const { t } = useApp();
  const [limit, setLimit] = useState(PAGE);
  const all = groups.flatMap((g) => g.rows);
  const cols = shown(all);
  const hidden = COLUMNS.filter((c) => !cols.includes(c));
  const order = possible(asked, cols);
  const sortedGroups = arranged(groups, order);
  let left = limit;
  return (
    <>
      <div class="scroll" tabIndex={0} role="region" aria-label={t("nav.workloads")}>
        <table class="table worktable">
          <Head cols={cols} order={order} />
          {sortedGroups.map((g) => {
            const rows = g.rows.slice(0, Math.max(0, left));
            left -= rows.length;
            if (rows.length === 0) return null;
            return (
              <tbody key={g.head?.id ?? ""}>
                {g.head !== null && <Total of={g.head} n={g.rows.length} cols={cols} />}
                {rows.map((r) => <Line key={r.id} of={r} cols={cols} />)}
              </tbody>
            );
          })}
        </table>
      </div>
      {all.length > limit && <button type="button" class="btn more" onClick={() => setLimit(limit + PAGE)}>{t("work.more", { n: Math.min(PAGE, all.length - limit) })}</button>}
      {hidden.length > 0 && <p class="hint foot">{t("work.hidden", { names: hidden.map((c) => fullName(c, t)).join(", ") })}</p>}
    </>
  );
}

/** possible is the order asked for, or by the first column when the one asked for has no values and so is not there. */
export function possible(o: Order, cols: Column[]): Order {
  return o.column === "name" || cols.some((c) => c.id === o.column) ? o : { column: cols[0]?.id ?? "name", descending: true };
}

/** arranged sorts the rows within their groups, and the groups by their sums. */
export function arranged(groups: Group[], o: Order): Group[] {
  const heads = groups.map((g) => g.head).filter((h) => h !== null);
  const at = new Map(sorted(heads, o.column, o.descending).map((h, i) => [h.id, i]));
  return groups.map((g) => ({ head: g.head, rows: sorted(g.rows, o.column, o.descending) }))
    .sort((a, b) => (at.get(a.head?.id ?? "") ?? 0) - (at.get(b.head?.id ?? "") ?? 0));
}

/** fullName names a column without its heading above. */
export function fullName(c: Column, t: App["t"]): string {
  return t(`work.full.${c.id}` as Key);
}

function Head({ cols, order }: { cols: Column[]; order: Order }): JSX.Element {
  const { t } = useApp();
  const areas = [...new Set(cols.map((c) => c.area))];
  const first = (c: Column) => cols.find((x) => x.area === c.area) === c;
  const sort = (id: string, text: string, name: string, title: string) => (
    <button type="button" onClick={() => setQuery(turned(order, id))} title={title} aria-label={name}>
      {text}<span class="arrow" aria-hidden="true">{order.column !== id ? "" : order.descending ? "▼" : "▲"}</span>
    </button>
  );
  const state = (id: string) => (order.column !== id ? undefined : order.descending ? "descending" : "ascending");
  return (
    <thead>
      <tr class="areas">
        <td />
        {areas.map((a: Area) => <th scope="colgroup" class="lead" colSpan={cols.filter((c) => c.area === a).length}>{t(`work.area.${a}`)}</th>)}
      </tr>
      <tr>
        <th scope="col" aria-sort={state("name")} data-col="name">{sort("name", t("work.name"), t("work.name"), t("work.name"))}</th>
        {cols.map((c) => (
          <th key={c.id} scope="col" class={`r ${first(c) ? "lead" : ""}`} aria-sort={state(c.id)} data-col={c.id}>
            {sort(c.id, t(`work.col.${c.id}` as Key), fullName(c, t), `${t(`work.help.${c.id}` as Key)}${limits(c, t)}`)}
          </th>
        ))}
      </tr>
    </thead>
  );
}

function limits(c: Column, t: App["t"]): string {
  return Number.isFinite(c.warn) ? ` ${t("use.limits", { warn: format(c.warn, c.unit, c.rate), bad: format(c.bad, c.unit, c.rate) })}` : "";
}

interface CellsProps {
  of: Row;
  cols: Column[];
}

function Cells({ of, cols }: CellsProps): JSX.Element {
  const { t } = useApp();
  return (
    <>
      {cols.map((c, i) => {
        const v = of.values[c.id] ?? null;
        const level = levelOf(c, v);
        return (
          <td key={c.id} class={`r num ${level} ${v === null || v === 0 ? "nil" : ""} ${cols[i - 1]?.area !== c.area ? "lead" : ""}`} data-col={c.id} data-name={fullName(c, t)}>
            {brief(c, v)}
          </td>
        );
      })}
    </>
  );
}

function Line(p: CellsProps): JSX.Element {
  const { of } = p;
  const { t } = useApp();
  return (
    <tr data-workload={of.name}>
      <th scope="row"><a href={href(pathOf(of.labels))} title={of.name}><Name of={of} /></a>{of.kind === "pod" && <> <Badge kind="quiet">{t("work.kind.pod")}</Badge></>}</th>
      <Cells {...p} />
    </tr>
  );
}

function Total(p: CellsProps & { n: number }): JSX.Element {
  return <tr class="total"><th scope="rowgroup">{p.of.name} <span class="muted">{p.n}</span></th><Cells {...p} /></tr>;
}
