// SPDX-License-Identifier: Apache-2.0

/**
 * A flame graph on a canvas. The canvas is as large as what is seen of it and
 * sticks to the top of a scrolled box, so depth costs no memory; only boxes
 * that can be seen are drawn, in an animation frame.
 */
import type { JSX } from "preact";
import { useEffect, useMemo, useRef, useState } from "preact/hooks";
import { deepest, nodeAt, step, visible, type Tree } from "../flame";
import { useApp } from "../state";

/** Height of a row in CSS pixels. */
const ROW = 18;

/** Narrower boxes are not drawn. */
const LEAST = 0.5;

/** Narrower boxes have no text. */
const TEXT = 26;

/** Boxes with less of the width count for nothing when the height is chosen. */
const LEAST_SHARE = 1 / 2000;

/** Rows that are shown at least, if there are so many. */
const LEAST_ROWS = 8;

/** How long a change of focus takes to look at, in ms. */
const MOVE = 160;

export interface FlameProps {
  tree: Tree;
  label: string;
  /** True: roots at the bottom. */
  up: boolean;
  /** Node that fills the width. */
  focus: number;
  onFocus: (node: number) => void;
  /** Node that the keyboard is at. */
  cursor: number;
  onCursor: (node: number) => void;
  /** By function; null: all are alike. */
  matched: Uint8Array | null;
  color: (node: number) => string;
  name: (node: number) => string;
  /** Lines of the read-out; the first is the name. */
  tip: (node: number) => string[];
  /** Largest height in CSS pixels. */
  height?: number;
  /** Rows that are not shown: 1 leaves out the node for everything. */
  skip?: number;
}

interface View {
  a: number;
  b: number;
}

interface Scene extends FlameProps {
  box: HTMLDivElement;
  canvas: HTMLCanvasElement;
  view: View;
  hover: number;
  text: string;
  gap: string;
  accent: string;
}

/** rowOf gives the row from the top of a depth; it is its own inverse but for what is skipped. */
function rowOf(s: Pick<FlameProps, "tree" | "up" | "skip">, depth: number): number {
  return s.up ? s.tree.rows.length - 1 - depth : depth - (s.skip ?? 0);
}

/** draw paints what is seen. */
function draw(s: Scene): void {
  const { canvas, box, tree } = s;
  const ratio = devicePixelRatio || 1;
  const [width, height] = [box.clientWidth, box.clientHeight];
  if (canvas.width !== Math.round(width * ratio) || canvas.height !== Math.round(height * ratio)) {
    canvas.width = Math.round(width * ratio);
    canvas.height = Math.round(height * ratio);
    canvas.style.width = `${width}px`;
    canvas.style.height = `${height}px`;
  }
  const c = canvas.getContext("2d")!;
  c.setTransform(ratio, 0, 0, ratio, 0, 0);
  c.clearRect(0, 0, width, height);
  c.font = "11px ui-monospace, SFMono-Regular, Menlo, Consolas, 'DejaVu Sans Mono', monospace";
  c.textBaseline = "middle";
  const letter = c.measureText("m").width;
  const top = box.scrollTop;
  tree.rows.forEach((row, depth) => {
    if (depth < (s.skip ?? 0)) return;
    const y = rowOf(s, depth) * ROW - top;
    if (y + ROW > 0 && y < height) drawRow(s, c, row, y, width, letter);
  });
  if (s.cursor >= 0) outline(s, c, s.cursor, width, top, 2);
  if (s.hover >= 0) outline(s, c, s.hover, width, top, 1);
}

function drawRow(s: Scene, c: CanvasRenderingContext2D, row: Int32Array, y: number, width: number, letter: number): void {
  const { tree, view } = s;
  const scale = width / (view.b - view.a);
  const [from, to] = visible(tree, row, view.a, view.b);
  let filled = -1; // right edge of what has been painted
  for (let k = from; k < to; k++) {
    const i = row[k]!;
    const w = tree.w[i]! * scale;
    if (w < LEAST) continue;
    const left = Math.max(0, (tree.x[i]! - view.a) * scale);
    const right = Math.min(width, (tree.x[i]! - view.a) * scale + w);
    if (right - left < 1 && right < filled + LEAST) continue;
    filled = right;
    const dim = (s.matched !== null && i > 0 && s.matched[tree.fn[i]!] === 0) || tree.w[i]! > (view.b - view.a) * 1.0001;
    c.globalAlpha = dim ? 0.32 : 1;
    c.fillStyle = s.color(i);
    c.fillRect(left, y, Math.max(right - left - (w > 3 ? 1 : 0), LEAST), ROW - 1);
    if (right - left < TEXT) continue;
    c.globalAlpha = dim ? 0.7 : 1;
    c.fillStyle = dim ? s.text : "#15161a";
    const name = s.name(i);
    const fit = Math.floor((right - left - 8) / letter);
    c.fillText(name.length <= fit ? name : `${name.slice(0, Math.max(0, fit - 1))}…`, left + 4, y + ROW / 2);
  }
  c.globalAlpha = 1;
}

function outline(s: Scene, c: CanvasRenderingContext2D, i: number, width: number, top: number, thick: number): void {
  const scale = width / (s.view.b - s.view.a);
  const left = Math.max(0, (s.tree.x[i]! - s.view.a) * scale);
  const right = Math.min(width, (s.tree.x[i]! + s.tree.w[i]! - s.view.a) * scale);
  if (right < 0 || left > width) return;
  c.strokeStyle = thick > 1 ? s.accent : s.text;
  c.lineWidth = thick;
  c.strokeRect(left + thick / 2, rowOf(s, s.tree.depth[i]!) * ROW - top + thick / 2, Math.max(right - left - thick, 1), ROW - thick);
}

/** useScene keeps what the canvas shows, and draws it once per animation frame at most. */
function useScene(p: FlameProps) {
  const { dark } = useApp();
  const box = useRef<HTMLDivElement>(null);
  const canvas = useRef<HTMLCanvasElement>(null);
  const scene = useRef<Scene | null>(null);
  const pending = useRef(0);
  const redraw = () => {
    if (pending.current !== 0) return;
    pending.current = requestAnimationFrame(() => {
      pending.current = 0;
      if (scene.current !== null) draw(scene.current);
    });
  };
  const target = useMemo((): View => ({ a: p.tree.x[p.focus]!, b: p.tree.x[p.focus]! + Math.max(p.tree.w[p.focus]!, 1e-12) }), [p.tree, p.focus]);
  const moving = useRef(0);
  const zoomed = useRef(false); // by the wheel or a drag, which the address does not know
  const focused = useRef(0);
  const show = (to: View) => {
    zoomed.current = false;
    cancelAnimationFrame(moving.current);
    const s = scene.current!;
    const from = s.view;
    const start = performance.now();
    const still = matchMedia("(prefers-reduced-motion: reduce)").matches;
    const go = () => {
      const k = still ? 1 : Math.min(1, (performance.now() - start) / MOVE);
      const e = k * (2 - k);
      s.view = { a: from.a + (to.a - from.a) * e, b: from.b + (to.b - from.b) * e };
      draw(s);
      if (k < 1) moving.current = requestAnimationFrame(go);
    };
    go();
  };
  useEffect(() => {
    const css = getComputedStyle(document.documentElement);
    const old = scene.current;
    scene.current = {
      ...p, box: box.current!, canvas: canvas.current!, view: old?.view ?? target, hover: old !== null && old.tree === p.tree ? old.hover : -1,
      text: css.getPropertyValue("--text"), gap: css.getPropertyValue("--panel"), accent: css.getPropertyValue("--accent"),
    };
    if (old !== null && old.tree !== p.tree && !zoomed.current) scene.current.view = target;
    redraw();
  });
  useEffect(() => {
    const id = p.tree.id[p.focus]!;
    // A refresh leaves the place that one has zoomed to.
    if (focused.current !== id || !zoomed.current) show(target);
    focused.current = id;
  }, [target]);
  useEffect(() => { redraw(); }, [dark]);
  useEffect(() => {
    const o = new ResizeObserver(redraw);
    o.observe(box.current!);
    return () => {
      o.disconnect();
      cancelAnimationFrame(pending.current);
      cancelAnimationFrame(moving.current);
      pending.current = 0;
    };
  }, []);
  // Roots at the bottom: begin there.
  useEffect(() => { box.current!.scrollTop = p.up ? box.current!.scrollHeight : 0; }, [p.up, p.tree.rows.length]);
  const reset = () => show(target);
  const look = (view: View) => {
    zoomed.current = true;
    scene.current!.view = view;
    redraw();
  };
  return { box, canvas, scene, redraw, reset, look };
}

/** Flame is the graph, its read-out and its keys. */
export function Flame(p: FlameProps): JSX.Element {
  const { t } = useApp();
  const { box, canvas, scene, redraw, reset, look } = useScene(p);
  const focus = (node: number) => {
    if (node === p.focus) reset();
    else p.onFocus(node);
  };
  const tip = useRef<HTMLDivElement>(null);
  const [said, say] = useState("");
  const drag = useRef<{ x: number; view: View; moved: boolean } | null>(null);
  const rows = p.tree.rows.length - (p.skip ?? 0);
  const deep = useMemo(() => deepest(p.tree, p.focus, LEAST_SHARE), [p.tree, p.focus]);
  // Deeper rows, of boxes too thin to be seen yet, are reached by scrolling.
  const height = Math.min(Math.min(rows, Math.max(deep + 1 - (p.skip ?? 0), LEAST_ROWS)) * ROW, p.height ?? 640);
  const at = (e: { clientX: number; clientY: number }): number => {
    const s = scene.current!;
    const r = s.canvas.getBoundingClientRect();
    const row = Math.floor((e.clientY - r.top + s.box.scrollTop) / ROW);
    const x = s.view.a + ((e.clientX - r.left) / r.width) * (s.view.b - s.view.a);
    return nodeAt(s.tree, p.up ? p.tree.rows.length - 1 - row : row + (p.skip ?? 0), x);
  };
  const hover = (node: number, e?: MouseEvent) => {
    scene.current!.hover = node;
    fillTip(tip.current!, box.current!, node < 0 ? null : p.tip(node), e);
    redraw();
  };
  const pan = (by: number) => {
    const s = scene.current!;
    const w = s.view.b - s.view.a;
    const a = Math.max(0, Math.min(1 - w, s.view.a + by * w));
    look({ a, b: a + w });
  };
  const zoom = (e: WheelEvent) => {
    const s = scene.current!;
    const r = s.canvas.getBoundingClientRect();
    const mid = s.view.a + ((e.clientX - r.left) / r.width) * (s.view.b - s.view.a);
    const k = Math.exp(Math.max(-60, Math.min(60, e.deltaY)) / 150);
    const w = Math.max(1e-6, Math.min(1, (s.view.b - s.view.a) * k));
    const a = Math.max(0, Math.min(1 - w, mid - ((mid - s.view.a) / (s.view.b - s.view.a)) * w));
    look({ a, b: a + w });
  };
  useEffect(() => {
    // Not passive: a zoomed page would hide the rest of the console.
    const wheel = (e: WheelEvent) => {
      if (e.ctrlKey) zoom(e);
      else if (Math.abs(e.deltaX) > Math.abs(e.deltaY)) pan(e.deltaX / 1000);
      else return;
      e.preventDefault();
    };
    box.current!.addEventListener("wheel", wheel, { passive: false });
    return () => box.current?.removeEventListener("wheel", wheel);
  }, []);
  const move = (to: number) => {
    const node = p.tree.depth[to]! < (p.skip ?? 0) ? p.tree.rows[p.skip ?? 0]![0]! : to;
    p.onCursor(node);
    say(p.tip(node).join(", "));
    const y = rowOf(p, p.tree.depth[node]!) * ROW;
    const b = box.current!;
    if (y < b.scrollTop) b.scrollTop = y;
    if (y + ROW > b.scrollTop + b.clientHeight) b.scrollTop = y + ROW - b.clientHeight;
  };
  const key = (e: KeyboardEvent) => {
    const from = Math.max(p.cursor, 0);
    const away = p.up ? "ArrowUp" : "ArrowDown";
    switch (e.key) {
      case "ArrowUp": case "ArrowDown": move(p.cursor < 0 ? p.focus : step(p.tree, from, e.key === away ? "child" : "parent")); break;
      case "ArrowLeft": move(step(p.tree, from, "left")); break;
      case "ArrowRight": move(step(p.tree, from, "right")); break;
      case "Home": move(0); break;
      case "Enter": case " ": focus(from); break;
      case "Escape": focus(0); break;
      default: return;
    }
    e.preventDefault();
  };
  return (
    <div class="flame">
      <div class="flame-box" ref={box} style={{ height: `${height}px` }} tabIndex={0} role="application" aria-label={p.label} aria-description={t("prof.keys")}
        onKeyDown={key} onScroll={() => { hover(-1); }}
        onPointerDown={(e) => { drag.current = { x: e.clientX, view: scene.current!.view, moved: false }; }}
        onPointerMove={(e) => {
          const d = drag.current;
          if (d !== null && e.buttons === 1 && e.pointerType === "mouse" && Math.abs(e.clientX - d.x) > 4) {
            d.moved = true;
            const s = scene.current!;
            const w = d.view.b - d.view.a;
            const a = Math.max(0, Math.min(1 - w, d.view.a - ((e.clientX - d.x) / s.box.clientWidth) * w));
            look({ a, b: a + w });
            hover(-1);
            return;
          }
          if (e.pointerType === "mouse") hover(at(e), e);
        }}
        onPointerLeave={() => hover(-1)}
        onClick={(e) => {
          const moved = drag.current?.moved === true;
          drag.current = null;
          const node = at(e);
          if (moved || node < 0) return;
          p.onCursor(node);
          focus(node);
        }}>
        <canvas ref={canvas} aria-hidden="true" />
        <div style={{ height: `${rows * ROW - height}px` }} />
      </div>
      <div class="tip flame-tip" ref={tip} hidden />
      <p class="sr" role="status">{said}</p>
    </div>
  );
}

/** fillTip writes the read-out as text nodes, at mouse-move rate, outside of preact. */
function fillTip(el: HTMLElement, box: HTMLElement, lines: string[] | null, e?: MouseEvent): void {
  el.hidden = lines === null || e === undefined;
  if (lines === null || e === undefined) return;
  el.replaceChildren(...lines.map((l, i) => {
    const d = document.createElement("div");
    d.className = i === 0 ? "mono wrap" : "muted wrap";
    d.textContent = l;
    return d;
  }));
  const r = box.getBoundingClientRect();
  const x = e.clientX - r.left;
  el.style.left = `${Math.max(0, Math.min(x + 14, r.width - el.offsetWidth - 4))}px`;
  const y = e.clientY - r.top;
  // Below the pointer, or above it where the card would cut it off.
  el.style.top = `${y + 18 + el.offsetHeight > r.height && y > el.offsetHeight + 10 ? y - el.offsetHeight - 10 : y + 18}px`;
}
