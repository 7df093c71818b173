// SPDX-License-Identifier: Apache-2.0

/**
 * Holds the types of api.ts, which the console is written against, to those of
 * the API's OpenAPI document (api.gen.ts): what the server sends must fit what
 * the console expects. Nothing here runs; `tsc` fails when they part ways.
 */
import type * as ours from "./api";
import type { components } from "./api.gen";

type Sent = components["schemas"];

/** An event's body is any JSON value to OpenAPI; to the console it is an object. */
type Body<T> = Omit<T, "fields"> & { fields: Record<string, unknown> };

type Fits<Server extends Console, Console> = Server;

export type Checks = [
  Fits<Body<Sent["Document"]>, ours.Document>,
  Fits<Sent["Frame"], ours.Frame>,
  Fits<Sent["Process"], ours.Process>,
  Fits<Sent["Container"], ours.Container>,
  Fits<Sent["Field"], ours.Field>,
  Fits<Sent["CatalogEntry"], ours.Schema>,
  Fits<Sent["Timeline"], ours.Timeline>,
  Fits<Sent["Resources"], ours.Resources>,
  Fits<Sent["Link"], ours.Link>,
  Fits<Sent["EventCount"], ours.EventCount>,
  Fits<Sent["ValueCount"], ours.ValueCount>,
  Fits<Omit<Sent["Neighbour"], "event">, Omit<ours.Neighbour, "event">>,
  Fits<Sent["EventChart"], ours.EventChart>,
  Fits<Sent["Node"], ours.Node>,
  Fits<Sent["Account"], ours.Account>,
  Fits<Sent["HookState"], ours.Hook>,
  Fits<Sent["ProbeStatus"], ours.Probe>,
  Fits<Sent["CulpritPair"], ours.CulpritPair>,
  Fits<Sent["ProfileTypes"], ours.ProfileTypes>,
  Fits<Sent["FlameGraph"], ours.FlameGraph>,
  Fits<Sent["ProfileDiff"], ours.ProfileDiff>,
  Fits<Sent["ProfileHeat"], ours.ProfileHeat>,
  Fits<Sent["ProfileSeries"], ours.ProfileSeries>,
  Fits<Sent["RuntimeProcess"], ours.RuntimeProcess>,
  Fits<Sent["StoreStatus"], ours.StoreStatus>,
  Fits<Sent["SystemInfo"], ours.System>,
  Fits<Sent["Manual"], Omit<ours.ProbePage, "account">>,
];
