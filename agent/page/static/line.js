// The stations of the line, the reasons for whatever is not well, and the devices.

import { $, count, make, name, rows, since, text } from "./elements.js";

export const MARKS = { ok: ["●", "green"], bad: ["▲", "red"], note: ["◆", "amber"] };
const UNKNOWN = ["○", "grey"];
const WORDS = { ok: "well", bad: "fails", note: "worth knowing" };

function mark(kind) {
  const [shape, colour] = MARKS[kind] ?? UNKNOWN;
  const node = make("span", `mark ${colour}`, shape);
  node.ariaHidden = "true";
  return node;
}

function stationItem() {
  const head = make("p", "");
  const said = make("p", "said");
  const detail = make("p", "detail");
  return {
    root: make("li", "station", head, said, detail),
    draw(station) {
      name(this.root, `station ${station.mark ?? "unknown"}`);
      head.replaceChildren(mark(station.mark), " ", make("span", "name", station.name),
        make("span", "unseen", ` ${WORDS[station.mark] ?? "cannot be told"}`));
      text(said, station.text);
      text(detail, station.detail);
    },
  };
}

export function drawLine(line) {
  rows($("line"), Object.fromEntries(line.map((station, at) => [at, station])), stationItem);
  const reasons = line.flatMap((station) => station.reasons);
  rows($("reasons"), Object.fromEntries(reasons.map((reason, at) => [at, reason])), reasonItem);
}

function reasonItem() {
  const said = make("span");
  const fix = make("span", "fix");
  return {
    root: make("li", "", said, fix),
    draw(reason) {
      name(this.root, reason.mark);
      said.replaceChildren(mark(reason.mark), " ", make("span", "name", reason.subject), ` ${reason.text}`);
      text(fix, reason.fix);
      fix.hidden = !reason.fix;
    },
  };
}

const rate = (perSecond, digits) => perSecond === null ? "…" : perSecond.toLocaleString("en", { maximumFractionDigits: digits });

function deviceRow() {
  const device = make("td");
  const where = make("td", "soft where-cell");
  const state = make("td", "state-cell");
  const figures = ["requests/s", "values/s", "failing"].map((label) => {
    const cell = make("td", "number rate-cell");
    cell.dataset.label = label;
    return cell;
  });
  return {
    root: make("tr", "", device, where, state, ...figures),
    draw(entry) {
      device.replaceChildren(mark(entry.mark), " ", make("span", "name", entry.name));
      text(where, entry.endpoint);
      state.replaceChildren(entry.state, since(make("span", "soft"), entry.since_us, " for "));
      text(figures[0], rate(entry.requests_per_s, 1));
      text(figures[1], rate(entry.readings_per_s, 0));
      text(figures[2], entry.wrong ? count(entry.wrong) : "–");
      name(figures[2], `number rate-cell ${entry.wrong ? "red" : ""}`);
    },
  };
}

export function drawDevices({ devices, device_count }) {
  rows($("devices"), Object.fromEntries(devices.map((device, at) => [at, device])), deviceRow);
  const left = device_count - devices.length;
  text($("devices-aside"), left ? `${count(devices.length)} of ${count(device_count)}, those in trouble first` : "");
}
