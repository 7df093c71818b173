// SPDX-License-Identifier: Apache-2.0

/** The filters of the Events page beyond words and severity: any member of an event, with its values suggested. */
import type { JSX } from "preact";
import { useMemo, useState } from "preact/hooks";
import { api } from "../api";
import { iso } from "../range";
import { setQuery } from "../router";
import { useApp, useLoad } from "../state";
import { formatWhere, isNumber, membersOf, OPS, ordered, parseWhere, patchFor, PLAIN, type Member, type Op } from "../where";
import { rangeKey } from "./panel";
import { Icon } from "./ui";

/** As many suggestions as a list shows without scrolling far. */
const SUGGESTED = 20;

/** Adder makes a condition of a name, a comparison and a value. */
export function Adder({ filter }: { filter: Record<string, string> }): JSX.Element {
  const { t, kinds } = useApp();
  const [name, setName] = useState("");
  const [op, setOp] = useState<Op>("=");
  const [value, setValue] = useState("");
  const chosen = (filter.kind ?? "").split(",");
  const members = useMemo(() => membersOf(kinds.filter((k) => filter.kind === undefined || chosen.includes(k.name))), [kinds, filter.kind]);
  const member = members.find((m) => m.name === name);
  const path = pathOf(name, members);
  const numeric = ordered(op) || (PLAIN[path] === undefined && op !== "contains" && member?.numeric === true);
  const wrong = value !== "" && (ordered(op) || path === "pid") && !isNumber(value);
  const add = (e: Event) => {
    e.preventDefault();
    if (path === "" || wrong) return;
    setQuery(patchFor(filter.where ?? "", { path, op, value: value.trim() }));
    setValue("");
  };
  return (
    <form class="adder" onSubmit={add} aria-label={t("filter.add")}>
      <input list="filter-names" value={name} placeholder={t("filter.name")} aria-label={t("filter.name")} title={member?.help} spellcheck={false} autocapitalize="off"
        onInput={(e) => setName(e.currentTarget.value.trim())} />
      <datalist id="filter-names">{members.map((m) => <option key={m.name} value={m.name}>{m.help}</option>)}</datalist>
      <select class="op" value={op} aria-label={t("filter.op")} onChange={(e) => setOp(e.currentTarget.value as Op)}>{OPS.map((o) => <option value={o}>{o}</option>)}</select>
      <input list="filter-values" value={value} aria-label={t("filter.value")} aria-invalid={wrong} spellcheck={false} autocapitalize="off"
        placeholder={numeric && member !== undefined && member.unit !== "" ? member.unit : t("filter.value")}
        title={wrong ? t("filter.number") : numeric && member !== undefined && member.unit !== "" ? t("filter.inunit", { unit: member.unit }) : undefined}
        onInput={(e) => setValue(e.currentTarget.value)} />
      <Values filter={filter} path={path} part={value} />
      <button type="submit" class="btn small" disabled={path === "" || wrong}>{t("filter.add")}</button>
    </form>
  );
}

/** pathOf completes a name that was typed without its "field.". */
export function pathOf(name: string, members: Member[]): string {
  if (name === "" || !/^[A-Za-z_]\w*(\.[A-Za-z_]\w*)*$/.test(name)) return "";
  const known = (n: string) => members.some((m) => m.name === n);
  return !known(name) && known(`field.${name}`) ? `field.${name}` : name;
}

/** Values suggests what the member has been lately, among the events that pass the other filters. */
function Values({ filter, path, part }: { filter: Record<string, string>; path: string; part: string }): JSX.Element {
  const { range } = useApp();
  const { [path]: _, ...others } = filter;
  const word = part.length > 100 ? "" : part;
  const list = useLoad(path === "" ? null : `values ${path} ${word} ${JSON.stringify(others)} ${rangeKey(range)}`, 0, (s) =>
    api.values({ ...others, from: iso(range.from), to: iso(range.to), name: path, contains: word, limit: SUGGESTED }, s));
  return <datalist id="filter-values">{path !== "" && (list.data ?? []).map((v) => <option key={v.value} value={v.value}>{`× ${v.count}`}</option>)}</datalist>;
}

/** Active lists the filters in force, each of which a click removes. */
export function Active({ filter }: { filter: Record<string, string> }): JSX.Element {
  const { t } = useApp();
  const plain = Object.entries(filter).filter(([k]) => k.startsWith("field.") || PLAIN[k] !== undefined);
  const conditions = parseWhere(filter.where ?? "");
  const chip = (text: string, patch: Record<string, string | null>) => (
    <button type="button" class="chip removable" key={text} aria-label={t("filter.remove", { name: text })} onClick={() => setQuery(patch)}><code>{text}</code><Icon name="close" /></button>
  );
  // A condition that the console cannot read is still a filter: the API says what is wrong with it.
  const unread = filter.where !== undefined && conditions.length === 0;
  return (
    <>
      {plain.map(([k, v]) => chip(`${k.replace(/^field\./, "")} = ${v}`, { [k]: null }))}
      {conditions.map((c, i) => chip(`${c.path.replace(/^field\./, "")} ${c.op} ${c.value === "" ? '""' : c.value}`, { where: formatWhere(conditions.filter((_, j) => j !== i)) }))}
      {unread && chip(filter.where!, { where: null })}
    </>
  );
}
