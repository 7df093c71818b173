// SPDX-License-Identifier: Apache-2.0

/** System: the agent itself. Probes, the conservation law, store, sinks, cost, configuration. */
import type { JSX } from "preact";
import { api, type Probe, type System } from "../api";
import type { Key } from "../i18n";
import { Cost } from "../parts/cost";
import { Law, useBooks, type Books } from "../parts/law";
import { Time } from "../parts/time";
import { Badge, Bar, Card, Copy, Notice, Pairs, Show } from "../parts/ui";
import { href } from "../router";
import { useApp, useLoad } from "../state";
import { format, grouped, span } from "../units";

export function SystemPage(): JSX.Element {
  const { tick, t } = useApp();
  const probes = useLoad("probes", tick, api.probes);
  const books = useBooks();
  return (
    <div class="stack">
      <Card title={t("system.probes")} note={t("system.probes.note")} class="flush"><Show of={probes} height={300}>{(p) => <Probes probes={p} />}</Show></Card>
      <Show of={books} height={300}>{(b) => <Rest books={b} />}</Show>
    </div>
  );
}

function Rest({ books }: { books: Books }): JSX.Element {
  const { t } = useApp();
  const s = books.system;
  return (
    <>
      <Card title={t("law.title")} note={t("law.help")} class="flush"><Law books={books} /></Card>
      <div class="cols three">
        <Card title={t("store.title")}><Store s={s} /></Card>
        <Card title={t("sinks.title")}><Sinks s={s} /></Card>
        <Card title={t("cost.title")}><Cost books={books} /></Card>
      </div>
      <About />
      <Card title={t("config.title")} note={<Copy text={s.config} />}><pre class="code config" tabIndex={0}>{s.config}</pre></Card>
    </>
  );
}

/** StateBadge colours a probe's state. */
export function StateBadge({ p }: { p: Pick<Probe, "state"> }): JSX.Element {
  const { t } = useApp();
  const kind: Record<string, string> = { running: "ok", degraded: "warning", failed: "critical", unsupported: "quiet", disabled: "quiet", absent: "quiet", shed: "warning" };
  return <Badge kind={kind[p.state] ?? "info"}>{t(`state.${p.state}` as Key)}</Badge>;
}

/** hookText tells by which hooks a probe runs: "sched_switch by tp_btf". */
function hookText(p: Probe, by: (hook: string, by: string) => string, not: (hook: string) => string): string {
  return (p.hooks ?? []).map((h) => (h.by ? by(h.hook, h.by) : not(h.hook))).join(", ") || p.source;
}

function Probes({ probes }: { probes: Probe[] }): JSX.Element {
  const { t } = useApp();
  if (probes.length === 0) return <Notice title={t("system.probes.none")}>{t("system.probes.none.do")}</Notice>;
  return (
    <table class="table probes">
      <thead><tr><th scope="col">{t("probe.name")}</th><th scope="col">{t("probe.state")}</th><th scope="col">{t("probe.hooks")}</th><th scope="col" class="r">{t("probe.signals")}</th><th scope="col">{t("probe.since")}</th></tr></thead>
      <tbody>
        {probes.map((p) => (
          <tr key={p.name} data-probe={p.name}>
            <th scope="row"><a href={href(["system", "probe", p.name])}>{p.name}</a><span class="help">{p.help}</span></th>
            <td><StateBadge p={p} />{(p.restarts ?? 0) > 0 && <span class="help">{t("probe.restarts", { n: p.restarts! })}</span>}</td>
            <td>{hookText(p, (hook, by) => t("probe.by", { hook, by }), (hook) => t("probe.not", { hook }))}{p.reason !== undefined && <span class="help reason">{p.reason}</span>}{(p.lean ?? []).length > 0 && <span class="help reason">{t("probe.lean", { what: p.lean!.join(", ") })}</span>}</td>
            <td class="r num">{(p.signals ?? []).length}</td>
            <td class="num"><Time at={p.since} /></td>
          </tr>
        ))}
      </tbody>
    </table>
  );
}

/** age turns Go's "360h0m0s" into "15 d"; other forms stay. */
export function age(text: string): string {
  const m = /^(\d+)h(?:(\d+)m)?(?:(\d+)s)?$/.exec(text);
  return m === null ? text : span(Number(m[1]) * 3600 + Number(m[2] ?? 0) * 60 + Number(m[3] ?? 0));
}

function Store({ s }: { s: System }): JSX.Element {
  const { t } = useApp();
  const st = s.store;
  if (st === null || (st.dir ?? "") === "") return <Notice title={t("store.none")}>{t("store.none.do")}</Notice>;
  const share = (n: number, max: number) => (max > 0 ? <Bar share={n / max}>{format(n, "bytes")} / {format(max, "bytes")}</Bar> : format(n, "bytes"));
  return (
    <>
      {st.error !== undefined && <Notice kind="error" title={t("store.error")}>{st.error}</Notice>}
      <Pairs rows={[
        [t("store.dir"), <code class="wrap">{st.dir}</code>],
        [t("store.metrics"), share(st.metric_bytes, st.retention.metric_bytes)], [t("store.series"), grouped(st.metric_series)],
        [t("store.oldest.metric"), st.oldest_metric && <Time at={st.oldest_metric} full />],
        [t("store.events"), share(st.event_bytes, st.retention.event_bytes)], [t("store.count"), grouped(st.events)],
        [t("store.oldest.event"), st.oldest_event && <Time at={st.oldest_event} full />],
        [t("store.keep"), t("store.keep.text", { m: age(st.retention.metric_age), e: age(st.retention.event_age) })],
      ]} />
    </>
  );
}

function Sinks({ s }: { s: System }): JSX.Element {
  const { t } = useApp();
  const sinks = s.sinks ?? [];
  if (sinks.length === 0) return <Notice title={t("sinks.none")}>{t("sinks.none.do")}</Notice>;
  return (
    <table class="table">
      <thead><tr><th scope="col">{t("sinks.name")}</th><th scope="col">{t("probe.state")}</th><th scope="col">{t("sinks.queue")}</th></tr></thead>
      <tbody>
        {sinks.map((k) => (
          <tr>
            <th scope="row">{k.name}{k.error !== undefined && k.error !== "" && <span class="help reason">{k.error}</span>}</th>
            <td><Badge kind={k.state === "ok" ? "ok" : "warning"}>{k.state}</Badge></td>
            <td><Bar share={k.capacity > 0 ? k.queued / k.capacity : 0}>{grouped(k.queued)} / {grouped(k.capacity)}</Bar></td>
          </tr>
        ))}
      </tbody>
    </table>
  );
}

function About(): JSX.Element {
  const { t, node } = useApp();
  return (
    <Card title={t("about.title")}>
      <div class="cols">
        <Pairs rows={[[t("node.host"), node.hostname], [t("node.kernel"), `${node.kernel} ${node.arch}`], ["BTF", node.btf], ["cgroup", node.cgroup_mode], [t("about.interval"), format(node.store_interval_seconds, "seconds")]]} />
        <Pairs rows={[[t("about.version"), `${node.version} ${node.commit ? `(${node.commit.slice(0, 12)})` : ""}`], ["Go", node.go_version], [t("about.listen"), node.listen], [t("about.started"), <Time at={node.started} full />], [t("about.licenses"), <a href="licenses.txt">preact, uPlot</a>]]} />
      </div>
    </Card>
  );
}
