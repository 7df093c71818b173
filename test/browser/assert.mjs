// SPDX-License-Identifier: Apache-2.0

/** Fails the running check. */
export function assert(ok, message) {
  if (!ok) throw new Error(message);
}

/**
 * Reads until what was read is as wanted, for ten seconds: a page takes its time
 * to follow a click. say makes the message of the last value.
 */
export async function until(read, wanted, say) {
  let value = await read();
  for (const end = Date.now() + 10000; !wanted(value) && Date.now() < end; value = await read()) await new Promise((r) => setTimeout(r, 50));
  assert(wanted(value), typeof say === "function" ? say(value) : say);
}
