// SPDX-License-Identifier: Apache-2.0

import assert from "node:assert/strict";
import { test } from "node:test";
import { Markdown } from "../src/markdown";

interface VNode {
  type: unknown;
  props: { children?: unknown; href?: string; dangerouslySetInnerHTML?: unknown };
}

/** Writes a tree as tag(children) to compare. */
function show(n: unknown): string {
  if (n === null || n === undefined || typeof n === "boolean") return "";
  if (Array.isArray(n)) return n.map(show).join("");
  if (typeof n !== "object") return String(n);
  const v = n as VNode;
  assert.equal(v.props.dangerouslySetInnerHTML, undefined);
  return `${String(v.type)}${v.props.href !== undefined ? `[${v.props.href}]` : ""}(${show(v.props.children)})`;
}
const md = (text: string) => show((Markdown({ text }) as unknown as VNode).props.children);

test("blocks", () => {
  const cases: [string, string][] = [
    ["# A\n\n## B\n### C", "h3(A)h4(B)h5(C)"],
    ["one\ntwo\n\nthree", "p(one two)p(three)"],
    ["- a\n- b\n  more\n\n1. x", "ul(li(a)li(b more))ol(li(x))"],
    ["```sh\n# not a heading\n```\nend", "pre(# not a heading)p(end)"],
    ["| a | b |\n|---|---|\n| 1 | `x` |", "div(table(thead(tr(th(a)th(b)))tbody(tr(td(1)td(code(x))))))"],
    ["text | with a bar", "p(text | with a bar)"],
    ["<!-- SPDX -->\nx", "p(x)"],
    ["", ""],
  ];
  for (const [text, want] of cases) assert.equal(md(text), want, text);
});

test("inline marks", () => {
  assert.equal(md("a `b*c*` **d** *e* f*g"), "p(a code(b*c*) strong(d) em(e) f*g)");
  assert.equal(md("[x](https://a.b/c) [y](../z.md)"), "p(a[https://a.b/c](x) y)");
});

test("nothing in a document becomes markup or script", () => {
  assert.equal(md("<img src=x onerror=alert(1)>"), "p(<img src=x onerror=alert(1)>)");
  assert.equal(md("[x](javascript:alert)"), "p(x)");
  assert.equal(md("[x](data:text/html,1)"), "p(x)");
});

test("an unclosed fence ends with the document", () => {
  assert.equal(md("```\na"), "pre(a)");
});
