// Plots on a canvas: the small ones in the table, and the large one of the tag that was chosen, with every reading
// that the agent takes of it from then on.

import { $, hide, text } from "./elements.js";
import { choose, height } from "./values.js";

const POINTS_MAX = 3000;
const ASK_MS = 1000;
const STEPS_S = [1, 2, 5, 10, 15, 30, 60, 120, 300, 600, 900, 1800, 3600];

let shown = null; // { device, tag, points: [[µs, value or null]] }
let asking = false;
let pointer = null; // where over the plot, in pixels

function colour(name) {
  return getComputedStyle(document.documentElement).getPropertyValue(`--${name}`).trim();
}

function prepared(canvas) {
  const scale = window.devicePixelRatio || 1;
  const [width, tall] = [canvas.clientWidth, canvas.clientHeight];
  if (canvas.width !== Math.round(width * scale)) canvas.width = Math.round(width * scale);
  if (canvas.height !== Math.round(tall * scale)) canvas.height = Math.round(tall * scale);
  const pen = canvas.getContext("2d");
  pen.resetTransform();
  pen.scale(scale, scale);
  pen.clearRect(0, 0, width, tall);
  return [pen, width, tall];
}

function span(values) {
  let [low, high] = [Infinity, -Infinity];
  for (const value of values) {
    if (value === null) continue;
    low = Math.min(low, value);
    high = Math.max(high, value);
  }
  return [low, high];
}

function trace(pen, points, x, y) {
  pen.beginPath();
  let drawing = false;
  for (const [at, value] of points) {
    if (value === null) drawing = false;
    else if (drawing) pen.lineTo(x(at), y(value));
    else {
      pen.moveTo(x(at), y(value));
      pen.lineTo(x(at) + 1, y(value)); // a single reading shows, too
      drawing = true;
    }
  }
  pen.stroke();
}

export function spark(canvas, values) {
  const [pen, width, tall] = prepared(canvas);
  const [low, high] = span(values);
  if (low > high) return;
  const slots = Math.max(values.length, 40);
  const step = width / (slots - 1);
  const first = slots - values.length;
  const y = (value) => high === low ? tall / 2 : tall - 2 - ((value - low) / (high - low)) * (tall - 4);
  pen.strokeStyle = colour("focus");
  pen.lineWidth = 1.25;
  trace(pen, values.map((value, at) => [first + at, value]), (at) => at * step, y);
}

// ── the large one ───────────────────────────────────────────────────────────────────────────────────────────────────

export function openPlot(row) {
  shown = { device: row.device, tag: row.tag, points: [], last: row };
  choose(`${row.device}/${row.tag}`);
  hide($("plot"), false);
  text($("plot-title"), row.tag);
  text($("plot-aside"), [row.device, `group ${row.group}`, row.address].filter(Boolean).join(" · "));
  $("plot").scrollIntoView({ block: "nearest", behavior: "smooth" });
  load();
}

function close() {
  shown = null;
  choose("");
  hide($("plot"), true);
}

$("plot-close").addEventListener("click", close);
$("plot-canvas").addEventListener("pointermove", (event) => {
  pointer = event.offsetX;
  redraw();
});
$("plot-canvas").addEventListener("pointerleave", () => {
  pointer = null;
  redraw();
});
window.addEventListener("resize", redraw);

// At most one question at a time, and no more than one a second; none while nobody looks.
async function load() {
  if (asking) return;
  asking = true;
  try {
    while (shown) {
      const of = shown;
      if (!document.hidden) await loadOnce(of);
      if (of === shown) await new Promise((done) => setTimeout(done, ASK_MS));
    }
  } finally {
    asking = false;
  }
}

async function loadOnce(of) {
  const after = of.points.length ? of.points[of.points.length - 1][0] : 0;
  let answer;
  try {
    const response = await fetch(`api/plot?${new URLSearchParams({ device: of.device, tag: of.tag, after })}`, { cache: "no-store" });
    answer = await response.json();
  } catch {
    answer = { error: "the readings could not be had from the agent" };
  }
  if (of !== shown) return;
  text($("plot-note"), answer.error ? `▲ ${answer.error}` : "");
  of.points.push(...(answer.points ?? []));
  of.points.splice(0, of.points.length - POINTS_MAX);
  redraw();
}

export function drawPlot({ values }) {
  if (!shown) return;
  const row = values.rows.find((one) => one.device === shown.device && one.tag === shown.tag);
  if (row) shown.last = row;
  redraw();
}

function redraw() {
  if (!shown) return;
  const { points, last } = shown;
  const [pen, width, tall] = prepared($("plot-canvas"));
  const box = { left: 4, right: width - 4, top: 8, bottom: tall - 20 };
  const told = span(points.map(([, value]) => value));
  const hasNumbers = told[0] <= told[1];
  let found = null;
  if (hasNumbers) {
    const scales = axes(pen, box, points, told);
    pen.strokeStyle = colour("focus");
    pen.lineWidth = 1.75;
    pen.lineJoin = "round";
    trace(pen, points, scales.x, scales.y);
    found = pointed(pen, box, points, scales);
  }
  const unit = last.unit ? ` ${last.unit}` : "";
  text($("plot-now"), found ? `${shortly(found[1])}${unit}` : `${last.shown}${unit}`);
  text($("plot-at"), found ? `at ${moment(found[0], true)}` : last.reason || told.every(Number.isFinite)
    ? last.reason || `lowest ${shortly(told[0])}, highest ${shortly(told[1])}` : "");
  if (!hasNumbers) text($("plot-note"), height(last.value) === null && last.quality === "good"
    ? "A text has no plot." : "Waiting for the next reading.");
}

const shortly = (value) => String(Number(value.toPrecision(7)));
const moment = (us, precisely) => {
  const at = new Date(us / 1000);
  return at.toLocaleTimeString("en-GB") + (precisely ? `.${String(at.getMilliseconds()).padStart(3, "0")}` : "");
};

function axes(pen, box, points, [low, high]) {
  const [first, until] = [points[0][0], Math.max(points[points.length - 1][0], points[0][0] + 10e6)];
  const room = high === low ? Math.abs(high) / 10 || 1 : (high - low) / 12;
  const [bottom, top] = [low - room, high + room];
  const x = (us) => box.left + ((us - first) / (until - first)) * (box.right - box.left);
  const y = (value) => box.bottom - ((value - bottom) / (top - bottom)) * (box.bottom - box.top);
  pen.font = `12px ${getComputedStyle(document.body).fontFamily}`;
  pen.lineWidth = 1;
  pen.strokeStyle = colour("line");
  pen.fillStyle = colour("soft");
  pen.textBaseline = "bottom";
  pen.textAlign = "left";
  for (const value of ticks(bottom, top, 4)) {
    rule(pen, box.left, y(value), box.right, y(value));
    if (y(value) > box.top + 12) pen.fillText(shortly(value), box.left + 2, y(value) - 2);
  }
  const seconds = (until - first) / 1e6;
  const step = STEPS_S.find((one) => seconds / one <= Math.max(2, (box.right - box.left) / 110)) ?? 7200;
  pen.textBaseline = "top";
  pen.textAlign = "center";
  for (let us = Math.ceil(first / 1e6 / step) * step * 1e6; us <= until; us += step * 1e6) {
    if (x(us) < box.left + 30 || x(us) > box.right - 30) continue;
    rule(pen, x(us), box.bottom, x(us), box.bottom + 4);
    pen.fillText(moment(us), x(us), box.bottom + 6);
  }
  return { x, y };
}

function rule(pen, x1, y1, x2, y2) {
  pen.beginPath();
  pen.moveTo(x1, y1);
  pen.lineTo(x2, y2);
  pen.stroke();
}

// Round numbers between the two, about so many.
function ticks(low, high, wanted) {
  const rough = (high - low) / wanted;
  const power = 10 ** Math.floor(Math.log10(rough));
  const step = [1, 2, 5, 10].map((one) => one * power).find((one) => one >= rough);
  const found = [];
  for (let at = Math.ceil(low / step); at * step <= high && found.length < 12; at += 1) found.push(at * step);
  return found;
}

// The reading nearest to the pointer, with a line through it.
function pointed(pen, box, points, { x, y }) {
  if (pointer === null) return null;
  let nearest = null;
  for (const point of points) {
    if (point[1] === null) continue;
    if (!nearest || Math.abs(x(point[0]) - pointer) < Math.abs(x(nearest[0]) - pointer)) nearest = point;
  }
  if (!nearest) return null;
  pen.lineWidth = 1;
  pen.strokeStyle = colour("soft");
  rule(pen, x(nearest[0]), box.top, x(nearest[0]), box.bottom);
  pen.fillStyle = colour("focus");
  pen.beginPath();
  pen.arc(x(nearest[0]), y(nearest[1]), 3.5, 0, 2 * Math.PI);
  pen.fill();
  return nearest;
}
