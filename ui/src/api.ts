// SPDX-License-Identifier: Apache-2.0

/** The agent's HTTP API as the console uses it. Paths are relative, so the console also works below a reverse proxy's path. */
import type { FlameGraph, ProfileDiff, ProfileHeat, ProfileSeries, ProfileTypes, RuntimeProcess } from "./api.profiles";
import type { PromSeries } from "./prom";

export type * from "./api.profiles";

/** One label of a metric or one member of an event's body. */
export interface Field {
  name: string;
  type?: string;
  unit?: string;
  help: string;
  values?: string[] | null;
}

/** Describes one signal. */
export interface Schema {
  name: string;
  kind: string;
  type?: "counter" | "gauge" | "histogram";
  unit?: string;
  area: string;
  scope?: string;
  help: string;
  read?: string;
  fields: Field[];
  severity?: Severity;
  probe?: string;
}

export type Severity = "info" | "warning" | "critical";

export interface Frame {
  function: string;
  module?: string;
  file?: string;
  line?: number;
  offset?: number;
  missing?: string;
  build_id?: string;
}

export interface Process {
  pid: number;
  tid?: number;
  comm?: string;
  exe?: string;
  cmdline?: string;
  start_time?: string;
  parent_pid?: number;
  parent?: string;
}

export interface Container {
  id?: string;
  name?: string;
  pod?: string;
  pod_uid?: string;
  namespace?: string;
  runtime?: string;
  qos?: string;
  unit?: string;
  cgroup?: string;
  labels?: Record<string, string>;
  gone?: boolean;
}

/** Share of the last 10 s in which work waited, 0 to 1. */
export interface Pressure {
  cpu_some: number;
  memory_some: number;
  memory_full: number;
  io_some: number;
  io_full: number;
}

export interface HostResources {
  load1: number;
  runnable: number;
  memory_total_bytes: number;
  memory_available_bytes: number;
  swap_used_bytes?: number;
  dirty_bytes?: number;
  pressure?: Pressure;
}

export interface WorkloadResources {
  memory_used_bytes?: number;
  memory_limit_bytes?: number;
  swap_used_bytes?: number;
  cpu_limit_cores?: number;
  cpu_seconds?: number;
  throttled_seconds?: number;
  throttled_periods?: number;
  pids?: number;
  pids_limit?: number;
  oom_kills?: number;
  pressure?: Pressure;
}

/** What there was of everything at the moment of an event. */
export interface Resources {
  host?: HostResources;
  workload?: WorkloadResources;
}

/** Link says that an event has to do with another one. */
export interface Link {
  id: string;
  kind: string;
  relation: "cause" | "effect" | "same";
  title: string;
}

/** One event. */
export interface Document {
  id: string;
  time: string;
  kind: string;
  severity: Severity;
  title: string;
  host?: string;
  region?: string;
  container?: Container;
  process?: Process;
  fields: Record<string, unknown>;
  kernel_stack?: Frame[];
  user_stack?: Frame[];
  registers?: Record<string, string>;
  resources?: Resources;
  verdict?: string;
  links?: Link[];
  known?: string[];
  suppressed?: number;
  unresolved?: string[];
}

export interface EventPage {
  events: Document[] | null;
  next?: string;
}

export interface Timeline {
  from: string;
  to: string;
  step_seconds: number;
  buckets: { time: string; count: Record<string, number> | null }[] | null;
}

/** Events counted together; members that they were not counted by are missing. */
export interface EventCount {
  time?: string;
  kind?: string;
  severity?: Severity;
  namespace?: string;
  pod?: string;
  container?: string;
  unit?: string;
  count: number;
}

/** A value that a member of events has, and in how many. */
export interface ValueCount {
  value: string;
  count: number;
}

/** An event near another one, and what they have in common. */
export interface Neighbour {
  relation: "cause" | "effect" | "same" | "process" | "workload" | "cpu" | "host";
  event: Document;
}

export interface Neighbours {
  window_seconds: number;
  total: number;
  neighbours: Neighbour[];
}

/** A metric that tells about the time around an event, and the labels of its series. */
export interface EventChart {
  metric: string;
  match: Record<string, string>;
}

export interface Node {
  hostname: string;
  kernel: string;
  arch: string;
  cpus: number;
  memory_bytes: number;
  boot_time: string;
  cgroup_mode: string;
  btf: string;
  version: string;
  commit: string;
  go_version: string;
  started: string;
  now: string;
  listen: string;
  store_interval_seconds: number;
}

export interface SinkAccount {
  sink: string;
  delivered: number;
  dropped: number;
  failed: number;
  queued: number;
}

/** The conservation law of one probe's events. */
export interface Account {
  probe: string;
  observed: number;
  dropped: Record<string, number> | null;
  routed: number;
  sinks: SinkAccount[] | null;
}

export interface Hook {
  hook: string;
  by?: string;
  program?: string;
  id?: number;
  reason?: string;
}

export interface Probe {
  name: string;
  help: string;
  source: string;
  state: string;
  reason?: string;
  hooks?: Hook[] | null;
  since: string;
  restarts?: number;
  lean?: string[] | null;
  signals: string[] | null;
  account?: Account | null;
}

/** Something that the agent gave up because it cost too much. */
export interface Shed {
  probe: string;
  class: string;
  what: string;
  since: string;
  why: string;
}

export interface ProbePage extends Omit<Probe, "signals"> {
  readme: string;
  signals: Schema[] | null;
  config: Record<string, unknown> | null;
}

/** Names of a workload, as its series have them. */
export interface WorkloadNames {
  namespace: string;
  pod: string;
  container: string;
  unit: string;
}

/** One who waited for a CPU, and one who had it meanwhile. */
export interface CulpritPair {
  victim: WorkloadNames;
  culprit: WorkloadNames & { kind: "workload" | "self" | "idle" | "quota" | "other" };
  seconds: number;
  share: number;
  victim_seconds: number;
  command?: string;
}

export interface StoreStatus {
  dir?: string;
  error?: string;
  metric_bytes: number;
  metric_series: number;
  event_bytes: number;
  events: number;
  oldest_metric?: string;
  oldest_event?: string;
  retention: { metric_age: string; metric_bytes: number; event_age: string; event_bytes: number };
}

export interface System {
  accounts: Account[] | null;
  store: StoreStatus | null;
  sinks: { name: string; state: string; queued: number; capacity: number; error?: string }[] | null;
  cost: { cpu_ratio: number; rss_bytes: number; bpf_seconds_per_second: number | null; goroutines: number; start_seconds: number; limit_ratio: number | null; used_ratio: number | null; shed: Shed[] } | null;
  config: string;
}

/** ApiError is an answer that is not 2xx, or no answer at all (status 0). */
export class ApiError extends Error {
  constructor(readonly status: number, readonly title: string, readonly detail: string) {
    super(detail || title);
  }
}

/** Query parameters; undefined, null and "" are left out. */
export type Params = Record<string, string | number | null | undefined>;

function search(params: Params): string {
  const q = new URLSearchParams();
  for (const [k, v] of Object.entries(params)) if (v !== undefined && v !== null && v !== "") q.set(k, String(v));
  const s = q.toString();
  return s === "" ? "" : `?${s}`;
}

/** Reads problem+json, or Prometheus' error form, out of a failed answer. */
async function failure(res: Response): Promise<ApiError> {
  const body = (await res.json().catch(() => ({}))) as Record<string, unknown>;
  const text = (k: string) => (typeof body[k] === "string" ? (body[k] as string) : "");
  return new ApiError(res.status, text("title") || res.statusText, text("detail") || text("error"));
}

async function send(method: "GET" | "POST", path: string, params: Params, signal?: AbortSignal): Promise<Response> {
  let res: Response;
  try {
    res = await fetch(`api/v1/${path}${search(params)}`, { method, signal, headers: { Accept: "application/json" } });
  } catch (e) {
    if (e instanceof DOMException && e.name === "AbortError") throw e;
    throw new ApiError(0, "", e instanceof Error ? e.message : String(e));
  }
  if (!res.ok) throw await failure(res);
  return res;
}

async function get<T>(path: string, params: Params, signal?: AbortSignal): Promise<T> {
  return (await (await send("GET", path, params, signal)).json()) as T;
}

/** post asks for something to be done; its answer is JSON. */
async function post<T>(path: string, params: Params): Promise<T> {
  return (await (await send("POST", path, params)).json()) as T;
}

interface PromAnswer<T> {
  status: string;
  error?: string;
  data?: T;
}

async function prom<T>(path: string, params: Params, signal?: AbortSignal): Promise<T | undefined> {
  const a = await get<PromAnswer<T>>(path, params, signal);
  if (a.status !== "success") throw new ApiError(200, "", a.error ?? "");
  return a.data;
}

async function series(path: string, params: Params, signal?: AbortSignal): Promise<PromSeries[]> {
  return (await prom<{ result: PromSeries[] }>(path, params, signal))?.result ?? [];
}

/** streamURL is the address of the live event stream. */
export function streamURL(params: Params): string {
  return `api/v1/events/stream${search(params)}`;
}

/** exportURL is the address of the events that a filter selects, as a file. */
export function exportURL(params: Params): string {
  return `api/v1/events/export${search(params)}`;
}

/** reportURL is the address of one event as a file. */
export function reportURL(id: string, params: Params): string {
  return `api/v1/events/${encodeURIComponent(id)}/export${search(params)}`;
}

/** profileURL is the address of the stacks that a query selects, as a file for other tools. */
export function profileURL(params: Params): string {
  return `api/v1/profiles/download${search(params)}`;
}

/** withLists fills in what an empty graph leaves out. */
const withLists = (g: FlameGraph): FlameGraph => ({ ...g, frames: g.frames ?? [], nodes: g.nodes ?? [] });

/** api has one function per endpoint. */
export const api = {
  node: (s?: AbortSignal) => get<Node>("node", {}, s),
  metrics: (s?: AbortSignal) => get<{ metrics: Schema[] | null }>("metrics", {}, s).then((r) => r.metrics ?? []),
  kinds: (s?: AbortSignal) => get<{ kinds: Schema[] | null }>("event-kinds", {}, s).then((r) => r.kinds ?? []),
  events: (p: Params, s?: AbortSignal) => get<EventPage>("events", p, s),
  event: (id: string, s?: AbortSignal) => get<Document>(`events/${encodeURIComponent(id)}`, {}, s),
  count: (p: Params, s?: AbortSignal) => get<{ groups: EventCount[] }>("events/count", p, s).then((r) => r.groups),
  values: (p: Params, s?: AbortSignal) => get<{ values: ValueCount[] }>("events/values", p, s).then((r) => r.values),
  neighbours: (id: string, p: Params, s?: AbortSignal) => get<Neighbours>(`events/${encodeURIComponent(id)}/neighbours`, p, s),
  charts: (id: string, s?: AbortSignal) => get<{ charts: EventChart[] }>(`events/${encodeURIComponent(id)}/charts`, {}, s).then((r) => r.charts),
  timeline: (p: Params, s?: AbortSignal) => get<Timeline>("events/timeline", p, s),
  probes: (s?: AbortSignal) => get<{ probes: Probe[] | null }>("probes", {}, s).then((r) => r.probes ?? []),
  probe: (name: string, s?: AbortSignal) => get<ProbePage>(`probes/${encodeURIComponent(name)}`, {}, s),
  system: (s?: AbortSignal) => get<System>("system", {}, s),
  culprits: (p: Params, s?: AbortSignal) => get<{ pairs: CulpritPair[] }>("workloads/culprits", p, s).then((r) => r.pairs),
  profileTypes: (s?: AbortSignal) => get<ProfileTypes>("profiles/types", {}, s),
  flame: (p: Params, s?: AbortSignal) => get<FlameGraph>("profiles/flame", p, s).then(withLists),
  profileDiff: (p: Params, s?: AbortSignal) => get<ProfileDiff>("profiles/diff", p, s),
  profileHeat: (p: Params, s?: AbortSignal) => get<ProfileHeat>("profiles/heat", p, s),
  profileSeries: (p: Params, s?: AbortSignal) => get<{ series: ProfileSeries[] | null }>("profiles/series", p, s).then((r) => r.series ?? []),
  runtimes: (s?: AbortSignal) => get<{ processes: RuntimeProcess[] }>("profiles/runtimes", {}, s).then((r) => r.processes),
  askRuntime: (pid: number) => post<RuntimeProcess>(`profiles/runtimes/${pid}`, {}),
  runtimeGraph: (pid: number, profile: string, p: Params) => post<FlameGraph>(`profiles/runtimes/${pid}/${profile}`, { ...p, format: "json" }).then(withLists),
  runtimeFile: (pid: number, profile: string, p: Params) => send("POST", `profiles/runtimes/${pid}/${profile}`, p).then((r) => r.blob()),
  query: (query: string, time: number, s?: AbortSignal) => series("query", { query, time }, s),
  queryRange: (query: string, start: number, end: number, step: number, s?: AbortSignal) => series("query_range", { query, start, end, step }, s),
  labelValues: (label: string, match: string, start: number, end: number, s?: AbortSignal) =>
    prom<string[]>(`label/${label}/values`, { "match[]": match, start, end }, s).then((v) => v ?? []),
};
