// The values that are asked for. What each was since the page was opened stays in this browser only, within bounds.

import { $, count, hide, make, many, name, rows, since, text } from "./elements.js";
import { spark } from "./plot.js";

const FILTER_MS = 250;
const ROWS = 100;
const POINTS_MAX = 120;
const TAGS_MAX = 1000;
const QUALITY = { good: ["", ""], uncertain: ["◆", "amber"], bad: ["▲", "red"], none: ["○", "grey"] };

const seen = new Map();
const asked = { filter: "", wrong: false, offset: 0 };
let away = new Set(); // devices: what is wrong with them is told once, above
let chosen = "";
let asking = () => {};
let typing = 0;

export function query() {
  return new URLSearchParams({ filter: asked.filter, wrong: asked.wrong ? "1" : "0", offset: asked.offset, limit: ROWS });
}

export function onQuery(ask) {
  asking = ask;
}

function ask(change) {
  Object.assign(asked, { offset: 0 }, change);
  asking();
}

$("filter").addEventListener("input", () => {
  clearTimeout(typing);
  typing = setTimeout(() => ask({ filter: $("filter").value }), FILTER_MS);
});
$("wrong").addEventListener("change", () => ask({ wrong: $("wrong").checked }));
$("earlier").addEventListener("click", () => ask({ offset: Math.max(0, asked.offset - ROWS) }));
$("later").addEventListener("click", () => ask({ offset: asked.offset + ROWS }));

export const height = (value) => (typeof value === "number" || typeof value === "boolean" ? Number(value) : null);

function note(row) {
  const key = `${row.device}/${row.tag}`;
  const points = seen.get(key) ?? [];
  seen.delete(key);
  seen.set(key, points);
  points.push(height(row.value));
  if (points.length > POINTS_MAX) points.shift();
  if (seen.size > TAGS_MAX) seen.delete(seen.keys().next().value);
  return points;
}

export function choose(key) {
  chosen = key;
}

function valueRow(open) {
  const button = make("button");
  const tag = make("td", "tag-cell", button);
  const value = make("span");
  const inline = make("span", "soft unit-inline");
  const unit = make("td", "soft unit-cell");
  const chart = make("canvas", "spark");
  const quality = make("td", "quality-cell");
  const age = make("td", "number soft age-cell");
  const root = make("tr", "", tag, make("td", "number value-cell", value, inline), unit,
    make("td", "spark-cell", chart), quality, age);
  let shown = null;
  button.type = "button";
  chart.ariaHidden = "true";
  button.addEventListener("click", () => open(shown));
  return {
    root,
    draw(entry) {
      shown = entry;
      button.replaceChildren(entry.tag, make("span", "soft small", `${entry.device}${entry.address ? ` · ${entry.address}` : ""}`));
      button.title = `plot it: ${entry.tag}, ${entry.device}, ${entry.address}`;
      text(value, entry.shown);
      text(unit, entry.unit);
      text(inline, entry.unit ? ` ${entry.unit}` : "");
      const [shape, colour] = QUALITY[entry.quality];
      name(quality, `quality-cell ${entry.quality}`);
      const why = away.has(entry.device) ? "its device is away" : entry.reason;
      quality.replaceChildren(make("span", colour, `${shape} ${entry.quality}`.trim()), make("span", "why", why));
      quality.title = [entry.status, entry.reason].filter(Boolean).join(": ");
      since(age, entry.time_us);
      name(root, `${entry.device}/${entry.tag}` === chosen ? "chosen" : "");
      spark(chart, note(entry));
    },
  };
}

export function drawValues({ devices, values }, open) {
  away = new Set(devices.filter((device) => device.state === "away").map((device) => device.name));
  rows($("values"), Object.fromEntries(values.rows.map((row, at) => [at, row])), () => valueRow(open));
  const last = values.offset + values.rows.length;
  const part = values.rows.length < values.found ? `${count(values.offset + 1)} to ${count(last)} of ` : "";
  text($("found"), `${part}${count(values.found)} of ${many(values.tags, "tag")}`);
  hide($("nothing"), values.found > 0);
  text($("nothing"), asked.wrong && !asked.filter ? "Every tag has a good value." : "No tag has these words.");
  $("earlier").disabled = values.offset === 0;
  $("later").disabled = last >= values.found;
  hide($("earlier").parentElement, values.found <= ROWS);
}
