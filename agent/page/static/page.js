// The agent's page. A view every second, drawn over the last one. Whatever devices and tags are called becomes text,
// never HTML.

import { connection } from "./connection.js";
import { $, ago, make, text } from "./elements.js";
import { drawDevices, drawLine } from "./line.js";
import { drawPlot, openPlot } from "./plot.js";
import { drawValues, onQuery, query } from "./values.js";

let worst = "";

function draw(view) {
  const { agent } = view;
  text($("title"), agent.thing);
  $("agent").replaceChildren(
    make("span", "sep", agent.plant), make("span", "sep", `version ${agent.version}`),
    make("span", "sep", `up ${ago(agent.uptime_s)}`));
  drawLine(view.line);
  drawDevices(view);
  drawValues(view, openPlot);
  drawPlot(view);
  const bad = view.line.filter((station) => station.mark === "bad").map((station) => station.name);
  document.title = `${bad.length ? `▲ ${bad.join(", ")} – ` : ""}${agent.thing} – Holdfast`;
  if (bad.join() !== worst) text($("announce"), bad.length ? `failing: ${bad.join(", ")}` : "all is well");
  worst = bad.join();
}

const connect = connection({ who: "agent", path: () => `events?${query()}`, events: { view: draw } });
onQuery(connect);
