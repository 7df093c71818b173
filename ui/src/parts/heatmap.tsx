// SPDX-License-Identifier: Apache-2.0

/** When the samples of a profile were taken: a column per second, 50 ms a cell, or bars; a drag selects a stretch of time. */
import type { JSX } from "preact";
import { useEffect, useRef, useState } from "preact/hooks";
import type { ProfileHeat } from "../api";
import { SLOTS, startOf, stretch, type Place } from "../heatgrid";
import { heat } from "../palette";
import { useApp } from "../state";
import { format } from "../units";
import { axisTime, clock } from "./time";

export interface HeatMapProps {
  data: ProfileHeat;
  grid: boolean;
  /** Samples of a CPU per second. */
  hertz: number;
  selected: [number, number] | null;
  /** Writes a value. */
  amount: (v: number) => string;
  onSelect: (from: number, to: number) => void;
}

/** Height in CSS pixels. */
const HEIGHT = 110;

function paint(canvas: HTMLCanvasElement, p: HeatMapProps, columns: number, dark: boolean): void {
  const ratio = devicePixelRatio || 1;
  const width = canvas.clientWidth;
  canvas.width = Math.round(width * ratio);
  canvas.height = Math.round(HEIGHT * ratio);
  const c = canvas.getContext("2d")!;
  c.setTransform(ratio, 0, 0, ratio, 0, 0);
  const values = p.data.values ?? [];
  const max = Math.max(1, ...values.map(Number));
  const w = width / columns;
  const gap = w > 4 ? 1 : 0;
  const h = HEIGHT / SLOTS;
  values.forEach((v, i) => {
    if (v <= 0) return;
    c.fillStyle = heat(p.grid ? v / max : 0.6, dark);
    if (p.grid) c.fillRect(Math.floor(i / SLOTS) * w, HEIGHT - ((i % SLOTS) + 1) * h, w - gap, h - (gap > 0 ? 0.5 : 0));
    else c.fillRect(i * w, HEIGHT * (1 - v / max), w - gap, (HEIGHT * v) / max);
  });
}

/** Selection marks a stretch: the part of each column that is in it. */
function Selection({ from, to, columns, column, grid }: { from: number; to: number; columns: number; column: number; grid: boolean }): JSX.Element | null {
  const each = grid ? 1 : column;
  const box = (a: number, b: number, y0: number, y1: number) =>
    b <= 0 || a >= columns ? null : <div class="brush" style={{ left: `${(Math.max(0, a) / columns) * 100}%`, width: `${((Math.min(columns, b) - Math.max(0, a)) / columns) * 100}%`, bottom: `${y0 * 100}%`, height: `${(y1 - y0) * 100}%`, top: "auto" }} />;
  const first = Math.floor(from / each + 1e-9);
  const last = Math.ceil(to / each - 1e-9) - 1;
  const part = (v: number, i: number) => Math.max(0, Math.min(1, v / each - i));
  if (!grid) return box(first, last + 1, 0, 1);
  if (first === last) return box(first, first + 1, part(from, first), part(to, first));
  return <>{box(first, first + 1, part(from, first), 1)}{last - first > 1 && box(first + 1, last, 0, 1)}{box(last, last + 1, 0, part(to, last))}</>;
}

/** HeatMap draws the cells. */
export function HeatMap(p: HeatMapProps): JSX.Element {
  const { dark, t } = useApp();
  const canvas = useRef<HTMLCanvasElement>(null);
  const [drag, setDrag] = useState<[Place, Place] | null>(null);
  const [hover, setHover] = useState<Place | null>(null);
  const values = p.data.values ?? [];
  const columns = Math.max(1, p.grid ? Math.ceil(values.length / SLOTS) : values.length);
  const column = p.data.column_seconds;
  const start = Date.parse(p.data.from) / 1000;
  const length = columns * (p.grid ? 1 : column);
  const again = () => { if (canvas.current !== null) paint(canvas.current, p, columns, dark); };
  useEffect(again, [p.data, p.grid, dark]);
  useEffect(() => {
    const o = new ResizeObserver(again);
    o.observe(canvas.current!);
    return () => o.disconnect();
  }, [p.data, p.grid, dark]);
  const place = (e: { clientX: number; clientY: number; currentTarget: Element }): Place => {
    const r = e.currentTarget.getBoundingClientRect();
    return { x: (e.clientX - r.left) / r.width, y: 1 - (e.clientY - r.top) / r.height };
  };
  const marked = drag !== null ? stretch(...drag, columns, column, p.grid) : p.selected === null ? null : [p.selected[0] - start, p.selected[1] - start] as const;
  const at = hover === null ? null : startOf(hover, columns, column, p.grid);
  const index = at === null ? 0 : Math.round(at / column);
  const sparse = p.grid && p.hertz > 0 && p.hertz < SLOTS ? ` ${t("prof.heat.sparse", { n: p.hertz })}` : "";
  return (
    <div class="heatmap">
      <div class="area" role="img" aria-label={t("prof.heat.label")}
        onPointerDown={(e) => {
          if (e.button !== 0) return;
          e.currentTarget.setPointerCapture(e.pointerId);
          setDrag([place(e), place(e)]);
        }}
        onPointerMove={(e) => {
          setHover(place(e));
          if (drag !== null) setDrag([drag[0], place(e)]);
        }}
        onPointerUp={(e) => {
          if (drag !== null) {
            const [a, b] = stretch(drag[0], place(e), columns, column, p.grid);
            p.onSelect(start + a, start + b);
          }
          setDrag(null);
        }}
        onPointerCancel={() => setDrag(null)} onPointerLeave={() => setHover(null)}>
        <canvas ref={canvas} aria-hidden="true" />
        {marked !== null && <Selection from={marked[0]} to={marked[1]} columns={columns} column={column} grid={p.grid} />}
      </div>
      <div class="x-axis" aria-hidden="true">{[0, 1, 2, 3, 4].map((i) => <span>{axisTime(start + (length * i) / 4, length >= 6 * 86400 ? 86400 : length >= 3600 ? 60 : 1)}</span>)}</div>
      <p class="read-out hint" aria-hidden="true">
        {at === null ? t(p.grid ? "prof.heat.grid" : "prof.heat.bars", { s: format(column, "seconds") }) + sparse : `${clock(new Date((start + at) * 1000), true)}  ${p.amount(values[index] ?? 0)}`}
      </p>
    </div>
  );
}
