"use strict";
// All text from the gateway is set by `textContent` or as an attribute's value, never as HTML.
const at = (id) => document.getElementById(id);

/** An element with a text and a class. */
function element(name, text, kind) {
  const made = document.createElement(name);
  if (text !== undefined) made.textContent = text;
  if (kind) made.className = kind;
  return made;
}

/** An element around others. */
function around(name, parts, kind) {
  const made = element(name, undefined, kind);
  made.append(...parts);
  return made;
}

/** Puts `nodes` into `container`. Equal ones stay, and so do the focus and a selection in them. */
function fill(container, nodes) {
  const focused = container.contains(document.activeElement) ? document.activeElement.dataset.key : undefined;
  nodes.forEach((node, index) => {
    const old = container.children[index];
    if (!old) container.append(node);
    else if (!old.isEqualNode(node)) old.replaceWith(node);
  });
  while (container.children.length > nodes.length) container.lastElementChild.remove();
  if (focused && !container.contains(document.activeElement)) {
    container.querySelector(`[data-key="${CSS.escape(focused)}"]`)?.focus();
  }
}

function duration(seconds) {
  if (seconds >= 172800) return `${Math.floor(seconds / 86400)} d`;
  if (seconds >= 7200) return `${Math.floor(seconds / 3600)} h`;
  if (seconds >= 120) return `${Math.floor(seconds / 60)} min`;
  return `${Math.floor(seconds)} s`;
}

const counted = (count, thing) => `${number(count)} ${thing}${count === 1 ? "" : "s"}`;
const number = (value) => value.toLocaleString("en");
const clock = (time) => new Date(time).toLocaleString();

/** A moment in words, with the exact time behind it. `now` is the gateway's clock. */
function ago(time, now) {
  const seconds = Math.max(0, (Date.parse(now) - Date.parse(time)) / 1000);
  const made = element("time", `${duration(seconds)} ago`);
  made.dateTime = time;
  made.title = clock(time);
  return made;
}

/** A rate with two digits that count. */
function rate(value) {
  if (value >= 100) return number(Math.round(value));
  return value.toFixed(value >= 10 ? 1 : 2);
}

function milliseconds(value) {
  if (value === null || value === undefined) return "–";
  if (value >= 10000) return `${(value / 1000).toFixed(1)} s`;
  return `${value.toFixed(value >= 10 ? 0 : 1)} ms`;
}

/** A word for a state, with a sign in front that needs no colour. */
function pill(word, kind) {
  const signs = { ok: "✓", warn: "▲", bad: "✕", idle: "○" };
  return element("span", `${signs[kind]} ${word}`, `pill ${kind}`);
}

function figure(name, value, kind) {
  const shown = value instanceof Node ? around("dd", [value], kind) : element("dd", String(value), kind);
  return around("div", [element("dt", name), shown]);
}

const SVG = at("shapes").namespaceURI;

function shape(name, attributes, kind) {
  const made = document.createElementNS(SVG, name);
  for (const [key, value] of Object.entries(attributes)) made.setAttribute(key, value);
  if (kind) made.setAttribute("class", kind);
  return made;
}

/** Most samples that the gateway keeps. */
const SAMPLES = 60;

/** A line over the last ten minutes; `faults`, of the same length, are bars at its foot. */
function spark(values, label, faults) {
  const [width, height] = [SAMPLES * 2, 30];
  const image = shape("svg", {
    viewBox: `0 0 ${width} ${height}`, preserveAspectRatio: "none", role: "img", "aria-label": label,
  }, "spark");
  const top = Math.max(...values.map((value) => value ?? 0), 0);
  const first = SAMPLES - values.length;
  const x = (index) => (first + index) * 2 + 1;
  const y = (value) => (top > 0 ? height - 1 - (value / top) * (height - 4) : height - 1).toFixed(1);
  image.append(shape("line", { x1: 0, x2: width, y1: height - .5, y2: height - .5, "vector-effect": "non-scaling-stroke" }, "base"));
  // A sample without a value is a gap.
  let run = [];
  const draw = () => {
    if (run.length === 1) run.push([run[0][0] + 1, run[0][1]]);
    if (run.length > 0) {
      const points = run.map((point) => point.join(" "));
      const [begin, end] = [run[0][0], run[run.length - 1][0]];
      image.append(
        shape("path", { d: `M${begin} ${height}L${points.join("L")}L${end} ${height}Z` }, "area"),
        shape("path", { d: `M${points.join("L")}`, "vector-effect": "non-scaling-stroke" }, "line"),
      );
    }
    run = [];
  };
  values.forEach((value, index) => (value === null ? draw() : run.push([x(index), y(value)])));
  draw();
  (faults ?? []).forEach((count, index) => {
    if (count > 0) {
      const tall = Math.max(4, top > 0 ? (count / top) * (height - 4) : 4);
      image.append(shape("rect", { x: x(index) - .8, y: (height - tall).toFixed(1), width: 1.6, height: tall.toFixed(1) }, "fault"));
    }
  });
  return image;
}

/** The rates of samples, and words about them. */
function traffic(samples) {
  const rates = samples.requests.map((count) => count / samples.period_seconds);
  const now = rates.length > 0 ? rates[rates.length - 1] : 0;
  const failed = samples.failed.reduce((sum, count) => sum + count, 0);
  const faults = samples.failed.map((count) => count / samples.period_seconds);
  const words = `Requests a second over the last ten minutes: now ${rate(now)}, most ${rate(Math.max(0, ...rates))}; ${number(failed)} failed`;
  return { rates, now, failed, faults, words };
}

/** How much of a bound is used. */
function use(name, used, bound, waiting) {
  const part = bound > 0 ? Math.min(1, used / bound) : 0;
  const bar = shape("svg", { viewBox: "0 0 100 4", preserveAspectRatio: "none", "aria-hidden": "true" });
  bar.append(shape("rect", { width: 100, height: 4, rx: 1 }, "all"));
  bar.append(shape("rect", { width: (part * 100).toFixed(1), height: 4, rx: 1 }, part >= .9 ? "part full" : "part"));
  const more = waiting > 0 ? `, ${number(waiting)} waiting` : "";
  return around("div", [element("span", name, "dim"), bar, element("span", `${number(used)} of ${number(bound)}${more}`)], "use");
}

/** Rows of a table. Each cell is a text or a node, with its class; a phone shows the heads with them. */
function rows(table, all, cells, none) {
  const heads = [...table.closest("table").querySelectorAll("th")].map((head) => head.textContent);
  const made = all.map((one) => around("tr", cells(one).map(([content, kind], index) => {
    const cell = content instanceof Node ? around("td", [content], kind) : element("td", content, kind);
    cell.dataset.label = heads[index];
    if (["–", "none"].includes(cell.textContent)) cell.classList.add("void");
    return cell;
  })));
  if (made.length === 0) {
    const cell = element("td", none, "dim whole");
    cell.colSpan = heads.length;
    made.push(around("tr", [cell]));
  }
  fill(table, made);
}
