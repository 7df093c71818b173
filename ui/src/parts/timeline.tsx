// SPDX-License-Identifier: Apache-2.0

/** Counts of events over time, stacked by kind; a brush narrows the range. */
import type { JSX, TargetedPointerEvent } from "preact";
import { useRef, useState } from "preact/hooks";
import type { Timeline as Data } from "../api";
import { shaded } from "../palette";
import { useApp } from "../state";
import { digits } from "../units";
import { axisTime, clock } from "./time";

/** Height of the drawing in its own units. */
const H = 100;

export interface TimelineProps {
  data: Data;
  kinds: string[];
  onBrush: (from: number, to: number) => void;
  onReset: () => void;
}

/** kindColor gives a kind its colour, by its place in the catalogue, so it never changes with the filter. */
export function kindColor(kind: string, kinds: string[], dark: boolean): string {
  return shaded(Math.max(0, kinds.indexOf(kind)), dark);
}

interface Drag {
  from: number;
  to: number;
}

/** Timeline draws one bar per bucket. */
export function Timeline(p: TimelineProps): JSX.Element {
  const { dark, t } = useApp();
  const buckets = p.data.buckets ?? [];
  const total = (b: (typeof buckets)[number]) => Object.values(b.count ?? {}).reduce((x, y) => x + y, 0);
  const max = Math.max(1, ...buckets.map(total));
  const from = Date.parse(p.data.from) / 1000;
  const to = Math.max(Date.parse(p.data.to) / 1000, from + 1);
  const n = Math.max(1, buckets.length);
  const [hover, setHover] = useState<number | null>(null);
  const sum = buckets.reduce((s, b) => s + total(b), 0);
  const brush = useBrush(from, to, p.onBrush, (share) => setHover(share === null ? null : Math.min(n - 1, Math.floor(share * n))));
  const at = hover === null ? undefined : buckets[hover];
  const incr = (to - from) / 6;
  return (
    <div class="timeline">
      <div class="y-axis" aria-hidden="true"><span>{digits(max)}</span><span>0</span></div>
      <div class="area" {...brush.handlers} onDblClick={p.onReset} role="img" aria-label={t("timeline.label", { n: sum })}>
        <svg viewBox={`0 0 ${n} ${H}`} preserveAspectRatio="none" aria-hidden="true">
          {hover !== null && <rect class="hover" x={hover} y={0} width={1} height={H} />}
          {buckets.map((b, i) => {
            let y = H;
            return p.kinds.filter((k) => (b.count?.[k] ?? 0) > 0).map((k) => {
              const h = Math.max(1.5, (b.count![k]! / max) * (H - 4));
              y -= h;
              return <rect x={i + 0.08} y={y} width={0.84} height={h} fill={kindColor(k, p.kinds, dark)} />;
            });
          })}
        </svg>
        {brush.drag !== null && <div class="brush" style={{ left: `${Math.min(brush.drag.from, brush.drag.to) * 100}%`, width: `${Math.abs(brush.drag.to - brush.drag.from) * 100}%` }} />}
      </div>
      <div class="x-axis" aria-hidden="true">{[0, 1, 2, 3, 4].map((i) => <span>{axisTime(from + ((to - from) * i) / 4, incr >= 86400 ? 86400 : incr >= 60 ? 60 : 1)}</span>)}</div>
      <p class="read-out" aria-hidden="true">
        {at === undefined ? t("timeline.hint", { n: sum }) : `${clock(new Date(at.time))}  ${Object.entries(at.count ?? {}).map(([k, c]) => `${k} ${c}`).join(", ") || t("timeline.empty")}`}
      </p>
    </div>
  );
}

/** useBrush turns a horizontal drag into a range; shares are 0…1 of the width. */
function useBrush(from: number, to: number, done: (a: number, b: number) => void, hover: (share: number | null) => void) {
  const [drag, set] = useState<Drag | null>(null);
  const now = useRef<Drag | null>(null);
  const share = (e: TargetedPointerEvent<HTMLDivElement>) => {
    const r = e.currentTarget.getBoundingClientRect();
    return Math.max(0, Math.min(1, (e.clientX - r.left) / r.width));
  };
  const change = (d: Drag | null) => {
    now.current = d;
    set(d);
  };
  return {
    drag,
    handlers: {
      onPointerDown: (e: TargetedPointerEvent<HTMLDivElement>) => {
        if (e.button !== 0) return;
        e.currentTarget.setPointerCapture(e.pointerId);
        change({ from: share(e), to: share(e) });
      },
      onPointerMove: (e: TargetedPointerEvent<HTMLDivElement>) => {
        hover(share(e));
        if (now.current !== null) change({ from: now.current.from, to: share(e) });
      },
      onPointerUp: () => {
        const d = now.current;
        change(null);
        // Less than a hundredth of the width is a click.
        if (d === null || Math.abs(d.to - d.from) < 0.01) return;
        const [a, b] = d.from < d.to ? [d.from, d.to] : [d.to, d.from];
        done(from + (to - from) * a, from + (to - from) * b);
      },
      onPointerCancel: () => change(null),
      onPointerLeave: () => hover(null),
    },
  };
}
