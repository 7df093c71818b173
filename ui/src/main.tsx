// SPDX-License-Identifier: Apache-2.0

import { render } from "preact";
import { Shell } from "./shell";
import "uplot/dist/uPlot.min.css";
import "./style/base.css";
import "./style/parts.css";
import "./style/pages.css";
import "./style/profiles.css";

render(<Shell />, document.getElementById("app")!);
