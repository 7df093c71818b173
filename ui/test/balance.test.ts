// SPDX-License-Identifier: Apache-2.0

import assert from "node:assert/strict";
import { test } from "node:test";
import type { Account } from "../src/api";
import { balance, onTheWay } from "../src/balance";

const account = (observed: number, routed: number, delivered = routed): Account => ({
  probe: "p", observed, dropped: { ring_full: 2 }, routed, sinks: [{ sink: "s", delivered, dropped: 0, failed: 0, queued: 0 }],
});

test("the law to the event", () => {
  assert.equal(balance(account(10, 8), undefined), "ok");
  assert.equal(balance({ probe: "p", observed: 0, dropped: null, routed: 0, sinks: null }, undefined), "ok");
  assert.equal(balance({ ...account(10, 8), sinks: [{ sink: "s", delivered: 5, dropped: 1, failed: 1, queued: 1 }] }, undefined), "ok");
});

test("events on the way are no loss", () => {
  assert.equal(balance(account(12, 8), undefined), "moving");
  assert.equal(onTheWay(account(12, 8)), 2);
  // Ten were observed before; ten are out now; two newer ones are on the way.
  assert.equal(balance(account(14, 10), account(12, 8)), "moving");
});

test("what does not arrive is a loss", () => {
  assert.equal(balance(account(12, 8), account(12, 8)), "off", "the same two are still missing");
  assert.equal(balance(account(20, 10, 7), account(12, 9)), "off", "a sink lags behind what was routed before");
  assert.equal(balance(account(10, 12), account(10, 12)), "off", "more came out than went in");
});
