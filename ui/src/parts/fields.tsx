// SPDX-License-Identifier: Apache-2.0

/** The fields of an event, by their schema: plain values in a table, nested ones beside each other, stacks as frames. */
import type { ComponentChildren, JSX } from "preact";
import type { Document, Field, Frame, Schema } from "../api";
import { href } from "../router";
import { useApp } from "../state";
import { format } from "../units";
import { formatWhere } from "../where";
import { Time } from "./time";
import { Copy, Icon, Pairs } from "./ui";

type Obj = Record<string, unknown>;

function isObject(v: unknown): v is Obj {
  return typeof v === "object" && v !== null && !Array.isArray(v);
}

/** isStack recognises symbolised frames wherever they stand. */
function isStack(v: unknown): v is Frame[] {
  return Array.isArray(v) && v.length > 0 && v.every((f) => isObject(f) && typeof f.function === "string");
}

/** Nested members have no schema of their own; our names end in the unit. */
function guess(name: string): string | undefined {
  return /(^|_)(seconds|bytes|ratio)$/.exec(name)?.[2];
}

/** unitBeside is the one unit that the names of an object's members tell: amounts by kind beside limit_bytes and usage_bytes are bytes too. */
export function unitBeside(of: Obj): string | undefined {
  const units = new Set(Object.keys(of).map(guess).filter((u) => u !== undefined));
  return units.size === 1 ? [...units][0] : undefined;
}

/** isMap recognises amounts by kind: numbers only, whose names tell no unit. */
function isMap(v: unknown): boolean {
  return isObject(v) && Object.entries(v).every(([k, x]) => typeof x === "number" && guess(k) === undefined);
}

/** fieldsOf lists the schema's fields that d has, then those that the schema does not know. */
function fieldsOf(d: Document, schema: Schema | undefined): Field[] {
  const known = (schema?.fields ?? []).filter((f) => d.fields[f.name] !== undefined);
  const rest = Object.keys(d.fields).filter((k) => !known.some((f) => f.name === k));
  return [...known, ...rest.map((name) => ({ name, help: "" }))];
}

/** More members than this make a table cell a page long. */
const CELL_MAX = 6;

/** isLines recognises a text kept as a list of its lines, such as a piece of the kernel's log. */
function isLines(v: unknown): v is string[] {
  return Array.isArray(v) && v.length > CELL_MAX && v.every((l) => typeof l === "string");
}

/** What needs more room than a table cell: stacks, texts of several lines, large or nested objects. */
function isRich(v: unknown): boolean {
  if (typeof v === "string") return v.trimEnd().includes("\n");
  if (!isObject(v)) return isStack(v) || isLines(v);
  const members = Object.values(v);
  return members.length > CELL_MAX || members.some((x) => typeof x === "object" && x !== null);
}

/** richFields are the fields that get a card of their own. */
export function richFields(d: Document, schema: Schema | undefined): Field[] {
  return fieldsOf(d, schema).filter((f) => isRich(d.fields[f.name]));
}

/** FieldTable shows the other fields, each with its help and a search for the same value. */
export function FieldTable({ d, schema }: { d: Document; schema: Schema | undefined }): JSX.Element {
  const { t } = useApp();
  const same = (name: string, v: unknown) => href(["events"], { kind: d.kind, where: formatWhere([{ path: `field.${name}`, op: "=", value: String(v) }]) });
  return (
    <table class="table fields">
      <tbody>
        {fieldsOf(d, schema).map((f) => {
          const v = d.fields[f.name];
          const simple = typeof v !== "object" && v !== "" && !isRich(v);
          return (
            <tr key={f.name} data-field={f.name}>
              <th scope="row"><code>{f.name}</code>{f.help !== "" && <span class="help">{f.help}</span>}</th>
              <td>
                {isRich(v) ? <span class="muted">{t("event.below")}</span> : <Value v={v} unit={f.unit} />}
                {simple && <a class="find" href={same(f.name, v)} title={t("event.same")} aria-label={`${t("event.same")}: ${f.name}`}><Icon name="search" /></a>}
              </td>
            </tr>
          );
        })}
      </tbody>
    </table>
  );
}

/** Cuts a list into columns of about equal length, none shorter than a cell. */
function columns<T>(list: T[]): T[][] {
  const size = Math.max(CELL_MAX, Math.ceil(list.length / 3));
  return Array.from({ length: Math.ceil(list.length / size) }, (_, i) => list.slice(i * size, (i + 1) * size));
}

/** Rich shows a text of several lines, a stack, or an object: its plain members in columns and each nested one in its own section. unit is that of the field, for members whose name tells none. */
export function Rich({ v, unit }: { v: unknown; unit?: string }): JSX.Element {
  if (typeof v === "string") return <pre class="code" tabIndex={0}>{v}</pre>;
  if (isLines(v)) return <pre class="code" tabIndex={0}>{v.join("\n")}</pre>;
  if (isStack(v)) return <Frames list={v} />;
  if (!isObject(v)) return <Value v={v} unit={unit} />;
  const entries = Object.entries(v);
  const nested = (x: unknown) => (typeof x === "object" && x !== null) || isRich(x);
  return (
    <div class="rich">
      {columns(entries.filter(([, x]) => !nested(x))).map((part) => <Members of={part} unit={unit} />)}
      {entries.filter(([, x]) => nested(x)).map(([k, x]) => <section key={k}><h4>{k}</h4><Rich v={x} unit={guess(k) ?? unit ?? (isMap(x) ? unitBeside(v) : undefined)} /></section>)}
    </div>
  );
}

function Members({ of, unit }: { of: [string, unknown][]; unit?: string }): JSX.Element {
  return <Pairs rows={of.map(([k, x]): [ComponentChildren, ComponentChildren] => [k, <Value v={x} unit={guess(k) ?? unit} />])} />;
}

const RFC3339 = /^\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d/;

/** Value shows one value by its type and unit. */
export function Value({ v, unit }: { v: unknown; unit?: string }): JSX.Element {
  if (v === null || v === undefined || v === "") return <span class="muted">–</span>;
  if (typeof v === "number") {
    const known = unit === "seconds" || unit === "bytes" || unit === "ratio";
    const word = unit !== undefined && unit !== "" && unit !== "1" ? ` ${unit}` : "";
    return <span title={`${v}${word}`}>{known ? format(v, unit) : `${v}${word}`}</span>;
  }
  if (Array.isArray(v)) return isStack(v) ? <Frames list={v} /> : <List v={v} />;
  if (isObject(v)) return <Members of={Object.entries(v)} unit={unit} />;
  if (typeof v === "string" && RFC3339.test(v)) return <Time at={v} full />;
  return <span class="wrap">{String(v)}</span>;
}

function List({ v }: { v: unknown[] }): JSX.Element {
  if (v.length === 0) return <span class="muted">–</span>;
  if (!v.every(isObject)) return <span class="wrap">{v.map((x) => (typeof x === "object" ? JSON.stringify(x) : String(x))).join(", ")}</span>;
  const cols = [...new Set(v.flatMap((r) => Object.keys(r)))];
  return (
    <div class="scroll">
      <table class="table">
        <thead><tr>{cols.map((c) => <th scope="col">{c}</th>)}</tr></thead>
        <tbody>{v.map((r) => <tr>{cols.map((c) => <td><Value v={r[c]} unit={guess(c)} /></td>)}</tr>)}</tbody>
      </table>
    </div>
  );
}

/** frameText is one line of a copied stack. */
function frameText(f: Frame): string {
  return `${f.function}${inKernel(f) ? at(f) : ""}${f.module ? ` (${f.module}${inKernel(f) ? "" : at(f)})` : ""}${f.file ? ` ${f.file}:${f.line ?? 0}` : ""}`;
}

/** inKernel tells a frame of the kernel, whose offset is in the function, from one of a program, whose offset is in the file. */
const inKernel = (f: Frame) => f.module === undefined || !f.module.includes("/");

const at = (f: Frame) => (f.offset ? `+0x${f.offset.toString(16)}` : "");

/** Frames lists a stack, innermost first. */
export function Frames({ list }: { list: Frame[] }): JSX.Element {
  const { t } = useApp();
  if (list.length === 0) return <p class="muted">{t("stack.none")}</p>;
  return (
    <div class="stack-box">
      <Copy text={list.map(frameText).join("\n")} />
      <ol class="frames" tabIndex={0}>
        {list.map((f) => (
          <li class={f.missing !== undefined ? "missing" : ""} title={f.missing}>
            <span class="fn">{f.function}{inKernel(f) && at(f)}</span>
            {f.module !== undefined && <span class="mod" title={f.module}>{f.module.split("/").pop()}{!inKernel(f) && at(f)}</span>}
            {f.file !== undefined && <span class="src">{f.file}:{f.line}</span>}
          </li>
        ))}
      </ol>
    </div>
  );
}
