// The statement of completeness: which of the numbers that were given are stored, and what became of the others.

import { $, count, hide, make, many, name, text } from "./elements.js";

const STATES = [
  ["stored", "●", "green", "stored", "each of them once"],
  ["in_flight", "○", "grey", "in flight", "numbered, and still with their gateway"],
  ["dropped", "◆", "amber", "dropped", "let go by their gateway, or dead letters; the machine says why"],
  ["missing", "▲", "red", "missing", "known to exist, and nobody says that they have them"],
];

export const sentence = (ledger) =>
  `${count(ledger.stored)} of ${count(ledger.batches)} batches; ${count(ledger.missing)} missing`;

// The worst that there is, as shape and colour. What is in flight is on its way, and no trouble.
export function worst(ledger) {
  const found = ledger.missing ? STATES[3] : ledger.dropped ? STATES[2] : STATES[0];
  return [found[1], found[2]];
}

// A bar in which even one batch of a million can be seen.
export function shareBar() {
  const parts = STATES.map(([state]) => make("div", `share ${state}`));
  const root = make("div", "shares", ...parts);
  root.ariaHidden = "true"; // the words stand beside it
  return {
    root,
    draw(ledger) {
      STATES.forEach(([state], at) => {
        hide(parts[at], !ledger[state]);
        parts[at].style.flexGrow = ledger.batches ? ledger[state] / ledger.batches : 0;
      });
    },
  };
}

// What there is beside what is stored, in words.
export const others = (ledger) =>
  STATES.slice(1, 3).filter(([state]) => ledger[state]).map(([state, shape, colour, word]) =>
    make("span", `part ${colour}`, `${shape} ${count(ledger[state])} ${word}`));

const statement = (() => {
  const mark = make("span", "mark");
  const said = make("span", "word");
  const bar = shareBar();
  const legend = make("p", "legend");
  const more = make("p", "soft small");
  mark.ariaHidden = "true";
  $("statement").append(make("p", "said", mark, " ", said), bar.root, legend, more);
  return { mark, said, bar, legend, more };
})();

export function drawCompleteness(state) {
  const ledger = state.totals.ledger;
  hide($("completeness"), !ledger.batches);
  if (!ledger.batches) return;
  const [shape, colour] = worst(ledger);
  text(statement.mark, shape);
  name(statement.mark, `mark ${colour}`);
  text(statement.said, sentence(ledger));
  statement.bar.draw(ledger);
  statement.legend.replaceChildren(...STATES.map(([key, sign, tint, word, meaning]) => {
    const dot = make("span", ledger[key] ? `mark ${tint}` : "mark grey", sign);
    dot.ariaHidden = "true";
    const part = make("span", "part", dot, ` ${count(ledger[key])} ${word}`);
    part.title = meaning;
    return part;
  }));
  const { duplicate = 0, conflict = 0 } = state.receiver.messages;
  const again = duplicate ? `${many(duplicate, "batch", "batches")} came again, stored once` : "no batch came twice";
  const parts = [many(ledger.readings, "reading"), `${again} since the receiver's start`];
  if (conflict) parts.push(`${count(conflict)} with a used number and other content: dead letters`);
  text(statement.more, parts.join(" · "));
}

// What an operator looks for where not everything is stored: why it was dropped, and which are missing.
export function details(key, ledger) {
  const { losses, gaps } = ledger;
  const lines = losses.map(({ batches, reason }) => make("li", "",
    make("span", "amber", `◆ ${count(batches)} dropped: `), reason || "no reason was given"));
  if (ledger.reasons > losses.length) {
    lines.push(make("li", "soft", `… and ${many(ledger.reasons - losses.length, "more reason")}`));
  }
  lines.push(...gaps.map(({ epoch, first, last }) => make("li", "",
    make("span", "red", `▲ missing: `), first === last ? count(first) : `${count(first)} to ${count(last)}`,
    make("span", "soft", ` of epoch ${epoch || "–"}`))));
  if (ledger.gaps_in_all > gaps.length) {
    lines.push(make("li", "soft", `… and ${many(ledger.gaps_in_all - gaps.length, "more gap")}`));
  }
  if (!lines.length) return [];
  return [...lines, make("li", "soft", "all of it: ", make("code", "", `holdfast-cloud ledger ${key}`))];
}
