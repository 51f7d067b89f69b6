// The operators' page. One state, told whole by the first event and then by what has changed; each row is drawn again
// only when its entry is another. Whatever gateways and machines are called becomes text, never HTML.

import { $, clock, count, freezeClock, hide, make, many, name, setClock, since, text, tick } from "./elements.js";
import { drawGateways } from "./gateways.js";
import { drawMachines, load } from "./machines.js";

const SILENCE_MS = 10000; // the receiver says something every second
const RETRY_MS = 5000;

let state = null;
let heardMs = 0;

// ── the receiver ────────────────────────────────────────────────────────────────────────────────────────────────────

const receiverLine = (() => {
  const mark = make("span", "mark");
  const word = make("span", "word");
  const connected = make("span", "sep");
  const rate = make("span", "sep");
  const last = make("span", "sep last");
  const lettersLink = make("a", "amber");
  const letters = make("span", "sep", lettersLink);
  mark.ariaHidden = "true";
  lettersLink.href = "#dead-letters";
  $("receiver").append(mark, " ", word, connected, rate, letters, last);
  return { mark, word, connected, rate, last, letters, lettersLink };
})();

function drawReceiver() {
  const { receiver, dead_letters } = state;
  const line = receiverLine;
  text(line.mark, receiver.shape);
  name(line.mark, `mark ${receiver.colour}`);
  text(line.word, receiver.word);
  hide(line.connected, receiver.connected_since_us === null);
  since(line.connected, receiver.connected_since_us, "connected to the broker for ", ` (${receiver.protocol})`);
  const rate = receiver.readings_per_s;
  text(line.rate, `${rate === null ? "…" : count(Math.round(rate))} readings/s`);
  hide(line.last, receiver.committed_us === null);
  since(line.last, receiver.committed_us, "last message ", " ago");
  hide(line.letters, !dead_letters.waiting);
  text(line.lettersLink, `◆ ${many(dead_letters.waiting, "dead letter")}`);
  hide($("trouble"), !receiver.trouble);
  text($("trouble"), receiver.trouble);
}

function drawLetters() {
  const waiting = state.dead_letters.waiting;
  const wait = waiting === 1 ? "waits" : "wait";
  text($("letters-aside"), waiting ? `◆ ${count(waiting)} ${wait} to be looked at` : "none wait");
  name($("letters-aside"), waiting ? "aside amber" : "aside");
  hide($("letters-help"), !waiting);
}

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
  drawReceiver();
  drawGateways(state);
  drawMachines(state);
  drawLetters();
  text($("notes"), state.notes.join(" "));
  const { lost, silent } = state.totals.presence;
  document.title = `${lost ? `▲ ${lost} lost – ` : silent ? `◆ ${silent} silent – ` : ""}Holdfast`;
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
