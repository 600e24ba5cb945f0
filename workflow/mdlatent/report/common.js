"use strict";
// Shared by the figures: unpacking data, units, colours, small pieces of the page. Text of the user or of files enters
// the page through textContent, and plotly's texts through `plain`, for plotly reads some tags.

const DATA = JSON.parse(document.getElementById("data").textContent);
const byId = (id) => document.getElementById(id);

const ARRAYS = { u1: Uint8Array, i2: Int16Array, u2: Uint16Array, i4: Int32Array, f4: Float32Array, f8: Float64Array };

function unpack(packed) {
  const raw = atob(packed.d);
  const bytes = new Uint8Array(raw.length);
  for (let k = 0; k < raw.length; k++) bytes[k] = raw.charCodeAt(k);
  const codes = new ARRAYS[packed.t](bytes.buffer);
  if (packed.step === undefined) return codes;
  const values = new Float32Array(codes.length);
  for (let k = 0; k < codes.length; k++) values[k] = packed.lo + packed.step * codes[k];
  return values;
}

// Okabe & Ito, in an order that sets neighbours apart, then Tol's muted colours; noise is grey.
const PALETTE = ["#0072B2", "#D55E00", "#009E73", "#CC79A7", "#56B4E9", "#E69F00", "#332288", "#882255", "#44AA99",
  "#999933", "#AA4499", "#661100", "#6699CC", "#117733", "#888888"];
const NOISE = "#B4BAC0";
const stateColor = (state) => (state < 0 ? NOISE : PALETTE[state % PALETTE.length]);
const stateName = (state) => (state < 0 ? "noise" : "state " + state);

// `span` is the largest value that is to be shown.
function timeUnit(span_ps) {
  for (const [name, step] of [["ms", 1e9], ["µs", 1e6], ["ns", 1e3]]) if (span_ps >= 2 * step) return { name, step };
  return { name: "ps", step: 1 };
}
function duration(time_ps) {
  if (time_ps === null || time_ps === undefined || !Number.isFinite(time_ps)) return "–";
  const unit = timeUnit(time_ps / 0.5);
  return digits(time_ps / unit.step, 3) + " " + unit.name;
}
function digits(value, n) {
  if (value === null || value === undefined || !Number.isFinite(value)) return "–";
  if (value !== 0 && (Math.abs(value) < 1e-3 || Math.abs(value) >= 1e7)) return value.toExponential(n - 1);
  const after = value === 0 ? 0 : Math.max(0, n - 1 - Math.floor(Math.log10(Math.abs(value))));
  return value.toLocaleString("en-US", { minimumFractionDigits: after, maximumFractionDigits: after }).replace(/,/g, "\u202f");
}
const count = (value) => (value === null || value === undefined ? "–" : value.toLocaleString("en-US").replace(/,/g, "\u202f"));
const percent = (value, after = 1) => (value === null || value === undefined ? "–" : (100 * value).toFixed(after));
const plain = (text) => String(text).replace(/&/g, "&amp;").replace(/</g, "&lt;").replace(/>/g, "&gt;");

function element(tag, attributes = {}, ...children) {
  const made = document.createElement(tag);
  for (const [name, value] of Object.entries(attributes)) {
    if (name.startsWith("on")) made.addEventListener(name.slice(2), value);
    else if (value !== null && value !== undefined) made.setAttribute(name, value);
  }
  made.append(...children);
  return made;
}

// Buttons of which one is pressed. `options`: [[value, label], …].
function segments(label, options, value, choose) {
  const group = element("div", { class: "segments", role: "group", "aria-label": label });
  const press = (chosen) => {
    for (const button of group.children) button.setAttribute("aria-pressed", String(button.dataset.value === String(chosen)));
  };
  for (const [key, text] of options) {
    group.append(element("button", { type: "button", "data-value": key, onclick: () => { press(key); choose(key); } }, text));
  }
  press(value);
  group.press = press;
  return group;
}

function picker(label, options, value, choose) {
  const made = element("select", { "aria-label": label, onchange: () => choose(made.value) });
  for (const [key, text] of options) made.append(element("option", { value: key }, text));
  made.value = value;
  return made;
}
const labelled = (text, control) => [element("span", { class: "labelled" }, element("span", { class: "label" }, text), control)];

const FONT = { family: getComputedStyle(document.body).fontFamily, size: 12, color: "#3a434c" };
const AXIS = { gridcolor: "#eceff2", zeroline: false, linecolor: "#cfd5da", ticks: "outside", tickcolor: "#cfd5da", ticklen: 4,
  automargin: true, title: { standoff: 8 } };
const axis = (title, more = {}) => ({ ...AXIS, ...more, title: { ...AXIS.title, text: title } });
// A logarithmic axis whose ticks are whole numbers written out ("0.3"), enough of them even where values span a third of a decade.
function logAxis(title, values) {
  const known = values.filter((value) => value > 0), lowest = Math.min(...known), highest = Math.max(...known);
  const ticks = (steps) => {
    const all = [];
    for (let power = Math.floor(Math.log10(lowest)); power <= Math.log10(highest); power++) all.push(...steps.map((step) => Number((step * 10 ** power).toPrecision(3))));
    return all.filter((value) => value > 0.8 * lowest && value < 1.25 * highest);
  };
  const sets = [[1], [1, 3], [1, 2, 5], [1, 1.5, 2, 3, 4, 5, 6, 8], [1, 1.2, 1.4, 1.6, 1.8, 2, 2.5, 3, 3.5, 4, 4.5, 5, 6, 7, 8, 9]].map(ticks);
  const tickvals = sets.find((set) => set.length >= 4) || sets.at(-1);
  return axis(title, { type: "log", tickvals, ticktext: tickvals.map(String) });
}
const layout = (more) => ({ font: FONT, paper_bgcolor: "rgba(0,0,0,0)", plot_bgcolor: "rgba(0,0,0,0)", hovermode: "closest",
  margin: { l: 56, r: 16, t: 8, b: 46 }, hoverlabel: { bgcolor: "#fff", bordercolor: "#cfd5da", font: { ...FONT, size: 12.5 }, align: "left" },
  legend: { orientation: "h", x: 0, y: 1.02, yanchor: "bottom", itemsizing: "constant", font: { size: 12.5 } }, ...more });
const config = (name) => ({ responsive: true, displaylogo: false, modeBarButtonsToRemove: ["select2d", "lasso2d", "autoScale2d"],
  toImageButtonOptions: { format: "svg", filename: DATA.study + "_" + name }, showTips: false });

function draw(id, traces, shape, name, words) {
  const place = byId(id);
  place.setAttribute("aria-label", words);
  return Plotly.react(place, traces, layout(shape), config(name));
}

const WEBGL = (() => {
  try { return Boolean(document.createElement("canvas").getContext("webgl")); } catch { return false; }
})();

// Arrays of the frames shown, the same for all runs.
const FRAMES = (() => {
  const f = DATA.frames;
  const time_ps = unpack(f.time_ps);
  let span = 0, known = time_ps.length > 0;
  for (const t of time_ps) { if (Number.isFinite(t)) span = Math.max(span, Math.abs(t)); else known = false; }
  const unit = timeUnit(span);
  const frame = unpack(f.frame);
  return { ...f, simulation: unpack(f.simulation), frame, split: unpack(f.split), reference: f.reference_angstrom && unpack(f.reference_angstrom), known, unit,
    time: known ? Float64Array.from(time_ps, (t) => t / unit.step) : Float64Array.from(frame),
    timeTitle: known ? "time (" + unit.name + ")" : "frame" };
})();

function prepared(run) {
  if (run.ready) return run;
  run.ready = true;
  run.state = unpack(run.state);
  run.error_nm = unpack(run.error_nm);
  for (const name of run.axes) run.z[name] = unpack(run.z[name]);
  return run;
}
