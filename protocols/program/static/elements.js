// Making and changing elements, and the words for durations and counts. Everything becomes text, never HTML.

let offsetUs = 0; // the receiver's clock minus this browser's
let frozenUs = null; // the moment of what is shown, while there is no connection

export function setClock(receiverUs) {
  offsetUs = receiverUs - Date.now() * 1000;
  frozenUs = null;
}

export function freezeClock(receiverUs) {
  frozenUs = receiverUs;
}

const byName = new Intl.Collator("en", { numeric: true });

export const $ = (id) => document.getElementById(id);

export function make(tag, names, ...children) {
  const node = document.createElement(tag);
  if (names) node.className = names;
  node.append(...children); // strings become text nodes
  return node;
}

export function text(node, wanted) {
  if (node.textContent !== wanted) node.textContent = wanted;
}

export function name(node, wanted) {
  if (node.className !== wanted) node.className = wanted;
}

export function hide(node, hidden) {
  if (node.hidden !== hidden) node.hidden = hidden;
}

export function since(node, timeUs, before = "", after = "") {
  node.dataset.since = timeUs ?? "";
  node.dataset.before = before;
  node.dataset.after = after;
  tick(node);
  return node;
}

export function tick(node) {
  const timeUs = node.dataset.since;
  text(node, timeUs ? node.dataset.before + ago((nowUs() - Number(timeUs)) / 1e6) + node.dataset.after : "never");
}

function nowUs() {
  return frozenUs ?? Date.now() * 1000 + offsetUs;
}

export function fact(label, names = "") {
  const value = make("span");
  return [make("div", `fact ${names}`, make("span", "label", label), value), value];
}

// Keeps one row for each entry, in the order of the names, and draws it only when the entry is another.
export function rows(list, entries, create) {
  const kept = (list.kept ??= new Map());
  const names = Object.keys(entries).sort(byName.compare);
  for (const [key, row] of kept) {
    if (!(key in entries)) {
      row.root.remove();
      kept.delete(key);
    }
  }
  names.forEach((key, at) => {
    let row = kept.get(key);
    if (!row) kept.set(key, (row = create(key)));
    if (row.entry !== entries[key]) {
      row.entry = entries[key];
      row.draw(row.entry);
    }
    if (list.children[at] !== row.root) list.insertBefore(row.root, list.children[at] ?? null);
  });
}

// In place of a list that is empty: sentences, each with the command that helps.
export function empty(node, isEmpty, hint) {
  const wanted = isEmpty ? hint() : [];
  hide(node, !isEmpty);
  const key = JSON.stringify(wanted);
  if (node.key === key) return;
  node.key = key;
  const line = ([sentence, command]) => make("p", "", sentence, ...(command ? [" ", make("code", "", command)] : []));
  node.replaceChildren(...wanted.map(line));
}

export function ago(seconds) {
  if (seconds <= -1) return `-${ago(-seconds)}`;
  const whole = Math.max(0, Math.floor(seconds));
  if (whole < 60) return `${whole} s`;
  if (whole < 3600) return `${Math.floor(whole / 60)} min`;
  if (whole < 86400) return `${Math.floor(whole / 3600)} h`;
  const hours = Math.floor((whole % 86400) / 3600);
  return `${Math.floor(whole / 86400)} d${hours ? ` ${hours} h` : ""}`;
}

export const count = (number) => number.toLocaleString("en");
export const many = (number, noun, nouns = `${noun}s`) => `${count(number)} ${number === 1 ? noun : nouns}`;
export const clock = () => new Date(nowUs() / 1000).toLocaleTimeString("en-GB");
