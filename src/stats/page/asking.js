// ---- the address: filters, and what is open ------------------------------------------------------------------------
let asked = new URLSearchParams(location.search);
let token = null;
try { token = sessionStorage.getItem("token"); } catch { /* It is asked for again after a reload. */ }
function keepToken(value) {
  token = value;
  try { value == null ? sessionStorage.removeItem("token") : sessionStorage.setItem("token", value); } catch { /* As above. */ }
}
if (asked.has("token")) {
  // It does not stay in the address, where it would be seen and saved.
  keepToken(asked.get("token"));
  asked.delete("token");
  writeAddress("replaceState", history.state);
}
// How many views lie above the page in the history: so many steps back close them.
const depth = () => (history.state && history.state.depth) || 0;
function writeAddress(how, state) {
  const query = asked.toString();
  history[how](state, "", location.pathname + (query ? "?" + query : ""));
}
const span = () => asked.has("from") ? "custom" : SPANS.some(([name]) => name === asked.get("span")) ? asked.get("span") : "30d";
const choice = (name, all, otherwise) => all.some(([each]) => each === asked.get(name)) ? asked.get(name) : otherwise;
function filter(withTime) {
  const query = new URLSearchParams();
  for (const name of NAMES) asked.getAll(name).forEach(value => query.append(name, value));
  if (!withTime) return query;
  const [from, to] = range();
  if (from) query.set("from", from.toISOString());
  if (to) query.set("to", to.toISOString());
  return query;
}
// What is asked for: from when, and until when where that is not now.
function range() {
  const [from, to] = ["from", "to"].map(name => new Date(asked.get(name))), now = new Date();
  if (span() === "custom" && from < to) return [from, to];
  if (span() === "all" || span() === "custom") return [null, null];
  if (span() === "24h") return [new Date(now.getFullYear(), now.getMonth(), now.getDate(), now.getHours() - 23), null];
  // Midnight by today's distance from UTC, as the proxy parts days, also where summer time has begun or ended since.
  const day = Date.UTC(now.getFullYear(), now.getMonth(), now.getDate() - parseInt(span(), 10) + 1);
  return [new Date(day + now.getTimezoneOffset() * 60000), null];
}
// As long, before: as far into it as now is into this one.
function rangeBefore() {
  const [from, to] = range();
  if (!from) return null;
  const length = to ? to - from : { "24h": 24, "7d": 168, "30d": 720, "90d": 2160 }[span()] * 3600000;
  const until = to || new Date(Math.floor(Date.now() / 60000) * 60000);
  return [new Date(from - length), new Date(until - length)];
}
function zone() {
  const east = -new Date().getTimezoneOffset(), minutes = Math.abs(east);
  return (east < 0 ? "-" : "+") + pad(Math.floor(minutes / 60)) + ":" + pad(minutes % 60);
}

// ---- asking: by addresses relative to the page's, so that it can lie below any path --------------------------------
class NeedsToken extends Error {}
// What tells costs is asked for those of another model, where one is chosen.
const COSTS = /^stats(\/(summary|by-[a-z]+|over-time|search|live|export|(requests|conversations)(\/[^/]+)?))?$/;
function asking(path, query) {
  const all = new URLSearchParams(query || "");
  if (asked.has("as") && COSTS.test(path)) all.set("as", asked.get("as"));
  return path + (all.size ? "?" + all : "");
}
const address = path => new URL(path, location.href.replace(/[?#].*/, "")).href;
async function request(path, query, options) {
  const headers = { Accept: "application/json" };
  if (token != null) headers.Authorization = "Bearer " + token;
  let reply;
  try {
    reply = await fetch(asking(path, query), { headers, signal: AbortSignal.timeout(30000), ...options });
  } catch (error) {
    if (error.name === "AbortError") throw error;
    throw new Error("The proxy does not answer. Is it running?");
  }
  if (reply.status === 401) throw new NeedsToken();
  if (!reply.ok) {
    const answer = await reply.json().catch(() => null);
    throw new Error(answer && answer.error ? answer.error.message : "The proxy answered with status " + reply.status + ".");
  }
  return reply;
}
const ask = async (path, query, options) => (await request(path, query, options)).json();
// With the words of an error, or the door where a token is missing.
function failing(tell) {
  return error => {
    if (error.name === "AbortError") return;
    if (error instanceof NeedsToken) { $("one").close(); return showDoor(true); }
    tell(error.message);
  };
}
// A link asks with the token, too.
async function follow(event) {
  const link = event.target.closest("a[href]");
  if (!link || token == null || !/^(stats|metrics)/.test(link.getAttribute("href"))) return;
  event.preventDefault();
  try {
    const reply = await request(link.getAttribute("href"), null, { signal: undefined, headers: { Accept: "*/*", Authorization: "Bearer " + token } });
    const named = (reply.headers.get("Content-Disposition") || "").match(/filename=\x22([^\x22]+)\x22/);
    const blob = URL.createObjectURL(await reply.blob());
    if (!named) return window.open(blob);
    h("a", { href: blob, download: named[1] }).click();
  } catch (error) { failing(notice)(error); }
}
async function copy(text) {
  try { return await navigator.clipboard.writeText(text); } catch { /* Only pages of this machine or of https may. */ }
  const field = h("textarea.hide", { "aria-hidden": true }, text), before = document.activeElement;
  ($("one").open ? $("one") : document.body).append(field);
  field.select();
  document.execCommand("copy");
  field.remove();
  before.focus();
}
// A button that copies, and says so.
function copyButton(label, text) {
  const button = h("button", { onclick: async () => {
    try {
      await copy(await text());
      button.textContent = "Copied";
    } catch (error) { failing(words => { button.textContent = words; })(error); }
    setTimeout(() => { button.textContent = label; }, 2500);
  } }, label);
  return button;
}
