// SPDX-License-Identifier: Apache-2.0

/** What all views share: preferences, the catalogue, the range and the refresh clock. */
import { createContext } from "preact";
import { useContext, useEffect, useRef, useState } from "preact/hooks";
import type { Node, Schema } from "./api";
import { ApiError } from "./api";
import type { Lang, T } from "./i18n";
import type { Range } from "./range";

export type Theme = "auto" | "light" | "dark";

/** Shared by every view through useApp. */
export interface App {
  lang: Lang;
  setLang: (l: Lang) => void;
  theme: Theme;
  setTheme: (t: Theme) => void;
  dark: boolean;
  t: T;
  node: Node;
  metrics: Schema[];
  kinds: Schema[];
  range: Range;
  /** Grows by one at each refresh. */
  tick: number;
  paused: boolean;
  setPaused: (p: boolean) => void;
  refresh: () => void;
}

export const AppContext = createContext<App | null>(null);

/** useApp gives the shared state. */
export function useApp(): App {
  const a = useContext(AppContext);
  if (a === null) throw new Error("BUG: useApp outside of AppContext");
  return a;
}

/** Result of a load: data stay while newer ones are on the way or fail. */
export interface Loaded<T> {
  data: T | null;
  error: ApiError | null;
  loading: boolean;
}

/** asError turns anything thrown into an ApiError. */
export function asError(e: unknown): ApiError {
  return e instanceof ApiError ? e : new ApiError(0, "", e instanceof Error ? e.message : String(e));
}

/**
 * useLoad runs load when key or tick changes; null as key waits. A running
 * load is aborted when its key changes, but not by the next tick: on a slow
 * agent refreshes would otherwise cancel each other for ever.
 */
export function useLoad<T>(key: string | null, tick: number, load: (s: AbortSignal) => Promise<T>): Loaded<T> {
  const [state, set] = useState<Loaded<T> & { key: string | null }>({ data: null, error: null, loading: true, key: null });
  const running = useRef<{ key: string; abort: AbortController } | null>(null);
  useEffect(() => () => running.current?.abort.abort(), []);
  useEffect(() => {
    if (key === null || running.current?.key === key) return;
    running.current?.abort.abort();
    const abort = new AbortController();
    const mine = { key, abort };
    running.current = mine;
    const done = (next: Partial<Loaded<T>>) => {
      if (running.current !== mine) return;
      running.current = null;
      set((old) => ({ ...old, ...next, loading: false, key }));
    };
    load(abort.signal).then((data) => done({ data, error: null }), (e: unknown) => done({ error: asError(e) }));
  }, [key, tick]);
  return { data: state.data, error: state.key === key ? state.error : null, loading: state.key !== key };
}

/** useSeen becomes true once the element has come near the screen: charts far below are not queried. */
export function useSeen<E extends Element>(): [{ current: E | null }, boolean] {
  const ref = useRef<E>(null);
  const [seen, set] = useState(false);
  useEffect(() => {
    if (ref.current === null) return;
    const o = new IntersectionObserver((entries) => set(entries.some((e) => e.isIntersecting)), { rootMargin: "200px" });
    o.observe(ref.current);
    return () => o.disconnect();
  }, []);
  return [ref, seen];
}
