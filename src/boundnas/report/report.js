"use strict";
// Python writes the words of the page, this script its figures. Text from the run's files only ever
// becomes a text node or an attribute value, never markup.

const data = JSON.parse(document.getElementById("data").textContent);

// ---- elements ----

const build = (namespace) => (tag, attributes = {}, ...children) => {
  const node = document.createElementNS(`http://www.w3.org/${namespace}`, tag);
  for (const [name, value] of Object.entries(attributes)) {
    if (name.startsWith("--")) node.style.setProperty(name, value);
    else node.setAttribute(name, value);
  }
  node.append(...children);
  return node;
};
const html = build("1999/xhtml");
const svg = build("2000/svg");

// ---- numbers as text ----

const whole = (v) => v.toLocaleString("en", { maximumFractionDigits: 0 });
const number = (v) => (Math.abs(v) >= 100 ? whole(v) : String(Number(v.toPrecision(3))));
const compact = (v) => v.toLocaleString("en", { notation: "compact", minimumSignificantDigits: 3, maximumSignificantDigits: 3 });
// Of a cost {name, label, unit}, in its unit; in a column, trailing zeros keep the digits comparable.
const amount = (cost, v) => number(v / cost.unit);
function column(cost, v) {
  if (cost.unit === 1) return v < 1000 ? number(v) : compact(v);
  return v / cost.unit < 100 ? (v / cost.unit).toPrecision(3) : amount(cost, v);
}
const metric = data.metric ?? { name: "", unit: "", scale: 1 };
const scored = (by) => (v) => `${Number((by.scale * v).toPrecision(4))} ${by.unit}`.trimEnd();
const score = scored(metric);
const titled = (words) => words.charAt(0).toUpperCase() + words.slice(1);
const choice = (v) => (v === true ? "on" : v === false ? "off" : String(v));

// ---- scales and axes ----

function padded(values, type) {
  const [low, high] = values.reduce(([a, b], v) => [Math.min(a, v), Math.max(b, v)], [Infinity, -Infinity]);
  if (type === "log") return [low / 1.12, high * 1.12];
  const pad = (high - low || Math.abs(high) || 1) * 0.05;
  return [low - pad, high + pad];
}

function linearTicks(low, high, count, finest = 0) {
  const rough = Math.max(finest, (high - low) / Math.max(1, count));
  const power = 10 ** Math.floor(Math.log10(rough));
  const step = [1, 2, 5, 10].find((m) => m * power >= rough * 0.999) * power;
  const ticks = [];
  for (let i = Math.ceil(low / step - 1e-9); i * step <= high + step * 1e-9; i++) ticks.push(Number((i * step).toPrecision(12)));
  return ticks;
}

function logTicks(low, high, count) {
  const ticks = (mantissas) => {
    const found = [];
    for (let e = Math.floor(Math.log10(low)); 10 ** e <= high; e++)
      found.push(...mantissas.map((m) => Number(`${m}e${e}`)).filter((v) => v >= low && v <= high));
    return found;
  };
  const fine = ticks([1, 2, 5]);
  if (fine.length < 3) return linearTicks(low, high, count);
  return fine.length <= count ? fine : ticks([1]);
}

function scale({ type, domain: [low, high], ticks, finest }, [start, end], spacing) {
  const f = type === "log" ? Math.log10 : (v) => v;
  const count = Math.abs(end - start) / spacing;
  return {
    at: (v) => start + ((f(v) - f(low)) / (f(high) - f(low))) * (end - start),
    ticks: ticks ?? (type === "log" ? logTicks : linearTicks)(low, high, count, finest),
  };
}

let frames = 0;

// Axes with ticks, labels and a clipped area to draw in. An axis is {type, domain, label, format, ticks?, finest?}.
function frame(width, height, x, y, label) {
  const [top, bottom] = [30, height - 42];
  const ys = scale(y, [bottom, top], y.type === "log" ? 30 : 44);
  const left = 14 + 7 * Math.max(...ys.ticks.map((v) => y.format(v).length));
  const right = width - 22;
  const xs = scale(x, [left, right], x.type === "log" ? 48 : 80);
  const clip = `clip${++frames}`;
  const area = svg("g", { "clip-path": `url(#${clip})` });
  const text = (words, tx, ty, anchor, kind = "tick") => svg("text", { x: tx, y: ty, "text-anchor": anchor, class: kind }, words);
  const root = svg(
    "svg",
    { width, height, viewBox: `0 0 ${width} ${height}`, role: "group", tabindex: 0, "aria-roledescription": "chart", "aria-label": `${label}. Arrow keys move between points.` },
    svg("clipPath", { id: clip }, svg("rect", { x: left, y: top, width: right - left, height: bottom - top })),
    ...ys.ticks.flatMap((v) => [
      svg("line", { x1: left, x2: right, y1: ys.at(v), y2: ys.at(v), class: "grid" }),
      text(y.format(v), left - 7, ys.at(v) + 4, "end"),
    ]),
    ...xs.ticks.flatMap((v) => [
      svg("line", { x1: xs.at(v), x2: xs.at(v), y1: bottom, y2: bottom + 5, class: "axis" }),
      text(x.format(v), xs.at(v), bottom + 19, "middle"),
    ]),
    svg("line", { x1: left, x2: right, y1: bottom, y2: bottom, class: "axis" }),
    text(y.label, 0, 14, "start", "label"),
    text(x.label, right, height - 4, "end", "label"),
    area,
  );
  return { root, area, x: xs.at, y: ys.at, top, bottom, left, right };
}

// A path through points, broken where one is null.
const path = (points) => points.map((p, i) => (p ? `${i && points[i - 1] ? "L" : "M"}${p.x.toFixed(1)} ${p.y.toFixed(1)}` : "")).join("");

// Draws now, and again whenever the width of its place changes.
function responsive(host, draw) {
  let drawn = 0;
  new ResizeObserver(() => {
    const width = Math.floor(host.clientWidth);
    if (!width || width === drawn) return;
    drawn = width;
    host.replaceChildren(draw(width));
  }).observe(host);
}

// Lets pointer and keyboard walk over series of points {x, y} in pixels; returns the selecting function.
function explore(root, series, show, start = [0, 0]) {
  let [s, i] = start;
  const select = (...next) => {
    [s, i] = next;
    show(series[s][i]);
  };
  const nearest = (x, y, among) => {
    let [best, distance] = [[s, i], Infinity];
    for (const t of among)
      series[t].forEach((p, k) => {
        const d = Math.hypot(p.x - x, p.y - y) - (p.bonus ?? 0);
        if (d < distance) [best, distance] = [[t, k], d];
      });
    return best;
  };
  const point = (event) => {
    const box = root.getBoundingClientRect();
    select(...nearest(event.clientX - box.left, event.clientY - box.top, series.keys()));
  };
  root.addEventListener("pointermove", point);
  root.addEventListener("pointerdown", point);
  root.addEventListener("focus", () => select(s, i));
  root.addEventListener("keydown", (event) => {
    const last = series[s].length - 1;
    const along = { ArrowLeft: Math.max(0, i - 1), ArrowRight: Math.min(last, i + 1), Home: 0, End: last };
    const across = { ArrowUp: 1, ArrowDown: series.length - 1 };
    const here = series[s][i];
    if (event.key in along) select(s, along[event.key]);
    else if (event.key in across) select(...nearest(here.x, here.y, [(s + across[event.key]) % series.length]));
    else return;
    event.preventDefault();
  });
  return select;
}

const limit = (x1, y1, x2, y2) => svg("line", { x1, y1, x2, y2, class: "limit" });

function marker() {
  const ring = svg("circle", { r: 0, class: "ring" });
  const move = ({ x, y }, r) => Object.entries({ cx: x, cy: y, r }).forEach(([name, value]) => ring.setAttribute(name, value));
  return { ring, move };
}

const legend = (...entries) =>
  html("ul", { class: "legend" }, ...entries.map(([kind, words]) => html("li", {}, html("span", { class: `key ${kind}` }), words)));
const facts = (entries) => html("dl", { class: "facts" }, ...entries.map(([name, value]) => html("div", {}, html("dt", {}, name), html("dd", {}, value))));

// ---- the front ----

// "stage2.layer1.width", "stage2.layer2.width" → a line "stage2" with "layer1–2.width 96 144".
function architecture(packed) {
  const stages = new Map();
  data.space.forEach(({ name, choices }, d) => {
    const [, stage, rest] = name.match(/^([^.]*)\.?(.*)$/s);
    const key = rest.replace(/\d+/, "#");
    const quantities = stages.get(stage) ?? new Map();
    const { numbers, values } = quantities.get(key) ?? { numbers: [], values: [] };
    quantities.set(key, { numbers: [...numbers, rest.match(/\d+/)?.[0] ?? ""], values: [...values, choice(choices[packed.charCodeAt(d) - 48])] });
    stages.set(stage, quantities);
  });
  const quantity = ([key, { numbers, values }]) =>
    html("span", {}, key.replace("#", () => [...new Set([numbers[0], numbers.at(-1)])].join("–")), " ", html("b", {}, values.join(" ")));
  return html("dl", { class: "architecture" }, ...[...stages].flatMap(([stage, quantities]) => [html("dt", {}, stage), html("dd", {}, ...[...quantities].map(quantity))]));
}

function network([costs, validation, packed, test, folder], title) {
  return { costs, validation, packed, test, folder, title };
}

// Score over one cost, the n-th of data.costs; returns the place of the figure and a function that
// selects a network by the number of its group and its own, if it is drawn.
function frontPlot(n, groups, say) {
  const cost = data.costs[n];
  const range = cost.range ?? [];
  const drawn = groups.map((group) => group.filter((each) => each.costs[n] != null).sort((a, b) => a.costs[n] - b.costs[n]));
  const values = [...drawn.flat().map((each) => each.costs[n]), ...range].map((v) => v / cost.unit);
  const type = Math.min(...values) > 0 ? "log" : "linear";
  const x = { type, domain: padded(values, type), label: `${titled(cost.label)}${type === "log" ? " (log scale)" : ""}`, format: number };
  const scores = drawn.flat().flatMap((each) => [each.validation, each.test]).filter((v) => v != null);
  const y = { type: "linear", domain: padded(scores, "linear"), label: titled(metric.name), format: score };
  const plot = html("div", { class: "plot" });
  let select = () => {};
  responsive(plot, (width) => {
    const f = frame(width, Math.min(520, Math.max(320, width * 0.62)), x, y, `${titled(metric.name)} against ${cost.label} of every evaluated network, with the front`);
    const place = (group, key, bonus) => group.map((each) => ({ each, x: f.x(each.costs[n] / cost.unit), y: f.y(each[key]), bonus }));
    const [dots, line, hollow] = [place(drawn[0], "validation", 0), place(drawn[1], "test", 6), place(drawn[2], "test", 6)];
    const circles = (points, kind, r) => points.map((p) => svg("circle", { cx: p.x.toFixed(1), cy: p.y.toFixed(1), r, class: kind }));
    const { ring, move } = marker();
    f.root.append(ring);
    if (range.length) {
      const [low, high] = range.map((v) => f.x(v / cost.unit));
      f.area.append(svg("rect", { x: low, y: f.top, width: high - low, height: f.bottom - f.top, class: "range" }));
      f.area.append(...[low, high].map((at) => limit(at, f.top, at, f.bottom)));
    }
    // Stepped: the network that validation data chooses of those that cost so much at most.
    const best = line.filter((p, i) => line.slice(0, i).every((before) => before.each.validation < p.each.validation));
    const steps = best.flatMap((p, i) => (i ? [{ x: p.x, y: best[i - 1].y }, p] : [p]));
    f.area.append(...circles(dots, "evaluated", 2.5), svg("path", { d: path(steps), class: "front" }), ...circles(hollow, "outside", 4), ...circles(line, "front", 4.5));
    const show = (p) => {
      move(p, 9);
      say(p.each);
    };
    const series = [line, dots, hollow].filter((group) => group.length);
    const chosen = series[0].reduce((b, p, i) => (p.each.validation > series[0][b].each.validation ? i : b), 0);
    const walk = explore(f.root, series, show, [0, chosen]);
    select = (each) => series.forEach((group, s) => group.forEach((p, i) => p.each === each && walk(s, i)));
    walk(0, chosen);
    return f.root;
  });
  return { plot, select: (each) => select(each), range: range.length ? `(${cost.label}): ${range.map((v) => amount(cost, v)).join(" to ")}` : "" };
}

function drawFront(section) {
  const evaluated = (data.evaluated ?? []).map((row) => network(row, "Evaluated network"));
  const front = (data.front?.networks ?? []).map((row) => network(row, "Network of the front"));
  const outside = (data.front?.outside ?? []).map((row) => network(row, "Outside the range asked for"));
  const groups = [evaluated, front, outside];
  if (!groups.flat().length) return;

  const details = html("div", { class: "details", "aria-live": "polite" });
  const say = (each) =>
    details.replaceChildren(
      html("h3", {}, each.title),
      facts([
        ...data.costs.flatMap((cost, n) => (each.costs[n] == null ? [] : [[titled(cost.label), amount(cost, each.costs[n])]])),
        [`Validation ${metric.name}`, score(each.validation)],
        ...(each.test == null ? [] : [[`Test ${metric.name}`, score(each.test)]]),
      ]),
      architecture(each.packed),
    );
  const searched = data.costs.flatMap((cost, n) => (cost.range ? [n] : []));
  const known = (n) => groups.flat().some((each) => each.costs[n] != null);
  const plots = (searched.some(known) ? searched.filter(known) : [data.costs.findIndex((cost) => cost.name === "macs")]).map((n) => frontPlot(n, groups, say));

  const table = () => {
    const rows = [front, outside].flatMap((group) => group.sort((a, b) => a.costs[0] - b.costs[0])).map((each) => {
      const beyond = outside.includes(each);
      const name = each.folder?.split("/").at(-1);
      const link = name ? html("a", { href: `./${each.folder.split("/").map(encodeURIComponent).join("/")}` }, name) : beyond ? "outside the range" : "–";
      const costs = data.costs.map((cost, n) => (each.costs[n] == null ? "–" : column(cost, each.costs[n])));
      const row = html("tr", beyond ? { class: "outside" } : {}, ...[...costs, score(each.validation), score(each.test), link].map((cell) => html("td", {}, cell)));
      ["pointerenter", "focusin"].forEach((kind) => row.addEventListener(kind, () => plots.forEach(({ select }) => select(each))));
      return row;
    });
    const head = [...data.costs.map((cost) => titled(cost.label)), "Validation", "Test", "Exported"].map((words) => html("th", { scope: "col" }, words));
    return html("div", { class: "scroll" }, html("table", { class: "networks" }, html("thead", {}, html("tr", {}, ...head)), html("tbody", {}, ...rows)));
  };
  section.append(
    legend(
      ...(evaluated.length ? [["evaluated", `evaluated, validation ${metric.name}`]] : []),
      ...(front.length ? [["front", `front, test ${metric.name}`]] : []),
      ...(outside.length ? [["outside", `outside the range asked for, test ${metric.name}`]] : []),
      ...plots.filter(({ range }) => range).map(({ range }) => ["range", `range of interest ${range}`]),
    ),
    html("div", { class: "front-figure" }, html("div", {}, ...plots.map(({ plot }) => plot)), details, front.length + outside.length ? table() : ""),
  );
}

// ---- panels with a readout ----

const KINDS = new Map(Object.entries({ width: "Width", depth: "Depth", kernel: "Kernel size", se: "Squeeze-and-excite", activation: "Activation" }));
const kindName = (kind) => KINDS.get(kind) ?? kind;

function panel(title, summary, wide, draw) {
  const readout = html("p", { class: "readout", "aria-live": "polite" }, summary);
  const plot = html("div", { class: "plot" });
  responsive(plot, (width) => draw(width, (words) => (readout.textContent = words)));
  return html("figure", wide ? { class: "wide" } : {}, html("figcaption", {}, html("h3", {}, title), readout), plot);
}

const stepAxis = (steps) => ({ type: "linear", domain: [steps[0], Math.max(steps.at(-1), steps[0] + 1)], label: "Training step", format: whole, finest: 1 });

function boundaryPanel(kind, members) {
  const { steps } = data.boundaries;
  const sets = new Set(members.map((d) => JSON.stringify(data.space[d].choices)));
  const first = data.space[members[0]].choices;
  const label =
    typeof first[0] === "boolean" ? "Probability of on"
    : typeof first[0] !== "string" ? "Expected value, as a fraction of the largest choice"
    : sets.size === 1 && first.length === 2 ? `Probability of ${first[1]} over ${first[0]}`
    : "Expected position, 0 first choice, 1 last";
  const y = { type: "linear", domain: [-0.03, 1.04], ticks: [0, 0.25, 0.5, 0.75, 1], label, format: String };
  const count = `${members.length} dimension${members.length === 1 ? "" : "s"}`;
  const spread = (side) => {
    const ends = members.map((d) => data.boundaries[side][d][0].at(-1));
    return [...new Set([Math.min(...ends), Math.max(...ends)].map((v) => v.toFixed(2)))].join(" to ");
  };
  const summary = `At step ${whole(steps.at(-1))}: max policy ${spread("max")}, min policy ${spread("min")}`;
  return panel(`${kindName(kind)} · ${count}`, summary, members.length > 12, (width, say) => {
    const f = frame(width, members.length > 12 ? 360 : 250, stepAxis(steps), y, `${kindName(kind)}: boundaries over training steps`);
    const series = ["max", "min"].flatMap((side) =>
      members.map((d, k) => {
        const [means, deviations] = data.boundaries[side][d];
        const edge = (sign) => steps.map((step, i) => ({ x: f.x(step), y: f.y(means[i] + sign * deviations[i]) }));
        const line = means.map((mean, i) => ({ x: f.x(steps[i]), y: f.y(mean), mean, deviation: deviations[i], step: steps[i], side, name: data.space[d].name }));
        const group = svg(
          "g",
          { class: `boundary ${side}`, "--strength": `${members.length > 1 ? 45 + (55 * k) / (members.length - 1) : 100}%`, "--veil": Math.min(0.12, 0.6 / members.length) },
          svg("path", { d: `${path(edge(1))}L${path(edge(-1).reverse()).slice(1)}Z`, class: "band" }),
          svg("path", { d: path(line), class: "line" }),
        );
        f.area.append(group);
        return line.map((p) => ({ ...p, group }));
      }),
    );
    const { ring, move } = marker();
    f.root.append(ring);
    let marked;
    explore(f.root, series, (p) => {
      marked?.classList.remove("marked");
      marked = p.group;
      marked.classList.add("marked");
      f.area.append(marked);
      move(p, 5);
      say(`${p.name}, ${p.side} policy, step ${whole(p.step)}: ${p.mean.toFixed(2)} ± ${p.deviation.toFixed(2)}`);
    });
    return f.root;
  });
}

function drawBoundaries(section) {
  if (!data.boundaries) return;
  const kinds = new Map();
  data.space.forEach(({ kind }, d) => kinds.set(kind, [...(kinds.get(kind) ?? []), d]));
  const words = "Each line is one dimension, its band one standard deviation; deeper dimensions have stronger colour. Point at a line to read it.";
  section.append(html("p", { class: "note" }, words), legend(["max line", "max policy"], ["min line", "min policy"]), html("div", { class: "panels" }, ...[...kinds].map((entry) => boundaryPanel(...entry))));
}

// ---- learned bounds ----

function drawBounds(section) {
  if (!data.bounds) return;
  const columns = Math.max(...data.space.map(({ choices }) => choices.length));
  const rows = data.space.map(({ name, kind, choices }, d) => {
    const { max, min, allowed } = data.bounds[d];
    const option = (value, j) => {
      const words = `${choice(value)}: max policy ${max[j].toFixed(2)}, min policy ${min[j].toFixed(2)}, ${allowed[j] ? "searched" : "outside the bounds"}`;
      const bar = (side, p) => html("i", { class: side, "--p": `${100 * p}%` });
      return html("div", { class: `option${allowed[j] ? " allowed" : ""}`, role: "img", title: words, "aria-label": words }, choice(value), bar("max", max[j]), bar("min", min[j]));
    };
    const left = allowed.filter(Boolean).length;
    return html("tr", {}, html("th", { scope: "row" }, name), html("td", {}, kindName(kind)), html("td", {}, html("div", { class: "options", "--columns": columns, "--narrow": Math.min(columns, 8) }, ...choices.map(option))), html("td", { class: "left" }, `${left} of ${choices.length}`));
  });
  const head = ["Dimension", "Kind", "Choices", "Searched"].map((words) => html("th", { scope: "col" }, words));
  section.append(
    legend(["max bar", "probability in the max policy"], ["min bar", "probability in the min policy"], ["allowed", "searched"]),
    html("div", { class: "scroll" }, html("table", { class: "bounds" }, html("thead", {}, html("tr", {}, ...head)), html("tbody", {}, ...rows))),
  );
}

// ---- training ----

const ROLES = { loss_max: ["max", "max network"], loss_min: ["min", "min network"], loss_random: ["random", "random networks"], score_max: ["max", "max network"], score_min: ["min", "min network"], score_random: ["random", "mean of those between"], cost_max: ["max", "max network"], cost_min: ["min", "min network"], learning_rate: ["plain", "learning rate"] };

function curvePanel({ title, names, curves = data.training, type = "linear", label, format = number, limits = [], wide = false, steps = data.training.steps }) {
  const shown = names.filter((name) => curves[name][1].some((v) => v != null && (type !== "log" || v > 0)));
  const values = shown.flatMap((name) => curves[name].flat()).filter((v) => v != null && (type !== "log" || v > 0)).sort((a, b) => a - b);
  if (!values.length) return "";
  // A few wild first steps must not flatten the rest: the raw curve may leave the frame.
  const inner = [values[Math.floor(values.length * 0.002)], values[Math.ceil(values.length * 0.995) - 1]];
  const y = { type, domain: padded([...inner, ...limits], type), label, format };
  const ends = shown.map((name) => [ROLES[name][1], curves[name][1].at(-1)]).filter(([, v]) => v != null);
  const summary = `At step ${whole(steps.at(-1))}: ${ends.map(([words, v]) => `${words} ${format(v)}`).join(", ")}`;
  return panel(title, summary, wide, (width, say) => {
    const f = frame(width, wide ? 320 : 250, stepAxis(steps), y, `${title} over training steps`);
    const series = shown.map((name) => {
      const [role, words] = ROLES[name];
      const [raw, smooth] = curves[name];
      const curve = (list) => list.map((v, i) => (v == null ? null : { x: f.x(steps[i]), y: f.y(v), words, v, logged: raw[i], step: steps[i] }));
      const logged = svg("path", { d: path(curve(raw)), class: `raw ${role}` });
      f.area.prepend(logged);
      const line = curve(smooth);
      f.area.append(svg("path", { d: path(line), class: `smooth ${role}` }));
      return line.filter(Boolean);
    });
    f.area.append(...limits.map((v) => limit(f.left, f.y(v), f.right, f.y(v))));
    const { ring, move } = marker();
    f.root.append(ring);
    explore(f.root, series, (p) => {
      move(p, 5);
      say(`${p.words}, step ${whole(p.step)}: ${p.logged == null ? "not finite" : format(p.logged)}${p.v === p.logged ? "" : `, smoothed ${format(p.v)}`}`);
    });
    return f.root;
  });
}

function drawTraining(section) {
  const validated = data.validation.metric ?? metric;
  const roles = [["max line", "max network"], ["min line", "min network"]];
  if (data.training.loss_random[1].some((v) => v != null)) roles.push(["random line", "random networks"]);
  section.append(
    html("p", { class: "note" }, `Faint lines are as logged, strong ones the mean over ${data.training.window} logged steps. The loss of the max network is the task's, that of the others is distillation from it. Point at a curve to read it.`),
    legend(...roles),
    html(
      "div",
      { class: "panels" },
      curvePanel({ title: "Loss", names: ["loss_max", "loss_min", "loss_random"], label: "Loss", wide: true }),
      curvePanel({ title: "Validation", names: ["score_max", "score_min", "score_random"], curves: data.validation, label: titled(validated.name), format: scored(validated), wide: true, steps: data.validation.steps }),
      ...Object.entries(data.training.costs).map(([cost, curves]) => {
        const limits = data.training.ranges[cost] ?? [];
        const { title, label, unit } = curves;
        const format = (v) => number(v / unit);
        return curvePanel({ title: `${titled(title)} of the sampled networks`, names: ["cost_max", "cost_min"], curves, type: "log", label: `${titled(label)}, log scale${limits.length ? "; dashed: range of interest" : ""}`, format, limits });
      }),
      curvePanel({ title: "Learning rate", names: ["learning_rate"], label: "Learning rate" }),
    ),
  );
}

for (const [id, draw] of Object.entries({ front: drawFront, boundaries: drawBoundaries, bounds: drawBounds, training: drawTraining })) draw(document.getElementById(id));
