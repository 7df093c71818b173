// SPDX-License-Identifier: Apache-2.0

/** What there was of everything at the moment of an event: amounts against their limits, and pressure. */
import type { JSX } from "preact";
import type { HostResources, Pressure, Resources, WorkloadResources } from "../api";
import type { Key } from "../i18n";
import { useApp } from "../state";
import { format } from "../units";
import { Card } from "./ui";

/** An amount; of is its limit, or 1 for a share. */
export interface Amount {
  key: Key;
  value: number;
  unit: string;
  of?: number;
  help?: Key;
}

/** amounts leaves out what is not known. */
function amounts(list: [Key, number | undefined, string, number?][]): Amount[] {
  return list.filter(([, v]) => v !== undefined).map(([key, v, unit, of]) => ({ key, value: v!, unit, of }));
}

function pressures(p: Pressure | undefined): Amount[] {
  if (p === undefined) return [];
  return (["cpu_some", "memory_some", "memory_full", "io_some", "io_full"] as const)
    .map((k) => ({ key: `res.psi.${k}` as Key, value: p[k], unit: "ratio", of: 1, help: "res.psi.help" as Key }));
}

/** ofHost lists the host's amounts. */
export function ofHost(h: HostResources): Amount[] {
  return [
    ...amounts([
      ["res.load", h.load1, ""], ["res.runnable", h.runnable, ""],
      ["res.memory", h.memory_total_bytes > 0 ? h.memory_total_bytes - h.memory_available_bytes : undefined, "bytes", h.memory_total_bytes],
      ["res.swap", h.swap_used_bytes, "bytes"], ["res.dirty", h.dirty_bytes, "bytes"],
    ]),
    ...pressures(h.pressure),
  ];
}

/** ofWorkload lists a workload's. */
export function ofWorkload(w: WorkloadResources): Amount[] {
  return [
    ...amounts([
      ["res.memory", w.memory_used_bytes, "bytes", w.memory_limit_bytes], ["res.swap", w.swap_used_bytes, "bytes"],
      ["res.cpulimit", w.cpu_limit_cores, "cores"], ["res.cpu", w.cpu_seconds, "seconds"], ["res.throttled", w.throttled_seconds, "seconds"],
      ["res.periods", w.throttled_periods, ""], ["res.tasks", w.pids, "", w.pids_limit], ["res.oom", w.oom_kills, ""],
    ]),
    ...pressures(w.pressure),
  ];
}

/** ResourcesCard shows both. */
export function ResourcesCard({ of }: { of: Resources | undefined }): JSX.Element | null {
  const { t } = useApp();
  if (of === undefined) return null;
  return (
    <Card title={t("res.title")}>
      <div class="resources">
        {of.workload !== undefined && <section><h3>{t("event.workload")}</h3><Amounts list={ofWorkload(of.workload)} /></section>}
        {of.host !== undefined && <section><h3>{t("res.host")}</h3><Amounts list={ofHost(of.host)} /></section>}
      </div>
    </Card>
  );
}

function Amounts({ list }: { list: Amount[] }): JSX.Element {
  const { t } = useApp();
  return (
    <dl class="amounts">
      {list.map((a) => {
        const share = a.of !== undefined && a.of > 0 ? a.value / a.of : null;
        return (
          <div key={a.key} title={a.help && t(a.help)}>
            <dt>{t(a.key)}</dt>
            <dd class="num">{format(a.value, a.unit)}{share !== null && a.unit !== "ratio" && <span class="muted"> / {format(a.of, a.unit)}</span>}</dd>
            {share !== null && <meter class={share >= 0.97 ? "bad" : share >= 0.85 ? "warn" : ""} min={0} max={1} value={Math.max(0, Math.min(1, share))} aria-label={t(a.key)} />}
          </div>
        );
      })}
    </dl>
  );
}
