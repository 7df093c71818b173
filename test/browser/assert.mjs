// SPDX-License-Identifier: Apache-2.0

/** Fails the running check. */
export function assert(ok, message) {
  if (!ok) throw new Error(message);
}
