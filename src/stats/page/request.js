// ---- what is opened: a request, or a conversation ------------------------------------------------------------------
let opened = null;
// Each is a step in the history: back closes it. The next of a list takes the place of the one before.
function openView(kind, name, instead) {
  if (opened) history.replaceState({ ...history.state, scroll: $("one").scrollTop }, "");
  ["request", "conversation"].forEach(each => asked.delete(each));
  asked.set(kind, name);
  writeAddress(instead ? "replaceState" : "pushState", { depth: depth() + (instead ? 0 : 1) });
  view({ kind, name: String(name), scroll: 0 });
}
// What the address says is open.
function openAsked() {
  const kind = ["request", "conversation"].find(each => asked.has(each));
  if (!kind) { if ($("one").open) { opened = null; $("one").close(); titlePage(); } return; }
  if (!opened || opened.kind !== kind || opened.name !== asked.get(kind)) view({ kind, name: asked.get(kind), scroll: (history.state && history.state.scroll) || 0 });
}
// Closed by hand: all that lies above the page goes.
function closed() {
  if (!opened) return;
  const { kind, name } = opened, steps = depth();
  opened = null;
  ["request", "conversation"].forEach(each => asked.delete(each));
  if (steps) history.go(-steps); else writeAddress("replaceState", history.state);
  titlePage();
  const row = document.querySelector((kind === "request" ? "#latest" : "#threads") + ' [data-open="' + CSS.escape(name) + '"]');
  if (row) row.focus({ preventScroll: true });
}
async function view(mine) {
  const dialog = $("one"), inside = dialog.querySelector(".inside");
  opened = mine;
  $("back").hidden = depth() < 2;
  const at = mine.kind === "request" ? rows.findIndex(one => String(one.id) === mine.name) : -1;
  $("newer").hidden = $("elder").hidden = at < 0;
  $("newer").disabled = at <= 0;
  $("elder").disabled = at === rows.length - 1;
  $("one-title").textContent = mine.kind === "request" ? "Request " + mine.name : "Conversation";
  titlePage();
  inside.replaceChildren(empty("Loading …"));
  if (!dialog.open) dialog.showModal();
  $("one-title").focus();
  let children;
  try {
    children = await (mine.kind === "request" ? requestView : threadView)(mine);
  } catch (error) {
    failing(words => { children = [h("p.empty.bad", words)]; })(error);
  }
  if (opened !== mine || !children) return;
  inside.replaceChildren(...children);
  titlePage();
  dialog.scrollTop = mine.scroll;
}
const link = (kind, name, text) => h("button.link", { onclick: () => openView(kind, name) }, text);
const facts = pairs => h("dl", ...pairs.filter(([, value]) => value != null).map(([name, value]) => h("div", h("dt", name), h("dd", value instanceof Node ? value : String(value)))));
const inOf = one => count(one.input_tokens) + (one.cached_tokens ? " (" + count(one.cached_tokens) + " cached)" : "") + (one.cache_write_tokens ? " (" + count(one.cache_write_tokens) + " written to the cache)" : "");
const requestOf = id => ask("stats/requests/" + encodeURIComponent(id));
// What is built once somebody unfolds it.
function fold(summary, build, isOpen) {
  const details = h("details.fold", h("summary", summary));
  const fill = () => { if (details.open && details.children.length === 1) details.append(...[build()].flat()); };
  details.addEventListener("toggle", fill);
  if (isOpen) { details.open = true; fill(); }
  return details;
}

async function requestView(mine) {
  const one = await requestOf(mine.name);
  const told = facts([
    ["Model", one.model], ["Asked for", one.requested_model === one.model ? null : one.requested_model], ["Endpoint", one.endpoint],
    ["Began", whenOf(one.start_time)], ["Took", seconds(one.duration_ms)], ["First token after", one.time_to_first_token_ms == null ? null : seconds(one.time_to_first_token_ms)],
    ["Speed", one.tokens_per_second == null ? null : speed(one.tokens_per_second) + " tokens/s"], ["Prompt speed", one.prompt_tokens_per_second == null ? null : speed(one.prompt_tokens_per_second) + " tokens/s"], ["Model loading", one.model_load_ms == null ? null : seconds(one.model_load_ms)],
    ["Waited for a place", one.queue_ms ? seconds(one.queue_ms) : null], ["Tokens in", inOf(one)],
    ["Context", one.context_used_percent == null ? null : one.context_used_percent + " % of " + count(one.context_tokens) + " tokens"],
    ["Prompt", one.prompt_cut ? "seems to be cut: some " + count(one.prompt_expected_tokens) + " tokens were to be expected" : null],
    ["Tokens out", count(one.output_tokens) + (one.reasoning_tokens ? " (" + count(one.reasoning_tokens) + " reasoning)" : "")],
    ["Drafted", one.draft_tokens == null ? null : count(one.draft_tokens) + (one.accepted_draft_tokens == null ? "" : " (" + count(one.accepted_draft_tokens) + " taken)")], ["Tokens", count(one.total_tokens)], ["Cost", money(one)], ["Ended", OUTCOMES[one.outcome] || one.outcome], ["Finish reason", one.finish_reason],
    ["Status", one.http_status], ["Streamed", one.was_streamed ? "yes" : "no"], ["Client", one.client], ["Key", one.key], ["Attempt", one.attempt], ["Reply's id", one.request_id],
    ["Conversation", one.conversation == null ? null : link("conversation", one.conversation, one.conversation)], ["Sent again for", one.replay_of == null ? null : link("request", one.replay_of, "request " + one.replay_of)],
  ]);
  const jump = h("span"), children = [told, h("div.tools", copyButton("Copy as curl", () => curlOf(one)), one.output ? copyButton("Copy the answer", () => one.output) : null, h("a", { href: "stats/requests/" + one.id, target: "_blank", rel: "noopener" }, "JSON"), one.prefix_break && one.prefix_of != null ? h("a", { href: "stats/requests/" + one.prefix_of + "/diff/" + one.id, target: "_blank", rel: "noopener" }, "What changed since request " + one.prefix_of) : null)];
  if (one.prefix_break) children.push(h("h3", "Prompt against earlier ones"), shareBar(one), shareLegend(), whySentence(one), jump);
  if (one.error_message) children.push(h("h3", "Error"), h("pre", { tabindex: 0, class: "bad" }, one.error_message));
  children.push(...replyView(one));
  if (one.prompt) {
    const place = h("div", h("p.soft.small", "Loading …"));
    children.push(h("h3", "Prompt"), place);
    const prefix = one.prefix_of == null || one.prefix_break === "first" ? null : ask("stats/requests/" + one.id + "/prefix").catch(() => null);
    Promise.resolve(prefix).then(prefix => showPrompt(place, jump, one, prefix, mine));
  }
  if (![one.prompt, one.output, one.reasoning, one.tool_calls].some(Boolean)) children.push(h("p.soft.small", "No words of it are stored."));
  return children;
}
// What sends it again: with its body as it was sent, or from where that is kept, where it is long.
const BODY_SHOWN = 20000;
const quoted = text => "'" + text.replaceAll("'", "'\\''") + "'";
async function curlOf(one) {
  const path = "stats/requests/" + one.id + "/body", body = await (await request(path)).text();
  const to = " -H 'Content-Type: application/json' -H 'X-Replay-Of: " + one.id + "' " + quoted(address(one.endpoint.slice(1)));
  if (body.length <= BODY_SHOWN) return "curl" + to + " \\\n  --data-binary " + quoted(body);
  return "curl -s" + (token == null ? "" : " -H 'Authorization: Bearer TOKEN'") + " " + quoted(address(path)) + " \\\n  | curl" + to + " --data-binary @-";
}
function replyView(one) {
  const children = [];
  if (one.reasoning) children.push(fold("Reasoning, " + count(one.reasoning.length) + " characters", () => textView(one.reasoning), !one.output && !one.tool_calls));
  if (one.output) children.push(h("h3", "Answer"), textView(one.output));
  const calls = parsed(one.tool_calls);
  if (one.tool_calls) children.push(h("h3", "Tool calls"), ...(Array.isArray(calls) ? calls.map(callView) : [h("pre", { tabindex: 0 }, one.tool_calls)]));
  return children;
}

