// ---- a conversation ----------------------------------------------------------------------------------------------
async function threadView(mine) {
  const path = "stats/conversations/" + encodeURIComponent(mine.name);
  const one = await ask(path);
  if (opened === mine) $("one-title").textContent = titled(one);
  const list = h("ol.turns"), more = h("button", { hidden: true }, "Later turns");
  let next = null;
  const put = page => { list.append(...page.turns.map(turnView)); next = page.next_after; more.hidden = next == null; };
  more.addEventListener("click", async () => {
    more.disabled = true;
    try {
      const from = list.children.length;
      put(await ask(path, new URLSearchParams({ after: next })));
      if (list.children[from]) list.children[from].querySelector("button").focus();
    } catch (error) {
      failing(words => { more.textContent = words + " Try again"; })(error);
    } finally { more.disabled = false; }
  });
  put(one);
  return [facts([
    ["Name", one.conversation + (one.conversation_source ? " (" + (SOURCES[one.conversation_source] || one.conversation_source) + ")" : "")],
    ["Client", one.clients.join(", ") || null], ["Model", one.models.join(", ") || null],
    ["Requests", count(one.requests) + (one.failed_requests ? ", " + count(one.failed_requests) + " failed" : "")],
    ["Tokens in", inOf(one)], ["Tokens out", count(one.output_tokens)], ["Cost", money(one)], ["Took", seconds(one.duration_ms)],
    ["First", one.first_time == null ? null : whenOf(one.first_time)], ["Last", one.last_time == null ? null : whenOf(one.last_time)],
  ]), shareLegend(), list, more];
}
const SOURCES = { header: "named by a header", body: "named in the body", response: "by the response it refers to", prefix: "by the messages it shares" };
function turnView(one) {
  return h("li", null,
    h("div.row", h("span", link("request", one.id, "Request " + one.id), " ", h("span.soft.small", moment(one.start_time) + ":" + pad(new Date(one.start_time).getSeconds()) + " · " + named(one.model))),
      failed(one) ? h("span.small.bad", OUTCOMES[one.outcome] || one.outcome) : null,
      h("span.small", count(one.input_tokens) + " in" + (one.cached_tokens ? ", " + count(one.cached_tokens) + " cached" : "")), h("span.small", count(one.output_tokens) + " out"),
      h("span.small", seconds(one.duration_ms) + (one.time_to_first_token_ms == null ? "" : ", first token " + seconds(one.time_to_first_token_ms)))),
    one.prefix_break ? shareBar(one) : null,
    one.prefix_break ? h("div", { class: "small " + (isWell(one) ? "soft" : "bad") }, shareText(one), one.prefix_lost_ms ? ", some " + seconds(one.prefix_lost_ms) + " lost" : null) : null,
    fold("What was said", () => saidView(one), false));
}
// The messages that are new in a turn, and the answer.
function saidView(one) {
  const place = h("div", h("p.soft.small", "Loading …"));
  requestOf(one.id).then(full => {
    const elements = elementsOf(parsed(full.prompt));
    const messages = elements ? elements.filter(element => element.part === "message") : [];
    const fresh = messages.slice(Math.min(one.prefix_messages || 0, Math.max(0, messages.length - 1)));
    const from = Math.max(0, fresh.length - 60);
    const answer = replyView(full);
    place.replaceChildren(...(from ? [fold(count(from) + " earlier messages", () => fresh.slice(0, from).map(elementView), false)] : []), ...fresh.slice(from).map(elementView), ...(!elements && full.prompt ? [textView(full.prompt)] : []),
      answer.length ? h("div.say.assistant", h("h4", "assistant · answer"), ...answer) : "");
    if (!place.textContent) place.append(h("p.soft.small", "No words of it are stored."));
  }, failing(words => place.replaceChildren(h("p.bad.small", words))));
  return place;
}

