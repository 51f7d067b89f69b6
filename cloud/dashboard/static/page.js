// The operators' page. One state, told whole by the first event and then by what has changed; each row is drawn again
// only when its entry is another. Whatever gateways and machines are called becomes text, never HTML.

import { drawCompleteness } from "./completeness.js";
import { connection } from "./connection.js";
import { $, count, text } from "./elements.js";
import { drawGateways } from "./gateways.js";
import { drawMachines } from "./machines.js";
import { drawLetters, drawReceiver } from "./receiver.js";
import { load } from "./values.js";

let state = null;

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
  draw();
  announce(words, receiverBefore);
}

connection({
  who: "receiver",
  path: () => "events",
  events: { state: (told) => take(told, true), change: (told) => take(told, false) },
  back: load,
});
