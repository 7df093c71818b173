// SPDX-License-Identifier: Apache-2.0

/** One chart: lines, or a heat map with quantile lines, with event markers, drag to zoom and a read-out under the cursor. */
import type { JSX } from "preact";
import { useEffect, useRef, useState } from "preact/hooks";
import uPlot from "uplot";
import type { Marker } from "../markers";
import type { Hist } from "../hist";
import { color } from "../palette";
import { useApp } from "../state";
import { format } from "../units";
import { drawHeat, drawMarkers, markerNear, options, type Look } from "./draw";
import { fillTip, placeTip } from "./tip";

/** What a chart shows. */
export interface ChartData {
  x: number[];
  names: string[];
  y: (number | null)[][];
  /** For each line the index of the line of now that it repeats at an earlier time; -1 for lines of now. */
  past?: number[];
  /** Present for a histogram: the distribution at each x. */
  hists?: (Hist | null)[];
  step: number;
}

export interface ChartProps {
  label: string;
  data: ChartData;
  from: number;
  to: number;
  unit: string;
  rate: boolean;
  height: number;
  markers?: Marker[];
  onZoom: (from: number, to: number) => void;
  onReset: () => void;
  onMarker?: (m: Marker) => void;
}

/** Everything the uPlot callbacks read; they outlive a render, so they see it through a ref. */
export interface Live extends ChartProps {
  look: Look;
}

function plotData(p: ChartProps, hidden: Set<string>): uPlot.AlignedData {
  return [p.data.x, ...p.data.y.map((col, i) => (hidden.has(p.data.names[i]!) ? col.map(() => null) : col))] as uPlot.AlignedData;
}

/** last is the newest value of a column. */
export function last(col: (number | null)[]): number | null {
  for (let i = col.length - 1; i >= 0; i--) if (col[i] !== null) return col[i]!;
  return null;
}

/** Connects uPlot's events to the page. */
function plugin(live: { current: Live }, tip: { current: HTMLDivElement | null }): uPlot.Plugin {
  return {
    hooks: {
      drawClear: (u) => live.current.data.hists !== undefined && drawHeat(u, live.current),
      draw: (u) => drawMarkers(u, live.current),
      setSelect: (u) => {
        const { left, width } = u.select;
        if (width < 4) return;
        u.setSelect({ left: 0, top: 0, width: 0, height: 0 }, false);
        live.current.onZoom(u.posToVal(left, "x"), u.posToVal(left + width, "x"));
      },
      setCursor: (u) => {
        if (tip.current === null) return;
        if (fillTip(tip.current, u, live.current)) placeTip(tip.current, u);
        else tip.current.hidden = true;
      },
      ready: (u) => {
        let down = 0;
        u.over.addEventListener("mousedown", (e) => { down = e.clientX; });
        u.over.addEventListener("mouseleave", () => { if (tip.current !== null) tip.current.hidden = true; });
        u.over.addEventListener("click", (e) => {
          const hit = Math.abs(e.clientX - down) < 4 ? markerNear(u, live.current) : null;
          if (hit !== null) live.current.onMarker?.(hit);
        });
      },
    },
  };
}

/** Arrow keys move the cursor, plus zooms in around it, minus and Escape go back. */
function onKey(e: KeyboardEvent, u: uPlot, live: Live): void {
  const n = live.data.x.length;
  const at = u.cursor.idx ?? n - 1;
  const move = (i: number) => {
    const x = live.data.x[Math.max(0, Math.min(n - 1, i))];
    if (x !== undefined) u.setCursor({ left: u.valToPos(x, "x"), top: u.over.clientHeight / 2 });
  };
  const mid = live.data.x[at] ?? (live.from + live.to) / 2;
  const quarter = (live.to - live.from) / 4;
  switch (e.key) {
    case "ArrowLeft": move(at - 1); break;
    case "ArrowRight": move(at + 1); break;
    case "+": case "=": live.onZoom(mid - quarter, mid + quarter); break;
    case "-": case "Escape": live.onReset(); break;
    default: return;
  }
  e.preventDefault();
}

/** Chart draws props.data. */
export function Chart(props: ChartProps): JSX.Element {
  const { dark, t } = useApp();
  const box = useRef<HTMLDivElement>(null);
  const tip = useRef<HTMLDivElement>(null);
  const plot = useRef<uPlot | null>(null);
  const [hidden, setHidden] = useState<Set<string>>(new Set());
  const live = useRef<Live>(null!);
  live.current = { ...props, look: lookOf(dark) };
  const shape = JSON.stringify([props.data.names, props.data.hists !== undefined, props.data.past, props.unit, props.rate, props.height, dark]);

  useEffect(() => {
    const el = box.current!;
    const u = new uPlot({ ...options(live, el.clientWidth), plugins: [plugin(live, tip)] }, plotData(props, hidden), el);
    plot.current = u;
    const watch = new ResizeObserver(() => u.setSize({ width: el.clientWidth, height: live.current.height }));
    watch.observe(el);
    return () => {
      watch.disconnect();
      u.destroy();
      plot.current = null;
    };
  }, [shape]);
  useEffect(() => {
    plot.current?.setData(plotData(props, hidden));
  }, [props.data, props.from, props.to, props.markers, hidden]);

  return (
    <div class="chart">
      <div class="plot" ref={box} role="img" tabIndex={0} aria-label={`${props.label}. ${summary(props)} ${t("chart.keys")}`}
        style={{ height: `${props.height}px` }} onKeyDown={(e) => plot.current !== null && onKey(e, plot.current, live.current)}
        onBlur={() => { if (tip.current !== null) tip.current.hidden = true; }}>
        <div class="tip" ref={tip} hidden />
      </div>
      <Legend props={props} hidden={hidden} set={setHidden} dark={dark} />
    </div>
  );
}

/** lookOf reads the colours that the style sheet defines. */
function lookOf(dark: boolean): Look {
  const css = getComputedStyle(document.documentElement);
  const v = (name: string) => css.getPropertyValue(name).trim();
  return { dark, text: v("--muted"), grid: v("--grid"), font: "11px system-ui, sans-serif" };
}

/** Text for those who do not see the chart. */
function summary(p: ChartProps): string {
  return p.data.names.slice(0, 5).map((n, i) => `${n} ${format(last(p.data.y[i]!), p.unit, p.rate)}`).join(", ");
}

/** Legend lists the lines; a click shows that line alone, a second click all again. */
function Legend(p: { props: ChartProps; hidden: Set<string>; set: (h: Set<string>) => void; dark: boolean }): JSX.Element | null {
  const { names, y } = p.props.data;
  if (names.length === 0 || (names.length === 1 && names[0] === "")) return null;
  const toggle = (name: string) => {
    const only = !p.hidden.has(name) && p.hidden.size === names.length - 1;
    p.set(only ? new Set() : new Set(names.filter((n) => n !== name)));
  };
  return (
    <ul class="legend">
      {names.map((n, i) => (
        <li key={n}>
          <button type="button" class={p.hidden.has(n) ? "off" : ""} aria-pressed={!p.hidden.has(n)} onClick={() => toggle(n)} title={n}>
            <span class={`swatch ${(p.props.data.past?.[i] ?? -1) >= 0 ? "past" : ""}`} style={{ background: toneOf(p.props.data, i, p.dark) }} />
            <span class="name">{n}</span><span class="num">{format(last(y[i]!), p.props.unit, p.props.rate)}</span>
          </button>
        </li>
      ))}
    </ul>
  );
}

/** toneOf is the colour of the i-th line; a line of the past has the colour of its present. */
export function toneOf(d: ChartData, i: number, dark: boolean): string {
  const past = d.past?.[i] ?? -1;
  const k = past >= 0 ? past : i;
  return d.hists !== undefined ? lineColor(k, dark) : color(k, dark);
}

/** Colours of the p50, p90 and p99 lines over a heat map. */
function lineColor(i: number, dark: boolean): string {
  return (dark ? ["#e8eaf0", "#f2c14e", "#ff7f6b"] : ["#14161c", "#b86a00", "#c2271f"])[i % 3]!;
}
