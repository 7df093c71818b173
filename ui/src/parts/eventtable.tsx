// SPDX-License-Identifier: Apache-2.0

/** Events as a table; on a phone each row becomes a small card. */
import type { JSX } from "preact";
import type { Document, Schema } from "../api";
import type { Key } from "../i18n";
import { href } from "../router";
import { useApp } from "../state";
import { labelsOfEvent, pathOf } from "../workload";
import { Time } from "./time";
import { Badge, Notice } from "./ui";

/** containerName is the shortest name that tells a workload. */
export function containerName(d: Document): string {
  const c = d.container;
  if (c === undefined) return "";
  return [c.namespace, c.pod, c.name].filter(Boolean).join("/") || c.id?.slice(0, 12) || c.unit || c.cgroup || "";
}

/** WorkloadLink leads to the workload's page. */
export function WorkloadLink({ of }: { of: Document }): JSX.Element {
  const l = labelsOfEvent(of);
  return l === null ? <>{containerName(of)}</> : <a href={href(pathOf(l))}>{containerName(of)}</a>;
}

/** processName is "comm[pid]". */
export function processName(d: Document): string {
  const p = d.process;
  if (p === undefined) return "";
  return `${p.comm ?? ""}[${p.tid !== undefined && p.tid !== 0 && p.tid !== p.pid ? `${p.pid}/${p.tid}` : p.pid}]`;
}

/** Severity is a word with a colour; the word is there for those who do not see the colour. */
export function Severity({ of }: { of: Document }): JSX.Element {
  const { t } = useApp();
  return <Badge kind={of.severity}>{t(`severity.${of.severity}` as Key)}</Badge>;
}

export interface EventTableProps {
  events: Document[];
  kinds: Schema[];
  /** Without the workload column, where all events are of one. */
  one?: boolean;
  /** Without the process column, for narrow places. */
  compact?: boolean;
  empty: string;
  emptyDo?: string;
  /** Time zero of a column of distances, for neighbours of one event. */
  origin?: Document;
}

/** EventTable lists events, newest first. */
export function EventTable(p: EventTableProps): JSX.Element {
  const { t } = useApp();
  if (p.events.length === 0) return <Notice title={p.empty}>{p.emptyDo}</Notice>;
  const help = new Map(p.kinds.map((k) => [k.name, k.help]));
  return (
    <table class={`table events ${p.compact ? "compact" : ""}`}>
      <thead>
        <tr>
          <th scope="col">{t("event.time")}</th><th scope="col">{t("event.severity")}</th><th scope="col">{t("event.kind")}</th>
          <th scope="col">{t("event.title")}</th>{!p.one && <th scope="col">{t("event.workload")}</th>}{!p.compact && <th scope="col">{t("event.process")}</th>}
        </tr>
      </thead>
      <tbody>
        {p.events.map((d) => (
          <tr key={d.id} class={p.origin?.id === d.id ? "here" : ""} data-id={d.id}>
            <td class="time num">{p.origin !== undefined ? <Distance from={p.origin} to={d} /> : <Time at={d.time} />}</td>
            <td class="sev"><Severity of={d} /></td>
            <td class="kind" title={help.get(d.kind)}>{d.kind}</td>
            <td class="title"><a href={href(["events", d.id])}>{d.title}</a></td>
            {!p.one && <td class="work" title={containerName(d)}><WorkloadLink of={d} /></td>}
            {!p.compact && <td class="proc">{processName(d)}</td>}
          </tr>
        ))}
      </tbody>
    </table>
  );
}

function Distance({ from, to }: { from: Document; to: Document }): JSX.Element {
  const s = (Date.parse(to.time) - Date.parse(from.time)) / 1000;
  return <time dateTime={to.time} title={to.time}>{from.id === to.id ? "0" : `${s >= 0 ? "+" : "−"}${Math.abs(s).toFixed(3)} s`}</time>;
}
