// SPDX-License-Identifier: Apache-2.0

/** Numbers with units, for people. */

interface Scale {
  factor: number;
  suffix: string;
}

const SECONDS: Scale[] = [
  { factor: 86400, suffix: "d" }, { factor: 3600, suffix: "h" }, { factor: 60, suffix: "min" }, { factor: 1, suffix: "s" },
  { factor: 1e-3, suffix: "ms" }, { factor: 1e-6, suffix: "µs" }, { factor: 1e-9, suffix: "ns" },
];
// A rate of a seconds counter stays in s and below: "2 min/s" helps nobody.
const SECONDS_RATE = SECONDS.slice(3);
const BYTES: Scale[] = [
  { factor: 2 ** 50, suffix: "PiB" }, { factor: 2 ** 40, suffix: "TiB" }, { factor: 2 ** 30, suffix: "GiB" },
  { factor: 2 ** 20, suffix: "MiB" }, { factor: 2 ** 10, suffix: "KiB" }, { factor: 1, suffix: "B" },
];
const COUNT: Scale[] = [
  { factor: 1e12, suffix: "T" }, { factor: 1e9, suffix: "G" }, { factor: 1e6, suffix: "M" }, { factor: 1e3, suffix: "k" }, { factor: 1, suffix: "" },
];
const RATIO: Scale[] = [{ factor: 0.01, suffix: "%" }];

/** True for units which count things and so have no symbol. */
function plain(unit: string): boolean {
  return unit === "" || unit === "1" || unit === "count";
}

function scales(unit: string, rate: boolean): Scale[] {
  switch (unit) {
    case "seconds": return rate ? SECONDS_RATE : SECONDS;
    case "bytes": return BYTES;
    case "ratio": return RATIO;
    default: return COUNT;
  }
}

/** The largest scale that leaves at least one whole unit, or the smallest there is. */
function pick(list: Scale[], magnitude: number): Scale {
  return list.find((s) => magnitude >= s.factor * 0.9995) ?? list[list.length - 1]!;
}

/** digits writes v with about three significant digits and no trailing zeros. */
export function digits(v: number): string {
  const a = Math.abs(v);
  if (a === 0) return "0";
  if (a >= 1000) return v.toFixed(0);
  const places = a >= 100 ? 0 : a >= 10 ? 1 : a >= 1 ? 2 : Math.min(4, 2 - Math.floor(Math.log10(a)));
  const out = v.toFixed(Math.min(places, 4));
  return out.includes(".") ? out.replace(/0+$/, "").replace(/\.$/, "") : out;
}

function suffixOf(s: Scale, unit: string, rate: boolean): string {
  const word = plain(unit) || s.suffix !== "" || ["seconds", "bytes", "ratio"].includes(unit) ? "" : unit;
  const text = s.suffix + (word === "" ? "" : ` ${word}`);
  return rate && unit !== "ratio" ? `${text}/s` : text;
}

/** No duration lasts 30 years: such a value in seconds is a moment, as in *_boot_time_seconds. */
const MOMENT = 30 * 365 * 86400;

function moment(v: number): string {
  return `${new Date(v * 1000).toISOString().slice(0, 19).replace("T", " ")} UTC`;
}

/** format writes a value of a base unit ("seconds", "bytes", "ratio", "1", "cores", …); rate adds "/s". */
export function format(v: number | null | undefined, unit = "", rate = false): string {
  if (v === null || v === undefined || Number.isNaN(v)) return "–";
  if (!Number.isFinite(v)) return v > 0 ? "∞" : "−∞";
  if (unit === "seconds" && !rate && v >= MOMENT) return moment(v);
  const list = scales(unit, rate);
  const zero = unit === "seconds" ? { factor: 1, suffix: "s" } : list[list.length - 1]!;
  const s = v === 0 ? zero : pick(list, Math.abs(v));
  const suffix = suffixOf(s, unit, rate);
  const gap = suffix === "" || suffix.startsWith("%") || suffix.startsWith("/") || suffix.startsWith(" ") ? "" : " ";
  return digits(v / s.factor) + gap + suffix;
}

/** ticks formats axis values in one common scale, so that an axis reads 0, 50, 100 ms and not 0, 50 ms, 0.1 s. */
export function ticks(values: number[], unit = "", rate = false): string[] {
  const max = Math.max(...values.map(Math.abs), 0);
  if (unit === "seconds" && !rate && max >= MOMENT) return values.map((v) => (v === 0 ? "0" : moment(v).slice(0, 10)));
  const s = max === 0 ? scales(unit, rate).slice(-1)[0]! : pick(scales(unit, rate), max);
  const short = s.suffix === "" ? "" : s.suffix === "%" ? "%" : ` ${s.suffix}`;
  return values.map((v) => (v === 0 ? "0" : digits(v / s.factor) + short));
}

/** logTicks formats each value in its own scale, for logarithmic axes. */
export function logTicks(values: (number | null)[], unit = ""): string[] {
  return values.map((v) => (v === null ? "" : unit === "seconds" && v >= 60 ? `${v} s` : format(v, unit))); // "100 s", not "1.67 min"
}

/** Steps between axis ticks: powers of two for bytes, 1-2-5 for the rest; 6 h and the like for long times. */
export function increments(unit: string): number[] {
  const out: number[] = [];
  if (unit === "bytes") {
    for (let e = 0; e <= 60; e++) out.push(2 ** e);
    return out;
  }
  for (let e = -12; e <= 15; e++) for (const m of [1, 2, 5]) out.push(Number(`${m}e${e}`));
  return out;
}

/** grouped writes an integer with thin spaces between thousands. */
export function grouped(n: number): string {
  return Math.round(n).toString().replace(/\B(?=(\d{3})+(?!\d))/g, "\u202f");
}

/** ago writes a span in its two largest parts: "3 d 4 h", "12 s". */
export function span(seconds: number): string {
  let rest = Math.max(0, Math.round(seconds));
  const parts: string[] = [];
  for (const [n, u] of [[86400, "d"], [3600, "h"], [60, "min"], [1, "s"]] as const) {
    const k = Math.floor(rest / n);
    rest -= k * n;
    if (k > 0) parts.push(`${k} ${u}`);
    else if (parts.length > 0) break;
    if (parts.length === 2) break;
  }
  return parts.join(" ") || "0 s";
}
