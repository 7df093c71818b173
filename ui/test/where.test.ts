// SPDX-License-Identifier: Apache-2.0
import { test } from "node:test";
import assert from "node:assert/strict";
import type { Schema } from "../src/api";
import { formatWhere, isNumber, membersOf, ordered, parseWhere, patchFor, withCondition } from "../src/where";

test("conditions are read and written as the API has them", () => {
  const list = parseWhere('field.wait_seconds >= 50ms and process.comm != "nginx: \\"x\\"" AND verdict contains and');
  assert.deepEqual(list, [
    { path: "field.wait_seconds", op: ">=", value: "50ms" }, { path: "process.comm", op: "!=", value: 'nginx: "x"' }, { path: "verdict", op: "contains", value: "and" },
  ]);
  assert.deepEqual(parseWhere(formatWhere(list)!), list);
  assert.deepEqual(parseWhere("field.a=1"), [{ path: "field.a", op: "=", value: "1" }]);
  assert.equal(formatWhere([{ path: "known", op: "=", value: "" }]), 'known = ""');
  assert.equal(formatWhere([]), null);
});

test("what is no condition ends the list", () => {
  assert.deepEqual(parseWhere(""), []);
  assert.deepEqual(parseWhere("field.a"), []);
  assert.deepEqual(parseWhere('a = 1 and b = "open'), [{ path: "a", op: "=", value: "1" }]);
  assert.deepEqual(parseWhere("a containsx 1"), []);
});

test("a condition is added once", () => {
  const c = { path: "field.cpu", op: "=", value: "1" } as const;
  assert.equal(withCondition("", c), "field.cpu = 1");
  assert.equal(withCondition("field.cpu = 1", c), "field.cpu = 1");
  assert.equal(withCondition("field.cpu = 1", { ...c, op: ">" }), "field.cpu = 1 and field.cpu > 1");
});

test("equality of a plain name has its own parameter, other comparisons look at the member", () => {
  assert.deepEqual(patchFor("", { path: "comm", op: "=", value: "a b" }), { comm: "a b" });
  assert.deepEqual(patchFor("", { path: "comm", op: "!=", value: "a b" }), { where: 'process.comm != "a b"' });
  assert.deepEqual(patchFor("a = 1", { path: "field.x", op: "=", value: "2" }), { where: "a = 1 and field.x = 2" });
});

test("members come from the schemas of the kinds, once each, with their units", () => {
  const kind = (name: string, fields: Schema["fields"]): Schema => ({ name, kind: "event", area: "cpu", help: "", fields });
  const list = membersOf([
    kind("a", [{ name: "wait_seconds", type: "number", unit: "seconds", help: "how long" }, { name: "culprit", type: "object", help: "who" }]),
    kind("b", [{ name: "wait_seconds", type: "number", unit: "seconds", help: "other" }, { name: "reason", help: "why" }]),
  ]);
  assert.deepEqual(list.filter((m) => m.name.startsWith("field.")), [
    { name: "field.wait_seconds", unit: "seconds", help: "how long", numeric: true }, { name: "field.reason", unit: "", help: "why", numeric: false },
  ]);
  assert.ok(list.some((m) => m.name === "comm") && list.some((m) => m.name === "verdict"));
});

test("numbers with units are told from texts", () => {
  for (const v of ["5", "-1.5", "50ms", "1 MiB", "5%", "1e-3", "3µs"]) assert.ok(isNumber(v), v);
  for (const v of ["", "ms", "x5", "5 parsecs", "0x10"]) assert.ok(!isNumber(v), v);
  assert.ok(ordered(">=") && !ordered("=") && !ordered("contains"));
});
