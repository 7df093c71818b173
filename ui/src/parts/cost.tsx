// SPDX-License-Identifier: Apache-2.0

/** What the agent itself takes from the node, and whether its books balance. */
import type { JSX } from "preact";
import { balance } from "../balance";
import type { System } from "../api";
import { href } from "../router";
import { useApp } from "../state";
import { format, grouped } from "../units";
import type { Books } from "./law";
import { Badge, Bar, Pairs } from "./ui";

/** Cost lists the agent's own use of CPU and memory. */
export function Cost({ books }: { books: Books }): JSX.Element {
  const { t } = useApp();
  const c = books.system.cost;
  const accounts = books.system.accounts ?? [];
  const off = accounts.filter((a) => balance(a, books.before.get(a.probe)) === "off").length;
  const observed = accounts.reduce((s, a) => s + a.observed, 0);
  return (
    <Pairs rows={[
      [t("cost.cpu"), c !== null && format(c.cpu_ratio, "ratio"), t("cost.cpu.help")],
      [t("cost.rss"), c !== null && format(c.rss_bytes, "bytes")],
      [t("cost.bpf"), c !== null && (c.bpf_seconds_per_second === null ? <span class="muted">{t("cost.bpf.off")}</span> : format(c.bpf_seconds_per_second, "ratio")), t("cost.bpf.help")],
      [t("cost.used"), c !== null && (c.used_ratio === null ? <span class="muted">{t("cost.bpf.off")}</span> : c.limit_ratio === null ? format(c.used_ratio, "ratio") : <Bar share={c.used_ratio / c.limit_ratio}>{format(c.used_ratio, "ratio")} / {format(c.limit_ratio, "ratio")}</Bar>), t("cost.used.help")],
      [t("cost.shed"), c !== null && <Given shed={c.shed} />, t("cost.shed.help")],
      [t("cost.goroutines"), c !== null && c.goroutines],
      [t("cost.start"), c !== null && format(c.start_seconds, "seconds"), t("cost.start.help")],
      [t("cost.events"), grouped(observed)],
      [t("cost.books"), <a href={href(["system"])}>{off === 0 ? <Badge kind="ok">{t("balanced")}</Badge> : <Badge kind="warning">{t("cost.off", { n: off })}</Badge>}</a>, t("law.help")],
    ]} />
  );
}

/** Given lists what the agent does without because it cost too much. */
function Given({ shed }: { shed: NonNullable<System["cost"]>["shed"] }): JSX.Element {
  const { t } = useApp();
  if (shed.length === 0) return <Badge kind="ok">{t("cost.shed.none")}</Badge>;
  return (
    <ul class="given">
      {shed.map((s) => <li title={s.why}><a href={href(["system", "probe", s.probe])}>{s.probe}</a> {s.class === "probe" ? t("cost.shed.probe") : s.what}</li>)}
    </ul>
  );
}
