// The machines: what of each is stored, and the latest values of the one that is open. The address names it, so that
// it stays open when the page is loaded again, and can be passed on.

import { $, count, empty, fact, hide, make, many, name, rows, since, text } from "./elements.js";

const VALUES_MS = 1000;
const FILTER_MS = 250;
const QUALITY = { good: ["", ""], uncertain: ["◆", "amber"], bad: ["▲", "red"] };

const opened = { key: "", tag: "", row: null, loading: false, again: false, typing: 0 };

if (location.hash.startsWith("#machine=")) opened.key = location.hash.slice("#machine=".length);

function machineRow(key) {
  const arrow = make("span", "arrow", "▸");
  const title = make("span", "name");
  const plant = make("span", "soft small");
  const approval = make("span", "fact approval");
  const [gatewayFact, gateway] = fact("gateway", "spare");
  const [heardFact, heard] = fact("last message", "heard");
  const [tagsFact, tags] = fact("tags", "spare");
  const [ledgerFact, ledger] = fact("ledger: stored", "ledger");
  const button = make("button", "machine", arrow, make("span", "fact", title, make("br"), plant), approval,
    gatewayFact, heardFact, tagsFact, ledgerFact);
  arrow.ariaHidden = "true";
  button.type = "button";
  button.ariaExpanded = "false";
  button.addEventListener("click", () => open(opened.key === key ? "" : key));
  return {
    root: make("li", "", button),
    panel: null,
    expand(expanded) {
      button.ariaExpanded = String(expanded);
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
      text(ledger, `${machine.complete ? "" : "◆ "}${machine.ledger}`);
      name(ledger, machine.complete ? "" : "amber");
      if (opened.key === key) load();
    },
  };
}

function valuesPanel() {
  const input = make("input");
  const label = make("label", "", "Filter by tag ", input);
  const found = make("span", "soft small");
  const body = make("tbody");
  const columns = { tag: "", value: "number", unit: "unit-cell", quality: "", age: "number" };
  const table = make("table", "",
    make("thead", "", make("tr", "", ...Object.entries(columns).map(([title, names]) => {
      const cell = make("th", `c-${title} ${names}`, title);
      cell.scope = "col";
      return cell;
    }))),
    body);
  input.type = "search";
  input.autocomplete = "off";
  input.spellcheck = false;
  input.maxLength = 200;
  input.value = opened.tag;
  input.addEventListener("input", () => {
    opened.tag = input.value;
    clearTimeout(opened.typing);
    opened.typing = setTimeout(load, FILTER_MS);
  });
  return { root: make("div", "values", make("div", "tools", label, found), table), table, found, body };
}

function valueRow() {
  const tag = make("td", "tag-cell");
  const value = make("span");
  const inline = make("span", "soft unit-inline");
  const unit = make("td", "soft unit-cell");
  const quality = make("td", "quality-cell");
  const age = make("td", "number soft");
  return {
    root: make("tr", "", tag, make("td", "number value-cell", value, inline), unit, quality, age),
    draw(entry) {
      text(tag, entry.tag);
      text(value, entry.value);
      text(unit, entry.unit);
      text(inline, entry.unit ? ` ${entry.unit}` : "");
      const [shape, colour] = QUALITY[entry.quality];
      const why = entry.quality === "good" ? "" : entry.reason || entry.code;
      quality.replaceChildren(make("span", colour, `${shape} ${entry.quality}`.trim()), make("span", "why", why));
      quality.title = entry.code;
      since(age, entry.time_us);
    },
  };
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

// At most one question at a time, and no more than one a second.
export async function load() {
  opened.again = true;
  if (opened.loading) return;
  opened.loading = true;
  try {
    while (opened.again && opened.key) {
      opened.again = false;
      await loadOnce(opened.key, opened.tag);
      await new Promise((done) => setTimeout(done, VALUES_MS));
    }
  } finally {
    opened.loading = false;
  }
}

async function loadOnce(key, tag) {
  let answer;
  try {
    const response = await fetch(`api/values?${new URLSearchParams({ machine: key, tag })}`, { cache: "no-store" });
    answer = await response.json();
  } catch {
    answer = { error: "the values could not be had from the receiver" };
  }
  const panel = opened.row?.panel;
  if (!panel || opened.key !== key) return;
  if (opened.tag !== tag) opened.again = true;
  if (answer.error) {
    text(panel.found, `▲ ${answer.error}`);
    panel.table.className = "grey";
    return;
  }
  panel.table.className = "";
  const shown = answer.values.length;
  const all = `${count(answer.found)} of ${many(answer.tags, "tag")}`;
  text(panel.found, shown < answer.found ? `the first ${count(shown)} of ${all}; filter to see others` : all);
  rows(panel.body, Object.fromEntries(answer.values.map((value) => [`t${value.tag}`, value])), valueRow);
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
