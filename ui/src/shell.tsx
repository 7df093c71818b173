// SPDX-License-Identifier: Apache-2.0

/** The frame around every page: navigation, top bar, and what is loaded once. */
import type { JSX } from "preact";
import { useEffect, useMemo, useRef, useState } from "preact/hooks";
import { api, type Node, type Schema } from "./api";
import { translator, type Key, type Lang } from "./i18n";
import { EventPage } from "./pages/event";
import { EventsPage } from "./pages/events";
import { MetricPage } from "./pages/metric";
import { MetricsPage } from "./pages/metrics";
import { OverviewPage } from "./pages/overview";
import { ProbePage } from "./pages/probe";
import { ProfilesPage } from "./pages/profiles";
import { SystemPage } from "./pages/system";
import { WorkloadPage } from "./pages/workload";
import { WorkloadsPage } from "./pages/workloads";
import { RangePicker } from "./parts/rangepicker";
import { Icon, IconButton, Notice, failureText } from "./parts/ui";
import { useLang, useTheme } from "./prefs";
import { rangeOf } from "./range";
import { href, useRoute, type Route } from "./router";
import { AppContext, useLoad, type App, type Theme } from "./state";

/** The store's interval by default: refreshing more often shows nothing new. */
const REFRESH_MS = 5000;

interface Catalogue {
  node: Node;
  metrics: Schema[];
  kinds: Schema[];
  /** How far the node's clock is ahead of this browser's, in seconds. */
  skew: number;
}

async function catalogue(s: AbortSignal): Promise<Catalogue> {
  const [node, metrics, kinds] = await Promise.all([api.node(s), api.metrics(s), api.kinds(s)]);
  const skew = Date.parse(node.now) / 1000 - Date.now() / 1000;
  // Below two seconds it is the request's own duration rather than a wrong clock.
  return { node, metrics, kinds, skew: Math.abs(skew) > 2 ? skew : 0 };
}

/** useClock counts refreshes: every five seconds while the range moves and the page is visible. */
function useClock(moving: boolean): { tick: number; paused: boolean; setPaused: (p: boolean) => void; refresh: () => void } {
  const [tick, set] = useState(0);
  const [paused, setPaused] = useState(false);
  useEffect(() => {
    if (!moving || paused) return;
    const id = setInterval(() => { if (!document.hidden) set((n) => n + 1); }, REFRESH_MS);
    return () => clearInterval(id);
  }, [moving, paused]);
  return { tick, paused, setPaused, refresh: () => set((n) => n + 1) };
}

/** Shell loads the catalogue and then shows the page of the URL. */
export function Shell(): JSX.Element {
  const route = useRoute();
  const [lang, setLang] = useLang();
  const [theme, dark, setTheme] = useTheme();
  const t = useMemo(() => translator(lang), [lang]);
  const moving = rangeOf(route.query, 0).last !== null;
  const clock = useClock(moving);
  const [retry, setRetry] = useState(0);
  const loaded = useLoad("catalogue", retry, catalogue);
  useEffect(() => {
    if (loaded.error === null || loaded.error.status === 401) return;
    const id = setTimeout(() => setRetry((n) => n + 1), REFRESH_MS);
    return () => clearTimeout(id);
  }, [loaded.error, retry]);
  // The range moves at ticks and with the URL only: all charts of a page then show the same interval.
  const query = route.query.toString();
  const range = useMemo(() => rangeOf(route.query, Date.now() / 1000 + (loaded.data?.skew ?? 0)), [query, clock.tick, loaded.data]);
  if (loaded.data === null) return <Wait error={loaded.error} t={t} />;
  const app: App = { lang, setLang, theme, setTheme, dark, t, ...loaded.data, range, ...clock };
  return (
    <AppContext.Provider value={app}>
      <a class="skip" href="#main" onClick={(e) => { e.preventDefault(); document.getElementById("main")?.focus(); }}>{t("skip")}</a>
      <Side route={route} app={app} />
      <div class="page">
        <Top route={route} app={app} moving={moving} />
        <main id="main" tabIndex={-1}><Page route={route} /></main>
      </div>
    </AppContext.Provider>
  );
}

function Wait({ error, t }: { error: ReturnType<typeof useLoad>["error"]; t: App["t"] }): JSX.Element {
  if (error === null) return <div class="wait" role="status">{t("loading")}</div>;
  const [title, what] = failureText(error);
  return (
    <div class="wait">
      <Notice kind="error" title={t(title)}>{error.status !== 401 && <code class="wrap">{error.message}</code>} {t(what)}</Notice>
      {error.status === 401 && <button type="button" class="btn primary" onClick={() => location.reload()}>{t("reload")}</button>}
    </div>
  );
}

const NAV: [string, Key, string][] = [
  ["overview", "nav.overview", ""], ["workloads", "nav.workloads", "workloads"], ["metrics", "nav.metrics", "metrics"], ["events", "nav.events", "events"], ["profiles", "nav.profiles", "profiles"], ["system", "nav.system", "system"],
];

function Side({ route, app }: { route: Route; app: App }): JSX.Element {
  const here = route.path[0] ?? "";
  return (
    <nav class="side" aria-label={app.t("nav.label")}>
      <a class="brand" href={href([])} aria-label="huatuo"><img src="favicon.svg" alt="" width="22" height="22" /><span>huatuo</span></a>
      <ul>
        {NAV.map(([icon, key, path]) => (
          <li><a href={href(path === "" ? [] : [path])} aria-current={here === path ? "page" : undefined}><Icon name={icon} /><span>{app.t(key)}</span></a></li>
        ))}
      </ul>
      <div class="side-foot">
        <div class="host" title={app.node.hostname}>{app.node.hostname}</div>
        <div>{app.node.kernel}</div>
        <div>huatuo {app.node.version}</div>
      </div>
    </nav>
  );
}

const THEMES: Record<Theme, { next: Theme; icon: string; label: Key }> = {
  auto: { next: "light", icon: "auto", label: "theme.auto" },
  light: { next: "dark", icon: "sun", label: "theme.light" },
  dark: { next: "auto", icon: "moon", label: "theme.dark" },
};

function Top({ route, app, moving }: { route: Route; app: App; moving: boolean }): JSX.Element {
  const { t } = app;
  const nav = NAV.find(([, , p]) => p === (route.path[0] ?? ""));
  const title = t(nav?.[1] ?? "nav.missing");
  const other: Lang = app.lang === "en" ? "zh" : "en";
  const theme = THEMES[app.theme];
  useEffect(() => {
    document.title = `${[route.path[2] ?? route.path[1], title].filter(Boolean).join(" · ")} – ${app.node.hostname} – huatuo`;
  }, [title, route.path.join("/")]);
  return (
    <header class="top">
      <h1>{title}</h1>
      <RangePicker />
      <div class="tools">
        {moving && <IconButton icon={app.paused ? "play" : "pause"} label={t(app.paused ? "refresh.resume" : "refresh.pause")} pressed={app.paused} onClick={() => app.setPaused(!app.paused)} />}
        <IconButton icon="refresh" label={t("refresh.now")} onClick={app.refresh} />
        <button type="button" class="btn lang" lang={other === "zh" ? "zh-CN" : "en"} onClick={() => app.setLang(other)} aria-label={other === "zh" ? "切换到中文" : "Switch to English"}>
          {other === "zh" ? "中文" : "EN"}
        </button>
        <IconButton icon={theme.icon} label={t(theme.label)} class="theme" onClick={() => app.setTheme(theme.next)} />
      </div>
    </header>
  );
}

function Page({ route }: { route: Route }): JSX.Element {
  const [page = "", arg, name] = route.path;
  const top = useRef(route.path.join("/"));
  useEffect(() => {
    if (top.current !== route.path.join("/")) scrollTo(0, 0);
    top.current = route.path.join("/");
  });
  switch (true) {
    case page === "": return <OverviewPage />;
    case page === "workloads" && arg === undefined: return <WorkloadsPage query={route.query} />;
    case page === "workloads": return <WorkloadPage key={`${arg}/${name ?? ""}`} kind={arg!} name={name ?? ""} query={route.query} />;
    case page === "metrics" && arg === undefined: return <MetricsPage query={route.query} />;
    case page === "metrics": return <MetricPage key={arg} name={arg!} query={route.query} />;
    case page === "events" && arg === undefined: return <EventsPage query={route.query} />;
    case page === "events": return <EventPage key={arg} id={arg!} />;
    case page === "profiles" && arg === undefined: return <ProfilesPage query={route.query} />;
    case page === "system" && arg === undefined: return <SystemPage />;
    case page === "system" && arg === "probe" && name !== undefined: return <ProbePage key={name} name={name} />;
    default: return <Missing />;
  }
}

function Missing(): JSX.Element {
  return <AppContext.Consumer>{(a) => <Notice title={a!.t("nav.missing")}><a href={href([])}>{a!.t("nav.home")}</a></Notice>}</AppContext.Consumer>;
}
