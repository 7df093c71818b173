// SPDX-License-Identifier: Apache-2.0

/** A line without axes: the shape of the last minutes beside a number. */
import type { JSX } from "preact";

const W = 120;
const H = 28;

/** Spark draws values from zero to max, gaps left open. */
export function Spark({ values, max, level }: { values: (number | null)[]; max?: number; level: string }): JSX.Element {
  const top = Math.max(max ?? 0, ...values.map((v) => v ?? 0)) || 1;
  const dx = W / Math.max(1, values.length - 1);
  const y = (v: number) => H - 1.5 - (v / top) * (H - 4);
  const runs: [number, number][][] = [];
  let run: [number, number][] = [];
  values.forEach((v, i) => {
    if (v === null) {
      if (run.length > 0) runs.push(run);
      run = [];
    } else run.push([i * dx, y(Math.max(0, v))]);
  });
  if (run.length > 0) runs.push(run);
  const line = (r: [number, number][]) => r.map(([a, b]) => `${a.toFixed(1)} ${b.toFixed(1)}`).join("L");
  return (
    <svg class={`spark ${level}`} viewBox={`0 0 ${W} ${H}`} preserveAspectRatio="none" aria-hidden="true">
      {runs.map((r) => <path class="area" d={`M${r[0]![0].toFixed(1)} ${H}L${line(r)}L${r[r.length - 1]![0].toFixed(1)} ${H}Z`} />)}
      {runs.map((r) => <path class="line" d={`M${line(r)}`} />)}
    </svg>
  );
}
