// The agent's page. A view every second, drawn over the last one. Whatever devices and tags are called becomes text,
// never HTML.

import { $, ago, clock, freezeClock, hide, make, name, setClock, text, tick } from "./elements.js";
import { drawDevices, drawLine } from "./line.js";
import { drawPlot, openPlot } from "./plot.js";
import { drawValues, onQuery, query } from "./values.js";

const SILENCE_MS = 10000; // the agent says something every second
const RETRY_MS = 5000;

let heardMs = 0;
let view = null;
let worst = "";
let source = null;

function draw() {
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

function take(found) {
  view = found;
  heardMs = Date.now();
  setClock(view.now_us);
  live();
  draw();
}

function connect() {
  source?.close();
  source = new EventSource(`events?${query()}`);
  source.addEventListener("view", (event) => take(JSON.parse(event.data)));
  source.addEventListener("error", () => {
    lost();
    if (source.readyState === EventSource.CLOSED) setTimeout(connect, RETRY_MS); // an answer that is none: 503
  });
}

function link(kind, shape, colour, word) {
  document.body.dataset.link = kind;
  const [mark, said] = $("link").children;
  text(mark, shape);
  name(mark, `mark ${colour}`);
  text(said, word);
}

function live() {
  if (document.body.dataset.link === "live") return;
  link("live", "●", "green", "live");
  hide($("stale"), true);
}

function lost() {
  if (document.body.dataset.link === "lost") return;
  if (view) freezeClock(view.now_us);
  link("lost", "▲", "red", "not live");
  const old = view ? `What you see is from ${clock()}.` : "There is nothing to show yet.";
  const sentence = `▲ No connection to the agent. ${old} Trying again.`;
  text($("stale"), sentence);
  hide($("stale"), false);
  text($("announce"), sentence);
}

setInterval(() => {
  if (document.body.dataset.link !== "live") return;
  if (Date.now() - heardMs > SILENCE_MS) {
    lost();
    connect();
  } else document.querySelectorAll("[data-since]").forEach(tick);
}, 1000);

onQuery(connect);
link("starting", "○", "grey", "connecting");
connect();
