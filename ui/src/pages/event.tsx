// SPDX-License-Identifier: Apache-2.0

/** One event: everything that was captured at the moment. */
import type { JSX } from "preact";
import { useState } from "preact/hooks";
import { api, reportURL, type Document, type Schema } from "../api";
import type { Key } from "../i18n";
import { EventCharts } from "../parts/eventcharts";
import { Severity, WorkloadLink } from "../parts/eventtable";
import { FieldTable, Frames, Rich, richFields } from "../parts/fields";
import { Neighbours } from "../parts/neighbours";
import { ResourcesCard } from "../parts/resources";
import { Time } from "../parts/time";
import { Badge, Card, Copy, Icon, Pairs, Show } from "../parts/ui";
import { absolutePatch } from "../range";
import { formatHash, href } from "../router";
import { useApp, useLoad } from "../state";
import { grouped } from "../units";
import { formatWhere } from "../where";
import { labelsOfEvent, pathOf } from "../workload";

export function EventPage({ id }: { id: string }): JSX.Element {
  const { t } = useApp();
  // An event never changes: no refresh.
  const doc = useLoad(`event ${id}`, 0, (s) => api.event(id, s));
  return (
    <div class="stack">
      <a class="back" href={href(["events"])}><Icon name="back" />{t("nav.events")}</a>
      <Show of={doc} height={400}>{(d) => <Detail d={d} />}</Show>
    </div>
  );
}

function Detail({ d }: { d: Document }): JSX.Element {
  const { t, kinds } = useApp();
  const schema = kinds.find((k) => k.name === d.kind);
  return (
    <>
      <section class={`card event-head ${d.severity}`}>
        <h2>{d.title}</h2>
        {d.verdict !== undefined && <p class="verdict"><span>{t("event.verdict")}</span>{d.verdict}</p>}
        <div class="meta">
          <Severity of={d} /><a href={href(["events"], { kind: d.kind })} class="mono">{d.kind}</a><Time at={d.time} full />
          {(d.suppressed ?? 0) > 0 && <Badge kind="warning">{t("event.suppressed", { n: grouped(d.suppressed!) })}</Badge>}
          {d.container?.gone === true && <Badge kind="quiet">{t("event.gone")}</Badge>}
          {(d.known ?? []).map((k) => <a href={href(["events"], { where: formatWhere([{ path: "known", op: "=", value: k }]) })} title={t("event.knownhelp")}><Badge kind="quiet">{t("event.known", { name: k })}</Badge></a>)}
          {(d.unresolved ?? []).map((u) => <Badge kind="quiet">{t("event.unresolved", { what: u })}</Badge>)}
        </div>
        {schema !== undefined && <p class="help">{schema.help}</p>}
        <Actions d={d} schema={schema} />
      </section>
      <Links d={d} />
      <div class="cols">
        <Card title={t("event.fields")}><FieldTable d={d} schema={schema} /></Card>
        <div class="stack">
          <Process d={d} />
          <Workload d={d} />
          <ResourcesCard of={d.resources} />
          <Card title={t("event.kstack")}><Frames list={d.kernel_stack ?? []} /></Card>
          <Card title={t("event.ustack")}><Frames list={d.user_stack ?? []} /></Card>
        </div>
      </div>
      {richFields(d, schema).map((f) => <Card key={f.name} title={<code>{f.name}</code>} note={f.help}><Rich v={d.fields[f.name]} unit={f.unit} /></Card>)}
      {d.registers !== undefined && <Card title={t("event.registers")}><Pairs rows={Object.entries(d.registers).map(([k, v]) => [k, <code>{v}</code>])} /></Card>}
      <EventCharts d={d} />
      <Neighbours d={d} />
      <Raw d={d} />
    </>
  );
}

function Actions({ d, schema }: { d: Document; schema: Schema | undefined }): JSX.Element {
  const { t, lang } = useApp();
  const at = Date.parse(d.time) / 1000;
  const window = absolutePatch(at - 300, at + 300) as Record<string, string>;
  const work = labelsOfEvent(d);
  const link = (path: string[], q: Record<string, string | undefined>) =>
    formatHash(path, new URLSearchParams(Object.entries({ ...window, ...q }).filter((e): e is [string, string] => e[1] !== undefined && e[1] !== "")));
  return (
    <div class="actions">
      <a class="btn small" href={link(["metrics"], { area: schema?.area })}><Icon name="metrics" />{t("event.metrics")}</a>
      {work !== null && <a class="btn small" href={link(pathOf(work), {})}><Icon name="workloads" />{t("event.workpage")}</a>}
      {d.process !== undefined && <a class="btn small" href={link(["events"], { pid: String(d.process.pid) })}><Icon name="events" />{t("event.samepid")}</a>}
      {schema?.probe !== undefined && schema.probe !== "" && <a class="btn small" href={href(["system", "probe", schema.probe])}><Icon name="system" />{t("event.probe")}</a>}
      <a class="btn small export" href={reportURL(d.id, { format: "html", lang })} download title={t("event.export.help")}><Icon name="download" />{t("event.export.html")}</a>
    </div>
  );
}

function Process({ d }: { d: Document }): JSX.Element | null {
  const { t } = useApp();
  const p = d.process;
  if (p === undefined) return null;
  return (
    <Card title={t("event.process")}>
      <Pairs rows={[
        ["comm", p.comm], ["pid", p.pid], ["tid", p.tid], [t("process.exe"), p.exe && <code class="wrap">{p.exe}</code>],
        [t("process.cmdline"), p.cmdline && <code class="wrap">{p.cmdline}</code>], [t("process.start"), p.start_time && <Time at={p.start_time} full />],
        [t("process.parent"), p.parent_pid !== undefined && p.parent_pid !== 0 && `${p.parent ?? ""}[${p.parent_pid}]`],
      ]} />
    </Card>
  );
}

function Workload({ d }: { d: Document }): JSX.Element | null {
  const { t } = useApp();
  const c = d.container;
  if (c === undefined) return null;
  return (
    <Card title={t("event.workload")} note={<WorkloadLink of={d} />}>
      <Pairs rows={[
        [t("container.name"), c.name], [t("container.pod"), c.pod], [t("container.namespace"), c.namespace], [t("container.unit"), c.unit],
        [t("container.runtime"), c.runtime], ["QoS", c.qos], ["ID", c.id && <code class="wrap">{c.id}</code>], [t("container.uid"), c.pod_uid && <code class="wrap">{c.pod_uid}</code>],
        ["cgroup", c.cgroup && <code class="wrap">{c.cgroup}</code>],
        ...Object.entries(c.labels ?? {}).map(([k, v]): [string, string] => [k, v]),
      ]} />
    </Card>
  );
}

/** Links lists the events that caused this one or come of it. */
function Links({ d }: { d: Document }): JSX.Element | null {
  const { t } = useApp();
  if (d.links === undefined || d.links.length === 0) return null;
  return (
    <Card title={t("event.links")} class="links">
      <Pairs rows={d.links.map((l) => [t(`relation.${l.relation}` as Key), <><code>{l.kind}</code> <a href={href(["events", l.id])}>{l.title}</a></>])} />
    </Card>
  );
}

function Raw({ d }: { d: Document }): JSX.Element {
  const { t } = useApp();
  const [open, set] = useState(false);
  const text = JSON.stringify(d, null, 2);
  const save = () => {
    const url = URL.createObjectURL(new Blob([text], { type: "application/json" }));
    const a = document.createElement("a");
    a.href = url;
    a.download = `${d.kind}-${d.id}.json`;
    a.click();
    setTimeout(() => URL.revokeObjectURL(url), 1000);
  };
  return (
    <Card title="JSON" note={<><Copy text={text} /><button type="button" class="btn small download" onClick={save}><Icon name="download" />{t("download")}</button><button type="button" class="btn small" aria-expanded={open} onClick={() => set(!open)}>{t(open ? "hide" : "show")}</button></>}>
      {open && <pre class="code" tabIndex={0}>{text}</pre>}
    </Card>
  );
}
