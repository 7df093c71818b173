// SPDX-License-Identifier: Apache-2.0

/** Small building blocks that every page uses. */
import type { ComponentChildren, JSX } from "preact";
import { useState } from "preact/hooks";
import type { ApiError } from "../api";
import type { Key } from "../i18n";
import { useApp, type Loaded } from "../state";

const PATHS: Record<string, string> = {
  overview: "M3 3h7v8H3zM14 3h7v5h-7zM14 12h7v9h-7zM3 15h7v6H3z",
  workloads: "M12 3l8 4.5v9L12 21l-8-4.5v-9zM4 7.5l8 4.5 8-4.5M12 12v9",
  metrics: "M3 20h18M5 16l5-6 4 4 6-8",
  events: "M12 3v9l4 3M12 21a9 9 0 1 0 0-18 9 9 0 0 0 0 18z",
  profiles: "M3 4h18v4H3zM3 8h11v4H3zM3 12h7v4H3zM16 8h5v4h-5zM3 16h4v4H3z",
  system: "M5 5h14v14H5zM9 9h6v6H9zM9 2v3M15 2v3M9 19v3M15 19v3M2 9h3M2 15h3M19 9h3M19 15h3",
  sun: "M12 16a4 4 0 1 0 0-8 4 4 0 0 0 0 8zM12 2v3M12 19v3M2 12h3M19 12h3M5 5l2 2M17 17l2 2M19 5l-2 2M7 17l-2 2",
  moon: "M20 14.5A8.5 8.5 0 1 1 9.5 4a7 7 0 0 0 10.5 10.5z",
  auto: "M12 3a9 9 0 1 0 0 18zM12 3a9 9 0 0 1 0 18",
  refresh: "M20 11a8 8 0 1 0-2.3 6.3M20 5v6h-6",
  pause: "M8 5v14M16 5v14",
  play: "M7 5l12 7-12 7z",
  search: "M11 18a7 7 0 1 0 0-14 7 7 0 0 0 0 14zM20 20l-4-4",
  close: "M6 6l12 12M18 6L6 18",
  back: "M15 5l-7 7 7 7",
  zoomout: "M11 18a7 7 0 1 0 0-14 7 7 0 0 0 0 14zM20 20l-4-4M8 11h6",
  download: "M12 4v11M7 11l5 5 5-5M4 20h16",
  copy: "M9 9h11v11H9zM5 15H4V4h11v1",
  live: "M12 14a2 2 0 1 0 0-4 2 2 0 0 0 0 4zM7.8 16.2a6 6 0 0 1 0-8.4M16.2 7.8a6 6 0 0 1 0 8.4M5 19a10 10 0 0 1 0-14M19 5a10 10 0 0 1 0 14",
};

/** Icon draws one of PATHS; decoration only, the text is beside it or in the label. */
export function Icon({ name }: { name: string }): JSX.Element {
  return <svg class="icon" viewBox="0 0 24 24" aria-hidden="true"><path d={PATHS[name] ?? ""} /></svg>;
}

/** IconButton is a button without text; label is its name for everyone who does not see the picture. */
export function IconButton(p: { icon: string; label: string; onClick: () => void; pressed?: boolean; class?: string }): JSX.Element {
  return (
    <button type="button" class={`btn icon-btn ${p.class ?? ""}`} title={p.label} aria-label={p.label} aria-pressed={p.pressed} onClick={p.onClick}>
      <Icon name={p.icon} />
    </button>
  );
}

/** Notice fills a place where data would stand. */
export function Notice(p: { title: string; children?: ComponentChildren; kind?: "error" }): JSX.Element {
  return (
    <div class={`notice ${p.kind ?? ""}`} role={p.kind === "error" ? "alert" : "status"}>
      <strong>{p.title}</strong>
      {p.children !== undefined && <span>{p.children}</span>}
    </div>
  );
}

/** Failure says what went wrong and what to do. */
export function Failure({ error }: { error: ApiError }): JSX.Element {
  const { t } = useApp();
  const [title, what] = failureText(error);
  return <Notice kind="error" title={t(title)}>{error.status !== 401 && error.message !== "" && <code class="wrap">{error.message}</code>} {t(what)}</Notice>;
}

/** failureText gives the sentences for an error. */
export function failureText(e: ApiError): [Key, Key] {
  switch (true) {
    case e.status === 0: return ["err.offline", "err.offline.do"];
    case e.status === 401: return ["err.401", "err.401.do"];
    case e.status === 403: return ["err.403", "err.403.do"];
    case e.status === 404: return ["err.404", "err.404.do"];
    case e.status === 422 || e.status === 400: return ["err.400", "err.400.do"];
    case e.status >= 502 && e.status <= 504: return ["err.503", "err.503.do"];
    default: return ["err.other", "err.other.do"];
  }
}

/** Loading is a quiet placeholder of the final height, so nothing jumps. */
export function Loading({ height = 60 }: { height?: number }): JSX.Element {
  const { t } = useApp();
  return <div class="loading" style={{ height: `${height}px` }} role="status" aria-label={t("loading")} />;
}

/** Show renders loaded data, or the placeholder or failure that stands for them. */
export function Show<T>(p: { of: Loaded<T>; height?: number; children: (data: T) => ComponentChildren }): JSX.Element {
  const { data, error } = p.of;
  if (error !== null && (data === null || error.status === 404)) return <Failure error={error} />;
  if (data === null) return <Loading height={p.height} />;
  return <>{error !== null && <Failure error={error} />}{p.children(data)}</>;
}

/** Badge is a small coloured word. */
export function Badge({ kind, children, title }: { kind: string; children: ComponentChildren; title?: string }): JSX.Element {
  return <span class={`badge ${kind}`} title={title}>{children}</span>;
}

/** Card is a titled panel. */
export function Card(p: { title: ComponentChildren; note?: ComponentChildren; id?: string; class?: string; children: ComponentChildren }): JSX.Element {
  return (
    <section class={`card ${p.class ?? ""}`} id={p.id}>
      <header><h2>{p.title}</h2>{p.note !== undefined && <div class="note">{p.note}</div>}</header>
      {p.children}
    </section>
  );
}

/** Pairs is a two-column list of names and values; pairs without a value are left out. */
export function Pairs({ rows }: { rows: [ComponentChildren, ComponentChildren, string?][] }): JSX.Element {
  const kept = rows.filter(([, v]) => v !== undefined && v !== null && v !== "" && v !== false);
  return <dl class="pairs">{kept.map(([k, v, help]) => <div><dt title={help}>{k}</dt><dd>{v}</dd></div>)}</dl>;
}

/** Copy puts text on the clipboard; where the browser forbids that (plain http to another host) it is not shown. */
export function Copy({ text }: { text: string }): JSX.Element | null {
  const { t } = useApp();
  const [done, set] = useState(false);
  if (navigator.clipboard === undefined) return null;
  const copy = () => navigator.clipboard.writeText(text).then(() => {
    set(true);
    setTimeout(() => set(false), 1500);
  }, () => set(false));
  return <button type="button" class="btn small" onClick={copy}><Icon name="copy" />{done ? t("copied") : t("copy")}</button>;
}

/** Bar is a number with a bar of its share behind it. */
export function Bar({ share, children }: { share: number; children: ComponentChildren }): JSX.Element {
  return <span class="bar"><span class="fill" style={{ width: `${Math.max(0, Math.min(1, share)) * 100}%` }} /><span class="num">{children}</span></span>;
}
