// SPDX-License-Identifier: Apache-2.0

/** The table of functions, and the table of what changed between two profiles. */
import type { ComponentChildren, JSX } from "preact";
import { useMemo, useState } from "preact/hooks";
import type { ProfileDiff } from "../api";
import { changed, functions, matches, type Fn, type Tree } from "../flame";
import { amount, percent, points } from "../profile";
import { setQuery } from "../router";
import { useApp } from "../state";
import { digits, grouped } from "../units";
import { Badge, Bar, Notice } from "./ui";

/** Rows before the button for more. */
const ROWS = 50;

/** where is the place of a function: source file and line, else its module. */
export function where(f: Fn): string {
  const { file, line, module } = f.frame;
  return [file ? `${file}${line ? `:${line}` : ""}` : "", module ?? ""].filter((s) => s !== "").join(" · ");
}

function Name({ f, href }: { f: Fn; href: string }): JSX.Element {
  const { t } = useApp();
  return (
    <th scope="row" class="fn">
      <i class={`swatch kind-${f.kind}`} title={t(`prof.kind.${f.kind}`)} /> <a class="mono" href={href}>{f.name}</a>
      <span class="help">{[where(f), f.frame.missing && f.frame.offset ? t("prof.missing", { s: f.frame.missing }) : ""].filter((s) => s !== "").join(" · ")}</span>
    </th>
  );
}

function Head(p: { id: string; by: string; descending: boolean; first: string; right?: boolean; title?: string; children: ComponentChildren }): JSX.Element {
  const on = p.id === p.by;
  const turn = () => setQuery({ sort: p.id === p.first ? null : p.id, asc: on && p.descending ? "1" : null });
  return (
    <th scope="col" class={p.right ? "r" : ""} aria-sort={!on ? undefined : p.descending ? "descending" : "ascending"}>
      <button type="button" class="sorter" title={p.title} onClick={turn}>{p.children}<span class="arrow" aria-hidden="true">{!on ? "" : p.descending ? " ▼" : " ▲"}</span></button>
    </th>
  );
}

function More({ left, onClick }: { left: number; onClick: () => void }): JSX.Element | null {
  const { t } = useApp();
  return left > 0 ? <button type="button" class="btn more" onClick={onClick}>{t("work.more", { n: Math.min(ROWS, left) })}</button> : null;
}

interface TableProps {
  tree: Tree;
  unit: string;
  matched: Uint8Array | null;
  query: URLSearchParams;
  /** Address of a function's sandwich. */
  link: (f: Fn) => string;
}

/** Functions lists who used how much. */
export function Functions({ tree, unit, matched, query, link }: TableProps): JSX.Element {
  const { t } = useApp();
  const [limit, setLimit] = useState(ROWS);
  const asked = query.get("sort") ?? "";
  const by = asked === "total" || asked === "name" ? asked : "self";
  const descending = query.get("asc") === null;
  const rows = useMemo(() => {
    const sign = descending ? -1 : 1;
    const order = by === "name" ? (a: number, b: number) => (tree.fns[a]!.name < tree.fns[b]!.name ? 1 : -1) : () => 0;
    return functions(tree).filter((r) => r.total > 0 && (matched === null || matched[r.fn] === 1))
      .sort((a, b) => sign * (by === "name" ? order(a.fn, b.fn) : by === "self" ? a.self - b.self || a.total - b.total : a.total - b.total || a.self - b.self));
  }, [tree, matched, by, descending]);
  const all = tree.total[0] || 1;
  const head = { by, descending, first: "self" };
  if (rows.length === 0) return <Notice title={t("prof.none")} />;
  const cell = (v: number) => <td class="r num"><Bar share={v / all}>{amount(v, unit)} <span class="muted">{percent(v / all)}</span></Bar></td>;
  return (
    <>
      <div class="scroll">
        <table class="table functions">
          <thead><tr><Head id="name" {...head}>{t("prof.function")}</Head><Head id="self" right {...head}>{t("prof.self")}</Head><Head id="total" right {...head}>{t("prof.total")}</Head></tr></thead>
          <tbody>{rows.slice(0, limit).map((r) => <tr key={tree.fns[r.fn]!.key} data-fn={tree.fns[r.fn]!.name}><Name f={tree.fns[r.fn]!} href={link(tree.fns[r.fn]!)} />{cell(r.self)}{cell(r.total)}</tr>)}</tbody>
        </table>
      </div>
      <More left={rows.length - limit} onClick={() => setLimit(limit + ROWS)} />
    </>
  );
}

/** rankOf is what changes are ranked by. */
export function rankOf(query: URLSearchParams): "self" | "total" {
  return query.get("rank") === "total" ? "total" : "self";
}

/** What both sides of a comparison are called. */
export interface Names {
  base: string;
  own: string;
}

interface ChangesProps extends Pick<TableProps, "tree" | "query" | "link"> {
  diff: ProfileDiff;
  names: Names;
  re: RegExp | null;
}

/** Changes ranks what takes a larger share than before: what is no accident first, in the server's order. */
export function Changes({ tree, diff, names, re, query, link }: ChangesProps): JSX.Element {
  const { t } = useApp();
  const [limit, setLimit] = useState(ROWS);
  const of = rankOf(query);
  const rows = useMemo(() => changed(tree, diff.functions).filter(({ fn }) => re === null || matches(fn, re)), [tree, diff, re]);
  return (
    <>
      <div class="chips rank" role="group" aria-label={t("prof.by")}><span class="muted">{t("prof.by")}</span>
        {(["self", "total"] as const).map((k) => <button type="button" class="chip" aria-pressed={of === k} onClick={() => setQuery({ rank: k === "self" ? null : k })}>{t(`prof.${k}`)}</button>)}
        <span class="muted clear">{t("prof.clear.sum", { n: grouped(diff.clear), m: grouped(diff.tested) })}</span>
      </div>
      {rows.length === 0 ? <Notice title={t("prof.unchanged")} /> : (
        <div class="scroll">
          <table class="table functions changes">
            <thead>
              <tr>
                <th scope="col">{t("prof.function")}</th><th scope="col" class="r party" title={names.base}>{names.base}</th><th scope="col" class="r party" title={names.own}>{names.own}</th><th scope="col" class="r">{t("prof.change")}</th>
                <th scope="col" class="r desk-only">{t("prof.samples")}</th><th scope="col" class="desk-only" title={t("prof.clear.help")}>{t("prof.verdict")}</th>
              </tr>
            </thead>
            <tbody>
              {rows.slice(0, limit).map(({ fn, change }) => {
                const s = change[of];
                return (
                  <tr key={`${change.function}@${change.module ?? ""}`} data-fn={fn.name} data-verdict={change.verdict}>
                    <Name f={fn} href={link(fn)} />
                    <td class="r num">{percent(s.before)}</td><td class="r num">{percent(s.after)}</td><td class="r num">{points(s.after - s.before)} <span class="phone-only"><Verdict verdict={change.verdict} /></span></td>
                    <td class="r num muted desk-only">{grouped(s.before_samples)} → {grouped(s.after_samples)}</td>
                    <td class="desk-only" title={`z = ${digits(s.z)}, p = ${s.p.toPrecision(2)}`}><Verdict verdict={change.verdict} /></td>
                  </tr>
                );
              })}
            </tbody>
          </table>
        </div>
      )}
      <p class="hint lead">{t("prof.clear.help")}</p>
      <More left={rows.length - limit} onClick={() => setLimit(limit + ROWS)} />
    </>
  );
}

function Verdict({ verdict }: { verdict: ProfileDiff["functions"][number]["verdict"] }): JSX.Element {
  const { t } = useApp();
  const text = t(`prof.verdict.${verdict}`);
  if (verdict === "regressed" || verdict === "improved") return <Badge kind={verdict === "regressed" ? "critical" : "ok"}>{text}</Badge>;
  return <span class="muted">{text}</span>;
}
