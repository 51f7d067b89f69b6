// The receiver itself, and the dead letters that wait.

import { $, count, hide, make, many, name, since, text } from "./elements.js";

const line = (() => {
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

export function drawReceiver({ receiver, dead_letters }) {
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

export function drawLetters({ dead_letters }) {
  const waiting = dead_letters.waiting;
  const wait = waiting === 1 ? "waits" : "wait";
  text($("letters-aside"), waiting ? `◆ ${count(waiting)} ${wait} to be looked at` : "none wait");
  name($("letters-aside"), waiting ? "aside amber" : "aside");
  hide($("letters-help"), !waiting);
}
