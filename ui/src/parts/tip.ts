// SPDX-License-Identifier: Apache-2.0

/** The read-out under a chart's cursor. It is written as text nodes, at mouse-move rate, outside of preact. */
import uPlot from "uplot";
import { format } from "../units";
import { toneOf, type Live } from "./chart";
import { markerNear } from "./draw";
import { clock, day } from "./time";

/** More lines than this hide the chart below them. */
const ROWS = 9;

function row(name: string, value: string, swatch: string | null): HTMLElement {
  const el = document.createElement("div");
  el.className = "tip-row";
  if (swatch !== null) {
    const s = document.createElement("span");
    s.className = "swatch";
    s.style.background = swatch;
    el.append(s);
  }
  const n = document.createElement("span");
  n.className = "name";
  n.textContent = name;
  const v = document.createElement("span");
  v.className = "num";
  v.textContent = value;
  el.append(n, v);
  return el;
}

/** The bucket under the cursor, as "4–8 ms" and its rate. */
function bucketRow(u: uPlot, live: Live, idx: number): HTMLElement | null {
  const at = u.posToVal(u.cursor.top ?? -1, "y");
  const b = live.data.hists?.[idx]?.buckets.find((c) => at > c.lo && at <= c.hi);
  if (b === undefined) return null;
  return row(`${format(Math.max(b.lo, 0), live.unit)} – ${format(b.hi, live.unit)}`, format(b.n, "", true), null);
}

/** fillTip writes the values at the cursor; false when there is nothing to say. */
export function fillTip(el: HTMLElement, u: uPlot, live: Live): boolean {
  const idx = u.cursor.idx;
  const here = u.cursor.event !== null && u.cursor.event !== undefined;
  const key = document.activeElement !== null && u.root.parentElement === document.activeElement;
  if (idx === null || idx === undefined || (u.cursor.left ?? -1) < 0 || !(key || (here && u.over.matches(":hover")))) return false;
  const x = live.data.x[idx];
  if (x === undefined) return false;
  const d = new Date(x * 1000);
  const head = document.createElement("div");
  head.className = "tip-head";
  head.textContent = `${day(d)} ${clock(d)}`;
  el.replaceChildren(head);
  const heat = live.data.hists !== undefined;
  const rows = live.data.names
    .map((name, i) => ({ name, v: live.data.y[i]?.[idx] ?? null, c: toneOf(live.data, i, live.look.dark) }))
    .filter((r) => r.v !== null)
    .sort((a, b) => b.v! - a.v!);
  for (const r of rows.slice(0, ROWS)) el.append(row(r.name, format(r.v, live.unit, live.rate), r.c));
  if (rows.length > ROWS) el.append(row(`+${rows.length - ROWS}`, "", null));
  const b = heat ? bucketRow(u, live, idx) : null;
  if (b !== null) el.append(b);
  const m = markerNear(u, live);
  if (m !== null) {
    const e = document.createElement("div");
    e.className = `tip-event ${m.severity}`;
    e.textContent = m.title;
    el.append(e);
  }
  return rows.length > 0 || b !== null || m !== null;
}

/** placeTip puts the read-out beside the cursor, on the side with room. */
export function placeTip(el: HTMLElement, u: uPlot): void {
  el.hidden = false;
  const left = u.over.offsetLeft + (u.cursor.left ?? 0);
  const width = el.offsetWidth;
  const right = left + 14 + width <= u.width;
  el.style.left = `${right ? left + 14 : Math.max(0, left - 14 - width)}px`;
  el.style.top = `${Math.max(0, Math.min((u.cursor.top ?? 0) - 10, u.height - 40))}px`;
}
