// SPDX-License-Identifier: Apache-2.0

/** Moments in local time, with the exact value on hover. */
import type { JSX } from "preact";

const pad = (n: number, w = 2) => String(n).padStart(w, "0");

/** clock writes HH:MM:SS, with ms when asked for. */
export function clock(d: Date, ms = false): string {
  return `${pad(d.getHours())}:${pad(d.getMinutes())}:${pad(d.getSeconds())}${ms ? `.${pad(d.getMilliseconds(), 3)}` : ""}`;
}

/** day writes YYYY-MM-DD. */
export function day(d: Date): string {
  return `${d.getFullYear()}-${pad(d.getMonth() + 1)}-${pad(d.getDate())}`;
}

/** Time shows a moment; the date only when it is not today's. */
export function Time({ at, full = false }: { at: string; full?: boolean }): JSX.Element {
  const d = new Date(at);
  if (Number.isNaN(d.getTime()) || d.getFullYear() < 1971) return <span>–</span>;
  const today = day(d) === day(new Date());
  return <time dateTime={at} title={at}>{full || !today ? `${day(d)} ` : ""}{clock(d, true)}</time>;
}

/** axisTime labels a time axis whose ticks are incr seconds apart. */
export function axisTime(t: number, incr: number): string {
  const d = new Date(t * 1000);
  if (incr >= 86400) return `${pad(d.getMonth() + 1)}-${pad(d.getDate())}`;
  const hm = `${pad(d.getHours())}:${pad(d.getMinutes())}`;
  if (incr < 60) return `${hm}:${pad(d.getSeconds())}`;
  return hm === "00:00" ? `${pad(d.getMonth() + 1)}-${pad(d.getDate())}` : hm;
}
