// The gateways: whether each is there and why not, how long an outage may last, and what an operator should see to.

import { $, ago, count, empty, fact, hide, make, name, rows, since, text } from "./elements.js";

const PRESENCE = [
  ["online", "●", "green"],
  ["stopped", "■", "grey"],
  ["lost", "▲", "red"],
  ["silent", "◆", "amber"],
  ["unknown", "○", "grey"],
];
const LINK = { ok: ["●", "green"], bad: ["◆", "amber"], away: ["▲", "red"], starting: ["○", "grey"] };

let only = ""; // the presence that is shown alone
let shown = null; // the state that was drawn last

const filters = PRESENCE.map(([word, shape, colour]) => {
  const number = make("span");
  const mark = make("span", `mark ${colour}`, shape);
  mark.ariaHidden = "true";
  const button = make("button", "", mark, " ", number, ` ${word}`);
  button.type = "button";
  button.ariaPressed = "false";
  button.addEventListener("click", () => {
    only = only === word ? "" : word;
    drawGateways(shown);
  });
  $("presence").append(button);
  return { word, button, number };
});

function gatewayRow() {
  const mark = make("span", "mark");
  const word = make("span", "word");
  const lasting = make("div", "soft small");
  const thing = make("span", "name");
  const badge = make("span", "badge amber", "pending");
  const plant = make("div", "soft small");
  const host = make("div", "soft small");
  const [beatFact, beat] = fact("last beat");
  const [bufferFact, buffer] = fact("buffer", "wide");
  const [clockFact, clockValue] = fact("clock", "clock");
  const [versionFact, version] = fact("version", "version");
  const waiting = make("div", "waiting");
  const kept = make("div", "kept");
  const bar = make("div", "buffer", waiting, kept);
  const more = make("span", "soft small");
  const notes = make("ul", "attention");
  const links = make("ul", "links");
  mark.ariaHidden = "true";
  bar.ariaHidden = "true";
  links.ariaLabel = "PLC links";
  bufferFact.append(bar, more);
  const root = make(
    "li", "",
    make("div", "facts",
      make("div", "fact", mark, " ", word, lasting), make("div", "fact", thing, " ", badge, plant, host),
      beatFact, bufferFact, clockFact, versionFact),
    notes, links,
  );
  return {
    root,
    draw(gateway) {
      text(mark, gateway.shape);
      name(mark, `mark ${gateway.colour}`);
      text(word, gateway.word);
      hide(lasting, gateway.since_us === null);
      since(lasting, gateway.since_us, "for ");
      name(root, gateway.word === "online" ? "" : "past");
      text(thing, gateway.thing);
      hide(badge, gateway.registered);
      badge.title = `Register it: holdfast-cloud gateway add ${gateway.plant} ${gateway.thing}`;
      text(plant, gateway.plant);
      text(host, gateway.host && !gateway.fenced ? `host ${gateway.host}` : ""); // of a fenced one the note names both
      since(beat, gateway.alive_us, "", " ago");
      drawBuffer(gateway, { buffer, bar, waiting, kept, more });
      drawClock(gateway, clockValue);
      text(version, gateway.version || "–");
      drawNotes(gateway, notes);
      drawLinks(gateway, links);
    },
  };
}

function drawBuffer(gateway, { buffer, bar, waiting, kept, more }) {
  const [lead, ...parts] = gateway.budget;
  const percent = (bytes) => `${gateway.limit_bytes ? Math.min(100, (100 * bytes) / gateway.limit_bytes) : 0}%`;
  text(buffer, lead ?? "–");
  hide(bar, !gateway.limit_bytes);
  waiting.style.width = percent(gateway.queued_bytes);
  kept.style.width = percent(gateway.kept_bytes);
  name(bar, gateway.queued_bytes > 0.8 * gateway.limit_bytes ? "buffer high" : "buffer");
  text(more, parts.join(" · "));
}

function drawNotes({ why, shape, colour, notes }, list) {
  const lines = why ? [{ shape, colour, text: why, command: "" }, ...notes] : notes;
  hide(list, !lines.length);
  list.replaceChildren(...lines.map((note) => {
    const mark = make("span", `mark ${note.colour}`, note.shape);
    mark.ariaHidden = "true";
    const command = note.command ? [" ", make("code", "", note.command)] : [];
    return make("li", note.colour === "red" ? "alarm" : "", mark, " ", note.text, ...command);
  }));
}

function drawClock(gateway, node) {
  const skewS = gateway.skew_us === null ? null : gateway.skew_us / 1e6;
  const wrong = gateway.clock_synchronised === false || Math.abs(skewS ?? 0) > 2;
  const far = Math.abs(skewS ?? 0);
  const sign = far < 0.05 ? "" : skewS < 0 ? "−" : "+";
  const shown = skewS === null ? "–" : sign + (far < 100 ? `${far.toFixed(1)} s` : ago(far));
  text(node, `${wrong ? "◆ " : ""}${shown}`);
  name(node, wrong ? "amber" : "");
}

function drawLinks(gateway, list) {
  hide(list, !gateway.links.length);
  list.replaceChildren(
    ...(gateway.word === "online" ? [] : [make("li", "soft", "when last heard:")]),
    ...gateway.links.map((link) => {
      const [shape, colour] = LINK[link.state] ?? LINK.starting;
      const mark = make("span", `mark ${colour}`, shape);
      mark.ariaHidden = "true";
      const item = make("li", "", mark, " ", make("span", "name", link.device), ` ${link.state} `,
        since(make("span", "soft"), link.since_us, "for "));
      if (link.reason && link.state !== "ok") {
        item.className = "wrong";
        item.append(make("span", "sep soft", link.reason));
      }
      return item;
    }),
    ...(gateway.links_more ? [make("li", "soft", `… and ${count(gateway.links_more)} more`)] : []),
  );
}

export function drawGateways(state) {
  shown = state;
  rows($("gateways"), state.gateways, gatewayRow);
  for (const row of $("gateways").kept.values()) hide(row.root, only !== "" && row.entry.word !== only);
  for (const { word, button, number } of filters) {
    text(number, count(state.totals.presence[word]));
    hide(button, !state.totals.presence[word] && only !== word);
    button.ariaPressed = String(only === word);
  }
  hide($("presence"), state.totals.gateways === 0);
  empty($("gateways-empty"), state.totals.gateways === 0, () => hint(state.setup));
}

function hint(setup) {
  if (!setup.tenants) {
    return [
      ["Nothing is set up yet: until a plant is known, all that arrives becomes a dead letter."],
      ["First a tenant:", "holdfast-cloud tenant add acme"],
      ["then a plant:", "holdfast-cloud plant add acme north plant-1"],
    ];
  }
  if (!setup.plants) {
    return [["There is a tenant, but no plant yet. Add one:", "holdfast-cloud plant add TENANT PROVINCE PLANT"]];
  }
  return [
    ["No gateway has been heard from any plant yet. One appears with its first heartbeat, 10 s after it has connected."],
    ["Does it reach the broker? On the gateway:", "holdfast check"],
  ];
}
