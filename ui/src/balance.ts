// SPDX-License-Identifier: Apache-2.0

/** Whether the agent's books balance, judged from two readings some seconds apart. */
import type { Account } from "./api";

/**
 * ok: the law holds to the event. moving: some events had been counted in the
 * kernel and not yet read when the figures were taken. off: what an earlier
 * reading had counted has still not arrived, so it was lost without a reason.
 */
export type Balance = "ok" | "moving" | "off";

/** A reading is older than this before it proves anything: rings are drained on a timer. */
export const SETTLED_MS = 2000;

const sum = (m: Record<string, number> | null) => Object.values(m ?? {}).reduce((x, y) => x + y, 0);

/** The two sides of each equation: what went in, what has come out. */
function sides(a: Account): { in: number; out: number }[] {
  return [
    { in: a.observed, out: sum(a.dropped) + a.routed },
    ...(a.sinks ?? []).map((s) => ({ in: a.routed, out: s.delivered + s.dropped + s.failed + s.queued })),
  ];
}

/** balance judges now; before is an earlier reading, if there is one. */
export function balance(now: Account, before: Account | undefined): Balance {
  const n = sides(now);
  if (n.every((s) => s.in === s.out)) return "ok";
  if (before === undefined) return "moving";
  const b = sides(before);
  // Counters grow only. All that was in by then must be out by now, and what was out by then must be in by now.
  const late = n.some((s, i) => b[i] !== undefined && (s.out < b[i].in || s.in < b[i].out));
  return late ? "off" : "moving";
}

/** onTheWay counts the events between the kernel and the pipe. */
export function onTheWay(a: Account): number {
  return Math.max(0, a.observed - sum(a.dropped) - a.routed);
}
