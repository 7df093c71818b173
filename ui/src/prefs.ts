// SPDX-License-Identifier: Apache-2.0

/** Preferences of this browser: language and theme. */
import { useEffect, useState } from "preact/hooks";
import { isLang, type Lang } from "./i18n";
import { parseHash } from "./router";
import type { Theme } from "./state";

function read(key: string): string | null {
  try {
    return localStorage.getItem(key);
  } catch {
    return null; // storage may be forbidden; preferences then last as long as the page
  }
}

function write(key: string, value: string): void {
  try {
    localStorage.setItem(key, value);
  } catch {
    return;
  }
}

/** firstLang: ?lang= in front of or behind the "#", else what was chosen before, else the browser's. */
function firstLang(): Lang {
  const asked = new URLSearchParams(location.search).get("lang") ?? parseHash(location.hash).query.get("lang") ?? read("huatuo.lang");
  if (asked !== null && isLang(asked)) return asked;
  return navigator.language.toLowerCase().startsWith("zh") ? "zh" : "en";
}

/** useLang gives the language and its setter. */
export function useLang(): [Lang, (l: Lang) => void] {
  const [lang, set] = useState<Lang>(firstLang);
  useEffect(() => {
    document.documentElement.lang = lang === "zh" ? "zh-CN" : "en";
  }, [lang]);
  const choose = (l: Lang) => {
    write("huatuo.lang", l);
    const url = new URL(location.href); // an old ?lang= would win over the choice at the next load
    if (url.searchParams.has("lang")) {
      url.searchParams.set("lang", l);
      history.replaceState(null, "", url);
    }
    set(l);
  };
  return [lang, choose];
}

/** useTheme gives the chosen theme, whether it is dark now, and the setter. */
export function useTheme(): [Theme, boolean, (t: Theme) => void] {
  const saved = read("huatuo.theme");
  const [theme, set] = useState<Theme>(saved === "light" || saved === "dark" ? saved : "auto");
  const [system, setSystem] = useState(matchMedia("(prefers-color-scheme: dark)").matches);
  useEffect(() => {
    const m = matchMedia("(prefers-color-scheme: dark)");
    const on = () => setSystem(m.matches);
    m.addEventListener("change", on);
    return () => m.removeEventListener("change", on);
  }, []);
  const dark = theme === "auto" ? system : theme === "dark";
  // Set while rendering, not after: charts below read the colours of the new theme in their own effects.
  document.documentElement.dataset.theme = dark ? "dark" : "light";
  const choose = (t: Theme) => {
    write("huatuo.theme", t);
    set(t);
  };
  return [theme, dark, choose];
}
