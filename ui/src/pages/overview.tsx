// SPDX-License-Identifier: Apache-2.0

/** Overview: is this node healthy, who is busy, who waits, and what happened last. */
import type { JSX } from "preact";
import { api, type Node } from "../api";
import { rangeKey } from "../parts/panel";
import { Card, Pairs, Show } from "../parts/ui";
import { iso } from "../range";
import { href } from "../router";
import { useApp, useLoad } from "../state";
import { format, span } from "../units";
import { EventTable } from "../parts/eventtable";
import { Cost } from "../parts/cost";
import { useBooks } from "../parts/law";
import { UseGrid } from "../parts/usegrid";
import { Workloads } from "../parts/workloads";

/** Enough to see what is going on; the rest is one click away. */
const LATEST = 8;

export function OverviewPage(): JSX.Element {
  const { t, node } = useApp();
  return (
    <div class="stack">
      <NodeLine node={node} />
      <UseGrid />
      <Workloads />
      <div class="cols wide-left">
        <Latest />
        <Card title={t("cost.title")} note={<a href={href(["system"])}>{t("more")}</a>}><Agent /></Card>
      </div>
    </div>
  );
}

function NodeLine({ node }: { node: Node }): JSX.Element {
  const { t, range } = useApp();
  const now = range.last !== null ? range.to : Date.parse(node.now) / 1000;
  const up = now - Date.parse(node.boot_time) / 1000;
  return (
    <div class="nodeline">
      <Pairs rows={[
        [t("node.host"), node.hostname], [t("node.kernel"), `${node.kernel} ${node.arch}`], [t("node.cpus"), node.cpus],
        [t("node.memory"), format(node.memory_bytes, "bytes")], [t("node.up"), span(up)], ["cgroup", node.cgroup_mode],
      ]} />
    </div>
  );
}

function Latest(): JSX.Element {
  const { t, range, tick, kinds } = useApp();
  const page = useLoad(`latest ${rangeKey(range)}`, tick, (s) => api.events({ from: iso(range.from), to: iso(range.to), limit: LATEST }, s));
  return (
    <Card title={t("overview.latest")} note={<a href={href(["events"])}>{t("more")}</a>}>
      <Show of={page} height={240}>
        {(p) => <EventTable events={p.events ?? []} kinds={kinds} compact empty={t("events.none.range")} />}
      </Show>
    </Card>
  );
}

function Agent(): JSX.Element {
  return <Show of={useBooks()} height={200}>{(b) => <Cost books={b} />}</Show>;
}
