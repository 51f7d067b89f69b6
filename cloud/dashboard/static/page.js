// The operators' page. One state, told whole by the first event and then by what has changed; each row is drawn again
// only when its entry is another. Whatever gateways and machines are called becomes text, never HTML.

import { drawCompleteness } from "./completeness.js";
import { $, clock, count, freezeClock, hide, name, setClock, text, tick } from "./elements.js";
import { drawGateways } from "./gateways.js";
import { drawMachines } from "./machines.js";
import { drawLetters, drawReceiver } from "./receiver.js";
import { load } from "./values.js";

const SILENCE_MS = 10000; // the receiver says something every second
const RETRY_MS = 5000;

let state = null;
let heardMs = 0;

// ── taking what the receiver says ───────────────────────────────────────────────────────────────────────────────────

function merge(change) {
  for (const [key, value] of Object.entries(change)) {
    if (key !== "gateways" && key !== "machines") {
      state[key] = value;
      continue;
    }
    for (const [entryName, entry] of Object.entries(value)) {
      if (entry === null) delete state[key][entryName];
      else state[key][entryName] = entry;
    }
  }
}

function draw() {
  drawReceiver(state);
  drawCompleteness(state);
  drawGateways(state);
  drawMachines(state);
  drawLetters(state);
  text($("notes"), state.notes.join(" "));
  document.title = `${trouble(state.totals)}Holdfast`;
}

// The worst there is, for the tab of a browser.
function trouble({ presence, fenced, ledger }) {
  if (ledger.missing) return `▲ ${count(ledger.missing)} missing – `;
  if (fenced) return `▲ ${count(fenced)} fenced – `;
  if (presence.lost) return `▲ ${count(presence.lost)} lost – `;
  return presence.silent ? `◆ ${count(presence.silent)} silent – ` : "";
}

function announce(before, receiverBefore) {
  const changed = Object.entries(state.gateways)
    .filter(([key, gateway]) => before[key] && before[key] !== gateway.word)
    .map(([, gateway]) => `gateway ${gateway.thing} of ${gateway.plant} is ${gateway.word}`);
  const said = changed.slice(0, 3);
  if (changed.length > 3) said.push(`${changed.length - 3} more have changed`);
  if (receiverBefore && receiverBefore !== state.receiver.word) said.push(`receiver: ${state.receiver.word}`);
  if (said.length) text($("announce"), said.join("; "));
}

function take(change, whole) {
  const words = {};
  for (const [key, gateway] of Object.entries(state?.gateways ?? {})) words[key] = gateway.word;
  const receiverBefore = state?.receiver.word;
  if (whole) state = change;
  else merge(change);
  heardMs = Date.now();
  setClock(state.now_us);
  live();
  draw();
  announce(words, receiverBefore);
}

// ── the connection ──────────────────────────────────────────────────────────────────────────────────────────────────

let source = null;

function connect() {
  source?.close();
  source = new EventSource("events");
  source.addEventListener("state", (event) => take(JSON.parse(event.data), true));
  source.addEventListener("change", (event) => take(JSON.parse(event.data), false));
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
  const wasLost = document.body.dataset.link === "lost";
  link("live", "●", "green", "live");
  hide($("stale"), true);
  if (wasLost) {
    text($("announce"), "The connection to the receiver is back.");
    load();
  }
}

function lost() {
  if (document.body.dataset.link === "lost") return;
  if (state) freezeClock(state.now_us);
  link("lost", "▲", "red", "not live");
  const old = state ? `What you see is from ${clock()}.` : "There is nothing to show yet.";
  const sentence = `▲ No connection to the receiver. ${old} Trying again.`;
  text($("stale"), sentence);
  hide($("stale"), false);
  text($("announce"), sentence);
}

setInterval(() => {
  if (document.body.dataset.link === "live" && Date.now() - heardMs > SILENCE_MS) {
    lost();
    connect();
  }
  if (document.body.dataset.link === "live") document.querySelectorAll("[data-since]").forEach(tick);
}, 1000);

link("starting", "○", "grey", "connecting");
connect();
