// SPDX-License-Identifier: Apache-2.0

/** One event: everything that was captured at the moment. */
import type { ComponentChildren, JSX } from "preact";
import { useState } from "preact/hooks";
import { api, type Document, type Field, type Frame, type Schema } from "../api";
import { containerName, EventTable, Severity } from "../parts/eventtable";
import { Time } from "../parts/time";
import { Badge, Card, Copy, Icon, Pairs, Show } from "../parts/ui";
import { absolutePatch, iso } from "../range";
import { formatHash, href } from "../router";
import { useApp, useLoad } from "../state";
import { format, grouped } from "../units";

/** Neighbours are what happened this many seconds before and after. */
const AROUND = 60;

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
        <div class="meta">
          <Severity of={d} /><a href={href(["events"], { kind: d.kind })} class="mono">{d.kind}</a><Time at={d.time} full />
          {(d.suppressed ?? 0) > 0 && <Badge kind="warning">{t("event.suppressed", { n: grouped(d.suppressed!) })}</Badge>}
          {d.container?.gone === true && <Badge kind="quiet">{t("event.gone")}</Badge>}
          {(d.unresolved ?? []).map((u) => <Badge kind="quiet">{t("event.unresolved", { what: u })}</Badge>)}
        </div>
        {schema !== undefined && <p class="help">{schema.help}</p>}
        <Actions d={d} schema={schema} />
      </section>
      <div class="cols">
        <Card title={t("event.fields")}><Fields d={d} schema={schema} /></Card>
        <div class="stack">
          <Process d={d} />
          <Workload d={d} />
        </div>
      </div>
      <div class="cols">
        <Stack title={t("event.kstack")} frames={d.kernel_stack ?? []} />
        <Stack title={t("event.ustack")} frames={d.user_stack ?? []} />
      </div>
      {d.registers !== undefined && <Card title={t("event.registers")}><Pairs rows={Object.entries(d.registers).map(([k, v]) => [k, <code>{v}</code>])} /></Card>}
      <Neighbours d={d} />
      <Raw d={d} />
    </>
  );
}

function Actions({ d, schema }: { d: Document; schema: Schema | undefined }): JSX.Element {
  const { t } = useApp();
  const at = Date.parse(d.time) / 1000;
  const window = absolutePatch(at - 300, at + 300) as Record<string, string>;
  const link = (path: string[], q: Record<string, string | undefined>) =>
    formatHash(path, new URLSearchParams(Object.entries({ ...window, ...q }).filter((e): e is [string, string] => e[1] !== undefined && e[1] !== "")));
  return (
    <div class="actions">
      <a class="btn small" href={link(["metrics"], { area: schema?.area })}><Icon name="metrics" />{t("event.metrics")}</a>
      {d.container?.name !== undefined && <a class="btn small" href={link(["metrics"], { scope: "workload", namespace: d.container.namespace, pod: d.container.pod, container: d.container.name })}><Icon name="metrics" />{t("event.workmetrics")}</a>}
      {d.process !== undefined && <a class="btn small" href={link(["events"], { pid: String(d.process.pid) })}><Icon name="events" />{t("event.samepid")}</a>}
      {schema?.probe !== undefined && schema.probe !== "" && <a class="btn small" href={href(["system", "probe", schema.probe])}><Icon name="system" />{t("event.probe")}</a>}
    </div>
  );
}

/** One value of a field, by its type and unit. */
export function Value({ v, unit }: { v: unknown; unit?: string }): JSX.Element {
  if (v === null || v === undefined || v === "") return <span class="muted">–</span>;
  if (typeof v === "number") {
    const known = unit === "seconds" || unit === "bytes" || unit === "ratio";
    return <span title={`${v}${unit ? ` ${unit}` : ""}`}>{known ? format(v, unit) : `${v}${unit !== undefined && unit !== "" && unit !== "1" ? ` ${unit}` : ""}`}</span>;
  }
  if (Array.isArray(v)) return <List v={v} />;
  if (typeof v === "object") return <Pairs rows={Object.entries(v).map(([k, x]): [ComponentChildren, ComponentChildren] => [k, <Value v={x} unit={guess(k)} />])} />;
  return <span class="wrap">{String(v)}</span>;
}

/** Nested members have no schema of their own; our names end in the unit. */
function guess(name: string): string | undefined {
  return /(^|_)(seconds|bytes|ratio)$/.exec(name)?.[2];
}

function List({ v }: { v: unknown[] }): JSX.Element {
  if (v.length === 0) return <span class="muted">–</span>;
  const objects = v.every((x) => typeof x === "object" && x !== null && !Array.isArray(x));
  if (!objects) return <span class="wrap">{v.map((x) => (typeof x === "object" ? JSON.stringify(x) : String(x))).join(", ")}</span>;
  const rows = v as Record<string, unknown>[];
  const cols = [...new Set(rows.flatMap((r) => Object.keys(r)))];
  return (
    <div class="scroll">
      <table class="table">
        <thead><tr>{cols.map((c) => <th scope="col">{c}</th>)}</tr></thead>
        <tbody>{rows.map((r) => <tr>{cols.map((c) => <td><Value v={r[c]} unit={guess(c)} /></td>)}</tr>)}</tbody>
      </table>
    </div>
  );
}

function Fields({ d, schema }: { d: Document; schema: Schema | undefined }): JSX.Element {
  const { t } = useApp();
  const known = schema?.fields ?? [];
  const rest: Field[] = Object.keys(d.fields).filter((k) => !known.some((f) => f.name === k)).map((name) => ({ name, help: "" }));
  const simple = (v: unknown) => typeof v === "string" || typeof v === "number" || typeof v === "boolean";
  return (
    <table class="table fields">
      <tbody>
        {[...known, ...rest].filter((f) => d.fields[f.name] !== undefined).map((f) => (
          <tr data-field={f.name}>
            <th scope="row"><code>{f.name}</code>{f.help !== "" && <span class="help">{f.help}</span>}</th>
            <td>
              <Value v={d.fields[f.name]} unit={f.unit} />
              {simple(d.fields[f.name]) && d.fields[f.name] !== "" && <a class="find" href={href(["events"], { kind: d.kind, [`field.${f.name}`]: String(d.fields[f.name]) })} title={t("event.same")} aria-label={`${t("event.same")}: ${f.name}`}><Icon name="search" /></a>}
            </td>
          </tr>
        ))}
      </tbody>
    </table>
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
    <Card title={t("event.workload")} note={containerName(d)}>
      <Pairs rows={[
        [t("container.name"), c.name], [t("container.pod"), c.pod], [t("container.namespace"), c.namespace], [t("container.unit"), c.unit],
        [t("container.runtime"), c.runtime], ["QoS", c.qos], ["ID", c.id && <code class="wrap">{c.id}</code>], [t("container.uid"), c.pod_uid && <code class="wrap">{c.pod_uid}</code>],
        ["cgroup", c.cgroup && <code class="wrap">{c.cgroup}</code>],
        ...Object.entries(c.labels ?? {}).map(([k, v]): [string, string] => [k, v]),
      ]} />
    </Card>
  );
}

/** frameText is one line of a copied stack. */
function frameText(f: Frame): string {
  return `${f.function}${f.module ? ` (${f.module}${f.offset ? `+0x${f.offset.toString(16)}` : ""})` : ""}${f.file ? ` ${f.file}:${f.line ?? 0}` : ""}`;
}

function Stack({ title, frames }: { title: string; frames: Frame[] }): JSX.Element {
  const { t } = useApp();
  return (
    <Card title={title} note={frames.length > 0 && <Copy text={frames.map(frameText).join("\n")} />}>
      {frames.length === 0 ? <p class="muted">{t("stack.none")}</p> : (
        <ol class="frames" tabIndex={0}>
          {frames.map((f) => (
            <li class={f.missing !== undefined ? "missing" : ""} title={f.missing}>
              <span class="fn">{f.function}</span>
              {f.module !== undefined && <span class="mod" title={f.module}>{f.module.split("/").pop()}{f.offset !== undefined && f.offset !== 0 && `+0x${f.offset.toString(16)}`}</span>}
              {f.file !== undefined && <span class="src">{f.file}:{f.line}</span>}
            </li>
          ))}
        </ol>
      )}
    </Card>
  );
}

function Neighbours({ d }: { d: Document }): JSX.Element {
  const { t, kinds } = useApp();
  const at = Date.parse(d.time) / 1000;
  const page = useLoad(`around ${d.id}`, 0, (s) => api.events({ from: iso(at - AROUND), to: iso(at + AROUND), limit: 50 }, s));
  return (
    <Card title={t("event.around")} note={t("event.around.note", { n: AROUND })} class="flush">
      <Show of={page} height={80}>{(p) => <EventTable events={p.events ?? []} kinds={kinds} origin={d} empty={t("event.alone")} />}</Show>
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
