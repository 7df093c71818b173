// SPDX-License-Identifier: Apache-2.0

/** Tables of the busiest and of the most delayed workloads. */
import type { JSX } from "preact";
import type { Key } from "../i18n";
import { href } from "../router";
import { useApp, useLoad, type Loaded } from "../state";
import { brief, columnOf, loadRows, measured, pathOf, sorted, type Column, type Row } from "../workload";
import { rangeKey } from "./panel";
import { Bar, Card, Notice, Show } from "./ui";
import { Name } from "./worktable";

/** Rows of each table. */
const ROWS = 8;

/** Columns of both tables; the first of each is the one that it is sorted by. */
const BUSY = ["cpu", "memory", "io"];
const DELAYED = ["wait", "cpu_psi", "throttled"];

/** Workloads shows both tables side by side. */
export function Workloads(): JSX.Element {
  return <div class="cols"><Table title="work.busy" ids={BUSY} /><Table title="work.delayed" ids={DELAYED} /></div>;
}

function Table({ title, ids }: { title: Key; ids: string[] }): JSX.Element {
  const app = useApp();
  const first = ids[0]!;
  const ready = measured(app, first);
  const cols = ids.filter((id) => measured(app, id)).map((id) => columnOf(id)!);
  const rows = useLoad(ready ? `${title} ${rangeKey(app.range)}` : null, app.tick, async (s) =>
    sorted((await loadRows(app, ids, {}, s)).filter((r) => (r.values[first] ?? 0) > 0), first, true).slice(0, ROWS));
  return (
    <Card title={app.t(title)} note={<a href={href(["workloads"], { sort: first === "cpu" ? null : first })}>{app.t("more")}</a>} class="workloads">
      {ready ? <Rows rows={rows} cols={cols} /> : <Notice title={app.t("use.unmeasured")}>{app.t("work.unmeasured")}</Notice>}
    </Card>
  );
}

function Rows({ rows, cols }: { rows: Loaded<Row[]>; cols: Column[] }): JSX.Element {
  const { t } = useApp();
  const value = (r: Row, c: Column) => brief(c, r.values[c.id] ?? null);
  return (
    <Show of={rows} height={240}>
      {(list) => list.length === 0 ? <Notice title={t("work.none")}>{t("work.none.do")}</Notice> : (
        <table class="table">
          <thead><tr><th scope="col">{t("work.name")}</th>{cols.map((c) => <th scope="col" class="r">{t(`work.full.${c.id}` as Key)}</th>)}</tr></thead>
          <tbody>
            {list.map((r) => (
              <tr key={r.id}>
                <th scope="row"><a href={href(pathOf(r.labels))} title={r.name}><Name of={r} /></a></th>
                {cols.map((c, i) => (
                  <td class="r">{i === 0 ? <Bar share={(r.values[c.id] ?? 0) / (list[0]!.values[c.id] || 1)}>{value(r, c)}</Bar> : value(r, c)}</td>
                ))}
              </tr>
            ))}
          </tbody>
        </table>
      )}
    </Show>
  );
}
