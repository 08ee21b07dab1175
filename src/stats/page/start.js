// ---- clicks and keys -----------------------------------------------------------------------------------------------
// One listener for all rows: they come and go.
document.addEventListener("click", event => {
  const at = selector => event.target.closest(selector);
  if (at("a[href]")) return follow(event);
  const picked = at("[data-by]"), sorted = at("[data-sort]"), tabbed = at("[data-tab]"), row = at("tr[data-kind]");
  if (picked) return toggle(picked.dataset.by, picked.dataset.name);
  if (tabbed) return chooseTab(tabbed.dataset.tab);
  if (sorted) {
    const [key, sign] = order, name = sorted.dataset.sort;
    order = [name, name === key ? -sign : name === "name" ? 1 : -1];
    return showGroups();
  }
  // Words that somebody marks are not a click.
  if (row && !String(getSelection())) openView(row.dataset.kind, row.dataset.key);
});
$("tabs").addEventListener("keydown", event => {
  const step = { ArrowLeft: -1, ArrowRight: 1 }[event.key];
  if (!step) return;
  event.preventDefault();
  const at = TABS.findIndex(([name]) => name === tab().name), [name] = TABS[(at + step + TABS.length) % TABS.length];
  chooseTab(name);
  $("tab-" + name).focus();
});
// One request on, in the list or in what is open.
function step(by) {
  if (opened) {
    const at = opened.kind === "request" ? rows.findIndex(one => String(one.id) === opened.name) : -1;
    if (at >= 0 && rows[at + by]) openView("request", rows[at + by].id, true);
    return;
  }
  const buttons = [...$("latest").querySelectorAll("[data-open]")], at = buttons.indexOf(document.activeElement), next = buttons[at < 0 ? 0 : at + by];
  if (next) { next.focus({ preventScroll: true }); next.scrollIntoView({ block: "nearest" }); }
}
document.addEventListener("keydown", event => {
  if (event.ctrlKey || event.metaKey || event.altKey || event.target.closest("input, select, textarea") || $("content").hidden) return;
  const other = $("keys-help").open;
  const what = { "/": () => !opened && $("words").focus(), j: () => step(1), k: () => step(-1), p: () => !opened && pause(!paused), "?": () => $("keys-help").showModal(),
    Escape: () => !opened && document.activeElement.blur() }[event.key];
  if (!what || other) return;
  if (event.key !== "Escape") event.preventDefault();
  what();
});
$("words").addEventListener("keydown", event => {
  if (event.key !== "Escape") return;
  event.preventDefault();
  if (asked.has("q")) choose("q", null);
  $("words").blur();
});
$("filters").addEventListener("submit", event => {
  event.preventDefault();
  const words = $("words").value.trim();
  if (words !== (asked.get("q") || "")) choose("q", words || null);
});
// The cross of a search field is no submit.
$("words").onsearch = () => { if (!$("words").value && asked.has("q")) choose("q", null); };
addEventListener("popstate", () => {
  const filters = query => { const rest = new URLSearchParams(query); ["request", "conversation", "figure"].forEach(name => rest.delete(name)); return rest.toString(); };
  const before = filters(asked);
  asked = new URLSearchParams(location.search);
  ["figure", "group"].forEach(name => { $(name).value = name === "figure" ? figureName() : group(); });
  openAsked();
  if (filters(asked) !== before) refilter();
});

// ---- beginning -----------------------------------------------------------------------------------------------------
$("span").append(...SPANS.map(([name, text]) => h("label", h("input", { type: "radio", name: "span", value: name, onchange: () => change(() => { ["from", "to"].forEach(each => asked.delete(each)); asked.set("span", name); }) }), text)));
for (const [name, all, now] of [["figure", FIGURES, figureName], ["group", GROUPED, group]]) {
  $(name).append(...all.map(([value, text]) => h("option", { value }, text)));
  $(name).value = now();
  $(name).addEventListener("change", () => {
    asked.set(name, $(name).value);
    writeAddress("replaceState", history.state);
    if (name === "group") load(); else if (shown) showPlot();
  });
}
$("notice").lastElementChild.addEventListener("click", load);
$("as").onchange = () => choose("as", $("as").value || null);
$("pause").onclick = () => pause(!paused);
$("help").onclick = () => $("keys-help").showModal();
$("fresh").onclick = () => { mix(); showRows(); };
$("older").onclick = showMore;
// Once asked for, older ones come as the end of the list comes into sight.
new IntersectionObserver(([entry]) => { if (entry.isIntersecting && wanted > LATEST && !asked.has("q") && !$("older").disabled && more != null) showMore(); }, { rootMargin: "200px" }).observe($("older"));
for (const event of ["pointerleave", "focusout"]) $("latest").addEventListener(event, () => { if (freshCount) drawSoon(); });
$("close").onclick = () => $("one").close();
$("back").onclick = () => history.back();
$("newer").onclick = () => step(-1);
$("elder").onclick = () => step(1);
$("one").onclose = closed;
for (const dialog of [$("one"), $("keys-help")]) dialog.addEventListener("click", event => { if (event.target === dialog) dialog.close(); });
$("as-table").ontoggle = () => { if ($("as-table").open && shown) showPlotTable(); };
$("door").querySelector("form").addEventListener("submit", event => {
  event.preventDefault();
  keepToken($("token").value);
  $("token").value = "";
  load();
});
document.addEventListener("visibilitychange", () => {
  // A browser holds few connections to one host: a page that nobody sees needs none.
  if (document.hidden) stopListening("not listening"); else if ($("door").hidden) load();
});
// The proxy says something every 20 s. Longer silence is a dead connection, as after the machine has slept.
setInterval(() => { if (listening && Date.now() - heard > 60000) listening.abort(); }, 5000);
setInterval(askNow, 1000);
// Days and hours end without a request, too.
setInterval(() => { if (!document.hidden && !paused && shown && $("door").hidden) load(); }, 300000);
let drawn = 0;
new ResizeObserver(() => {
  const width = $("plot").clientWidth;
  if (shown && width !== drawn) showPlot();
  drawn = width;
}).observe($("plot"));
$("content").hidden = false;
$("tiles").replaceChildren(...TILES.map(([name]) => h("section.card", h("h2", name), h("div.figure", "–"), h("div.small.soft.wait", "Loading …"))));
showTabs();
markRange();
load().then(askNow);
