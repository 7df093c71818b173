// SPDX-License-Identifier: Apache-2.0

import assert from "node:assert/strict";
import { readdirSync, readFileSync } from "node:fs";
import { join } from "node:path";
import { test } from "node:test";
import { TEXT, translator } from "../src/i18n";
import { nameKey, TILES, WORK_TILES } from "../src/use";

const entries = Object.entries(TEXT) as [string, readonly string[]][];
const names = (s: string) => [...s.matchAll(/\{(\w+)\}/g)].map((m) => m[1]).sort();

test("every key has both languages with the same values in them", () => {
  for (const [key, text] of entries) {
    assert.equal(text.length, 2, key);
    assert.ok(text.every((s) => s.trim() !== ""), key);
    assert.deepEqual(names(text[0]!), names(text[1]!), key);
  }
});

/** Names that are the same in Chinese. */
const SAME = /^(CPU|I\/O|Pod|Pod UID|PID|Agent|cgroup)$/;

test("Chinese texts are Chinese and English ones are not", () => {
  for (const [key, [en, zh]] of entries) {
    assert.ok(!/[\u4e00-\u9fff]/.test(en!), key);
    assert.ok(/[\u4e00-\u9fff]/.test(zh!) || SAME.test(zh!), `${key}: ${zh}`);
  }
});

function sources(dir: string): string {
  return readdirSync(dir, { withFileTypes: true })
    .map((f) => (f.isDirectory() ? sources(join(dir, f.name)) : f.name.startsWith("i18n.") ? "" : readFileSync(join(dir, f.name), "utf8")))
    .join("\n");
}

test("no key is left unused", () => {
  const text = sources("src");
  // Keys put together at run time: a prefix and a value of a closed set.
  const made = [/^(area|severity|state|use|live|metrics\.scope)\./, /^verdict\.(ok|warn|bad|none)$/, /^metric\.(last|min|avg|max)$/, /^relation\./, /^res\.psi\./,
    /^work\.(kind|kinds|kindhelp|area|col|full|help)\./, /^work\.group\.(kind|namespace|pod)$/, /^culprit\.(kind|help)\./, /^prof\.kind\./, /^prof\.unit\./, /^prof\.view\./, /^prof\.verdict\.(regressed|improved|unclear|untested)$/];
  for (const [key] of entries) assert.ok(text.includes(`"${key}"`) || made.some((m) => m.test(key)), `${key} is not used`);
});

test("every string that people read goes through the dictionary", () => {
  // Text between tags: ">Word word<" in TSX.
  const found = sources("src").split("\n").flatMap((l) => [...l.matchAll(/<(?:h\d|p|span|button|strong|th)[^<>]*>([A-Z][a-z]+[^<>{}]*)</g)].map((m) => m[1]));
  assert.deepEqual(found, []);
});

test("every USE row has a name", () => {
  for (const row of [...TILES, ...WORK_TILES].flatMap((t) => t.rows)) assert.ok(nameKey(row) in TEXT, row.id);
});

test("translator fills values and survives unknown keys", () => {
  assert.equal(translator("zh")("range.last", { s: "5 min" }), "最近 5 min");
  assert.equal(translator("en")("use.limits", { warn: "1", bad: "2" }), "Worth a look from 1, needs attention from 2");
  assert.equal(translator("en")("area.gpu" as never), "gpu");
});
