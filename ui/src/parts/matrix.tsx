// SPDX-License-Identifier: Apache-2.0

/** Who ran while whom waited for a CPU: a heat table of victims and culprits, on a phone a list of the worst pairs; and both sides of one workload. */
import type { JSX } from "preact";
import { useState } from "preact/hooks";
import { api, type CulpritPair } from "../api";
import { CULPRIT_METRIC, inOrder, labelsOf, matrixOf, shadeOf, sidesOf, type Col, type Line, type Matrix as Data } from "../culprit";
import type { Key } from "../i18n";
import { heat } from "../palette";
import { workloadOf, type Labels } from "../prom";
import { iso } from "../range";
import { href, setQuery } from "../router";
import { useApp, useLoad, type App, type Loaded } from "../state";
import { format } from "../units";
import { eventFilter, kindOf, pathOf } from "../workload";
import { rangeKey } from "./panel";
import { Bar, Card, Notice, Show } from "./ui";

/** Neighbours with a column of their own, and rows before the button for more: what fits a screen of 1280 pixels. */
const COLS = 8;
const ROWS = 15;

function useCulprits(match: Labels): Loaded<CulpritPair[]> | null {
  const { metrics, range, tick } = useApp();
  const some = metrics.some((m) => m.name === CULPRIT_METRIC);
  const loaded = useLoad(some ? `culprits ${JSON.stringify(match)} ${rangeKey(range)}` : null, tick, (s) =>
    api.culprits({ ...eventFilter(match), from: iso(range.from), to: iso(range.to) }, s));
  return some ? loaded : null;
}

/** Matrix of all workloads, a card of the Workloads page. */
export function CulpritMatrix({ query }: { query: URLSearchParams }): JSX.Element | null {
  const { t } = useApp();
  const pairs = useCulprits({});
  if (pairs === null) return null;
  return (
    <Card title={t("culprit.title")} note={<a href={href(["metrics", CULPRIT_METRIC])}>{t("more")}</a>} class="flush culprits">
      <Show of={pairs} height={240}>
        {(list) => list.length === 0 ? <Notice title={t("culprit.none")}>{t("culprit.none.do")}</Notice> : (
          <>
            <p class="hint lead desk-only">{t("culprit.hint")}</p>
            <Heat data={matrixOf(list, COLS)} query={query} />
            <div class="phone-only"><Ranked pairs={list} sides="both" /></div>
          </>
        )}
      </Show>
    </Card>
  );
}

function Heat({ data, query }: { data: Data; query: URLSearchParams }): JSX.Element {
  const { t } = useApp();
  const [limit, setLimit] = useState(ROWS);
  const asked = query.get("waits") ?? "";
  const by = asked === "name" || data.cols.some((c) => c.id === asked) ? asked : "";
  const first = by !== "name";
  const descending = query.get("wdir") === null ? first : query.get("wdir") === "desc";
  const rows = inOrder(data.rows, by, descending);
  const head = (id: string, name: string, title: string) => (
    <th key={id} scope="col" class={id === "name" ? "" : "r"} aria-sort={by !== id ? undefined : descending ? "descending" : "ascending"} data-culprit={id}>
      <button type="button" title={title} onClick={() => setQuery({ waits: id || null, wdir: by !== id || descending !== (id !== "name") ? null : descending ? "asc" : "desc" })}>
        <span>{name}</span><span class="arrow" aria-hidden="true">{by !== id ? "" : descending ? "▼" : "▲"}</span>
      </button>
    </th>
  );
  return (
    <>
      <div class="scroll desk-only" tabIndex={0} role="region" aria-label={t("culprit.title")}>
        <table class="table matrix">
          <thead>
            <tr>
              {head("name", t("culprit.victim"), t("culprit.victim"))}
              {head("", t("culprit.total"), t("culprit.total.help"))}
              {data.cols.map((c) => head(c.id, nameOf(c, t), c.nobody === null ? c.name : t(`culprit.help.${c.nobody}`)))}
            </tr>
          </thead>
          <tbody>{rows.slice(0, limit).map((r) => <Row key={r.id} of={r} data={data} />)}</tbody>
        </table>
      </div>
      <div class="desk-only"><More left={rows.length - limit} onClick={() => setLimit(limit + ROWS)} /></div>
    </>
  );
}

function More({ left, onClick }: { left: number; onClick: () => void }): JSX.Element | null {
  const { t } = useApp();
  return left > 0 ? <button type="button" class="btn more" onClick={onClick}>{t("work.more", { n: Math.min(ROWS, left) })}</button> : null;
}

/** Shares below a thousandth are not told apart. */
function share(v: number): string {
  return v > 0 && v < 0.001 ? `<${format(0.001, "ratio")}` : format(Math.round(v * 1000) / 1000, "ratio");
}

function Row({ of, data }: { of: Line; data: Data }): JSX.Element {
  const { t } = useApp();
  return (
    <tr data-victim={of.name}>
      <th scope="row"><Who labels={of.labels} /></th>
      <td class="r num">{format(of.seconds, "seconds")}</td>
      {data.cols.map((c) => <Cell key={c.id} row={of} col={c} max={data.max} t={t} />)}
    </tr>
  );
}

function Cell({ row, col, max, t }: { row: Line; col: Col; max: number; t: App["t"] }): JSX.Element {
  const { dark } = useApp();
  const cell = row.cells.get(col.id);
  if (cell === undefined) return <td class="r num nil" />;
  const shade = shadeOf(cell.seconds, max);
  const said = t("culprit.cell", { victim: nameFor(row.labels, t), culprit: nameOf(col, t), time: format(cell.seconds, "seconds"), share: share(cell.seconds / row.seconds) });
  return (
    <td class={`r num cell ${shade > 0.55 ? "strong" : ""}`} style={{ background: heat(shade, dark) }} title={cell.command === "" ? said : `${said} ${t("culprit.mostly", { command: cell.command })}`}>
      {format(cell.seconds, "seconds")}
    </td>
  );
}

function nameOf(c: Col, t: App["t"]): string {
  return c.nobody === null ? nameFor(c.labels, t) : t(`culprit.kind.${c.nobody}`);
}

function nameFor(l: Labels, t: App["t"]): string {
  if (kindOf(l) === "other") return t("work.other");
  return l.unit === "/" ? t("work.host") : workloadOf(l);
}

function Who({ labels }: { labels: Labels }): JSX.Element {
  const { t } = useApp();
  return <a href={href(pathOf(labels))} title={workloadOf(labels)}>{nameFor(labels, t)}</a>;
}

/** Ranked lists pairs, longest first: both sides of each, or the side that is not the workload whose page it is. */
export function Ranked({ pairs, sides }: { pairs: CulpritPair[]; sides: "both" | "culprit" | "victim" }): JSX.Element {
  const { t } = useApp();
  const [limit, setLimit] = useState(ROWS);
  const longest = pairs[0]?.seconds ?? 0;
  return (
    <>
      <table class="table ranked">
        <thead>
          <tr>
            <th scope="col">{sides === "culprit" ? t("culprit.who") : sides === "victim" ? t("culprit.victim") : t("culprit.both")}</th>
            <th scope="col" class="r">{t("culprit.time")}</th>
            <th scope="col" class="r" title={t("culprit.share.help")}>{t("culprit.share")}</th>
          </tr>
        </thead>
        <tbody>
          {pairs.slice(0, limit).map((p) => (
            <tr key={JSON.stringify([p.victim, p.culprit])} data-pair={p.culprit.kind}>
              <th scope="row">
                {sides !== "culprit" && <Who labels={labelsOf(p.victim)} />}
                {sides !== "victim" && <By pair={p} below={sides === "both"} />}
              </th>
              <td class="r"><Bar share={p.seconds / longest}>{format(p.seconds, "seconds")}</Bar></td>
              <td class="r num">{share(p.share)}</td>
            </tr>
          ))}
        </tbody>
      </table>
      <More left={pairs.length - limit} onClick={() => setLimit(limit + ROWS)} />
    </>
  );
}

function By({ pair, below }: { pair: CulpritPair; below: boolean }): JSX.Element {
  const { t } = useApp();
  const { kind } = pair.culprit;
  return (
    <span class={below ? "help" : ""}>
      {kind === "workload" ? <Who labels={labelsOf(pair.culprit)} /> : <span title={t(`culprit.help.${kind}` as Key)}>{t(`culprit.kind.${kind}` as Key)}</span>}
      {pair.command && <> <code class="muted">{pair.command}</code></>}
    </span>
  );
}

/** CulpritSides are two cards of a workload's page: who ran while it waited, and whom it kept waiting. */
export function CulpritSides({ match }: { match: Labels }): JSX.Element | null {
  const { t } = useApp();
  const pairs = useCulprits(match);
  if (pairs === null) return null;
  const side = (title: Key, which: "ran" | "kept", none: Key) => (
    <Card title={t(title)} class={`flush culprits ${which}`}>
      <Show of={pairs} height={120}>
        {(list) => {
          const some = sidesOf(list, match)[which];
          return some.length === 0 ? <Notice title={t(none)} /> : <Ranked pairs={some} sides={which === "ran" ? "culprit" : "victim"} />;
        }}
      </Show>
    </Card>
  );
  return <div class="cols">{side("culprit.ran", "ran", "culprit.ran.none")}{side("culprit.kept", "kept", "culprit.kept.none")}</div>;
}
