// SPDX-License-Identifier: Apache-2.0

/** What happened around an event: what has something in common with it first, each group in the order of time. */
import type { JSX } from "preact";
import { useState } from "preact/hooks";
import { api, type Document, type Neighbour } from "../api";
import type { Key } from "../i18n";
import { useApp, useLoad } from "../state";
import { merge } from "../filter";
import { EventTable } from "./eventtable";
import { Card, Show } from "./ui";

/** Seconds before and after to choose from. */
const WINDOWS = [10, 60, 300];

/** This many of each relation before and after: what fits on a screen. */
const NEAR = 5;

/** Group is the neighbours of one relation, newest first, as every list of events. */
export interface Group {
  relation: Neighbour["relation"];
  events: Document[];
}

/** groupsOf parts neighbours by relation, which come in order. */
export function groupsOf(list: Neighbour[]): Group[] {
  const out: Group[] = [];
  for (const n of list) {
    const last = out[out.length - 1];
    if (last?.relation === n.relation) last.events.unshift(n.event);
    else out.push({ relation: n.relation, events: [n.event] });
  }
  return out;
}

/** Neighbours loads and shows them; the window is chosen above. */
export function Neighbours({ d }: { d: Document }): JSX.Element {
  const { t, kinds, tick } = useApp();
  const [window, setWindow] = useState(60);
  // More may follow while the window is not over.
  const [born] = useState(() => Date.now() / 1000);
  const moving = born < Date.parse(d.time) / 1000 + window;
  const list = useLoad(`around ${d.id} ${window}`, moving ? tick : 0, (s) => api.neighbours(d.id, { window, limit: NEAR }, s));
  const choose = (
    <span class="segments" role="group" aria-label={t("event.around.window")}>
      {WINDOWS.map((w) => <button type="button" class="btn small" aria-pressed={w === window} onClick={() => setWindow(w)}>{w < 60 ? `${w} s` : `${w / 60} min`}</button>)}
    </span>
  );
  return (
    <Card title={t("event.around")} note={<>{list.data !== null && <span>{t("event.around.n", { n: list.data.total })}</span>}{choose}</>} class="flush neighbours">
      <Show of={list} height={80}>{(l) => <Groups list={groupsOf(l.neighbours)} d={d} kinds={kinds} />}</Show>
    </Card>
  );
}

function Groups({ list, d, kinds }: { list: Group[]; d: Document; kinds: Parameters<typeof EventTable>[0]["kinds"] }): JSX.Element {
  const { t } = useApp();
  if (list.length === 0) return <EventTable events={[d]} kinds={kinds} origin={d} empty="" />;
  return (
    <>
      {list.map((g) => (
        <section key={g.relation} data-relation={g.relation}>
          <h3>{t(`relation.${g.relation}` as Key)}</h3>
          <EventTable events={merge(g.events, [d])} kinds={kinds} origin={d} empty="" />
        </section>
      ))}
    </>
  );
}
