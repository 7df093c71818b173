// SPDX-License-Identifier: Apache-2.0

/**
 * The USE method (utilisation, saturation, errors) for four resources: the
 * rows of the Overview and of a workload's page, as data. Thresholds say when
 * a row is named at the top of the Overview; the tooltip of each row states them.
 */
import type { Key } from "./i18n";

/** One row of a tile. */
export interface UseRow {
  id: string;
  aspect: "U" | "S" | "E";
  /** Metric whose page the row links to; when the catalogue lacks it, the row says "not measured". */
  metric: string;
  /** Key of its name, when it is not use.<id>. */
  name?: Key;
  /** Said when there is no value, instead of "no data". */
  absent?: Key;
  /** PromQL; $W stands for the rate window, $M for the workload's labels. Absent for event rows. */
  query?: string;
  /** Kinds counted over the range, for event rows. */
  events?: string[];
  unit: string;
  rate?: boolean;
  /** Fixed top of the sparkline, where the value has a natural one. */
  max?: number;
  warn: number;
  bad: number;
}

/** A resource and its rows. */
export interface UseTile {
  id: "cpu" | "memory" | "disk" | "network";
  rows: UseRow[];
}

// Pressure: a tenth of the time lost to waiting is felt by latency-bound work;
// half of it means that the node does little else. Wait: 10 ms is a frame or
// two, 100 ms is what users call slow.
const psi = (resource: string): Omit<UseRow, "id"> => ({
  aspect: "S", metric: "huatuo_pressure_stall_seconds_total", unit: "ratio", max: 1, warn: 0.1, bad: 0.5,
  query: `sum(rate(huatuo_pressure_stall_seconds_total{resource="${resource}",kind="some"}[$W]))`,
});

/** The tiles in order. */
export const TILES: UseTile[] = [
  { id: "cpu", rows: [
    { id: "cpu.use", aspect: "U", metric: "huatuo_cpu_seconds_total", unit: "ratio", max: 1, warn: 0.85, bad: 0.97,
      query: `1 - sum(rate(huatuo_cpu_seconds_total{mode=~"idle|iowait"}[$W])) / sum(rate(huatuo_cpu_seconds_total[$W]))` },
    { id: "cpu.psi", ...psi("cpu") },
    { id: "cpu.wait", aspect: "S", metric: "huatuo_runqueue_wait_seconds", unit: "seconds", warn: 0.01, bad: 0.1,
      query: "histogram_quantile(0.99, sum(rate(huatuo_runqueue_wait_seconds[$W])))" },
    { id: "cpu.stalls", aspect: "E", metric: "huatuo_runqueue_wait_seconds", events: ["sched_stall"], unit: "", warn: 1, bad: 100 },
  ] },
  { id: "memory", rows: [
    { id: "memory.use", aspect: "U", metric: "huatuo_memory_available_bytes", unit: "ratio", max: 1, warn: 0.9, bad: 0.97,
      query: "1 - huatuo_memory_available_bytes / huatuo_memory_total_bytes" },
    { id: "memory.psi", ...psi("memory") },
    { id: "memory.oom", aspect: "E", metric: "huatuo_oom_kills_total", events: ["oom_kill"], unit: "", warn: 1, bad: 1 },
  ] },
  { id: "disk", rows: [
    { id: "disk.use", aspect: "U", metric: "huatuo_disk_io_seconds_total", unit: "ratio", max: 1, warn: 0.8, bad: 0.97,
      query: "clamp_max(max(rate(huatuo_disk_io_seconds_total[$W])), 1)" },
    { id: "disk.psi", ...psi("io") },
    { id: "disk.wait", aspect: "S", metric: "huatuo_block_io_total_seconds", unit: "seconds", warn: 0.05, bad: 0.5,
      query: "histogram_quantile(0.99, sum(rate(huatuo_block_io_total_seconds[$W])))" },
    { id: "disk.errors", aspect: "E", metric: "huatuo_block_io_errors_total", events: ["io_error", "io_stall"], unit: "", warn: 1, bad: 10 },
  ] },
  { id: "network", rows: [
    { id: "network.use", aspect: "U", metric: "huatuo_netdev_receive_bytes_total", unit: "bytes", rate: true, warn: Infinity, bad: Infinity,
      query: `sum(rate(huatuo_netdev_receive_bytes_total{device!="lo"}[$W])) + sum(rate(huatuo_netdev_transmit_bytes_total{device!="lo"}[$W]))` },
    { id: "network.drops", aspect: "S", metric: "huatuo_network_drops_total", unit: "", rate: true, warn: 1, bad: 100,
      query: `sum(rate(huatuo_network_drops_total{normal="false"}[$W]))` },
    { id: "network.errors", aspect: "E", metric: "huatuo_netdev_receive_errors_total", unit: "", rate: true, warn: 0.01, bad: 10,
      query: "sum(rate(huatuo_netdev_receive_errors_total[$W])) + sum(rate(huatuo_netdev_transmit_errors_total[$W]))" },
  ] },
];

const BY = "sum by (namespace, pod, container, unit)";

/** Several containers may match: of what cannot be summed the worst counts. */
const workPsi = (resource: string, name: Key): UseRow => ({
  id: `work.${resource}.psi`, name, aspect: "S", metric: "huatuo_container_pressure_stall_seconds_total", unit: "ratio", max: 1, warn: 0.1, bad: 0.5,
  query: `max(${BY} (rate(huatuo_container_pressure_stall_seconds_total{resource="${resource}",kind="some",$M}[$W])))`,
});
const OPEN = { warn: Infinity, bad: Infinity };

/** The tiles of one workload. */
export const WORK_TILES: UseTile[] = [
  { id: "cpu", rows: [
    { id: "work.cpu.use", name: "use.work.cores", aspect: "U", metric: "huatuo_container_cpu_usage_seconds_total", unit: "cores", ...OPEN,
      query: "sum(rate(huatuo_container_cpu_usage_seconds_total{$M}[$W]))" },
    { id: "work.cpu.limit", name: "use.work.limit", absent: "use.work.unlimited", aspect: "U", metric: "huatuo_container_cpu_limit_cores", unit: "ratio", max: 1, warn: 0.85, bad: 0.97,
      query: `max(${BY} (rate(huatuo_container_cpu_usage_seconds_total{$M}[$W])) / ${BY} (huatuo_container_cpu_limit_cores{$M}))` },
    { id: "work.cpu.throttled", name: "use.work.throttled", absent: "use.work.unlimited", aspect: "S", metric: "huatuo_container_cpu_throttled_periods_total", unit: "ratio", max: 1, warn: 0.1, bad: 0.5,
      query: `max(${BY} (rate(huatuo_container_cpu_throttled_periods_total{$M}[$W])) / ${BY} (rate(huatuo_container_cpu_periods_total{$M}[$W])))` },
    { id: "work.cpu.wait", name: "use.cpu.wait", aspect: "S", metric: "huatuo_container_runqueue_wait_seconds", unit: "seconds", warn: 0.01, bad: 0.1,
      query: "histogram_quantile(0.99, sum(rate(huatuo_container_runqueue_wait_seconds{$M}[$W])))" },
    workPsi("cpu", "use.cpu.psi"),
    { id: "work.cpu.stalls", name: "use.cpu.stalls", aspect: "E", metric: "huatuo_container_runqueue_wait_seconds", events: ["sched_stall"], unit: "", warn: 1, bad: 100 },
  ] },
  { id: "memory", rows: [
    { id: "work.memory.use", name: "use.work.memory", aspect: "U", metric: "huatuo_container_memory_working_set_bytes", unit: "bytes", ...OPEN,
      query: "sum(huatuo_container_memory_working_set_bytes{$M})" },
    { id: "work.memory.limit", name: "use.work.limit", absent: "use.work.unlimited", aspect: "U", metric: "huatuo_container_memory_limit_bytes", unit: "ratio", max: 1, warn: 0.9, bad: 0.97,
      query: `max(${BY} (huatuo_container_memory_working_set_bytes{$M}) / ${BY} (huatuo_container_memory_limit_bytes{$M}))` },
    workPsi("memory", "use.memory.psi"),
    { id: "work.memory.oom", name: "use.memory.oom", aspect: "E", metric: "huatuo_container_oom_kills_total", events: ["oom_kill"], unit: "", warn: 1, bad: 1 },
  ] },
  { id: "disk", rows: [
    { id: "work.disk.use", name: "use.network.use", absent: "use.work.none", aspect: "U", metric: "huatuo_container_io_bytes_total", unit: "bytes", rate: true, ...OPEN,
      query: "sum(rate(huatuo_container_io_bytes_total{$M}[$W]))" },
    { id: "work.disk.wait", name: "use.disk.wait", absent: "use.work.none", aspect: "S", metric: "huatuo_container_block_io_total_seconds", unit: "seconds", warn: 0.05, bad: 0.5,
      query: "histogram_quantile(0.99, sum(rate(huatuo_container_block_io_total_seconds{$M}[$W])))" },
    workPsi("io", "use.disk.psi"),
    { id: "work.disk.stalls", name: "use.disk.errors", aspect: "E", metric: "huatuo_container_block_io_total_seconds", events: ["io_error", "io_stall"], unit: "", warn: 1, bad: 10 },
  ] },
  { id: "network", rows: [
    { id: "work.network.drops", name: "use.network.drops", absent: "use.work.none", aspect: "S", metric: "huatuo_container_network_drops_total", unit: "", rate: true, warn: 1, bad: 100,
      query: "sum(rate(huatuo_container_network_drops_total{$M}[$W]))" },
    { id: "work.network.retransmits", name: "use.work.retransmits", absent: "use.work.none", aspect: "S", metric: "huatuo_container_tcp_retransmits_total", unit: "", rate: true, warn: 1, bad: 100,
      query: "sum(rate(huatuo_container_tcp_retransmits_total{$M}[$W]))" },
  ] },
];

export type Level = "ok" | "warn" | "bad" | "none";

/** levelOf compares a value with a row's thresholds. */
export function levelOf(row: Pick<UseRow, "warn" | "bad">, v: number | null): Level {
  if (v === null) return "none";
  return v >= row.bad ? "bad" : v >= row.warn ? "warn" : "ok";
}

/** nameKey is the dictionary key of a row's name. */
export function nameKey(row: UseRow): Key {
  return row.name ?? (`use.${row.id}` as Key);
}
