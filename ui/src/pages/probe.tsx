// SPDX-License-Identifier: Apache-2.0

/** One probe: its page for operators, its hooks, its books, its signals and its configuration. */
import type { JSX } from "preact";
import { api, type Hook, type ProbePage as Data, type Schema } from "../api";
import { Markdown } from "../markdown";
import { Law, useBooks } from "../parts/law";
import { Time } from "../parts/time";
import { Badge, Card, Icon, Notice, Pairs, Show } from "../parts/ui";
import { href } from "../router";
import { useApp, useLoad } from "../state";
import { StateBadge } from "./system";

export function ProbePage({ name }: { name: string }): JSX.Element {
  const { t, tick } = useApp();
  const probe = useLoad(`probe ${name}`, tick, (s) => api.probe(name, s));
  return (
    <div class="stack">
      <a class="back" href={href(["system"])}><Icon name="back" />{t("nav.system")}</a>
      <Show of={probe} height={400}>{(p) => <Detail p={p} />}</Show>
    </div>
  );
}

function Detail({ p }: { p: Data }): JSX.Element {
  const { t } = useApp();
  const books = useBooks().data;
  const emits = books?.system.accounts?.some((a) => a.probe === p.name) === true;
  return (
    <>
      <section class="card">
        <header><h2>{p.name}</h2><div class="note"><StateBadge p={p} /> <Time at={p.since} /></div></header>
        <p class="help">{p.help}</p>
        {p.reason !== undefined && <Notice kind="error" title={t("probe.reason")}>{p.reason}</Notice>}
        <Pairs rows={[[t("probe.source"), <code class="wrap">{p.source}</code>], [t("probe.restarted"), p.restarts]]} />
        {(p.hooks ?? []).length > 0 && <Hooks hooks={p.hooks!} />}
      </section>
      <div class="cols wide-left">
        <Card title={t("probe.readme")}><Markdown text={withoutTitle(p.readme)} /></Card>
        <div class="stack">
          <Card title={t("probe.signals")}><Signals list={p.signals ?? []} /></Card>
          <Card title={t("probe.config")}>{Object.keys(p.config ?? {}).length === 0 ? <p class="muted">{t("probe.config.none")}</p> : <Pairs rows={Object.entries(p.config!).map(([k, v]) => [<code>{k}</code>, <code class="wrap">{typeof v === "string" ? v : JSON.stringify(v)}</code>])} />}</Card>
        </div>
      </div>
      {emits && <Card title={t("law.title")} note={t("law.help")} class="flush"><Law books={books!} only={p.name} /></Card>}
    </>
  );
}

/** The README's own first heading repeats the page's. */
function withoutTitle(md: string): string {
  return md.replace(/^\s*(<!--[^\n]*-->\s*)*# [^\n]*\n/, "");
}

function Hooks({ hooks }: { hooks: Hook[] }): JSX.Element {
  const { t } = useApp();
  return (
    <div class="scroll">
      <table class="table">
        <thead><tr><th scope="col">{t("hook.name")}</th><th scope="col">{t("hook.by")}</th><th scope="col">{t("hook.program")}</th><th scope="col">{t("hook.note")}</th></tr></thead>
        <tbody>{hooks.map((h) => <tr><th scope="row"><code>{h.hook}</code></th><td>{h.by ? <Badge kind="ok">{h.by}</Badge> : <Badge kind="warning">{t("hook.none")}</Badge>}</td><td><code>{h.program}{h.id !== undefined && h.id !== 0 ? ` #${h.id}` : ""}</code></td><td>{h.reason}</td></tr>)}</tbody>
      </table>
    </div>
  );
}

function Signals({ list }: { list: Schema[] }): JSX.Element {
  return (
    <ul class="signals">
      {list.map((s) => (
        <li><a class="mono" href={s.kind === "event" ? href(["events"], { kind: s.name }) : href(["metrics", s.name])}>{s.name}</a> <Badge kind="quiet">{s.kind === "event" ? s.kind : s.type}</Badge><span class="help">{s.help}</span></li>
      ))}
    </ul>
  );
}
