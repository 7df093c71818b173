// SPDX-License-Identifier: Apache-2.0

/**
 * The Markdown that probe pages use: headings, paragraphs, lists, tables,
 * fenced code, `code`, **bold**, *emphasis* and links. It makes elements and
 * never HTML text, so nothing in a document can become markup.
 */
import type { ComponentChildren, JSX } from "preact";

/** inline renders one line's worth of marks. */
export function inline(text: string): ComponentChildren[] {
  const out: ComponentChildren[] = [];
  const mark = /`([^`]+)`|\*\*([^*]+)\*\*|\*([^*\s][^*]*)\*|\[([^\]]+)\]\(([^)\s]+)\)/g;
  let at = 0;
  for (const m of text.matchAll(mark)) {
    if (m.index > at) out.push(text.slice(at, m.index));
    at = m.index + m[0].length;
    if (m[1] !== undefined) out.push(<code>{m[1]}</code>);
    else if (m[2] !== undefined) out.push(<strong>{m[2]}</strong>);
    else if (m[3] !== undefined) out.push(<em>{m[3]}</em>);
    else out.push(link(m[4]!, m[5]!));
  }
  if (at < text.length) out.push(text.slice(at));
  return out;
}

/** Only web links stay links: a relative path of the repository leads nowhere here, and javascript: must not run. */
function link(text: string, url: string): ComponentChildren {
  return /^https?:\/\//.test(url) ? <a href={url} rel="noreferrer noopener" target="_blank">{text}</a> : text;
}

function cells(row: string): string[] {
  const marker = "\u0000";
  return row.trim().replace(/^\||\|$/g, "").replace(/\\\|/g, marker).split("|").map((c) => c.replaceAll(marker, "|").trim());
}

function table(rows: string[]): JSX.Element {
  const head = cells(rows[0]!);
  return (
    <div class="scroll">
      <table class="table">
        <thead><tr>{head.map((c) => <th scope="col">{inline(c)}</th>)}</tr></thead>
        <tbody>{rows.slice(2).map((r) => <tr>{cells(r).map((c) => <td>{inline(c)}</td>)}</tr>)}</tbody>
      </table>
    </div>
  );
}

const ITEM = /^\s*(?:[-*+]|\d+[.)])\s+/;

function list(lines: string[]): JSX.Element {
  const items: string[] = [];
  for (const l of lines) {
    if (ITEM.test(l)) items.push(l.replace(ITEM, ""));
    else items[items.length - 1] += ` ${l.trim()}`;
  }
  const body = items.map((i) => <li>{inline(i)}</li>);
  return /^\s*\d/.test(lines[0]!) ? <ol>{body}</ol> : <ul>{body}</ul>;
}

function heading(line: string): JSX.Element {
  const [, marks = "#", text = ""] = /^(#{1,6})\s+(.*)$/.exec(line) ?? [];
  // The page has its own h1 and h2.
  return marks.length === 1 ? <h3>{inline(text)}</h3> : marks.length === 2 ? <h4>{inline(text)}</h4> : <h5>{inline(text)}</h5>;
}

/** take returns the lines from i on for which ok holds. */
function take(lines: string[], i: number, ok: (l: string) => boolean): string[] {
  let end = i;
  while (end < lines.length && ok(lines[end]!)) end++;
  return lines.slice(i, end);
}

/** block renders the block that starts at line i and tells how many lines it took. */
function block(lines: string[], i: number): [JSX.Element | null, number] {
  const line = lines[i]!;
  if (line.trim() === "" || /^<!--.*-->$/.test(line.trim())) return [null, 1];
  if (/^\s*```/.test(line)) {
    const body = take(lines, i + 1, (l) => !/^\s*```/.test(l));
    return [<pre class="code" tabIndex={0}>{body.join("\n")}</pre>, body.length + 2];
  }
  if (/^#{1,6}\s/.test(line)) return [heading(line), 1];
  if (line.includes("|") && /^[\s|:-]+$/.test(lines[i + 1] ?? "") && (lines[i + 1] ?? "").includes("-")) {
    const rows = take(lines, i, (l) => l.includes("|"));
    return [table(rows), rows.length];
  }
  if (ITEM.test(line)) {
    const body = take(lines, i, (l) => l.trim() !== "" && (ITEM.test(l) || /^\s/.test(l)));
    return [list(body), body.length];
  }
  if (/^( {4}|\t)/.test(line)) {
    const body = take(lines, i, (l) => /^( {4}|\t)/.test(l));
    return [<pre class="code" tabIndex={0}>{body.map((l) => l.replace(/^( {4}|\t)/, "")).join("\n")}</pre>, body.length];
  }
  const body = [line, ...take(lines, i + 1, (l) => l.trim() !== "" && !/^(#{1,6}\s|\s*```)/.test(l) && !ITEM.test(l))];
  return [<p>{inline(body.join(" "))}</p>, body.length];
}

/** Markdown renders text. */
export function Markdown({ text }: { text: string }): JSX.Element {
  const lines = text.replace(/\r/g, "").split("\n");
  const out: JSX.Element[] = [];
  for (let i = 0; i < lines.length;) {
    const [el, n] = block(lines, i);
    if (el !== null) out.push(el);
    i += n;
  }
  return <div class="prose">{out}</div>;
}
