// ---- loading it all ------------------------------------------------------------------------------------------------
const TILES = [["Today", "today"], ["7 days", "last_7_days"], ["30 days", "last_30_days"], ["All time", "all_time"]];
let shown = null, turn = 0, running = null, again = false, paused = false;
async function load() {
  if (running) { again = true; return running; }
  running = loadNow().finally(() => { running = null; if (again) { again = false; load(); } });
  return running;
}
async function loadNow() {
  const mine = turn;
  // The page itself has come as a refusal: then there is no need to collect another.
  if (!shown && token == null && refused()) return showDoor(true);
  try {
    const timed = filter(true), over = filter(true), report = filter(false), newest = filter(true);
    for (const query of [over, report]) query.set("tz", zone());
    over.set("bucket", bucketOf());
    over.set("by", group());
    newest.set("limit", LATEST);
    const before = rangeBefore(), past = filter(false);
    if (before) ["from", "to"].forEach((name, at) => past.set(name, before[at].toISOString()));
    // Asked alone at first: where a token is missing, one refusal says so.
    const first = ask("stats", report);
    if (!shown) await first;
    markRange();
    const [totals, sums, sumsBefore, points, recent] = await Promise.all([
      first, ask("stats/summary", timed), before ? ask("stats/summary", past) : null, overTime(over), asked.has("q") ? null : ask("stats/requests", newest),
    ]);
    if (mine !== turn) return;
    const isFirst = !shown || shown.turn !== mine;
    shown = { ...shown, at: new Date(), turn: mine, totals, sums, sumsBefore, points };
    showDoor(false);
    $("notice").hidden = true;
    const nothing = shown.nothing = totals.all_time.total_requests === 0 && !NAMES.some(name => asked.has(name));
    if ($("welcome").hidden === nothing) { $("welcome").hidden = !nothing; if (nothing) welcome(); }
    $("charts").hidden = $("filters").hidden = $("range").hidden = $("pause").hidden = nothing;
    $("main").classList.remove("loading");
    draw(showFigures);
    if (isFirst && asked.has("q")) seek(true); else if (recent) takeRecent(recent, isFirst);
    listen();
    if (isFirst) openAsked();
    // What stands further down is asked for behind that: answers come one by one, slowly while many requests do.
    const talks = filter(true), facet = filter(true);
    talks.set("limit", THREADS);
    // Beside the names that are chosen stand the others, which could be.
    facet.delete(tab().by);
    const by = new URLSearchParams(facet);
    by.set("by", tab().by);
    const [latencies, groups, times, threads] = await Promise.all([
      ask("stats/latency", by), ask("stats/by-" + tab().by, facet), tab().by === "model" ? ask("stats/time", facet) : null, ask("stats/conversations", talks),
    ]);
    if (mine !== turn) return;
    Object.assign(shown, { latencies, groups, contexts: times && contextsOf(times), threads: joined(threads) });
    draw(showNames);
    askAside();
  } catch (error) {
    if (mine === turn) failing(notice)(error);
  }
}
function refused() {
  const [visit] = performance.getEntriesByType("navigation");
  return visit != null && visit.responseStatus === 401;
}
const HOURS = 3600000;
function bucketOf() {
  const [from, to] = range();
  if (!from) return "month";
  const hours = ((to || Date.now()) - from) / HOURS;
  return hours <= 49 ? "hour" : hours <= 2400 ? "day" : "month";
}
// A few months as months say little: then days.
async function overTime(query) {
  const answer = await ask("stats/over-time", query);
  if (query.get("bucket") !== "month" || answer.points.length > 3) return answer;
  query.set("bucket", "day");
  return ask("stats/over-time", query);
}
function notice(text) {
  $("notice").firstElementChild.textContent = text + (shown ? " The figures below are those of " + clock(shown.at) + "." : "");
  $("notice").hidden = false;
  document.querySelectorAll(".wait").forEach(element => { element.textContent = "Not loaded"; });
}
function showDoor(needed) {
  $("door").hidden = !needed;
  $("content").hidden = $("range").hidden = needed;
  if (!needed) return;
  $("denied").hidden = token == null;
  $("pause").hidden = true;
  keepToken(null);
  stopListening("not connected");
  $("token").focus();
}
// A model that is there; whoever forwards says which.
async function welcome() {
  const model = await ask("v1/models").then(answer => answer.data[0].id, () => "llama-3.2-1b-instruct");
  const text = "curl " + address("v1/chat/completions") + " -H 'Content-Type: application/json' \\\n  -d '" + JSON.stringify({ model, messages: [{ role: "user", content: "Say hello." }] }).replaceAll("'", "'\\''") + "'";
  $("welcome").querySelector("pre").textContent = text;
  $("welcome").querySelector("span").replaceChildren(copyButton("Copy", () => text));
}

// ---- filters -------------------------------------------------------------------------------------------------------
function change(edit) {
  edit();
  writeAddress("pushState", { depth: 0 });
  refilter();
}
const choose = (name, value) => change(() => { asked.delete(name); if (value != null) asked.set(name, value); });
// One name more, or less.
const toggle = (name, value) => change(() => {
  const others = asked.getAll(name).filter(each => each !== value), had = asked.has(name, value);
  asked.delete(name);
  others.concat(had ? [] : [value]).forEach(each => asked.append(name, each));
});
const between = (from, to) => change(() => { asked.set("from", from.toISOString()); asked.set("to", to.toISOString()); });
function refilter() {
  turn += 1;
  older = null;
  stopListening("…");
  markRange();
  $("main").classList.add("loading");
  load();
}
function markRange() {
  for (const input of $("span").querySelectorAll("input")) input.checked = input.value === span();
  const [from, to] = range();
  const text = date => dayOf(date) + (date.getHours() + date.getMinutes() ? " " + clock(date) : "");
  // Two hours on: where summer time has ended since, days begin at 23:00.
  const since = from && (span() === "24h" || to ? text(from) : dayOf(new Date(from.getTime() + 2 * HOURS)));
  const words = to ? since + " to " + text(to) : from ? "since " + since : "all time";
  $("range").textContent = words + ", UTC" + zone();
  const chip = (label, value, drop) => h("button.chip", { "aria-label": "Without " + label + value, onclick: () => change(drop) }, h("span.soft", label), h("span.front", value), h("span", { "aria-hidden": true }, "×"));
  const chips = NAMES.flatMap(name => asked.getAll(name).map(value => chip(name + " ", told(name, value), () => {
    const others = asked.getAll(name).filter(each => each !== value);
    asked.delete(name);
    others.forEach(each => asked.append(name, each));
  })));
  if (to) chips.push(chip("time ", words, () => { asked.delete("from"); asked.delete("to"); }));
  if (asked.has("q")) chips.push(chip("words ", "“" + asked.get("q") + "”", () => asked.delete("q")));
  if (asked.has("as")) chips.push(chip("cost as ", asked.get("as"), () => asked.delete("as")));
  if (chips.length > 1) chips.push(h("button.link", { onclick: () => change(() => [...NAMES, "from", "to", "q", "as"].forEach(name => asked.delete(name))) }, "Show all"));
  // Who took one off by a key goes on at the next, or at the search behind the last.
  const held = [...$("chips").children].indexOf(document.activeElement);
  $("chips").hidden = !chips.length;
  $("chips").replaceChildren(...chips);
  if (held >= 0) (chips[Math.min(held, chips.length - 1)] || $("words")).focus({ preventScroll: true });
  $("words").value = asked.get("q") || "";
  const query = name => { const all = filter(true); all.set("format", name); return asking("stats/export", all); };
  $("export").replaceChildren("Export ", ...[["csv", "CSV"], ["jsonl", "JSON lines"], ["chat", "chats"]].flatMap(([format, text]) => [h("a", { href: query(format), download: true }, text), " "]));
  titlePage();
}
function titlePage() {
  const names = NAMES.flatMap(name => asked.getAll(name).map(value => told(name, value)));
  const view = opened ? $("one-title").textContent : asked.has("q") ? "“" + asked.get("q") + "”" : names.join(", ");
  document.title = (view ? view.slice(0, 80) + " – " : "") + "LMS Metrics Proxy";
}

// ---- figures -------------------------------------------------------------------------------------------------------
function showFigures() {
  showStrip();
  showAs();
  showTiles();
  showPlot();
}
function showNames() {
  showTabs();
  showGroups();
  showLatency("first", "time_to_first_token_ms", seconds, "No streamed requests in this range. Only those tell when their first token came.");
  showLatency("speed", "tokens_per_second", speed, "No speed is known of requests in this range.");
  showThreads();
}
// The range against the one before: what has grown is good or bad only where more of it is.
function showStrip() {
  const { sums, sumsBefore: past } = shown;
  const rate = (part, of) => each => each[of] ? each[part] / each[of] : null;
  const figures = [
    ["Tokens", each => each.total_tokens, brief], ["In", each => each.total_input_tokens, brief], ["Out", each => each.total_output_tokens, brief],
    ["Requests", each => each.total_requests, brief], ["Failed", rate("failed_requests", "total_requests"), value => value == null ? "–" : percent(value), -1],
    ["From cache", rate("total_cached_tokens", "total_input_tokens"), value => value == null ? "–" : percent(value), 1],
    ["First token", each => each.average_time_to_first_token_ms, seconds, -1], ["Tokens/s", each => each.average_tokens_per_second, speed, 1],
    ...[["Cost", "cost"], ["Saved", "saved"]].flatMap(([title, figure]) => sums[figure] === undefined ? [] : [[title + ", " + sums.currency, each => each[figure], value => price(value, "")]]),
  ];
  const changeOf = ([, of, text, good]) => {
    const [now, was] = [of(sums), past && of(past)];
    if (now == null || !was) return h("span.small.soft", past && was === 0 && now ? "none before" : "");
    const change = (now - was) / was, sign = change < 0 ? "−" : "+", size = Math.abs(change);
    const kind = !good || size < 0.005 ? "soft" : change * good > 0 ? "well" : "bad";
    return h("span", { class: "small " + kind, title: text(was) + " in the span before" }, size < 0.005 ? "as before" : size > 9.99 ? "× " + brief(now / was) : sign + Math.round(size * 100) + " %");
  };
  $("strip").replaceChildren(...figures.map(figure => h("div", h("span.small.soft", figure[0]), h("strong", figure[2](figure[1](sums))), changeOf(figure))));
  $("h-strip").replaceChildren(span() === "all" ? "All time" : span() === "custom" ? "The time chosen" : "Last " + SPANS.find(([name]) => name === span())[1], h("span.small.soft", past ? " and the change to the span before" : ""));
}
// The models that the list of prices names.
function showAs() {
  const as = asked.get("as") || "", all = new Set(["", ...shown.totals.priced_as || [], as]);
  $("as").parentElement.hidden = all.size < 2;
  if ($("as").options.length !== all.size) $("as").replaceChildren(...[...all].map(value => h("option", { value }, value || "each model")));
  $("as").value = as;
}
const energy = wh => wh < 1000 ? speed(wh) + " Wh" : speed(wh / 1000) + " kWh";
function showTiles() {
  const { totals } = shown;
  $("tiles").replaceChildren(...TILES.map(([name, key]) => { const sums = totals[key]; return h("section", { class: "card" },
    h("h2", name),
    h("div.figure", { title: count(sums.total_tokens) + " tokens" }, brief(sums.total_tokens), h("span.soft.small", " tokens")),
    h("div.small", brief(sums.total_input_tokens), " in, ", brief(sums.total_output_tokens), " out"),
    h("div.small", h("span.part", plural(sums.total_requests, "request"), sums.failed_requests ? "," : null), " ",
      sums.failed_requests ? h("span.bad.part", brief(sums.failed_requests) + " failed") : null),
    money(sums) ? h("div.small.soft", { title: "At the prices of MODEL_PRICES" }, "cost ", money(sums)) : null,
    sums.energy_wh == null ? null : h("div.small.soft", { title: "While requests were under way, by POWER_WATTS" }, "electricity ", energy(sums.energy_wh), sums.electricity_cost == null ? null : ", " + price(sums.electricity_cost, sums.electricity_currency)),
    sums.saved == null ? null : h("div.small.soft", "saved ", price(sums.saved, sums.currency))); }));
}

// ---- by name -------------------------------------------------------------------------------------------------------
const TABS = [["model", "Models"], ["client", "Clients"], ["key", "Keys"], ["endpoint", "Endpoints"], ["outcome", "Outcomes"], ["failures", "Failures"]];
// Of failures only the words are told apart: the figures beside them are those by outcome.
const tab = () => { const name = choice("tab", TABS, "model"); return { name, by: name === "failures" ? "outcome" : name, title: TABS.find(each => each[0] === name)[1] }; };
let order = ["requests", -1];
function showTabs() {
  if (!$("tabs").children.length) $("tabs").append(...TABS.map(([name, text]) => h("button", { role: "tab", id: "tab-" + name, "data-tab": name, "aria-controls": "groups" }, text)));
  for (const each of $("tabs").children) {
    const on = each.dataset.tab === tab().name;
    each.setAttribute("aria-selected", on);
    each.tabIndex = on ? 0 : -1;
  }
  $("groups").setAttribute("aria-labelledby", "tab-" + tab().name);
}
function chooseTab(name) {
  asked.set("tab", name);
  writeAddress("replaceState", history.state);
  showTabs();
  $("main").classList.add("loading");
  load();
}
function showGroups() {
  if (tab().name === "failures") return;
  const { by } = tab(), rows = shown.groups && shown.groups[by + "s"];
  // Not there yet, or asked for by another name still.
  if (!rows) return;
  if (!rows.length) return $("groups").replaceChildren(empty("No requests in this range."));
  const latency = new Map(shown.latencies[by + "s"].map(each => [each[by], each]));
  const contexts = by === "model" ? Object.values(shown.contexts) : [], of = each => shown.contexts["of " + each.model] || {};
  const all = rows.reduce((sum, each) => sum + each.total_tokens, 0);
  const late = (each, figure, part) => { const one = latency.get(each[by]); return one ? one[figure][part] : null; };
  const columns = [
    ["requests", "Requests", each => each.requests, count], ["failed", "Failed", each => each.failed_requests, count, "", each => each.failed_requests ? "bad" : null],
    ["input", "In", each => each.input_tokens, brief, "wide"], ["cached", "Cached", each => each.cached_tokens, brief, "mid"], ["output", "Out", each => each.output_tokens, brief, "wide"], ["reasoning", "Reasoning", each => each.reasoning_tokens, brief, "mid"],
    ["tokens", "Tokens", each => each.total_tokens, brief], ["first", "First token", each => late(each, "time_to_first_token_ms", "p50"), seconds, "mid"], ["speed", "Tokens/s", each => late(each, "tokens_per_second", "p50"), speed, "wide"],
    ["took", "Took, p95", each => late(each, "duration_ms", "p95"), seconds, "wide"],
    ...(contexts.some(each => each.requests || each.cut) ? [["context", "Context", each => of(each).requests ? of(each).used / of(each).requests : null, (value, each) => (value == null ? "–" : Math.round(value) + " %") + (of(each).cut ? ", " + brief(of(each).cut) + " cut" : ""), "mid", each => of(each).cut ? "bad" : null]] : []),
    ...(rows.some(each => each.currency != null) ? [["cost", "Cost", each => each.cost, (_, each) => each.total_tokens && money(each) || "–", "wide"]] : []),
  ];
  const [key, sign] = order, value = key === "name" ? each => told(by, each[by]).toLowerCase() : (columns.find(column => column[0] === key) || columns[0])[2];
  // What is not known stands at the end, whichever way it goes.
  const sorted = rows.slice().sort((a, b) => { const [x, y] = [value(a), value(b)]; return x == null || y == null ? (x == null) - (y == null) : x < y ? -sign : x > y ? sign : 0; });
  const head = (name, text, kind) => h("th", { scope: "col", class: kind, "aria-sort": name === key ? (sign < 0 ? "descending" : "ascending") : null }, h("button.sort", { "data-sort": name }, text, name === key ? h("span", { "aria-hidden": true }, sign < 0 ? " ↓" : " ↑") : null));
  const chosen = asked.getAll(by);
  const row = each => h("tr", { class: chosen.includes(each[by] || "") ? "chosen" : null },
    h("th", { scope: "row", class: "name", title: each[by] }, pick(by, each[by]), s("svg", { class: "of", width: "100%", height: 3, "aria-hidden": true }, s("rect", { class: colourOf(by, each[by] || ""), width: (all ? each.total_tokens / all * 100 : 0) + "%", height: 3 }))),
    ...columns.map(([, , of, text, kind, mark]) => h("td", { class: [kind, mark && mark(each)].filter(Boolean).join(" ") || null, title: of(each) == null || text === count ? null : count(of(each)) }, text(of(each), each))));
  const held = document.activeElement && document.activeElement.closest("#groups button"), at = held && [...$("groups").querySelectorAll("button")].indexOf(held);
  $("groups").replaceChildren(table(tab().title + " in this range", [head("name", tab().title, ""), ...columns.map(([name, text, , , kind]) => head(name, text, kind))], sorted.slice(0, GROUPS).map(row)),
    ...(sorted.length > GROUPS ? [h("p.soft.small.note", "And " + count(sorted.length - GROUPS) + " more.")] : []));
  if (held) { const same = $("groups").querySelectorAll("button")[at]; if (same) same.focus({ preventScroll: true }); }
}
// By model: how full its contexts were on average, and how many prompts seem to be cut.
function contextsOf({ times }) {
  const contexts = {};
  for (const one of times) {
    const of = contexts["of " + one.model] ??= { used: 0, requests: 0, cut: 0 };
    if (one.context_used_percent != null) of.used += one.context_used_percent * one.requests, of.requests += one.requests;
    of.cut += one.prompts_cut;
  }
  return contexts;
}
const GROUPS = 50;
// From the median to the 95th percentile as a bar.
function showLatency(place, figure, text, none) {
  const { by } = tab(), groups = (shown.latencies[by + "s"] || []).filter(each => each[figure].count > 0).slice(0, 10);
  if (!groups.length) return $(place).replaceChildren(empty(none));
  const most = Math.max(...groups.map(each => each[figure].p95)) || 1;
  const at = value => Math.max(0, Math.min(100, value / most * 100));
  const row = each => {
    const { p50, p90, p95, p99, max, mean } = each[figure], colour = colourOf(by, each[by] || "");
    const bar = s("svg", { width: "100%", height: 14, "aria-hidden": true },
      s("rect", { class: "track", x: 0, y: 6, width: "100%", height: 2 }),
      s("rect", { class: colour, x: at(p50) + "%", y: 4, width: Math.max(at(p95) - at(p50), 0.5) + "%", height: 6, opacity: 0.45 }),
      s("rect", { class: colour, x: Math.min(at(p50), 97) + "%", y: 1, width: 4, height: 12, rx: 1 }));
    const words = "median " + text(p50) + ", mean " + text(mean) + ", p90 " + text(p90) + ", p95 " + text(p95) + ", p99 " + text(p99) + ", largest " + text(max);
    return h("tr", { title: words }, h("th", { scope: "row", class: "name", title: each[by] }, nameView(by, each[by])),
      h("td.left.lane", bar), h("td", text(p50)), h("td", text(p95)));
  };
  const axis = h("th", { scope: "col" }, h("span.hide", "Bar from the median to p95"), h("span.axis", { "aria-hidden": true }, h("span", "0"), h("span", text(most))));
  $(place).replaceChildren(table("By " + by, [by[0].toUpperCase() + by.slice(1), axis, "Median", "p95"], groups.map(row)), h("p.soft.small.note", "Tick: median. Bar: on to the 95th percentile."));
}

// ---- conversations -------------------------------------------------------------------------------------------------
const THREADS = 10;
// Those that were asked for beyond the first page stay when figures come in.
let older = null;
function joined({ conversations, next_after: next }) {
  if (!older) return { rows: conversations, next };
  const known = new Set(conversations.map(one => one.conversation));
  return { rows: [...conversations, ...older.rows.filter(one => !known.has(one.conversation))].sort((a, b) => b.last_id - a.last_id), next: older.next };
}
async function showOlder() {
  const mine = turn, query = filter(true);
  query.set("limit", THREADS);
  query.set("after", shown.threads.next);
  try {
    const page = await ask("stats/conversations", query);
    if (mine !== turn) return;
    const rows = shown.threads.rows;
    older = { rows: [...rows, ...page.conversations], next: page.next_after };
    shown.threads = joined({ conversations: rows });
    showThreads();
    const first = page.conversations.length ? $("threads").querySelectorAll("[data-open]")[rows.length] : null;
    if (first) first.focus();
  } catch (error) { failing(notice)(error); }
}
const titled = one => one.title == null ? "(its words are not stored)" : one.title.trim() || "(no words)";
function showThreads() {
  const { rows, next } = shown.threads;
  if (!rows.length && next == null) return $("threads").replaceChildren(empty("No conversations in this range."));
  const held = document.activeElement && document.activeElement.closest("#threads button") && document.activeElement.dataset.open;
  const row = one => h("tr", { "data-kind": "conversation", "data-key": one.conversation },
    h("td.name.title", { title: titled(one) }, h("button.link", { "data-open": one.conversation }, titled(one))),
    h("td.left.mid.name", { title: one.clients.join(", ") }, one.clients.join(", ") || "–"),
    h("td.left.wide.name", { title: one.models.join(", ") }, one.models.length === 1 ? nameView("model", one.models[0]) : one.models.map(named).join(", ") || "–"),
    h("td", { title: one.failed_requests ? count(one.failed_requests) + " failed" : null, class: one.failed_requests ? "bad" : null }, count(one.requests)),
    h("td.wide", { title: one.cached_tokens ? count(one.cached_tokens) + " cached" : null }, brief(one.input_tokens)), h("td.wide", brief(one.output_tokens)), h("td", seconds(one.duration_ms)),
    h("td.mid", moment(one.first_time)), h("td", moment(one.last_time)));
  $("threads").replaceChildren(table("Conversations, that with the newest request first", ["Begins with", "<+Client", "<*Model", "Requests", "*In", "*Out", "Took", "+First", "Last"], rows.map(row)),
    ...(next == null ? [] : [h("p.more", h("button", { onclick: showOlder }, "Older"))]));
  if (held) { const same = $("threads").querySelector('[data-open="' + CSS.escape(held) + '"]'); if (same) same.focus({ preventScroll: true }); }
}
