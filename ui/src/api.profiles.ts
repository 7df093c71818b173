// SPDX-License-Identifier: Apache-2.0

/** What the agent's HTTP API has of profiles; ./api hands it on. */
import type { Frame } from "./api";

/** What stacks are weighted with. */
export interface ProfileType {
  name: string;
  unit: "nanoseconds" | "bytes" | "count";
  help: string;
  read: string;
}

/** Whether stacks of a type are taken. */
export interface ProfileTypeState {
  name: string;
  on: boolean;
  reason?: string;
}

export interface ProfileTypes {
  status: { state: string; reason?: string; hertz: number; samples: number; types?: ProfileTypeState[] | null };
  types: ProfileType[] | null;
  labels: string[] | null;
}

/** The tree of all stacks of a query; parents stand before their children. */
export interface FlameGraph {
  type: string;
  unit: string;
  from: string;
  to: string;
  total: number;
  samples: number;
  frames: Frame[];
  /** f: index of frames, p: index of the caller or -1, s: value of its own, t: value with all below. */
  nodes: { f: number; p: number; s: number; t: number }[];
  dropped_nodes?: number;
  truncated?: number;
}

/** One of two sets of samples that are compared. */
export interface ProfileSide {
  total: number;
  samples: number;
  truncated?: number;
}

/** How a share changed, and how likely that is by chance. */
export interface ShareChange {
  before: number;
  after: number;
  before_samples: number;
  after_samples: number;
  z: number;
  p: number;
}

/** How the shares of a function changed; the verdict is of the one that was asked for. */
export interface FunctionChange {
  function: string;
  module?: string;
  file?: string;
  verdict: "regressed" | "improved" | "unclear" | "untested";
  self: ShareChange;
  total: ShareChange;
}

/** Two sets of samples compared: functions by their change, and the tree of both. */
export interface ProfileDiff {
  type: string;
  unit: string;
  before: ProfileSide;
  after: ProfileSide;
  functions: FunctionChange[];
  /** How many functions had enough samples, and how many of those changed for certain. */
  tested: number;
  clear: number;
  frames: Frame[];
  /** As in a FlameGraph; sb and tb are the values before. */
  nodes: { f: number; p: number; sb: number; tb: number; s: number; t: number }[];
  dropped_nodes?: number;
}

/** Value of the samples by columns of time. */
export interface ProfileHeat {
  from: string;
  column_seconds: number;
  values: number[] | null;
}

export interface ProfileSeries {
  labels: Record<string, string>;
  value: number;
  samples: number;
}

/** A profile that a process' own language runtime keeps. */
export interface RuntimeProfile {
  name: string;
  help: string;
  samples: string[];
  at: string;
  count?: number;
  delta: boolean;
}

/** A process whose runtime may have profiles of its own. */
export interface RuntimeProcess {
  pid: number;
  process: string;
  runtime: string;
  version?: string;
  listens: string[];
  profiles: RuntimeProfile[];
  reason?: string;
}
