// SPDX-License-Identifier: Apache-2.0

/** uPlot set-up and everything that is painted on a chart's canvas besides lines. */
import uPlot from "uplot";
import type { Marker } from "../markers";
import { bounds, peak, shade, type Hist } from "../hist";
import { color, heat, severityColor } from "../palette";
import { increments, logTicks, ticks } from "../units";
import { toneOf, type Live } from "./chart";
import { axisTime } from "./time";

/** Colours and font of axes. */
export interface Look {
  dark: boolean;
  text: string;
  grid: string;
  font: string;
}

type Ref = { current: Live };

/** Range of a linear axis: from zero, because a bar of 98 % and one of 99 % should look alike; negative values extend it. */
function linear(_: uPlot, min: number | null, max: number | null): uPlot.Range.MinMax {
  const lo = Math.min(0, min ?? 0);
  const hi = max ?? 0;
  return hi <= lo ? [lo, lo + 1] : [lo < 0 ? lo * 1.08 : 0, hi + (hi - lo) * 0.08];
}

/** Range of a heat map's axis: the edges of its filled buckets, to the next power of two. */
function logarithmic(live: Ref): uPlot.Range.MinMax {
  const b = bounds((live.current.data.hists ?? []).filter((h): h is Hist => h !== null));
  if (b === null) return [2 ** -20, 1];
  return [2 ** Math.floor(Math.log2(b.lo)), 2 ** Math.ceil(Math.log2(b.hi * 1.0001))];
}

function axes(live: Ref): uPlot.Axis[] {
  const { look, unit, rate, data } = live.current;
  const base = { stroke: look.text, font: look.font, grid: { stroke: look.grid, width: 1 }, ticks: { show: false } };
  const values = data.hists !== undefined
    ? (_: uPlot, v: (number | null)[]) => logTicks(v, unit)
    : (_: uPlot, v: number[]) => ticks(v, unit, rate);
  return [
    { ...base, size: 22, gap: 4, space: 72, values: (_u, splits, _i, _s, incr) => splits.map((s) => axisTime(s, incr)) },
    { ...base, size: 62, gap: 6, space: 34, incrs: increments(unit), values: values as uPlot.Axis["values"],
      ...(data.hists !== undefined ? { splits: (u: uPlot) => logSplits(u, unit), filter: (_: uPlot, s: number[]) => s } : {}) },
  ];
}

/** Ticks of a logarithmic axis where people look for them: at powers of ten (of two for bytes), as many as have room. */
function logSplits(u: uPlot, unit: string): number[] {
  const { min, max } = u.scales.y!;
  const base = unit === "bytes" ? 2 : 10;
  const lo = Math.ceil(Math.log(min ?? 1) / Math.log(base) - 1e-9);
  const hi = Math.floor(Math.log(max ?? 2) / Math.log(base) + 1e-9);
  const room = Math.max(2, Math.floor(u.bbox.height / devicePixelRatio / 26));
  const every = Math.max(1, Math.ceil((hi - lo + 1) / room));
  const out: number[] = [];
  for (let e = lo; e <= hi; e += every) out.push(base ** e);
  return out.length > 1 || min == null || max == null ? out : [min, max];
}

/** options builds the uPlot options of a chart. */
export function options(live: Ref, width: number): uPlot.Options {
  const { data, height, look } = live.current;
  const isHeat = data.hists !== undefined;
  return {
    width, height, padding: [8, 10, 0, 0],
    legend: { show: false },
    cursor: {
      sync: { key: "time" }, focus: { prox: 24 }, points: { size: 6 },
      drag: { x: true, y: false, setScale: false },
      bind: { dblclick: () => () => { live.current.onReset(); return null; } },
    },
    focus: { alpha: 0.35 },
    scales: {
      x: { time: true, range: () => [live.current.from, live.current.to] },
      y: isHeat ? { distr: 3, log: 2, range: () => logarithmic(live) } : { range: linear },
    },
    axes: axes(live),
    series: [{}, ...data.names.map((label, i) => ({
      label, width: 1.5, spanGaps: false, points: { size: 4 }, stroke: toneOf(data, i, look.dark), dash: (data.past?.[i] ?? -1) >= 0 ? [3, 4] : [],
      ...(data.names.length === 1 && !isHeat ? { fill: color(0, look.dark) + "1f" } : {}),
    }))],
  };
}

/** drawHeat paints one cell per bucket and step. */
export function drawHeat(u: uPlot, live: Live): void {
  const { x, hists = [], step } = live.data;
  const max = peak(hists.filter((h): h is Hist => h !== null));
  const { ctx, bbox } = u;
  ctx.save();
  ctx.beginPath();
  ctx.rect(bbox.left, bbox.top, bbox.width, bbox.height);
  ctx.clip();
  for (let i = 0; i < x.length; i++) {
    const left = Math.round(u.valToPos(x[i]! - step, "x", true));
    const right = Math.round(u.valToPos(x[i]!, "x", true));
    for (const b of hists[i]?.buckets ?? []) {
      const top = Math.round(u.valToPos(b.hi, "y", true));
      const low = b.lo > 0 ? Math.round(u.valToPos(b.lo, "y", true)) : bbox.top + bbox.height;
      ctx.fillStyle = heat(shade(b.n, max), live.look.dark);
      ctx.fillRect(left, top, Math.max(1, right - left), Math.max(1, low - top));
    }
  }
  ctx.restore();
}

/** Position of each marker in canvas pixels, left to right, one per pixel column and the most severe first. */
function marks(u: uPlot, live: Live): { px: number; marker: Marker }[] {
  const rank = { critical: 0, warning: 1, info: 2 } as const;
  const seen = new Map<number, Marker>();
  for (const m of live.markers ?? []) {
    const px = Math.round(u.valToPos(m.time, "x", true));
    const old = seen.get(px);
    if (old === undefined || rank[m.severity] < rank[old.severity]) seen.set(px, m);
  }
  return [...seen].map(([px, marker]) => ({ px, marker })).filter(({ px }) => px >= u.bbox.left && px <= u.bbox.left + u.bbox.width).sort((a, b) => a.px - b.px);
}

/** drawMarkers paints a tick at the top edge for each marker, and a faint line down where it stands alone: many lines side by side would hide the data. */
export function drawMarkers(u: uPlot, live: Live): void {
  const { ctx, bbox } = u;
  const r = devicePixelRatio;
  const list = marks(u, live);
  const room = (i: number, j: number) => list[j] === undefined || Math.abs(list[j].px - list[i]!.px) > 10 * r;
  ctx.save();
  list.forEach(({ px, marker }, i) => {
    ctx.fillStyle = severityColor(marker.severity, live.look.dark);
    ctx.globalAlpha = 0.28;
    if (room(i, i - 1) && room(i, i + 1)) ctx.fillRect(px - r / 2, bbox.top, r, bbox.height);
    ctx.globalAlpha = 1;
    ctx.beginPath();
    ctx.moveTo(px - 4 * r, bbox.top - 4 * r);
    ctx.lineTo(px + 4 * r, bbox.top - 4 * r);
    ctx.lineTo(px, bbox.top + 3 * r);
    ctx.fill();
  });
  ctx.restore();
}

/** markerNear finds the marker within five pixels of the cursor. */
export function markerNear(u: uPlot, live: Live): Marker | null {
  const at = ((u.cursor.left ?? -100) * devicePixelRatio) + u.bbox.left;
  let best: Marker | null = null;
  let dist = 5 * devicePixelRatio;
  for (const { px, marker } of marks(u, live)) {
    if (Math.abs(px - at) <= dist) {
      dist = Math.abs(px - at);
      best = marker;
    }
  }
  return best;
}
