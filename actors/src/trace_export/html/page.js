"use strict";
// What goes wrong is said in the page, where a reader sees it and a test finds it.
function complain(text) {
  const place = document.createElement("p");
  place.id = "script-error";
  place.textContent = text;
  document.body.prepend(place);
}
window.addEventListener("error", (event) => complain(String(event.message)));
document.addEventListener("securitypolicyviolation", (event) => complain("refused: " + event.violatedDirective));

const trace = JSON.parse(document.getElementById("trace").textContent);
const rows = trace.rows.concat(trace.orphans);
const byId = (id) => document.getElementById(id);

// Text only ever goes in as text: nothing in a trace is markup here.
function make(tag, className, text) {
  const element = document.createElement(tag);
  if (className) element.className = className;
  if (text !== undefined) element.textContent = text;
  return element;
}

function time(us) {
  const size = Math.abs(us);
  if (us === 0) return "0 µs";
  if (size < 9.95) return us.toFixed(1) + " µs";
  if (size < 9999.5) return us.toFixed(0) + " µs";
  if (size < 9999999.5) return (us / 1e3).toFixed(3) + " ms";
  return (us / 1e6).toFixed(6) + " s";
}

// The whole: the root, and what of its rows reaches beyond it by at most its own length.
const wall = Math.max(trace.wall_us, 0.001);
const whole = { from: 0, to: wall };
for (const row of trace.rows) {
  whole.from = Math.min(whole.from, Math.max(row.start_us, -wall));
  whole.to = Math.max(whole.to, Math.min(row.start_us + row.extent_us, 2 * wall));
}
const ZOOM_LEAST_US = 0.1;
const view = { from: whole.from, to: whole.to };
const folded = new Set();
let onlyCritical = false;
let chosen = -1;

const stepsOf = new Map();
for (const step of trace.critical_path) {
  const steps = stepsOf.get(step.row) || [];
  steps.push(step);
  stepsOf.set(step.row, steps);
}

function searchable(row) {
  const attributes = (trace.attributes[row.span_id] || []).map((pair) => pair.join("="));
  return [row.role, row.class, row.name, row.error || "", row.span_id].concat(attributes).join("\n").toLowerCase();
}

function rowName(row, index) {
  const name = make("div", "name");
  const twisty = make("button", "twisty", hasChildren(index) ? "▾" : "");
  twisty.disabled = !hasChildren(index);
  twisty.setAttribute("aria-label", "fold or unfold");
  twisty.addEventListener("click", (event) => {
    event.stopPropagation();
    if (!folded.delete(index)) folded.add(index);
    twisty.textContent = folded.has(index) ? "▸" : "▾";
    showRows();
  });
  name.style.paddingLeft = Math.min(row.depth, 24) * 12 + "px";
  name.append(twisty, make("b", "", row.role[0].toUpperCase()));
  if (row.critical) name.append(make("i", "", "◆ "));
  name.append(row.name);
  if (row.count > 1) name.append(make("u", "", " ×" + row.count));
  if (row.clock_error_us !== null) name.append(make("u", "", " ±" + row.clock_error_us + " µs"));
  if (row.clock_unknown) name.append(make("u", "", " ±?"));
  if (row.error) name.append(make("em", "", " ✗ " + row.error));
  name.title = row.name;
  return name;
}

function hasChildren(index) {
  return index + 1 < rows.length && index + 1 !== trace.rows.length && rows[index + 1].depth > rows[index].depth;
}

const drawn = rows.map((row, index) => {
  const element = make("div", ["row", row.role, row.class].join(" "));
  element.classList.toggle("critical", row.critical);
  element.classList.toggle("failed", Boolean(row.error));
  element.setAttribute("data-span", row.span_id);
  const lane = make("div", "lane");
  const parts = [{ element: make("div", "bar"), start: row.start_us, length: row.extent_us }];
  for (const step of stepsOf.get(index) || []) {
    parts.push({ element: make("div", "step"), start: step.start_us, length: step.duration_us });
  }
  for (const part of parts) lane.append(part.element);
  element.append(
    rowName(row, index),
    lane,
    make("div", "number", time(row.duration_us)),
    make("div", "number share", row.share_percent.toFixed(1) + "%")
  );
  element.addEventListener("click", () => choose(index));
  element.addEventListener("dblclick", () => zoomTo(row.start_us, row.start_us + row.extent_us));
  if (index === trace.rows.length && index > 0) byId("rows").append(make("h2", "", "orphans"));
  byId("rows").append(element);
  return { element, parts, text: searchable(row), row };
});

function place(element, start, length) {
  const span = view.to - view.from;
  const left = ((start - view.from) / span) * 100;
  const right = ((start + length - view.from) / span) * 100;
  // Far outside, numbers lose their sense for the layout.
  element.hidden = right < 0 || left > 100;
  const from = Math.max(left, -1);
  element.style.left = from + "%";
  element.style.width = Math.min(right, 101) - from + "%";
}

function ticks() {
  const axis = byId("axis");
  axis.replaceChildren();
  const span = view.to - view.from;
  const rough = span / 6;
  const power = Math.pow(10, Math.floor(Math.log10(rough)));
  const step = [1, 2, 5, 10].map((factor) => factor * power).find((size) => size >= rough) || power * 10;
  for (let at = Math.ceil(view.from / step) * step; at <= view.to; at += step) {
    const tick = make("span", "tick", time(Math.abs(at) < step / 1e6 ? 0 : at));
    tick.style.left = ((at - view.from) / span) * 100 + "%";
    axis.append(tick);
  }
}

function draw() {
  for (const one of drawn) for (const part of one.parts) place(part.element, part.start, part.length);
  ticks();
  const isWhole = view.from === whole.from && view.to === whole.to;
  byId("range").textContent = isWhole ? "" : time(view.from) + " to " + time(view.to);
  document.body.dataset.from = String(view.from);
  document.body.dataset.to = String(view.to);
}

function zoomTo(from, to) {
  const least = Math.max(to - from, ZOOM_LEAST_US);
  view.from = Math.max(whole.from, from);
  view.to = Math.min(whole.to, Math.max(to, view.from + least));
  if (!(view.to > view.from)) Object.assign(view, whole);
  draw();
  keep();
}

function zoomBy(factor, at) {
  const span = view.to - view.from;
  const middle = at === undefined ? (view.from + view.to) / 2 : at;
  const share = (middle - view.from) / span;
  const next = Math.min(Math.max(span * factor, ZOOM_LEAST_US), whole.to - whole.from);
  const from = Math.min(Math.max(middle - next * share, whole.from), whole.to - next);
  zoomTo(from, from + next);
}

function pan(part) {
  const span = view.to - view.from;
  const from = Math.min(Math.max(view.from + span * part, whole.from), whole.to - span);
  zoomTo(from, from + span);
}

function showRows() {
  let hideBelow = Infinity;
  drawn.forEach((one, index) => {
    if (index === trace.rows.length || one.row.depth <= hideBelow) hideBelow = Infinity;
    one.element.hidden = hideBelow !== Infinity || (onlyCritical && !one.row.critical);
    if (folded.has(index) && hideBelow === Infinity) hideBelow = one.row.depth;
  });
}

function search() {
  const words = byId("search").value.toLowerCase().split(/\s+/).filter(Boolean);
  let hits = 0;
  for (const one of drawn) {
    const hit = words.length > 0 && words.every((word) => one.text.includes(word));
    one.element.classList.toggle("hit", hit);
    one.element.classList.toggle("miss", words.length > 0 && !hit);
    if (hit) hits += 1;
  }
  byId("hits").textContent = words.length > 0 ? hits + " of " + drawn.length : "";
  document.body.dataset.hits = String(hits);
  keep();
}

function nextHit() {
  const hits = drawn.map((one, index) => index).filter((index) => drawn[index].element.classList.contains("hit"));
  if (hits.length === 0) return;
  const next = hits.find((index) => index > chosen);
  choose(next === undefined ? hits[0] : next);
  drawn[chosen].element.scrollIntoView({ block: "center" });
}

function choose(index) {
  if (chosen >= 0) drawn[chosen].element.classList.remove("chosen");
  chosen = chosen === index ? -1 : index;
  const details = byId("details");
  details.hidden = chosen < 0;
  if (chosen < 0) return;
  const { element, row } = drawn[chosen];
  element.classList.add("chosen");
  const list = make("dl");
  const facts = [
    ["role", row.role],
    ["kind", row.class],
    ["start", time(row.start_us)],
    ["duration", time(row.duration_us)],
    ["on the critical path", row.critical ? time(row.critical_us) + " of its own" : "no"],
    ["span", row.span_id],
    ["parent", row.parent_span_id || "none"],
  ].concat(trace.attributes[row.span_id] || []);
  for (const [name, value] of facts) list.append(make("dt", "", name), make("dd", "", String(value)));
  details.replaceChildren(make("h2", "", row.name), list);
}

function account() {
  const place = byId("account");
  if (!trace.account) return;
  const table = make("table");
  const line = (machine, segment, us, className) => {
    const share = trace.wall_us > 0 ? (us * 100) / trace.wall_us : 0;
    const row = make("tr", className);
    const bar = make("td");
    if (segment) {
      const meter = make("meter");
      meter.max = 100;
      meter.value = Math.min(Math.max(share, 0), 100);
      bar.append(meter);
    }
    row.append(
      make("td", "", machine),
      make("td", "", segment),
      make("td", "number", time(us)),
      make("td", "number share", share.toFixed(1) + "%"),
      bar
    );
    table.append(row);
  };
  line("wall", "", trace.wall_us, "");
  for (const machine of trace.account.machines) {
    machine.segments.forEach((one, index) => line(index === 0 ? machine.machine : "", one.segment, one.us, ""));
    if (machine.unattributed_us !== null) {
      line(machine.segments.length ? "" : machine.machine, "unattributed", machine.unattributed_us, "");
    }
  }
  line("sum", "", trace.account.sum_us, "total");
  line("unattributed", "", trace.account.unattributed_us, "total");
  place.append(make("h2", "", "account"), table);
}

function notes() {
  const texts = trace.clocks
    .map((clock) => clock.role + " clock " + clock.offset_us + " µs ± " + clock.error_us + " µs: moved in the drawing only")
    .concat(trace.warnings);
  for (const text of texts) byId("notes").append(make("li", "", text));
}

// What is looked at is in the address: a link to a place in a trace can be kept.
let keeping = false;
function keep() {
  if (!keeping) return;
  const state = new URLSearchParams();
  if (byId("search").value) state.set("search", byId("search").value);
  if (view.from !== whole.from || view.to !== whole.to) {
    state.set("from", String(view.from));
    state.set("to", String(view.to));
  }
  if (onlyCritical) state.set("critical", "1");
  const theme = document.documentElement.dataset.theme;
  if (theme) state.set("theme", theme);
  history.replaceState(null, "", "#" + state.toString());
}

function recall() {
  keeping = false;
  const state = new URLSearchParams(location.hash.slice(1));
  byId("search").value = state.get("search") || "";
  onlyCritical = state.get("critical") === "1";
  byId("critical").checked = onlyCritical;
  const theme = state.get("theme");
  if (theme === "dark" || theme === "light") document.documentElement.dataset.theme = theme;
  const [from, to] = ["from", "to"].map((name) => parseFloat(state.get(name)));
  if (from < to) zoomTo(from, to);
  else zoomTo(whole.from, whole.to);
  showRows();
  search();
  keeping = true;
}

function timeAt(lane, clientX) {
  const box = lane.getBoundingClientRect();
  return view.from + ((clientX - box.left) / Math.max(box.width, 1)) * (view.to - view.from);
}

function listen() {
  byId("search").addEventListener("input", search);
  byId("search").addEventListener("keydown", (event) => {
    if (event.key === "Enter") nextHit();
  });
  byId("in").addEventListener("click", () => zoomBy(0.5));
  byId("out").addEventListener("click", () => zoomBy(2));
  byId("all").addEventListener("click", () => zoomTo(whole.from, whole.to));
  byId("critical").addEventListener("change", (event) => {
    onlyCritical = event.target.checked;
    showRows();
    keep();
  });
  byId("theme").addEventListener("click", () => {
    const root = document.documentElement;
    const dark = root.dataset.theme ? root.dataset.theme === "dark" : matchMedia("(prefers-color-scheme: dark)").matches;
    root.dataset.theme = dark ? "light" : "dark";
    keep();
  });
  window.addEventListener("hashchange", recall);
  document.addEventListener("keydown", (event) => {
    if (event.target.tagName === "INPUT" || event.ctrlKey || event.metaKey || event.altKey) return;
    const done = {
      "/": () => byId("search").focus(),
      "+": () => zoomBy(0.5),
      "-": () => zoomBy(2),
      "0": () => zoomTo(whole.from, whole.to),
      n: nextHit,
      ArrowLeft: () => pan(-0.2),
      ArrowRight: () => pan(0.2),
      Escape: () => chosen >= 0 && choose(chosen),
    }[event.key];
    if (!done) return;
    event.preventDefault();
    done();
  });
  byId("rows").addEventListener("wheel", (event) => {
    const lane = event.target.closest(".lane");
    if (!lane || !(event.ctrlKey || event.metaKey)) return;
    event.preventDefault();
    zoomBy(event.deltaY > 0 ? 1.25 : 0.8, timeAt(lane, event.clientX));
  }, { passive: false });
  byId("rows").addEventListener("pointerdown", dragged);
}

// A range drawn with the pointer is zoomed to.
function dragged(event) {
  const lane = event.target.closest(".lane");
  if (!lane || event.button !== 0) return;
  const begin = timeAt(lane, event.clientX);
  const shade = make("div", "select");
  const move = (moved) => {
    const ends = [begin, timeAt(lane, moved.clientX)].sort((a, b) => a - b);
    if (!shade.parentNode) lane.append(shade);
    place(shade, ends[0], ends[1] - ends[0]);
  };
  const stop = (stopped) => {
    window.removeEventListener("pointermove", move);
    shade.remove();
    if (Math.abs(stopped.clientX - event.clientX) < 4) return;
    const ends = [begin, timeAt(lane, stopped.clientX)].sort((a, b) => a - b);
    zoomTo(ends[0], ends[1]);
  };
  window.addEventListener("pointermove", move);
  window.addEventListener("pointerup", stop, { once: true });
}

byId("title").firstChild.textContent = (trace.root || "no spans") + " " + time(trace.wall_us);
account();
notes();
listen();
recall();
document.body.dataset.rows = String(drawn.length);
document.body.dataset.state = "ready";
