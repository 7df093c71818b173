// SPDX-License-Identifier: Apache-2.0

/** Chooses the time range of a view; the result goes into the URL. */
import type { JSX } from "preact";
import { useEffect, useRef, useState } from "preact/hooks";
import { absolutePatch, formatDuration, lastPatch, parseDuration, PRESETS, unzoomPatch, type Range } from "../range";
import { setQuery } from "../router";
import { useApp } from "../state";
import { span } from "../units";
import { clock, day } from "./time";
import { IconButton } from "./ui";

/** Local time in the form that datetime-local inputs use. */
function local(seconds: number): string {
  const d = new Date(seconds * 1000);
  return `${day(d)}T${clock(d)}`;
}

/** rangeText names a range: "last 15 min", or its two ends. */
export function rangeText(r: Range, lastWord: (s: string) => string): string {
  if (r.last !== null) return lastWord(span(r.last));
  const [a, b] = [new Date(r.from * 1000), new Date(r.to * 1000)];
  const today = day(new Date());
  const head = day(a) === today ? "" : `${day(a)} `;
  return `${head}${clock(a)} – ${day(b) === day(a) ? "" : `${day(b)} `}${clock(b)}`;
}

/** Twice as long, around the same middle, not into the future. */
function wider(r: Range, now: number): [number, number] {
  const len = (r.to - r.from) * 2;
  const to = Math.min(now, r.to + len / 4);
  return [to - len, to];
}

/** RangePicker is the button in the top bar and the sheet below it. */
export function RangePicker(): JSX.Element {
  const { range, t } = useApp();
  const [open, setOpen] = useState(false);
  const box = useRef<HTMLDivElement>(null);
  useEffect(() => {
    if (!open) return;
    const away = (e: Event) => { if (!box.current?.contains(e.target as globalThis.Node)) setOpen(false); };
    addEventListener("pointerdown", away);
    return () => removeEventListener("pointerdown", away);
  }, [open]);
  const zoomOut = () => setQuery(absolutePatch(...wider(range, Date.now() / 1000)));
  return (
    <div class="range" ref={box} onKeyDown={(e) => { if (e.key === "Escape") setOpen(false); }}>
      {range.last === null && <IconButton icon="close" label={t("range.unzoom")} onClick={() => setQuery(unzoomPatch)} />}
      <button type="button" class="btn range-btn" aria-expanded={open} aria-haspopup="dialog" onClick={() => setOpen(!open)}>
        {rangeText(range, (s) => t("range.last", { s }))}
      </button>
      <IconButton icon="zoomout" label={t("range.out")} onClick={zoomOut} />
      {open && <Sheet range={range} close={() => setOpen(false)} />}
    </div>
  );
}

function Sheet({ range, close }: { range: Range; close: () => void }): JSX.Element {
  const { t } = useApp();
  const [from, setFrom] = useState(local(range.from));
  const [to, setTo] = useState(local(range.to));
  const [custom, setCustom] = useState(range.last === null ? "" : formatDuration(range.last));
  const choose = (s: number) => {
    setQuery(lastPatch(s));
    close();
  };
  const a = Date.parse(from) / 1000;
  const b = Date.parse(to) / 1000;
  const valid = b > a;
  const seconds = parseDuration(custom.trim());
  return (
    <div class="sheet" role="dialog" aria-label={t("range.title")}>
      <div class="presets">
        {PRESETS.map((s) => <button type="button" class="btn" aria-pressed={range.last === s} onClick={() => choose(s)}>{span(s)}</button>)}
      </div>
      <form onSubmit={(e) => { e.preventDefault(); if (seconds !== null) choose(seconds); }}>
        <label>{t("range.custom")}<input value={custom} placeholder="90m" onInput={(e) => setCustom(e.currentTarget.value)} aria-invalid={seconds === null} /></label>
        <button type="submit" class="btn" disabled={seconds === null}>{t("apply")}</button>
      </form>
      <form onSubmit={(e) => { e.preventDefault(); if (valid) { setQuery(absolutePatch(a, b)); close(); } }}>
        <label>{t("range.from")}<input type="datetime-local" step="1" value={from} onInput={(e) => setFrom(e.currentTarget.value)} /></label>
        <label>{t("range.to")}<input type="datetime-local" step="1" value={to} onInput={(e) => setTo(e.currentTarget.value)} aria-invalid={!valid} /></label>
        <button type="submit" class="btn primary" disabled={!valid}>{t("apply")}</button>
        {!valid && <p class="hint" role="alert">{t("range.invalid")}</p>}
      </form>
    </div>
  );
}
