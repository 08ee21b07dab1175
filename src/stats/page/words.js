"use strict";
// ---- small things: elements, figures and names as they are shown ---------------------------------------------------
const $ = id => document.getElementById(id);
const SVG = "http://www.w3.org/2000/svg";
// Whatever comes from the database becomes a text node or an attribute, never markup.
function fill(element, [attributes, ...children]) {
  // Attributes may be left out.
  if (attributes == null || Object.getPrototypeOf(attributes) !== Object.prototype) children.unshift(attributes);
  else for (const [name, value] of Object.entries(attributes)) {
    if (name.startsWith("on")) element.addEventListener(name.slice(2), value);
    else if (value !== false && value != null) element.setAttribute(name, value === true ? "" : value);
  }
  element.append(...children.flat(2).filter(child => child != null));
  return element;
}
// `tag.class.class`, attributes, children. What a button does is told beside it.
function h(what, ...rest) {
  const [tag, ...classes] = what.split("."), element = document.createElement(tag);
  if (classes.length) element.className = classes.join(" ");
  if (tag === "button") element.type = "button";
  return fill(element, rest);
}
const s = (tag, ...rest) => fill(document.createElementNS(SVG, tag), rest);
const whole = new Intl.NumberFormat("en");
const short = new Intl.NumberFormat("en", { notation: "compact", maximumFractionDigits: 1 });
const count = value => value == null ? "–" : whole.format(value);
const brief = value => value == null ? "–" : value < 10000 ? whole.format(Math.round(value)) : short.format(value);
const seconds = ms => ms == null ? "–" : ms < 995 ? Math.round(ms) + " ms" : ms < 99500 ? (ms / 1000).toFixed(1) + " s" : ms < 5400000 ? whole.format(Math.round(ms / 60000)) + " min" : whole.format(Math.round(ms / 3600000)) + " h";
const speed = value => value == null ? "–" : value < 100 ? value.toFixed(1) : whole.format(Math.round(value));
const price = (cost, currency) => cost == null ? "–" : ((cost >= 1000 ? whole.format(Math.round(cost)) : cost === 0 || cost >= 1 ? cost.toFixed(2) : cost.toPrecision(2)) + " " + currency).trim();
const money = of => of.currency == null ? null : price(of.cost, of.currency);
const percent = part => (part > 0.999 && part < 1 ? 99.9 : part * 100).toFixed(1).replace(/\.0$/, "") + " %";
const ratio = (part, of) => of ? percent(part / of) : "–";
const plural = (number, noun) => brief(number) + " " + noun + (number === 1 ? "" : "s");
const pad = number => String(number).padStart(2, "0");
const clock = date => pad(date.getHours()) + ":" + pad(date.getMinutes());
const thisYear = date => date.getFullYear() === new Date().getFullYear();
const dayOf = date => date.toLocaleDateString("en", { day: "numeric", month: "short", year: thisYear(date) ? undefined : "numeric" });
const isToday = date => date.toDateString() === new Date().toDateString();
const moment = text => {
  const at = text == null ? null : new Date(text);
  return at == null ? "–" : (isToday(at) ? "" : dayOf(at) + " ") + clock(at);
};
const whenOf = text => new Date(text).toLocaleString("en", { dateStyle: "medium", timeStyle: "medium", hourCycle: "h23" });

const OUTCOMES = { completed: "completed", client_closed: "client left", truncated: "truncated", upstream_error: "LM Studio error", error_in_reply: "error in reply", upstream_unreachable: "LM Studio unreachable", upstream_timeout: "time-out", shutdown: "proxy stopped", cancelled_here: "called off" };
const SPANS = [["24h", "24 hours"], ["7d", "7 days"], ["30d", "30 days"], ["90d", "90 days"], ["all", "All"]];
const NAMES = ["model", "client", "endpoint", "key", "outcome"];
const WELL = ["completed", "client_closed", "cancelled_here"];
const FAILED = Object.keys(OUTCOMES).filter(outcome => !WELL.includes(outcome));
const failed = one => !WELL.includes(one.outcome);

// A name as it is: the empty one is nobody's, one of blanks is shown as such.
const told = (by, name) => name == null || name === "" ? "(unknown)" : by === "outcome" ? OUTCOMES[name] || name : name.trim() ? name : "“" + name + "”";
const named = name => told("model", name);
// The same for narrow places: who made a model goes first, then the middle; its end tells it from its like.
function nameView(by, name) {
  const text = told(by, name), [, maker, model] = text.match(/^([\w.-]+\/)?(.*)$/s);
  // Other scripts are not cut in halves: what they look like is not the sum of their parts.
  if (!/^[\x21-\x7e]{10,}$/.test(model)) return h("span.cut", h("span.front", { dir: "auto" }, text));
  return h("span.cut", maker ? h("span.wide", maker) : null, h("span.front", model.slice(0, -7)), h("span", model.slice(-7)));
}
// What filters by a name when it is clicked. In long lists only by the mouse: the tabs do the same.
const pick = (by, name, child, quick) => h("button.pick", { tabindex: quick ? -1 : null, "data-by": by, "data-name": name == null ? "" : name, title: "Only " + told(by, name) }, child || nameView(by, name));

// A name keeps its colour for ever: the one that its letters come to, unless another had that first.
const COLOURS = 12, GREY = "c12";
const BY_OUTCOME = { completed: "c2", client_closed: GREY, cancelled_here: GREY, truncated: "c1", upstream_error: "c8", error_in_reply: "c3", upstream_unreachable: "c4", upstream_timeout: "c9", shutdown: "c5" };
let colours = {};
try { colours = parsed(localStorage.getItem("colours")) || {}; } catch { /* They are found again, mostly the same. */ }
function colourOf(by, name) {
  if (by === "outcome") return BY_OUTCOME[name] || GREY;
  const key = by + " " + name;
  if (colours[key] == null) {
    let hash = 7;
    for (const letter of key) hash = (hash * 31 + letter.codePointAt(0)) % 1000003;
    const taken = Object.keys(colours).filter(other => other.startsWith(by + " ")).map(other => colours[other]);
    let colour = hash % COLOURS;
    for (let tries = 0; tries < COLOURS && taken.includes(colour); tries += 1) colour = (colour + 5) % COLOURS;
    if (taken.length < 200) colours[key] = colour;
    try { localStorage.setItem("colours", JSON.stringify(colours)); } catch { /* As above. */ }
    return "c" + colour;
  }
  return "c" + colours[key];
}
function parsed(text) {
  try { return text == null ? null : JSON.parse(text); } catch { return null; }
}

// A heading with * is left out where it is narrow, with + already where it is not wide; with < it stands to the left.
function table(caption, heads, rows) {
  const head = text => text instanceof Node ? text : h("th", { scope: "col", class: (/^<?\*/.test(text) ? "wide " : /^<?\+/.test(text) ? "mid " : "") + (text[0] === "<" ? "left" : "") }, text.replace(/^[*+<]+/, ""));
  return h("table", h("caption.hide", caption), h("thead", h("tr", ...heads.map(head))), h("tbody", ...rows));
}
const empty = text => h("p.empty", text);
const swatch = colour => h("i", { class: "swatch " + colour, "aria-hidden": true });
// Rows that stay the same elements as long as they are shown: a press that began on one ends on it.
function keyed(body, items, key, build, update) {
  const before = body.nodes || new Map(), nodes = new Map();
  for (const item of items) nodes.set(key(item), before.get(key(item)) || [build(item)].flat());
  for (const [id, gone] of before) if (!nodes.has(id)) gone.forEach(node => node.remove());
  let place = body.firstChild;
  for (const [at, mine] of [...nodes.values()].entries()) {
    if (update) update(mine[0], items[at]);
    for (const node of mine) if (node === place) place = place.nextSibling; else body.insertBefore(node, place);
  }
  body.nodes = nodes;
}

// ---- while somebody presses ----------------------------------------------------------------------------------------
// Nothing is drawn anew between the press and its release: else a click has no element to end on.
let pressed = false;
const postponed = new Map();
function draw(what) {
  if (pressed) return postponed.set(what, what);
  what();
}
document.addEventListener("pointerdown", () => { pressed = true; }, true);
for (const end of ["pointerup", "pointercancel", "blur", "dragend"]) addEventListener(end, () => setTimeout(() => {
  pressed = false;
  const all = [...postponed.values()];
  postponed.clear();
  all.forEach(what => what());
}), true);
