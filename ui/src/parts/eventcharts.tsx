// SPDX-License-Identifier: Apache-2.0

/** The charts around an event: the agent chooses the metrics by their schemas, the event is marked. */
import type { JSX } from "preact";
import { useMemo, useState } from "preact/hooks";
import { api, type Document, type EventChart } from "../api";
import { fromEvents } from "../markers";
import { rateOf, workloadOf } from "../prom";
import type { Range } from "../range";
import { href } from "../router";
import { AppContext, useApp, useLoad, useSeen } from "../state";
import { Plot, short, useSeries, type Zoom } from "./panel";
import { Badge, Card, Notice, Show } from "./ui";

/** Seconds before and after, as the agent chooses the metrics for. */
const AROUND = 300;

/** EventCharts draws them in a range of their own: a drag over one zooms all, and the page's URL stays. */
export function EventCharts({ d }: { d: Document }): JSX.Element {
  const app = useApp();
  const { t } = app;
  const at = Date.parse(d.time) / 1000;
  const [zoomed, setZoomed] = useState<Range | null>(null);
  const range = zoomed ?? { from: at - AROUND, to: at + AROUND, last: null };
  const zoom: Zoom = { set: (from, to) => setZoomed({ from, to, last: null }), reset: () => setZoomed(null), zoomed: zoomed !== null };
  // What happened a moment ago has an after that is still to come.
  const [born] = useState(() => Date.now() / 1000);
  const tick = born < at + AROUND ? app.tick : 0;
  const list = useLoad(`charts ${d.id}`, tick, (s) => api.charts(d.id, s));
  return (
    <Card title={t("event.charts")} note={t("event.charts.note")}>
      <Show of={list} height={200}>
        {(charts) => charts.length === 0 ? <Notice title={t("event.charts.none")} /> : (
          <AppContext.Provider value={{ ...app, range, tick }}>
            <div class="panels">{charts.map((c) => <One key={JSON.stringify(c)} of={c} d={d} zoom={zoom} />)}</div>
          </AppContext.Provider>
        )}
      </Show>
    </Card>
  );
}

function One({ of, d, zoom }: { of: EventChart; d: Document; zoom: Zoom }): JSX.Element | null {
  const { metrics, t } = useApp();
  const [ref, seen] = useSeen<HTMLElement>();
  const schema = metrics.find((m) => m.name === of.metric);
  const markers = useMemo(() => fromEvents([d]), [d]);
  if (schema === undefined) return null;
  return (
    <article class="panel" ref={ref} aria-label={schema.name} data-metric={schema.name}>
      <header>
        <h3><a href={href(["metrics", schema.name], of.match)} title={schema.name}>{short(schema.name)}</a></h3>
        <span class="note">{rateOf(schema) && <Badge kind="quiet">{t("metric.rate")}</Badge>}{schema.type === "histogram" && <Badge kind="quiet">{t("metric.heat")}</Badge>}</span>
      </header>
      <p class="help">{selected(of)}{schema.help}</p>
      <Body of={of} schema={schema} markers={markers} zoom={zoom} seen={seen} />
    </article>
  );
}

/** selected says which series a chart has. */
function selected(of: EventChart): JSX.Element | null {
  const work = workloadOf(of.match);
  const more = Object.entries(of.match).filter(([k, v]) => v !== "" && !["namespace", "pod", "container", "unit"].includes(k)).map(([k, v]) => `${k}=${v}`);
  const parts = [...(work === "" ? [] : [work]), ...more];
  return parts.length === 0 ? null : <><code>{parts.join(" ")}</code> </>;
}

function Body(p: { of: EventChart; schema: Parameters<typeof useSeries>[0]; markers: ReturnType<typeof fromEvents>; zoom: Zoom; seen: boolean }): JSX.Element {
  const loaded = useSeries(p.schema, { match: p.of.match, by: p.schema.fields.map((f) => f.name), points: 120 }, p.seen);
  return <Plot schema={p.schema} loaded={loaded} height={140} markers={p.markers} zoom={p.zoom} />;
}
