// ---- what a prompt shares with an earlier one --------------------------------------------------------------------
// What `prefix_break` says: in a word, and in a sentence around the earlier request.
const BREAKS = {
  first: ["begins anew", "No earlier prompt of this model begins like it.", ""],
  continued: ["goes on", "It goes on where ", " ended: only what is new had to be read."],
  system_changed: ["system text changed", "Its system text is not that of ", ", and all that stands behind is read anew."],
  tools_changed: ["tools changed", "Its tools are not those of ", ", and all that stands behind is read anew."],
  tools_reordered: ["tools reordered", "Its tools are those of ", ", but in another order."],
  message_edited: ["message edited", "A message is not what it was in ", "; from there on it is read anew."],
  history_shortened: ["history shortened", "It leaves out messages of ", "; from there on it is read anew."],
  other_conversation: ["another conversation was between", "It goes on where ", " ended, but another conversation was between on this model, and had taken the cache."],
  model_loaded: ["model loaded", "It goes on where ", " ended, but the model was loaded for it, and had read nothing yet."],
  unexpected: ["not kept by the server", "It goes on where ", " ended, and was read again all the same. That is the server's side, not the client's."],
};
const share = one => one.prefix_bytes == null || !one.prompt_bytes ? null : Math.min(1, one.prefix_bytes / one.prompt_bytes);
const isWell = one => one.prefix_break === "first" || one.prefix_break === "continued";
// Where all is shared, and the server read it again.
const isReread = one => ["other_conversation", "model_loaded", "unexpected"].includes(one.prefix_break);
function shareText(one) {
  const part = share(one), name = (BREAKS[one.prefix_break] || [one.prefix_break])[0];
  if (part == null) return name;
  if (one.prefix_break === "first") return name + ": " + count(one.prompt_bytes) + " bytes";
  return name + ": " + percent(part) + (isReread(one) ? " shared, but read again; " : " shared, ") + count(one.prompt_bytes - one.prefix_bytes) + (isWell(one) || isReread(one) ? " bytes new" : " bytes from the break on");
}
function shareBar(one) {
  const part = one.prefix_break === "first" ? 0 : share(one) || 0;
  return s("svg", { class: "share", width: "100%", height: 10, role: "img", "aria-label": shareText(one) },
    s("rect", { class: one.prompt_bytes == null ? "track" : isWell(one) || isReread(one) ? "c0" : "c1", width: "100%", height: 10 }),
    s("rect", { class: isReread(one) ? "c1" : "c2", width: part * 100 + "%", height: 10 }));
}
const shareLegend = () => h("ul.legend", ...[["c2", "as in an earlier prompt"], ["c0", "new"], ["c1", "read again, or behind a break"]].map(([colour, text]) => h("li", h("span", { class: "swatch " + colour, "aria-hidden": true }), text)));
function whySentence(one) {
  const [, front, behind] = BREAKS[one.prefix_break] || ["", one.prefix_break, ""];
  const part = share(one);
  return h("p", { class: isWell(one) ? null : "bad" }, front, behind && one.prefix_of != null ? link("request", one.prefix_of, "request " + one.prefix_of) : behind ? "an earlier one" : null, behind,
    h("span.soft.small", part == null || one.prefix_break === "first" ? null : " It shares " + count(one.prefix_bytes) + " of " + count(one.prompt_bytes) + " bytes (" + percent(part) + (one.prefix_messages ? ", " + count(one.prefix_messages) + (one.prefix_messages === 1 ? " message" : " messages") : "") + ").",
      one.prefix_lost_ms ? " Some " + seconds(one.prefix_lost_ms) + " went into reading again what could have been shared (an estimate)." : null));
}

// ---- prompts -----------------------------------------------------------------------------------------------------
const isObject = value => value != null && typeof value === "object" && !Array.isArray(value);
const FOLDED = 8;
const TEXT_SHOWN = 6000;
const isInstruction = message => isObject(message) && ["system", "developer"].includes(message.role);
// Tools, then the system text, then messages, as templates render them, whatever the order in the body.
function elementsOf(body) {
  const tools = [], system = [], messages = [];
  if (!isObject(body)) return null;
  for (const [key, value] of Object.entries(body)) {
    if (key === "tools" && Array.isArray(value)) tools.push(...value.map(value => ({ part: "tool", value })));
    else if (["system", "instructions", "system_prompt"].includes(key) && value != null) system.push(...[value].flat().map(value => ({ part: "system", value })));
    else if (["messages", "input", "contents"].includes(key) && Array.isArray(value)) {
      const leading = value.findIndex(message => !isInstruction(message));
      value.forEach((value, at) => leading < 0 || at < leading ? system.push({ part: "system", value }) : messages.push({ part: "message", value }));
    } else if (["input", "prompt"].includes(key) && value != null) messages.push({ part: "message", value });
  }
  messages.forEach((message, at) => { message.number = at + 1; });
  const all = [...tools, ...system, ...messages];
  return all.length ? all : null;
}
// Where it parts from the earlier prompt: the place in this one. The words around it are told by the proxy.
function breakOf(elements, parted) {
  const [, part, place] = (parted && parted.element.match(/(tool|system|message)\D*(\d*)/)) || [];
  if (!part) return null;
  const order = ["tool", "system", "message"], before = elements.filter(element => order.indexOf(element.part) < order.indexOf(part));
  return { ...parted, at: before.length + Number(place), of: elements[before.length + Number(place)] };
}
const placeOf = element => element.part === "message" ? "message " + element.number + " (" + roleOf(element.value) + ")" : element.part === "tool" ? "the tool " + (nameOf(element.value) || "without a name") : "the system text";
// Up to the place both say the same, and a stroke stands there; marked is what differs, up to where they are the same again.
function excerptViews(one, { before, now }) {
  let at = 0, behind = 0;
  while (at < before.length && before[at] === now[at]) at += 1;
  const least = Math.min(before.length, now.length) - at;
  while (behind < least && before[before.length - 1 - behind] === now[now.length - 1 - behind]) behind += 1;
  const view = (title, text) => h("div", h("h4", title), h("pre", { tabindex: 0 }, text.slice(0, Math.max(0, at - 1)), h("mark", text.slice(at, text.length - behind) || "(ends here)"), text.slice(text.length - behind)));
  return h("div.pair", view("Request " + one.prefix_of, before), view("Request " + one.id + ", this one", now));
}
function breakView(found, one) {
  const earlier = "request " + one.prefix_of;
  if (!found.element) return h("div.break.well", { tabindex: -1 }, h("p", "Up to here as in " + earlier + "; what follows is new."));
  const words = found.of ? "Here it breaks: " + placeOf(found.of) + " is not what it was in " + earlier + (found.element_bytes == null ? "." : " from byte " + count(found.element_bytes) + " on.") : "It ends here; " + earlier + " went on.";
  return h("div.break", { tabindex: -1 }, h("p.bad", words), found.before == null ? null : excerptViews(one, found));
}
function showPrompt(place, jump, one, prefix, mine) {
  const body = parsed(one.prompt), now = elementsOf(body);
  const raw = () => h("pre", { tabindex: 0 }, body == null ? one.prompt : JSON.stringify(body, null, 2));
  if (!now) return place.replaceChildren(body == null ? textView(one.prompt) : raw());
  const found = prefix && (breakOf(now, prefix.parted) || { at: now.length - now.filter(element => element.part === "message").length + (prefix.prefix_messages || 0) });
  // All of it was there before: then there is no place to mark.
  const mark = found && (found.element || found.at < now.length) ? breakView(found, one) : null;
  const readable = promptView(now, found ? found.at : 0, mark);
  const shown = h("div", readable);
  const tab = (name, text, build, checked) => h("label", h("input", { type: "radio", name: "tab", checked, onchange: () => shown.replaceChildren(build()) }), text);
  place.replaceChildren(h("fieldset", h("legend.hide", "How the prompt is shown"), tab("words", "Words", () => readable, true), tab("raw", "Raw JSON", raw, false)), h("p"), shown);
  if (found && found.element && found.before == null && found.of) jump.append(h("p.soft.small", "The words around that place are not stored."));
  if (mark && !mark.classList.contains("well")) jump.append(h("button", { onclick: () => {
    place.querySelector("input").click();
    for (let each = mark.parentElement; each && each !== place; each = each.parentElement) if (each.matches("details")) each.open = true;
    mark.scrollIntoView({ block: "center" });
    mark.focus({ preventScroll: true });
  } }, "Show where it breaks"));
  if (opened === mine && mine.scroll) $("one").scrollTop = mine.scroll;
}
// Tools and the system text are folded unless the break is in them; so are messages that were there before.
function promptView(elements, shared, mark) {
  const children = [], breaks = element => mark && elements[shared] === element;
  const put = (into, list) => list.forEach(element => into.push(...(breaks(element) ? [mark] : []), elementView(element)));
  for (const [part, title] of [["tool", "Tools"], ["system", "System text"]]) {
    const list = elements.filter(element => element.part === part);
    if (!list.length) continue;
    const build = () => { const into = []; put(into, list); return into; };
    const size = part === "tool" ? list.length : list.reduce((sum, element) => sum + textOf(element.value).length, 0);
    children.push(fold(title + ", " + count(size) + (part === "system" ? " characters" : ""), build, list.some(breaks)));
  }
  const messages = elements.filter(element => element.part === "message");
  const known = messages.filter(element => elements.indexOf(element) < shared).length;
  // Some of what was there before stays in sight, so that what is new can be understood.
  const folded = Math.max(known ? known - 2 : 0, messages.length - 60);
  const from = folded > FOLDED && !messages.slice(0, folded).some(breaks) ? folded : 0;
  if (from) children.push(fold(count(from) + " earlier messages", () => messages.slice(0, from).map(elementView), false));
  put(children, messages.slice(from));
  if (mark && shared === elements.length) children.push(mark);
  return h("div", ...children);
}
function textOf(value) {
  if (typeof value === "string") return value;
  if (Array.isArray(value)) return value.map(textOf).join("\n");
  return isObject(value) ? textOf(value.text ?? value.content ?? value.parts ?? value.output ?? "") : "";
}
const nameOf = tool => isObject(tool) ? tool.name || (isObject(tool.function) && tool.function.name) || tool.type : null;
function roleOf(value) {
  if (!isObject(value)) return "user";
  if (typeof value.role === "string") return value.role === "model" ? "assistant" : value.role;
  const type = String(value.type || "");
  return /_output$|tool_result/.test(type) ? "tool" : /_call$|reasoning|tool_use/.test(type) ? "assistant" : "user";
}
function elementView({ part, value, number }) {
  if (part === "tool") return toolView(value);
  const role = part === "system" && !isInstruction(value) ? "system" : roleOf(value);
  const only = isObject(value) && Array.isArray(value.content) && value.content.length > 0 && value.content.every(block => isObject(block) && block.type === "tool_result");
  const shown = only ? "tool" : role;
  return h("div", { class: "say " + (["user", "assistant", "tool"].includes(shown) ? shown : "") }, h("h4", shown + (number ? " · " + number : "")), ...messageView(value));
}
function toolView(tool) {
  const inner = isObject(tool) && isObject(tool.function) ? tool.function : tool;
  const about = isObject(inner) && typeof inner.description === "string" ? inner.description : "";
  return fold((nameOf(tool) || "tool") + (about ? ": " + about.split("\n")[0].slice(0, 100) : ""), () => [about ? textView(about) : null, jsonView(isObject(inner) ? inner.input_schema ?? inner.parameters ?? inner : inner)].filter(Boolean), false);
}
// A message, whatever protocol it is of.
function messageView(value) {
  if (typeof value === "string") return [textView(value)];
  if (Array.isArray(value)) return value.flatMap(blockView);
  if (!isObject(value)) return [jsonView(value)];
  const thought = value.reasoning_content ?? value.reasoning, children = [];
  if (typeof thought === "string" && thought) children.push(thoughtView(thought));
  if (value.role == null && value.type != null && value.type !== "message") return [...children, ...blockView(value)];
  if (value.role === "tool" && value.content != null) return [...children, ...resultView(value.content)];
  for (const inner of [value.content, value.parts]) if (inner != null && inner !== "") children.push(...(Array.isArray(inner) ? inner.flatMap(blockView) : typeof inner === "string" ? [textView(inner)] : [jsonView(inner)]));
  if (Array.isArray(value.tool_calls)) children.push(...value.tool_calls.map(callView));
  if (value.function_call != null) children.push(callView(value.function_call));
  return children.length ? children : [h("p.soft.small", "(nothing)")];
}
function blockView(block) {
  if (typeof block === "string") return [textView(block)];
  if (!isObject(block)) return [jsonView(block)];
  const type = String(block.type ?? "");
  if (type === "tool_result" || /_output$/.test(type) || block.functionResponse) {
    const told = block.content ?? block.output ?? block.functionResponse ?? "";
    return [h("div", { class: "call" + (block.is_error ? " bad" : "") }, h("span.small.soft", block.is_error ? "Result, an error" : "Result"), ...resultView(told))];
  }
  if (/tool_use$|_call$/.test(type) || block.functionCall) return [callView(block.functionCall ?? block)];
  if (type === "reasoning" || /thinking$/.test(type)) {
    const text = typeof block.thinking === "string" ? block.thinking : textOf(block.content ?? block.summary ?? "") || textOf(block.summary ?? "");
    return [text ? thoughtView(text) : h("p.soft.small", "(reasoning that is not readable)")];
  }
  if (typeof block.text === "string") return [textView(block.text)];
  if (typeof block.content === "string") return [textView(block.content)];
  // Of an image, audio or a file a mark of its size is kept.
  const marked = JSON.stringify(block).match(/\x22(\[[^\x22\]]*\sbytes\])\x22/);
  return [marked ? h("p.soft.small", type + " " + marked[1]) : jsonView(block)];
}
// What a tool says is mostly what a terminal or a file does.
const resultView = told => [told].flat().flatMap(each => typeof each === "string" ? [jsonView(each)] : isObject(each) && typeof each.text === "string" ? [jsonView(each.text)] : blockView(each));
const thoughtView = text => fold("Reasoning, " + count(text.length) + " characters", () => textView(text), false);
const jsonView = value => h("pre", { tabindex: 0 }, typeof value === "string" ? value : JSON.stringify(value, null, 2));
function callView(call) {
  if (!isObject(call)) return jsonView(call);
  const inner = isObject(call.function) ? call.function : call;
  const given = inner.arguments ?? inner.input ?? inner.args ?? inner.action;
  const values = typeof given === "string" ? parsed(given) ?? given : given;
  const value = each => typeof each === "string" ? each.includes("\n") ? h("pre", { tabindex: 0 }, each) : each : JSON.stringify(each);
  const told = isObject(values) ? Object.keys(values).length ? [facts(Object.entries(values).map(([name, each]) => [name, value(each)]))] : [] : values == null || values === "" ? [] : [jsonView(values)];
  return h("div.call", h("span.small.soft", "Calls "), h("code", String(inner.name || call.type || "a tool")), ...told);
}
// Text with its line breaks; what stands between fences is code.
function textView(text) {
  if (text.length > TEXT_SHOWN * 1.5) {
    const place = h("div", proseOf(text.slice(0, TEXT_SHOWN)), h("button", { onclick: () => place.replaceChildren(proseOf(text)) }, "Show all " + count(text.length) + " characters"));
    return place;
  }
  return proseOf(text);
}
function proseOf(text) {
  const place = h("div.words");
  let prose = [], code = null, fence = "";
  const flush = () => { const told = prose.join("\n"); if (told.trim()) place.append(told.replace(/^\n+|\n+$/g, "")); prose = []; };
  const close = () => { place.append(h("pre", { tabindex: 0 }, h("code", code.join("\n")))); code = null; };
  for (const line of text.split("\n")) {
    const mark = line.match(/^\s*(`{3,}|~{3,})/);
    if (code && mark && mark[1].startsWith(fence) && line.trim() === mark[1]) close();
    else if (code) code.push(line);
    else if (mark) { flush(); code = []; fence = mark[1]; }
    else prose.push(line);
  }
  if (code) close();
  flush();
  return place;
}

