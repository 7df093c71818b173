// SPDX-License-Identifier: Apache-2.0

/** The conservation law of events, probe by probe. */
import type { JSX } from "preact";
import { useRef } from "preact/hooks";
import { api, type Account, type System } from "../api";
import { balance, onTheWay, SETTLED_MS } from "../balance";
import type { Key } from "../i18n";
import { href } from "../router";
import { useApp, useLoad, type Loaded } from "../state";
import { grouped } from "../units";
import { Badge, Notice } from "./ui";

/** The state of the agent and, to judge its books, an older one. */
export interface Books {
  system: System;
  before: Map<string, Account>;
}

/** useBooks loads the agent's state and keeps the reading before. */
export function useBooks(): Loaded<Books> {
  const { tick } = useApp();
  const past = useRef<{ at: number; system: System }[]>([]);
  return useLoad("system", tick, async (s) => {
    const system = await api.system(s);
    const now = Date.now();
    past.current = [...past.current, { at: now, system }].slice(-4);
    const old = past.current.findLast((p) => now - p.at >= SETTLED_MS)?.system;
    return { system, before: new Map((old?.accounts ?? []).map((a) => [a.probe, a])) };
  });
}

/** BalanceBadge says in a word how an account stands. */
export function BalanceBadge({ a, before }: { a: Account; before: Account | undefined }): JSX.Element {
  const { t } = useApp();
  switch (balance(a, before)) {
    case "ok": return <Badge kind="ok">{t("balanced")}</Badge>;
    case "off": return <Badge kind="critical" title={t("law.off.help")}>{t("unbalanced")}</Badge>;
    default: return <Badge kind="info" title={t("law.moving.help")}>{t("law.moving", { n: onTheWay(a) })}</Badge>;
  }
}

/** Law shows each probe's books: observed = Σ dropped + routed, and per sink routed = delivered + dropped + failed + queued. */
export function Law({ books, only }: { books: Books; only?: string }): JSX.Element {
  const { t } = useApp();
  const accounts = (books.system.accounts ?? []).filter((a) => only === undefined || a.probe === only);
  const sinks = [...new Set(accounts.flatMap((a) => (a.sinks ?? []).map((s) => s.sink)))];
  if (accounts.length === 0) return <Notice title={t("law.none")}>{t("law.none.do")}</Notice>;
  const reasons = (d: Record<string, number> | null) => Object.entries(d ?? {}).filter(([, n]) => n > 0).map(([k, n]) => `${k} ${grouped(n)}`).join(", ") || "0";
  return (
    <div class="scroll">
      <table class="table law">
        <thead><tr><th scope="col">{t("probe.name")}</th><th scope="col" class="r">{t("law.observed")}</th><th scope="col" class="r">{t("law.dropped")}</th><th scope="col" class="r">{t("law.routed")}</th>
          {sinks.map((s) => <th scope="col" title={t("law.sink.help")}>→ {s}</th>)}<th scope="col">{t("law.balance")}</th></tr></thead>
        <tbody>
          {accounts.map((a) => (
            <tr key={a.probe} data-account={a.probe}>
              <th scope="row"><a href={href(["system", "probe", a.probe])}>{a.probe}</a></th>
              <td class="r num">{grouped(a.observed)}</td><td class="r num">{reasons(a.dropped)}</td><td class="r num">{grouped(a.routed)}</td>
              {sinks.map((name) => <td class="num"><SinkCell a={a} name={name} /></td>)}
              <td><BalanceBadge a={a} before={books.before.get(a.probe)} /></td>
            </tr>
          ))}
        </tbody>
      </table>
    </div>
  );
}

function SinkCell({ a, name }: { a: Account; name: string }): JSX.Element {
  const { t } = useApp();
  const s = (a.sinks ?? []).find((x) => x.sink === name);
  if (s === undefined) return <span class="muted">–</span>;
  const rest = ([["law.sink.dropped", s.dropped], ["law.sink.failed", s.failed], ["law.sink.queued", s.queued]] as [Key, number][]).filter(([, n]) => n > 0);
  return <>{grouped(s.delivered)}{rest.map(([k, n]) => <span class="help">{t(k, { n: grouped(n) })}</span>)}</>;
}
