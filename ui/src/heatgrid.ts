// SPDX-License-Identifier: Apache-2.0

/** The time heat map of profiles as numbers: cells, and the time that a drag over them means. */

/** Slots of a second, bottom to top. */
export const SLOTS = 20;

/** Ranges up to so many seconds are shown as a grid of seconds, longer ones as bars. */
export const GRID_MAX = 600;

/** Bars of a longer range. */
const BARS = 240;

/** What to ask for a range: whole columns, so that a moving range keeps its cells. */
export function heatAsk(from: number, to: number): { from: number; to: number; column: number; grid: boolean } {
  const grid = to - from <= GRID_MAX + 1;
  const column = grid ? 1 / SLOTS : Math.max(1, Math.ceil((to - from) / BARS));
  const whole = grid ? 1 : column;
  return { from: Math.floor(from / whole) * whole, to: Math.ceil(to / whole) * whole, column, grid };
}

/** A place over the map, as shares of its width and of its height from the bottom. */
export interface Place {
  x: number;
  y: number;
}

/** startOf gives the beginning of the cell at a place, in seconds after the map's beginning. */
export function startOf(p: Place, columns: number, column: number, grid: boolean): number {
  const x = Math.max(0, Math.min(columns - 1, Math.floor(p.x * columns)));
  if (!grid) return x * column;
  return x + Math.max(0, Math.min(SLOTS - 1, Math.floor(p.y * SLOTS))) / SLOTS;
}

/** stretch gives what a drag from one place to another selects: all time from the earlier cell to the end of the later. */
export function stretch(a: Place, b: Place, columns: number, column: number, grid: boolean): [number, number] {
  const [s, e] = [startOf(a, columns, column, grid), startOf(b, columns, column, grid)].sort((x, y) => x - y) as [number, number];
  return [s, e + column];
}

/** parseSel reads "from-to" in unix seconds; null when it is none. */
export function parseSel(text: string): [number, number] | null {
  const m = /^(\d+(?:\.\d+)?)-(\d+(?:\.\d+)?)$/.exec(text);
  if (m === null) return null;
  const [a, b] = [Number(m[1]), Number(m[2])];
  return a < b ? [a, b] : null;
}

/** formatSel is the inverse of parseSel. */
export function formatSel(a: number, b: number): string {
  const s = (v: number) => String(Math.round(v * 1000) / 1000);
  return `${s(a)}-${s(b)}`;
}
