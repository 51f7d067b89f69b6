// The machines: what of each is stored, and the latest values of the one that is open. The address names it, so that
// it stays open when the page is loaded again, and can be passed on.

import { details, others, sentence, shareBar, worst } from "./completeness.js";
import { $, count, empty, fact, hide, make, many, name, rows, since, text } from "./elements.js";
import { load, opened, valuesPanel } from "./values.js";

if (location.hash.startsWith("#machine=")) opened.key = location.hash.slice("#machine=".length);

function machineRow(key) {
  const arrow = make("span", "arrow", "▸");
  const title = make("span", "name");
  const plant = make("span", "soft small");
  const approval = make("span", "fact approval");
  const [gatewayFact, gateway] = fact("gateway", "spare");
  const [heardFact, heard] = fact("last message", "heard");
  const [tagsFact, tags] = fact("tags", "spare");
  const [ledgerFact, ledger] = fact("stored", "ledger");
  const button = make("button", "machine", arrow, make("span", "fact", title, make("br"), plant), approval,
    gatewayFact, heardFact, tagsFact, ledgerFact);
  const bar = shareBar();
  const parts = make("span", "small");
  ledgerFact.append(bar.root, parts);
  const more = make("ul", "details");
  arrow.ariaHidden = "true";
  button.type = "button";
  button.ariaExpanded = "false";
  button.addEventListener("click", () => open(opened.key === key ? "" : key));
  return {
    root: make("li", "", button),
    panel: null,
    expand(expanded) {
      button.ariaExpanded = String(expanded);
      if (expanded) button.after(more);
      else more.remove();
      text(arrow, expanded ? "▾" : "▸");
    },
    draw(machine) {
      text(title, machine.machine);
      text(plant, machine.plant);
      const pending = machine.state === "pending";
      approval.replaceChildren(make("span", pending ? "badge amber" : "soft small", machine.state));
      approval.title = pending ? `Approve it: holdfast-cloud machine approve ${machine.plant} ${machine.machine}` : "";
      text(gateway, machine.gateway || "–");
      since(heard, machine.last_event_us, "", " ago");
      text(tags, count(machine.tags));
      drawLedger(machine.ledger, ledger, bar, parts);
      more.replaceChildren(...(machine.ledger ? details(key, machine.ledger) : []));
      if (opened.key === key) load();
    },
  };
}

function drawLedger(found, said, bar, parts) {
  hide(bar.root, !found?.batches);
  if (!found) {
    text(said, "no numbers known yet");
    return;
  }
  const [shape, colour] = worst(found);
  said.replaceChildren(make("span", `mark ${colour}`, shape), ` ${sentence(found)}`);
  name(said, found.missing ? "red" : "");
  bar.draw(found);
  parts.replaceChildren(...others(found));
  if (!found.dropped || !found.losses.length) return;
  const reason = found.losses[0].reason || "no reason was given";
  parts.lastChild.append(`: ${reason}${found.reasons > 1 ? `; ${many(found.reasons - 1, "more reason")}` : ""}`);
}

function open(key) {
  const before = opened.row;
  if (before) {
    before.expand(false);
    before.panel?.root.remove();
    before.panel = null;
  }
  Object.assign(opened, { key, tag: "", row: null });
  history.replaceState(null, "", key ? `#machine=${key}` : location.pathname);
  showOpened();
}

// The opened machine may not have been told yet, when the page was asked for with its name.
function showOpened() {
  const row = opened.key && !opened.row ? $("machines").kept?.get(opened.key) : null;
  if (!row) return;
  opened.row = row;
  row.expand(true);
  row.panel = valuesPanel();
  row.root.append(row.panel.root);
  load();
}

export function drawMachines(state) {
  rows($("machines"), state.machines, machineRow);
  if (opened.row && !(opened.key in state.machines)) open("");
  showOpened();
  const pending = state.totals.pending;
  text($("machines-aside"), pending ? `${count(pending)} pending; approve with: holdfast-cloud machine approve` : "");
  empty($("machines-empty"), state.totals.machines === 0, hint);
}

function hint() {
  return [["No machine has sent anything yet. One appears with its first message, as pending until it is approved."]];
}
