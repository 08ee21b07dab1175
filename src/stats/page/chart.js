// ---- over time -----------------------------------------------------------------------------------------------------
// Name, words, the field of a point, that of a group in it, how it is written; means cannot be stacked: they are lines.
const FIGURES = [
  ["tokens", "Tokens", "total_tokens", "total_tokens", count], ["input", "Tokens in", "total_input_tokens", "input_tokens", count], ["output", "Tokens out", "total_output_tokens", "output_tokens", count],
  ["requests", "Requests", "total_requests", "requests", count], ["failures", "Failures", "failed_requests", "failed_requests", count], ["cost", "Cost", "cost", "cost", value => price(value, shown.sums.currency)],
  ["first", "Time to first token", "average_time_to_first_token_ms", "avg_time_to_first_token_ms", seconds, true], ["speed", "Tokens per second", "average_tokens_per_second", "avg_tokens_per_second", speed, true],
];
const GROUPED = [["model", "Model"], ["client", "Client"], ["outcome", "Outcome"]];
const STACKED = 7;
const figureName = () => choice("figure", FIGURES, "tokens");
const group = () => choice("group", GROUPED, "model");
function label(point, bucket, long) {
  // The beginning is told in our zone; its digits are what is shown, whatever summer time does.
  const [, year, month, day, hour] = point.start.match(/^(\d+)-(\d+)-(\d+)T(\d+)/);
  const date = new Date(+year, month - 1, +day);
  if (bucket === "hour") return (long ? dayOf(date) + " " : "") + hour + ":00";
  if (bucket === "month") return date.toLocaleDateString("en", long || month === "01" ? { month: "short", year: "numeric" } : { month: "short" });
  return dayOf(date);
}
function stacks() {
  const { points, bucket } = shown.points, by = group(), [, , ofAll, of, , isMean] = FIGURES.find(([name]) => name === figureName());
  const sums = new Map();
  // Of means, those of whom most requests tell.
  for (const point of points) for (const each of point[by + "s"] || []) if (each[of] != null) sums.set(each[by], (sums.get(each[by]) || 0) + (isMean ? each.requests : each[of]));
  const ordered = [...sums.keys()].filter(name => sums.get(name) > 0).sort((a, b) => sums.get(b) - sums.get(a));
  const names = ordered.slice(0, ordered.length > STACKED + 1 ? STACKED : STACKED + 1), rest = ordered.length - names.length;
  const kinds = names.map(name => ({ name, text: told(by, name), colour: colourOf(by, name || ""), by }));
  if (rest && !isMean) kinds.push({ text: rest + " others", colour: GREY });
  const bars = points.map(point => {
    const values = kinds.map(() => null);
    for (const each of point[by + "s"] || []) if (each[of] != null) {
      const found = names.indexOf(each[by]), at = found >= 0 ? found : isMean ? -1 : kinds.length - 1;
      if (at >= 0 && (each[of] || isMean)) values[at] = (values[at] || 0) + each[of];
    }
    return { point, values, total: point[ofAll], name: label(point, bucket, true), tick: label(point, bucket, false) };
  });
  return { kinds, bars, isMean };
}
function ticks(most) {
  const rough = most / 4, power = 10 ** Math.floor(Math.log10(rough || 1));
  const step = [1, 1.5, 2, 2.5, 3, 4, 5, 6, 8, 10].map(times => times * power).find(each => each >= rough * 0.9999) || 1;
  return Array.from({ length: Math.ceil(most / step - 1e-6) + 1 }, (_, at) => at * step);
}
let selected = -1;
function showPlot() {
  const plot = $("plot"), { kinds, bars, isMean } = stacks(), [name, title, , , text] = FIGURES.find(([each]) => each === figureName());
  if (name === "cost" && shown.sums.currency == null) {
    $("legend").replaceChildren();
    $("as-table").hidden = true;
    return plot.replaceChildren(empty("No prices are known: MODEL_PRICES names a file of them."));
  }
  const heights = bars.flatMap(bar => isMean ? bar.values : [bar.total]), most = Math.max(0, ...heights.map(value => value || 0));
  $("h-time").textContent = title + " over time";
  $("legend").replaceChildren(...kinds.map(kind => h("li", kind.by ? pick(kind.by, kind.name, h("span.cut", swatch(kind.colour), nameView(kind.by, kind.name))) : [swatch(kind.colour), kind.text])));
  $("as-table").hidden = !most;
  const kept = selected;
  selected = -1;
  if (!most) {
    plot.setAttribute("aria-label", "No " + title.toLowerCase() + " in this range");
    plot.onkeydown = null;
    return plot.replaceChildren(empty(name === "failures" ? "Nothing has failed in this range." : "No " + title.toLowerCase() + " in this range."));
  }
  const width = Math.max(plot.clientWidth, 200), height = 240, left = name === "cost" || isMean ? 62 : 46, bottom = 24, top = 10;
  const lines = ticks(most), highest = lines[lines.length - 1];
  const y = value => top + (height - top - bottom) * (1 - value / highest);
  const slot = (width - left - 4) / bars.length, gap = slot > 6 ? Math.max(Math.min(slot * 0.2, 8), slot - 64) : slot > 2 ? 1 : 0;
  const every = Math.ceil((shown.points.bucket === "month" ? 64 : 52) / slot);
  const svg = s("svg", { width, height, viewBox: "0 0 " + width + " " + height, "aria-hidden": true });
  const tick = value => name === "cost" ? short.format(value) : isMean ? text(value) : value < 10000 && Number.isInteger(value) ? whole.format(value) : short.format(value);
  for (const line of lines) svg.append(
    s("line", { class: "grid", x1: left, x2: width, y1: y(line), y2: y(line) }),
    s("text", { x: left - 6, y: y(line) + 4, "text-anchor": "end" }, tick(line)));
  if (isMean) drawLines(svg, kinds, bars, at => left + (at + 0.5) * slot, y);
  bars.forEach((bar, at) => {
    const x = left + at * slot;
    let below = 0;
    if (!isMean) bar.values.forEach((value, of) => {
      if (value) svg.append(s("rect", { class: kinds[of].colour + (slot > 6 && y(below) - y(below + value) > 3 ? " piece" : ""), x: x + gap / 2, y: y(below + value), width: Math.max(slot - gap, 1), height: Math.max(y(below) - y(below + value), 0.5) }));
      below += value || 0;
    });
    const room = x + slot / 2;
    if (at % every === 0 && room + 20 < width + 4) svg.append(s("text", { x: room, y: height - 6, "text-anchor": "middle" }, bar.tick));
    bar.hit = s("rect", { class: "hit", x, y: top, width: slot, height: height - top - bottom, onpointerenter: () => select(at, false), onclick: () => zoom(at) });
    svg.append(bar.hit);
  });
  const tip = h("div.tip", { hidden: true });
  plot.replaceChildren(svg, tip);
  plot.setAttribute("aria-label", "Chart of " + title.toLowerCase() + " over time, " + bars.length + " bars, the largest " + text(most));
  function zoom(at) {
    const from = new Date(bars[at].point.start), next = bars[at + 1];
    const to = next ? new Date(next.point.start) : new Date(+from + { hour: 1, day: 24, month: 31 * 24 }[shown.points.bucket] * HOURS);
    if (bars.length > 1) between(from, to);
  }
  function select(at, aloud) {
    if (bars[selected]) bars[selected].hit.classList.remove("on");
    selected = at;
    const bar = bars[at];
    tip.hidden = !bar;
    if (!bar) return;
    bar.hit.classList.add("on");
    // From top to bottom as the bar is.
    const parts = kinds.map((kind, of) => [kind, bar.values[of]]).filter(part => part[1] != null).reverse();
    tip.replaceChildren(h("strong", bar.name),
      ...parts.map(([kind, value]) => h("div", h("span", swatch(kind.colour), kind.text), h("span", text(value)))),
      h("div.soft", h("span", isMean ? "all together" : "all"), h("span", text(bar.total))),
      name === "requests" ? "" : h("div.soft", h("span", "requests"), h("span", count(bar.point.total_requests))));
    const middle = left + (at + 0.5) * slot, wide = tip.offsetWidth;
    tip.style.left = Math.max(0, Math.min(width - wide, middle > width / 2 ? middle - wide - 12 : middle + 12)) + "px";
    if (aloud) $("said").textContent = bar.name + ": " + title + " " + text(bar.total) + ". " + parts.map(([kind, value]) => kind.text + " " + text(value)).join(", ");
  }
  // Whoever looks at a bar goes on looking at it when figures come in.
  select(kept, false);
  plot.onpointerleave = () => select(-1, false);
  plot.onblur = () => select(-1, false);
  plot.onkeydown = event => {
    if (event.key === "Enter" && bars[selected]) return zoom(selected);
    const to = { ArrowLeft: selected < 0 ? bars.length - 1 : Math.max(0, selected - 1), ArrowRight: Math.min(bars.length - 1, selected + 1), Home: 0, End: bars.length - 1, Escape: -1 }[event.key];
    if (to == null) return;
    event.preventDefault();
    select(to, true);
  };
  if ($("as-table").open) showPlotTable();
}
// A line for each, broken where nothing is known; a point that stands alone is one.
function drawLines(svg, kinds, bars, x, y) {
  kinds.forEach((kind, of) => {
    let path = "", before = false;
    bars.forEach((bar, at) => {
      const value = bar.values[of];
      if (value != null) path += (before ? "L" : "M") + x(at).toFixed(1) + " " + y(value).toFixed(1);
      before = value != null;
      if (before && (bars.length < 100 || (at && bars[at - 1].values[of] == null))) svg.append(s("circle", { class: kind.colour, cx: x(at), cy: y(value), r: 3 }));
    });
    svg.append(s("path", { class: "line " + kind.colour, d: path }));
  });
}
function showPlotTable() {
  const { kinds, bars } = stacks(), [, title, , , text] = FIGURES.find(([name]) => name === figureName());
  const rows = bars.filter(bar => bar.total).reverse().map(bar => h("tr", h("th", { scope: "row" }, bar.name), ...bar.values.map(value => h("td", text(value))), h("td", text(bar.total))));
  $("as-table").lastElementChild.replaceChildren(table(title + " over time by " + group(), ["Begins", ...kinds.map(kind => h("th", { scope: "col" }, kind.text)), "All"], rows));
}
