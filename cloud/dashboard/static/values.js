// The latest values of the machine that is open. They are the newest by the time of their readings: a backlog that
// arrives late never takes them back.

import { count, make, many, rows, since, text } from "./elements.js";

const VALUES_MS = 1000;
const FILTER_MS = 250;
const QUALITY = { good: ["", ""], uncertain: ["◆", "amber"], bad: ["▲", "red"] };

export const opened = { key: "", tag: "", row: null, loading: false, again: false, typing: 0 };

export function valuesPanel() {
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
      text(tag, entry.shown);
      text(value, entry.value);
      text(unit, entry.unit);
      text(inline, entry.unit ? ` ${entry.unit}` : "");
      const [shape, colour] = QUALITY[entry.quality];
      const why = entry.quality === "good" ? "" : entry.reason || entry.code;
      quality.replaceChildren(make("span", colour, `${shape} ${entry.quality}`.trim()), make("span", "why", why));
      quality.title = entry.code;
      if (entry.time_certain) {
        since(age, entry.time_us);
      } else {
        delete age.dataset.since;
        text(age, "by a wrong clock");
      }
    },
  };
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
