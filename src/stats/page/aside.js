// ---- what goes on now ----------------------------------------------------------------------------------------------
let nowHeight = 0, nowQuiet = 0;
async function askNow() {
  if (document.hidden || paused || !shown || !$("door").hidden) return;
  let now;
  try { now = await ask("stats/now"); } catch { return; }
  draw(() => showNow(now));
}
function showNow({ upstream, models, in_flight: flying, queued, exchanges }) {
  const up = $("upstream");
  up.className = "soft small dot" + (upstream.is_up ? " on" : upstream.is_up === false ? " off" : "");
  up.textContent = upstream.is_up == null ? "" : upstream.is_up ? "LM Studio answers" : "LM Studio does not answer";
  up.title = upstream.since == null ? "" : "Since " + whenOf(upstream.since);
  $("now-card").hidden = false;
  const loaded = models.filter(model => model.state === "loaded");
  const words = (flying || queued ? count(flying) + " in flight" + (queued ? ", " + count(queued) + " wait for a place" : "") : "Nothing is in flight") + (loaded.length ? "; loaded: " : "");
  $("h-now").replaceChildren("Now ", h("span.small.soft", words, loaded.map((model, at) => [at ? ", " : "", h("span", { title: "Since " + whenOf(model.since) }, named(model.model) + (model.context_tokens ? " (" + brief(model.context_tokens) + " context)" : ""))])));
  const place = $("now"), looked = place.matches(":hover") || place.contains(document.activeElement);
  if (exchanges.length && !place.querySelector("tbody")) place.replaceChildren(h("div.scroll", { tabindex: 0, role: "region", "aria-label": "In flight" }, table("In flight, the eldest first", ["<Model", "<+Client", "<What it is at", "*Since", "Took", "*Prompt", "So far", "*A second", h("th", { scope: "col" }, h("span.hide", "Call off"))], [])));
  const body = place.querySelector("tbody");
  if (!body) return;
  // Who looks at a row finds it where it was: of those that have ended it says so.
  const gone = looked && body.nodes ? [...body.nodes.values()].map(([row]) => row.one).filter(one => !exchanges.some(each => each.id === one.id)).map(one => ({ ...one, phase: "ended" })) : [];
  keyed(body, [...gone, ...exchanges].sort((a, b) => a.id - b.id).slice(0, 60), one => one.id, one => {
    const row = h("tr", h("td.left.name", { title: one.model }, nameView("model", one.model)), h("td.left.mid.name.slim", one.client || "–"), h("td.left"), h("td.wide"), h("td"), h("td.wide", { title: "Bytes" }, one.body_bytes == null ? "–" : brief(one.body_bytes) + " B"), h("td"), h("td.wide"),
      h("td", h("button.slight", { onclick: event => callOff(one.id, event.target) }, "Call off", h("span.hide", " " + one.id))));
    return row;
  }, (row, one) => {
    row.one = one;
    row.classList.toggle("soft", one.phase === "ended");
    if (one.phase === "ended") row.querySelector("button").disabled = true;
    const rate = one.tokens_per_second ?? one.events_per_second;
    [[2, one.phase], [3, seconds(one.phase_ms)], [4, seconds(one.duration_ms)], [6, one.output_tokens != null ? plural(one.output_tokens, "token") : one.events == null ? "–" : plural(one.events, "event")], [7, speed(rate)]].forEach(([at, text]) => { if (row.cells[at].textContent !== text) row.cells[at].textContent = text; });
  });
  // It grows with what goes on, and shrinks after a while of quiet: what stands below stays where it is.
  nowQuiet = exchanges.length ? 0 : nowQuiet + 1;
  if (nowQuiet > 20 && !looked) { place.replaceChildren(); nowHeight = 0; }
  nowHeight = Math.max(nowHeight, Math.min(220, place.firstChild ? place.firstChild.scrollHeight : 0));
  place.style.height = nowHeight ? nowHeight + "px" : "";
}
async function callOff(id, button) {
  button.disabled = true;
  try {
    await request("stats/now/" + id, null, { method: "DELETE" });
    button.textContent = "Called off";
  } catch (error) { failing(words => { button.textContent = /in flight/.test(words) ? "Ended" : "Failed"; button.title = words; })(error); }
}

// ---- what is asked for once somebody sees its place, and not for every request -------------------------------------
const ASIDE = { times: showTimes, prefixes: showPrefixes, week: showWeek, groups: showFailures };
const ASIDE_AGE = 30000;
const seen = new Set(), askedAt = {};
const watcher = new IntersectionObserver(entries => {
  for (const entry of entries) if (entry.isIntersecting) seen.add(entry.target.id); else seen.delete(entry.target.id);
  if (shown) askAside(false);
}, { rootMargin: "300px" });
Object.keys(ASIDE).forEach(id => watcher.observe($(id)));
function askAside() {
  for (const id of seen) {
    const key = turn + " " + tab().name, known = askedAt[id];
    if (known && known.key === key && Date.now() - known.at < ASIDE_AGE) continue;
    askedAt[id] = { key, at: Date.now() };
    const mine = turn;
    ASIDE[id]().then(view => { if (view && mine === turn) draw(() => $(id).replaceChildren(...[view].flat())); }, failing(words => { delete askedAt[id]; $(id).replaceChildren(h("p.empty.bad", words)); }));
  }
}
// The same for all failures whose words differ in nothing but figures.
const FAILURES = 1000;
async function showFailures() {
  if (tab().name !== "failures") return null;
  const query = filter(true), chosen = asked.getAll("outcome");
  query.delete("outcome");
  (chosen.length ? chosen.filter(each => FAILED.includes(each)) : FAILED).forEach(each => query.append("outcome", each));
  query.set("limit", FAILURES);
  const found = query.has("outcome") ? await ask("stats/requests", query) : { requests: [] };
  if (tab().name !== "failures") return null;
  const groups = new Map();
  for (const one of found.requests) {
    const words = one.error_message || told("outcome", one.outcome) + (one.http_status ? ", status " + one.http_status : ""), key = one.outcome + words.replace(/\d+/g, "#");
    if (!groups.has(key)) groups.set(key, { words, one, times: 0, models: new Set() });
    const same = groups.get(key);
    same.times += 1;
    same.models.add(one.model);
  }
  if (!groups.size) return empty("Nothing has failed in this range.");
  const rows = [...groups.values()].sort((a, b) => b.times - a.times).slice(0, GROUPS).map(({ words, one, times, models }) => h("tr", { "data-kind": "request", "data-key": one.id },
    h("td.left.words-of", h("button.link", { "data-open": one.id }, words.slice(0, 300))), h("td.left.wide", pick("outcome", one.outcome)), h("td.left.mid.name", [...models].slice(0, 3).map(named).join(", ") + (models.size > 3 ? " …" : "")), h("td.bad", count(times)), h("td", moment(one.start_time))));
  return [table("Failures by their words", ["<What was said", "<*Outcome", "<+Models", "Times", "Last"], rows), found.requests.length < FAILURES ? h("p.soft.small.note", "A row opens its last request.") : h("p.soft.small.note", "The newest " + count(FAILURES) + " failures. A row opens its last request.")];
}
const spent = ms => ms ? seconds(ms) : "–";
async function showTimes() {
  const times = await ask("stats/time", filter(true)), all = times.range_ms || 1;
  const parts = [["Making answers", times.generating_ms, "c0"], ["Processing prompts", times.prompt_processing_ms, "c1"], ["Loading models", times.loading_ms, "c5"], ["Waiting for a place", times.waiting_ms, "c9"], ["Other requests", times.others_ms, "c4"], ["Not counted", times.uncounted_ms, "c3"], ["Idle", times.idle_ms, GREY]].filter(part => part[1]);
  const nameOfClient = each => each.client == null ? "(unknown)" : each.client;
  let x = 0;
  const bar = s("svg", { width: "100%", height: 16, role: "img", "aria-label": parts.map(([name, ms]) => name + " " + ratio(ms, all)).join(", ") }, ...parts.map(([, ms, colour]) => { const part = s("rect", { class: colour + (colour === GREY ? " idle" : ""), x: x + "%", width: ms / all * 100 + "%", height: 16 }); x += ms / all * 100; return part; }));
  return [bar, h("ul.legend", ...parts.map(([name, ms, colour]) => h("li", { title: seconds(ms) }, swatch(colour + (colour === GREY ? " idle" : "")), name + " " + ratio(ms, all)))),
    table("By client and model", ["<Client and model", "Answers", "Prompts", "+Loading", "Waiting"], times.times.slice(0, 8).map(each => h("tr", null,
      h("td.left.name", { title: nameOfClient(each) + ", " + each.model }, nameView("model", each.model), h("div.small.soft.front", nameOfClient(each))),
      h("td", spent(each.generating_ms)), h("td", spent(each.prompt_processing_ms)), h("td.mid", spent(each.loading_ms)), h("td", spent(each.waiting_ms)))))];
}
async function showPrefixes() {
  const told = await ask("stats/prefix", filter(true));
  if (!told.prefixes.length) return empty("No prompts were compared in this range.");
  const rows = told.prefixes.slice(0, 8).map(each => h("tr", null,
    h("td.left.name", { title: (each.client || "(unknown)") + ", " + each.model }, nameView("model", each.model), h("div.small.soft.front", each.client || "(unknown)")),
    h("td", { class: "left " + (isWell(each) ? "soft" : "bad") }, (BREAKS[each.prefix_break] || [each.prefix_break])[0]), h("td.mid", count(each.requests)), h("td", percent((each.shared_percent || 0) / 100)), h("td", spent(each.estimated_lost_ms))));
  return [h("p", percent((told.shared_percent || 0) / 100) + " of what prompts said was there before. ", told.estimated_lost_ms ? h("span.bad", "Some " + seconds(told.estimated_lost_ms) + " went into reading again what could have been shared.") : "Nothing was read again that could have been shared."),
    table("Why prompts were read anew, what took longest first", ["<Client and model", "<Why", "+Requests", "Shared", "Lost"], rows)];
}
// Which hours of which days: of ninety days at most, where that is told quickly.
async function showWeek() {
  const query = filter(true), [from] = range(), earliest = new Date(Date.now() - 90 * 24 * HOURS);
  if (!from || from < earliest) query.set("from", earliest.toISOString());
  query.set("bucket", "hour");
  query.set("tz", zone());
  const { points } = await ask("stats/over-time", query), cells = Array.from({ length: 7 }, () => Array.from({ length: 24 }, () => [0, 0]));
  for (const point of points) {
    const [, year, month, day, hour] = point.start.match(/^(\d+)-(\d+)-(\d+)T(\d+)/), cell = cells[(new Date(Date.UTC(+year, month - 1, +day)).getUTCDay() + 6) % 7][+hour];
    cell[0] += point.total_requests;
    cell[1] += point.total_tokens;
  }
  const most = Math.max(...cells.flat().map(cell => cell[1]));
  if (!most) return empty("No tokens in this range.");
  const days = ["Mon", "Tue", "Wed", "Thu", "Fri", "Sat", "Sun"];
  return [h("table.heat", h("caption.hide", "Tokens by hour of the week"), h("thead", h("tr", h("td"), ...Array.from({ length: 24 }, (_, hour) => h("th", { scope: "col" }, h("span", { class: hour % 3 ? "hide" : null }, pad(hour)))))),
    h("tbody", ...cells.map((hours, at) => h("tr", h("th", { scope: "row" }, days[at]), ...hours.map(([requests, tokens], hour) => h("td", { class: "heat-" + (tokens ? Math.max(1, Math.ceil(Math.sqrt(tokens / most) * 6)) : 0), title: days[at] + " " + pad(hour) + ":00, " + plural(requests, "request") + ", " + brief(tokens) + " tokens" }, h("span.hide", brief(tokens)))))))),
    h("p.soft.small.note", "The darker, the more tokens; the most in an hour of the week are " + brief(most) + (!from || from < earliest ? ". Of the last 90 days." : "."))];
}
