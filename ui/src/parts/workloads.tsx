// SPDX-License-Identifier: Apache-2.0

/** Tables of the busiest and of the most delayed workloads. */
import type { JSX } from "preact";
import { api } from "../api";
import type { Key } from "../i18n";
import { number, WORKLOAD, workloadOf, type Labels } from "../prom";
import { rateWindow, stepOf } from "../range";
import { href } from "../router";
import { useApp, useLoad, type App, type Loaded } from "../state";
import { format } from "../units";
import { rangeKey } from "./panel";
import { Bar, Card, Notice, Show } from "./ui";

/** Rows of each table. */
const ROWS = 8;

/** Windows of a query, as PromQL durations. */
interface Windows {
  span: string;
  rate: string;
  step: string;
}

interface Column {
  key: Key;
  metric: string;
  query: (w: Windows) => string;
  unit: string;
  rate?: boolean;
}

const by = `sum by (${WORKLOAD.join(", ")})`;

/** The average over the part of the range in which the workload existed: rate() over all of it would make a container that started a minute ago look idle. */
const average = (selector: string) => (w: Windows) => `avg_over_time(${by} (rate(${selector}[${w.rate}]))[${w.span}:${w.step}])`;

const col = (key: Key, metric: string, unit: string, query: (w: Windows) => string): Column => ({ key, metric, unit, query });

/** Columns of both tables; the first of each is the one that it is sorted by. */
const BUSY: Column[] = [
  col("work.cpu", "huatuo_container_cpu_seconds_total", "", average("huatuo_container_cpu_seconds_total")),
  col("work.memory", "huatuo_container_memory_working_set_bytes", "bytes", () => `${by} (huatuo_container_memory_working_set_bytes)`),
  { ...col("work.io", "huatuo_container_io_bytes_total", "bytes", average("huatuo_container_io_bytes_total")), rate: true },
];
const DELAYED: Column[] = [
  col("work.wait", "huatuo_container_runqueue_wait_seconds", "seconds", (w) => `histogram_quantile(0.99, ${by} (rate(huatuo_container_runqueue_wait_seconds[${w.span}])))`),
  col("work.psi", "huatuo_container_pressure_stall_seconds_total", "ratio", average('huatuo_container_pressure_stall_seconds_total{resource="cpu",kind="some"}')),
  // Summed over the CPUs that stood still, so it may exceed one second per second: not a share.
  { ...col("work.throttled", "huatuo_container_cpu_throttled_seconds_total", "seconds", average("huatuo_container_cpu_throttled_seconds_total")), rate: true },
];

interface Row {
  labels: Labels;
  values: (number | null)[];
}

async function load(cols: Column[], app: App, s: AbortSignal): Promise<Row[]> {
  const interval = app.node.store_interval_seconds || 5;
  const step = stepOf(app.range, interval, 60);
  const window = rateWindow(step, interval);
  const w = { span: `${Math.max(Math.ceil(app.range.to - app.range.from), window)}s`, rate: `${window}s`, step: `${step}s` };
  const results = await Promise.all(cols.map((c) => api.query(c.query(w), app.range.to, s)));
  const rows = new Map<string, Row>();
  results.forEach((series, i) => {
    for (const { metric, value } of series) {
      const id = JSON.stringify(WORKLOAD.map((k) => metric[k] ?? ""));
      const row = rows.get(id) ?? { labels: metric, values: cols.map(() => null) };
      const v = value === undefined ? NaN : number(value[1]);
      row.values[i] = Number.isFinite(v) ? v : null;
      rows.set(id, row);
    }
  });
  return [...rows.values()].filter((r) => (r.values[0] ?? 0) > 0).sort((a, b) => b.values[0]! - a.values[0]!).slice(0, ROWS);
}

/** Workloads shows both tables side by side. */
export function Workloads(): JSX.Element {
  return <div class="cols"><Table title="work.busy" cols={BUSY} /><Table title="work.delayed" cols={DELAYED} /></div>;
}

function Table({ title, cols }: { title: Key; cols: Column[] }): JSX.Element {
  const app = useApp();
  const have = cols.filter((c) => app.metrics.some((m) => m.name === c.metric));
  const ready = have[0] === cols[0];
  const rows = useLoad(ready ? `${title} ${rangeKey(app.range)}` : null, app.tick, (s) => load(have, app, s));
  return (
    <Card title={app.t(title)} class="workloads">
      {ready ? <Rows rows={rows} cols={have} /> : <Notice title={app.t("use.unmeasured")}>{app.t("work.unmeasured")}</Notice>}
    </Card>
  );
}

function Rows({ rows, cols }: { rows: Loaded<Row[]>; cols: Column[] }): JSX.Element {
  const { t } = useApp();
  return (
    <Show of={rows} height={240}>
      {(list) => list.length === 0 ? <Notice title={t("work.none")}>{t("work.none.do")}</Notice> : (
        <table class="table">
          <thead><tr><th scope="col">{t("work.name")}</th>{cols.map((c) => <th scope="col" class="r">{t(c.key)}</th>)}</tr></thead>
          <tbody>
            {list.map((r) => (
              <tr>
                <th scope="row"><a href={workloadLink(r.labels)} title={workloadOf(r.labels)}>{workloadOf(r.labels) || t("work.other")}</a></th>
                {cols.map((c, i) => (
                  <td class="r">{i === 0
                    ? <Bar share={(r.values[0] ?? 0) / (list[0]!.values[0] || 1)}>{format(r.values[0], c.unit, c.rate)}</Bar>
                    : format(r.values[i], c.unit, c.rate)}</td>
                ))}
              </tr>
            ))}
          </tbody>
        </table>
      )}
    </Show>
  );
}

/** workloadLink opens the Kernel metrics of one workload. */
function workloadLink(l: Labels): string {
  return href(["metrics"], Object.fromEntries([["scope", "workload"], ...WORKLOAD.map((k) => [k, l[k] ?? ""])]));
}
