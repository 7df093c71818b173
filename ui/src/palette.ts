// SPDX-License-Identifier: Apache-2.0

/** Colours of data. They read on both backgrounds and stay apart for the common colour-vision deficiencies. */

const LIGHT = ["#4755d8", "#d9730d", "#0f8a7e", "#b8357f", "#7a9a01", "#1482c5", "#8a5a2b", "#8347c9", "#c93c37", "#5f6b7a", "#2d9d5b", "#b58900"];
const DARK = ["#7d8bff", "#f2994a", "#3cc3b2", "#ea6fae", "#b2cf3a", "#56b4f0", "#c79b6b", "#b78af5", "#f2716b", "#97a3b4", "#5ccf8b", "#e3bd45"];

/** color of the i-th series. */
export function color(i: number, dark: boolean): string {
  const p = dark ? DARK : LIGHT;
  return p[i % p.length]!;
}

/** shaded is color for more things than there are colours: each round through them is a shade further from the background. */
export function shaded(i: number, dark: boolean): string {
  const round = Math.floor(i / LIGHT.length);
  return round === 0 ? color(i, dark) : `color-mix(in srgb, ${color(i, dark)} ${100 - 38 * Math.min(round, 2)}%, ${dark ? "white" : "black"})`;
}

/** severityColor matches the badges' colours. */
export function severityColor(s: string, dark: boolean): string {
  switch (s) {
    case "critical": return dark ? "#f2716b" : "#c93c37";
    case "warning": return dark ? "#e9a23b" : "#c77700";
    default: return dark ? "#8b97a8" : "#5f6b7a";
  }
}

/** heat is the colour of a heat-map cell of shade 0…1: one hue whose lightness carries the value, so the lines over it stay visible. */
export function heat(v: number, dark: boolean): string {
  return dark ? `hsl(234 ${34 + 46 * v}% ${20 + 50 * v}%)` : `hsl(232 ${75 - 20 * v}% ${94 - 50 * v}%)`;
}

/** Hue and saturation of each kind of code in a flame graph. */
const FLAME: Record<string, [hue: number, saturation: number]> = { native: [42, 88], runtime: [150, 45], kernel: [14, 80], unknown: [0, 0] };

/** flameColor is a function's box: its kind's hue, a shade of its own so that neighbours stay apart; dark text reads on all of them. */
export function flameColor(kind: string, key: string, dark: boolean): string {
  let h = 0;
  for (let i = 0; i < key.length; i++) h = (Math.imul(h, 31) + key.charCodeAt(i)) | 0;
  const [hue, saturation] = FLAME[kind] ?? FLAME.unknown!;
  const shade = (h >>> 0) % 11;
  return `hsl(${hue + (((h >>> 8) % 9) - 4)} ${saturation}% ${(dark ? 58 : 66) + shade}%)`;
}

/** changeColor is a box of a difference: red for a larger share, blue for a smaller one, fullest from five points on. */
export function changeColor(change: number, dark: boolean): string {
  const v = Math.min(1, Math.sqrt(Math.abs(change) / 0.05));
  return `hsl(${change > 0 ? 6 : 215} ${Math.round(78 * v)}% ${Math.round((dark ? 74 : 88) - 20 * v)}%)`;
}
