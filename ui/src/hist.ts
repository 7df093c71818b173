// SPDX-License-Identifier: Apache-2.0

/** Native histograms as the Prometheus API returns them, and the maths on them. */

/** One bucket on the wire: boundary rule, left, right, count. */
export type WireBucket = [number, string, string, string];

/** A native histogram in Prometheus' JSON form. */
export interface WireHistogram {
  count: string;
  sum: string;
  buckets?: WireBucket[];
}

/** Bucket covers (lo, hi]; of the zero bucket lo is negative or 0. */
export interface Bucket {
  lo: number;
  hi: number;
  n: number;
}

/** Hist is a histogram at one moment, buckets ascending. */
export interface Hist {
  count: number;
  sum: number;
  buckets: Bucket[];
}

/** parseHist reads the wire form; buckets without observations are dropped. */
export function parseHist(w: WireHistogram): Hist {
  const buckets = (w.buckets ?? [])
    .map(([, lo, hi, n]) => ({ lo: Number(lo), hi: Number(hi), n: Number(n) }))
    .filter((b) => b.n > 0)
    .sort((a, b) => a.hi - b.hi);
  return { count: Number(w.count), sum: Number(w.sum), buckets };
}

/**
 * quantile estimates the q-quantile as Prometheus' histogram_quantile does for
 * exponential buckets: interpolation on the logarithm, because within such a
 * bucket observations spread evenly on a logarithmic scale; linear in the
 * bucket around zero. NaN when there are no observations.
 */
export function quantile(h: Hist, q: number): number {
  if (!(h.count > 0) || h.buckets.length === 0) return NaN;
  let rank = q * h.buckets.reduce((s, b) => s + b.n, 0);
  for (const b of h.buckets) {
    if (rank > b.n) {
      rank -= b.n;
      continue;
    }
    const part = b.n > 0 ? rank / b.n : 1;
    const lo = b.lo < 0 ? 0 : b.lo; // our distributions have no negative values
    return lo > 0 ? lo * (b.hi / lo) ** part : lo + (b.hi - lo) * part;
  }
  return h.buckets[h.buckets.length - 1]!.hi;
}

/** mean of the observations; NaN when there are none. */
export function mean(h: Hist): number {
  return h.count > 0 ? h.sum / h.count : NaN;
}

/** Bounds of all filled buckets, for an axis: smallest positive edge and largest edge; null when nothing is filled. */
export function bounds(hs: Hist[]): { lo: number; hi: number } | null {
  let lo = Infinity;
  let hi = 0;
  for (const h of hs) {
    for (const b of h.buckets) {
      lo = Math.min(lo, b.lo > 0 ? b.lo : b.hi / 2);
      hi = Math.max(hi, b.hi);
    }
  }
  return hi > 0 && Number.isFinite(lo) ? { lo, hi } : null;
}

/** peak is the largest bucket of all, the dark end of the colour scale. */
export function peak(hs: Hist[]): number {
  let max = 0;
  for (const h of hs) for (const b of h.buckets) max = Math.max(max, b.n);
  return max;
}

/**
 * shade maps a count to 0…1. The root, because a latency tail has a thousandth
 * of the mode's observations and must still be seen.
 */
export function shade(n: number, max: number): number {
  return max > 0 && n > 0 ? Math.min(1, 0.08 + 0.92 * (n / max) ** 0.35) : 0;
}
