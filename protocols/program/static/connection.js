// The connection of a page to its program. What is not live must not look it: the page is told, and its clock stands.

import { $, clock, freezeClock, hide, name, setClock, text, tick } from "./elements.js";

const SILENCE_MS = 10000; // the program says something every second
const RETRY_MS = 5000;

// `who`: the program, as in "no connection to the agent"; `path()`: where its events are; `events`: what to do with
// each kind; `back()`: after a connection that was lost. Each event's state says `now_us`.
export function connection({ who, path, events, back = () => {} }) {
  let source = null;
  let heardMs = 0;
  let shownUs = null;

  function connect() {
    source?.close();
    source = new EventSource(path());
    for (const [kind, take] of Object.entries(events)) {
      source.addEventListener(kind, (event) => {
        const told = JSON.parse(event.data);
        heardMs = Date.now();
        shownUs = told.now_us;
        setClock(shownUs);
        live();
        take(told);
      });
    }
    source.addEventListener("error", () => {
      lost();
      if (source.readyState === EventSource.CLOSED) setTimeout(connect, RETRY_MS); // an answer that is none: 503
    });
  }

  function link(kind, shape, colour, word) {
    document.body.dataset.link = kind;
    const [mark, said] = $("link").children;
    text(mark, shape);
    name(mark, `mark ${colour}`);
    text(said, word);
  }

  function live() {
    if (document.body.dataset.link === "live") return;
    const wasLost = document.body.dataset.link === "lost";
    link("live", "●", "green", "live");
    hide($("stale"), true);
    if (!wasLost) return;
    text($("announce"), `The connection to the ${who} is back.`);
    back();
  }

  function lost() {
    if (document.body.dataset.link === "lost") return;
    if (shownUs !== null) freezeClock(shownUs);
    link("lost", "▲", "red", "not live");
    const old = shownUs === null ? "There is nothing to show yet." : `What you see is from ${clock()}.`;
    const sentence = `▲ No connection to the ${who}. ${old} Trying again.`;
    text($("stale"), sentence);
    hide($("stale"), false);
    text($("announce"), sentence);
  }

  setInterval(() => {
    if (document.body.dataset.link !== "live") return;
    if (Date.now() - heardMs > SILENCE_MS) {
      lost();
      connect();
    } else document.querySelectorAll("[data-since]").forEach(tick);
  }, 1000);

  link("starting", "○", "grey", "connecting");
  connect();
  return connect;
}
