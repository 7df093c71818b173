// SPDX-License-Identifier: Apache-2.0

/** Profiles that language runtimes keep themselves: which processes have some, and what they say when they are asked. */
import type { JSX } from "preact";
import { useEffect, useRef, useState } from "preact/hooks";
import { api, type ApiError, type FlameGraph, type Params, type RuntimeProcess, type RuntimeProfile } from "../api";
import { asError, useApp, useLoad } from "../state";
import { grouped } from "../units";
import { Notice, Show } from "./ui";

/** A profile that is looked at. */
export interface Opened {
  graph: FlameGraph;
  title: string;
  help: string;
}

/** Formats, and how the names of their files end. */
const FILES: [format: string, ending: string][] = [["pprof", "pb.gz"], ["folded", "folded.txt"], ["svg", "svg"], ["speedscope", "speedscope.json"]];

/** Seconds within which a change can be asked for. */
const WITHIN = [10, 30, 60];

interface Props {
  filter: Record<string, string>;
  onOpen: (o: Opened) => void;
}

export function Runtimes(p: Props): JSX.Element {
  const { t } = useApp();
  const [shown, show] = useState(false);
  return (
    <details class="card runtimes" onToggle={(e) => show(e.currentTarget.open)}>
      <summary>{t("prof.rt")}</summary>
      <p class="hint">{t("prof.rt.help")}</p>
      {shown && <Processes {...p} />}
    </details>
  );
}

/** Broken tells why there is no answer. */
function Broken({ error }: { error: ApiError }): JSX.Element {
  const { t } = useApp();
  return <Notice kind="error" title={t(error.status === 403 ? "prof.rt.off" : "prof.rt.failed")}><code class="wrap">{error.message}</code></Notice>;
}

function Processes({ filter, onOpen }: Props): JSX.Element {
  const { t } = useApp();
  const list = useLoad("runtimes", 0, api.runtimes);
  const [chosen, choose] = useState<number | null>(null);
  if (list.error !== null && list.error.status === 403) return <Broken error={list.error} />;
  return (
    <Show of={list} height={60}>
      {(all) => {
        if (all.length === 0) return <Notice title={t("prof.rt.none")} />;
        // What the page is filtered by comes first.
        const fits = (d: RuntimeProcess) => String(d.pid) === filter.pid || d.process === filter.process;
        const sorted = [...all.filter(fits), ...all.filter((d) => !fits(d))];
        const at = sorted.find((d) => d.pid === chosen) ?? (fits(sorted[0]!) ? sorted[0] : undefined);
        return (
          <>
            <div class="filters">
              <label class="select"><span>{t("prof.rt.process")}</span>
                <select value={at === undefined ? "" : String(at.pid)} onChange={(e) => choose(Number(e.currentTarget.value))}>
                  {at === undefined && <option value="">{t("prof.rt.choose")}</option>}
                  {sorted.map((d) => <option key={d.pid} value={String(d.pid)}>{`${d.process} (${d.pid}, ${d.runtime})`}</option>)}
                </select>
              </label>
            </div>
            {at !== undefined && <Process key={at.pid} of={at} onOpen={onOpen} />}
          </>
        );
      }}
    </Show>
  );
}

function Process({ of, onOpen }: { of: RuntimeProcess; onOpen: Props["onOpen"] }): JSX.Element {
  const { t } = useApp();
  const [known, know] = useState<RuntimeProcess | null>(null);
  const [busy, setBusy] = useState(false);
  const [error, fail] = useState<ApiError | null>(null);
  const [within, setWithin] = useState(0);
  const alive = useRef(true);
  useEffect(() => () => { alive.current = false; }, []);
  /** One question at a time: the agent asks a process for one thing only. */
  const ask = async <T,>(question: () => Promise<T>, done: (answer: T) => void) => {
    setBusy(true);
    fail(null);
    try {
      const answer = await question();
      if (alive.current) done(answer);
    } catch (e) {
      if (alive.current) fail(asError(e));
    }
    if (alive.current) setBusy(false);
  };
  const paramsOf = (r: RuntimeProfile): Params => ({ seconds: r.delta && within > 0 ? within : null });
  const open = (r: RuntimeProfile) => ask(() => api.runtimeGraph(of.pid, r.name, paramsOf(r)), (graph) => {
    onOpen({ graph, title: `${r.name} · ${of.process} (${of.pid})`, help: r.help });
    requestAnimationFrame(() => document.getElementById("own")?.scrollIntoView({ block: "start" }));
  });
  const save = (r: RuntimeProfile, format: string, ending: string) =>
    ask(() => api.runtimeFile(of.pid, r.name, { ...paramsOf(r), format }), (file) => download(file, `huatuo-${r.name}-${of.pid}.${ending}`));
  const offers = known?.profiles ?? [];
  return (
    <div aria-busy={busy}>
      <div class="filters">
        <button type="button" class="btn" disabled={busy} onClick={() => ask(() => api.askRuntime(of.pid), know)}>{t("prof.rt.ask")}</button>
        {offers.some((r) => r.delta) && (
          <label class="select"><span>{t("prof.rt.within")}</span>
            <select value={String(within)} onChange={(e) => setWithin(Number(e.currentTarget.value))}>
              <option value="0">{t("prof.rt.all")}</option>
              {WITHIN.map((s) => <option key={s} value={String(s)}>{s} s</option>)}
            </select>
          </label>
        )}
        {busy && <span class="muted" role="status">{t("prof.rt.asking")}</span>}
      </div>
      {error !== null && <Broken error={error} />}
      {known !== null && offers.length === 0 && <Notice title={t("prof.rt.nothing")}>{known.reason !== undefined && <code class="wrap">{known.reason}</code>}</Notice>}
      {offers.length > 0 && <Offers list={offers} busy={busy} onOpen={open} onSave={save} />}
    </div>
  );
}

interface OffersProps {
  list: RuntimeProfile[];
  busy: boolean;
  onOpen: (r: RuntimeProfile) => void;
  onSave: (r: RuntimeProfile, format: string, ending: string) => void;
}

function Offers({ list, busy, onOpen, onSave }: OffersProps): JSX.Element {
  const { t } = useApp();
  return (
    <div class="scroll">
      <table class="table">
        <thead><tr><th scope="col">{t("prof.rt.profile")}</th><th scope="col" class="r">{t("prof.rt.count")}</th><th scope="col" class="r">{t("prof.download")}</th></tr></thead>
        <tbody>
          {list.map((r) => (
            <tr key={r.name} data-profile={r.name}>
              <th scope="row"><span title={r.at}>{r.name}</span><span class="help">{r.help}</span></th>
              <td class="r num">{r.count === undefined ? "" : grouped(r.count)}</td>
              <td>
                <span class="acts">
                  <button type="button" class="btn small" disabled={busy} onClick={() => onOpen(r)}>{t("prof.rt.open")}</button>
                  {FILES.map(([format, ending]) => <button key={format} type="button" class="btn small" disabled={busy} onClick={() => onSave(r, format, ending)}>{format}</button>)}
                </span>
              </td>
            </tr>
          ))}
        </tbody>
      </table>
    </div>
  );
}

/** download gives a file to the browser to keep: what is asked for by POST has no address. */
function download(file: Blob, name: string): void {
  const a = document.createElement("a");
  a.href = URL.createObjectURL(file);
  a.download = name;
  a.click();
  setTimeout(() => URL.revokeObjectURL(a.href), 60_000);
}
