// ---- requests: the newest, older ones without end, or those that hold words ----------------------------------------
const LATEST = 25, MORE = 100, ROWS_MAX = 5000, FRESH_MAX = 500, SEARCHES = 12;
let rows = [], more = null, wanted = LATEST, fresh = [], freshCount = 0, searching = false;
const holding = () => paused || $("latest").matches(":hover") || $("latest").contains(document.activeElement) || wanted > LATEST && rows.length > LATEST && $("latest").getBoundingClientRect().top < 0;
function takeRecent(page, isFirst) {
  if (isFirst) { rows = page.requests; more = page.next_after; wanted = LATEST; fresh = []; freshCount = 0; return draw(showRows); }
  page.requests.slice().reverse().forEach(hear);
}
// One that has ended. It stands at the top once nobody looks at the rows closely, who would see them move.
function hear(one) {
  if (asked.has("q")) return;
  const newest = fresh.length ? fresh[0].id : rows.length ? rows[0].id : 0;
  if (one.id <= newest) return;
  fresh.unshift(one);
  freshCount += 1;
  fresh.length = Math.min(fresh.length, FRESH_MAX);
  drawSoon();
}
// Many may end at once: they are drawn together, and never more often than can be read.
let drawing = null, drawnAt = 0;
function drawSoon() {
  if (drawing != null || document.hidden) return;
  const gap = freshCount > 3 || Date.now() - drawnAt < 1000 ? 1000 : 0;
  drawing = setTimeout(() => { drawing = null; drawnAt = Date.now(); draw(showRows); }, gap);
}
// The new ones are taken in; of more than are kept the ones between are left to "Older".
function mix() {
  if (!fresh.length) return;
  if (freshCount > fresh.length) { rows = fresh; wanted = LATEST; } else rows = [...fresh, ...rows];
  if (rows.length > wanted) { rows.length = wanted; more = rows[wanted - 1].id; }
  fresh = [];
  freshCount = 0;
}
function showRows() {
  const place = $("latest"), words = asked.get("q");
  if (!words && !holding()) mix();
  if (!words) $("sought").textContent = "";
  $("fresh").hidden = !freshCount;
  $("fresh").textContent = plural(freshCount, "new request");
  $("h-latest").textContent = words ? "Requests that hold the words" : "Requests";
  $("older").hidden = more == null || searching;
  $("older").textContent = words ? "Search on" : "Older";
  if (!rows.length) return place.replaceChildren(empty(searching ? "Searching …" : words ? "Nothing was found." : "No requests in this range."));
  if (!place.querySelector("tbody")) place.replaceChildren(table("Requests, newest first", ["Time", "<Model", "<*Endpoint", "<+Client", "*In", "Out", "Took", "+First token", "*Tokens/s", "<Ended"], []));
  const body = place.querySelector("tbody"), had = body.nodes && body.nodes.size;
  keyed(body, rows, one => one.id, one => rowView(one, had && !words));
}
function rowView(one, isNew) {
  const at = new Date(one.start_time), cell = (kind, by, name) => h("td", { class: "left name " + kind, title: name }, pick(by, name, by === "endpoint" ? nameView(by, name.replace(/^\/v1\//, "")) : null, true));
  const row = h("tr", { class: isNew ? "new" : null, "data-kind": "request", "data-key": one.id },
    h("td", h("button.link", { "data-open": one.id }, h("span.hide", "Request " + one.id + ", "), (isToday(at) ? "" : dayOf(at) + " ") + clock(at), h("span.wide", ":" + pad(at.getSeconds())))),
    cell("", "model", one.model), cell("wide path", "endpoint", one.endpoint), cell("mid slim", "client", one.client),
    h("td.wide", { title: one.cached_tokens ? count(one.cached_tokens) + " from the cache" : null }, count(one.input_tokens)), h("td", count(one.output_tokens)), h("td", seconds(one.duration_ms)),
    h("td.mid", seconds(one.time_to_first_token_ms)), h("td.wide", speed(one.tokens_per_second)),
    h("td", { class: "left" + (failed(one) ? " bad" : one.outcome === "completed" ? "" : " soft") }, pick("outcome", one.outcome, h("span", { class: one.outcome === "completed" ? "wide" : null }, told("outcome", one.outcome)), true)));
  const below = one.excerpt != null ? [h("span.soft", one.found_in.replace("_", " ") + ": "), ...marked(one.excerpt.replace(/\s+/g, " "))] : failed(one) && one.error_message ? [one.error_message.slice(0, 240)] : null;
  if (below) row.classList.add("above");
  return below ? [row, h("tr.sub", { "data-kind": "request", "data-key": one.id }, h("td", { colspan: 10, class: "left small " + (one.excerpt == null ? "bad" : "") }, h("div", ...below)))] : [row];
}
// The words that were looked for stand out.
function marked(text) {
  const words = asked.get("q").trim().split(/\s+/).map(word => word.replace(/[.*+?^${}()|[\]\\]/g, "\\$&"));
  return text.split(new RegExp("(" + words.join("|") + ")", "gi")).map((part, at) => at % 2 ? h("mark", part) : part);
}
async function showMore() {
  if (asked.has("q")) return seek(false);
  const mine = turn, query = filter(true);
  query.set("limit", MORE);
  query.set("after", rows.length ? rows[rows.length - 1].id : more);
  $("older").disabled = true;
  try {
    const page = await ask("stats/requests", query);
    if (mine !== turn) return;
    rows = [...rows, ...page.requests].slice(0, ROWS_MAX);
    wanted = rows.length;
    more = rows.length < ROWS_MAX ? page.next_after : null;
    draw(showRows);
  } catch (error) { failing(notice)(error); } finally { $("older").disabled = false; }
}
// One question reads a bounded amount: it is asked again until something is found, within reason.
async function seek(isFirst) {
  const mine = turn;
  if (searching === mine + 1) return;
  searching = mine + 1;
  if (isFirst) { rows = []; more = null; fresh = []; freshCount = 0; $("latest").replaceChildren(); }
  const had = rows.length;
  draw(showRows);
  try {
    for (let times = 0; times < SEARCHES && rows.length === had; times += 1) {
      const query = filter(true);
      query.set("q", asked.get("q"));
      query.set("limit", 50);
      if (more != null) query.set("after", more);
      const page = await ask("stats/search", query);
      if (mine !== turn) return;
      rows = [...rows, ...page.requests];
      more = page.next_after;
      if (more == null) break;
    }
    $("sought").textContent = plural(rows.length, "request") + " found" + (more == null ? "." : " so far, back to request " + more + ".");
  } catch (error) { if (mine === turn) failing(words => { $("sought").textContent = words; })(error); }
  finally { if (searching === mine + 1) searching = false; }
  if (mine !== turn) return;
  draw(showRows);
  if (isFirst) $("h-latest").scrollIntoView();
}

// ---- live ----------------------------------------------------------------------------------------------------------
let listening = null, wait = 1000, due = null, heard = 0;
function stopListening(text) {
  if (listening) listening.abort();
  listening = null;
  status(text, false);
}
function status(text, on) {
  if ($("live").textContent !== text) $("live").textContent = text;
  $("live").classList.toggle("on", on);
}
async function listen() {
  if (listening || document.hidden) return;
  const own = listening = new AbortController();
  heard = Date.now();
  try {
    const reply = await request("stats/live", filter(false), { signal: own.signal });
    status(paused ? "paused" : "live", !paused);
    wait = 1000;
    // Figures that could not be loaded before can be now.
    if (!$("notice").hidden) load();
    const reader = reply.body.pipeThrough(new TextDecoderStream()).getReader();
    for (let rest = "";;) {
      const { value, done } = await reader.read();
      if (done) break;
      heard = Date.now();
      const events = (rest + value).split("\n\n");
      rest = events.pop();
      for (const event of events) for (const line of event.split("\n")) if (line.startsWith("data: ")) ended(JSON.parse(line.slice(6)));
    }
  } catch (error) {
    if (error instanceof NeedsToken) return showDoor(true);
  }
  // Called off by us, or broken off: then it is tried again, ever more rarely.
  if (own !== listening) return;
  listening = null;
  status("connecting again …", false);
  setTimeout(() => { if (!listening && $("door").hidden) load().then(listen); }, wait);
  wait = Math.min(wait * 2, 30000);
}
function ended(one) {
  // A time that is over hears of nothing new.
  if (!shown || range()[1]) return;
  if (!shown.nothing) hear(one);
  // The sums follow, but not for every single request.
  if (due == null && !paused) due = setTimeout(() => { due = null; if (!paused) load(); }, shown.nothing ? 0 : 3000);
}
function pause(on) {
  paused = on;
  $("pause").setAttribute("aria-pressed", on);
  $("pause").textContent = on ? "Go on" : "Pause";
  status(on ? "paused" : "live", !on);
  if (on) return;
  showRows();
  load();
}
