// Charts as SVG. A series has a colour, a dash and a shape of its own, so that none is told by its colour alone.

const SHAPES = [
  "M-4,0a4,4 0 1,0 8,0a4,4 0 1,0 -8,0",
  "M-3.6,-3.6h7.2v7.2h-7.2z",
  "M0,-4.8L4.4,3.4H-4.4z",
  "M0,-5L5,0L0,5L-5,0z",
  "M0,4.8L4.4,-3.4H-4.4z",
  "M-1.6,-4.6h3.2v3h3v3.2h-3v3h-3.2v-3h-3v-3.2h3z",
];
const COLOURS = 6;
const colour = (place) => `c${place % COLOURS}`;
const stroke = (place) => `series ${colour(place)} dash${Math.floor(place / COLOURS) % 3}`;

function marker(place, x, y, title) {
  const shape = SHAPES[(place + Math.floor(place / COLOURS)) % SHAPES.length];
  const attributes = { class: `point ${colour(place)}`, d: shape, transform: `translate(${x},${y})` };
  return svg("path", attributes, title ? svg("title", {}, title) : null);
}

const line = (kind, x1, x2, y1, y2) => svg("line", { class: kind, x1, x2, y1, y2 });
const text = (x, y, said, anchor = "start", kind = null) =>
  svg("text", { x, y, "text-anchor": anchor, class: kind }, said);

function swatch(place) {
  const attributes = { class: "swatch", viewBox: "0 0 22 10", "aria-hidden": "true" };
  return svg("svg", attributes, line(stroke(place), 0, 22, 5, 5), marker(place, 11, 5));
}

const legend = (names) =>
  el("div", { class: "legend" }, names.map(([place, name]) => el("span", {}, swatch(place), name)));

// A legend whose boxes choose what is drawn.
function chooser(names, chosen, change) {
  const boxes = names.map(([place, name]) => {
    const changed = () => {
      if (box.checked) chosen.add(place);
      else chosen.delete(place);
      change();
    };
    const box = el("input", { type: "checkbox", onchange: changed });
    box.checked = chosen.has(place);
    return el("label", {}, box, swatch(place), name);
  });
  return el("div", { class: "legend", role: "group", "aria-label": "Models shown" }, boxes);
}

// ---- Scales ---------------------------------------------------------------------------------------------------------

function ticks(low, high, about = 5) {
  const wide = high - low || 1;
  const power = 10 ** Math.floor(Math.log10(wide / about));
  const step = [1, 2, 5, 10].map((each) => each * power).find((each) => wide / each <= about);
  const found = [];
  for (let at = Math.ceil(low / step - 1e-9) * step; at <= high + step * 1e-6; at += step) {
    found.push(Number(at.toPrecision(12)));
  }
  return found;
}

// A number at an axis; `largest`: of that axis, by which all of them are written alike.
function short(value, largest = Math.abs(value)) {
  const scientific = value !== 0 && (largest >= 1e4 || largest < 1e-2);
  const written = scientific ? value.toExponential(1).replace(".0e", "e").replace("e+", "e") : value.toPrecision(6);
  return (scientific ? written : String(Number(written))).replaceAll("-", MINUS);
}

function large(value) {
  const units = [[1e12, " T"], [1e9, " G"], [1e6, " M"], [1e3, " k"], [0, ""]];
  const [size, unit] = units.find(([each]) => value >= each);
  return `${Number((size ? value / size : value).toPrecision(3))}${unit}`;
}

function frame(width, height, label) {
  const box = { viewBox: `0 0 ${width} ${height}`, width, height };
  return svg("svg", { class: "chart", ...box, role: "img", "aria-label": label });
}

const room = (most) => Math.min(most, Math.max(320, document.documentElement.clientWidth - 40));

// ---- Lines ----------------------------------------------------------------------------------------------------------

// Lines over a common axis: [{ place, x, y, name }], y null where there is none; `marks`: places on the axis.
function lines(series, { label, xlabel, width = 340, height = 210, low = null, high = null, marks = [] }) {
  const chart = frame(width, height, label);
  const xs = series.flatMap((each) => each.x);
  const ys = series.flatMap((each) => each.y).filter((y) => y !== null);
  if (!ys.length) return chart;
  const [left, right, top, bottom] = [52, width - 8, 8, height - 34];
  const [x0, x1] = [Math.min(...xs), Math.max(...xs)];
  let [y0, y1] = [low ?? Math.min(...ys), high ?? Math.max(...ys)];
  if (y0 === y1) [y0, y1] = [y0 - 0.5, y1 + 0.5];
  const x = (value) => left + ((value - x0) / (x1 - x0 || 1)) * (right - left);
  const y = (value) => bottom - ((value - y0) / (y1 - y0)) * (bottom - top);
  const largest = Math.max(Math.abs(y0), Math.abs(y1));
  for (const at of ticks(y0, y1)) {
    chart.append(line("grid", left, right, y(at), y(at)), text(left - 6, y(at) + 4, short(at, largest), "end"));
  }
  for (const at of ticks(x0, x1)) chart.append(text(x(at), bottom + 16, short(at), "middle"));
  for (const mark of marks) chart.append(line("rule", x(mark), x(mark), top, bottom));
  chart.append(text((left + right) / 2, height - 2, xlabel, "middle"));
  for (const each of series) {
    const points = each.x.map((at, k) => [at, each.y[k]]);
    const path = points.map(([at, value], k) => {
      if (value === null) return "";
      return `${k && points[k - 1][1] !== null ? "L" : "M"}${x(at).toFixed(1)},${y(value).toFixed(1)}`;
    });
    chart.append(svg("path", { class: stroke(each.place), d: path.join("") }, svg("title", {}, each.name)));
    if (points.length > 12) continue;
    for (const [at, value] of points.filter(([, known]) => known !== null)) {
      chart.append(marker(each.place, x(at), y(value), `${each.name}, ${short(at)}: ${short(value)}`));
    }
  }
  return chart;
}

// ---- Dots: each emotion a band, each model a dot with its interval --------------------------------------------------

function dots(section, metric, chosen) {
  const drawn = metric.rows.map((each, place) => ({ ...each, place })).filter(({ place }) => chosen.has(place));
  const ends = drawn.flatMap(({ points }) => points.flatMap((point) => point ?? [])).filter((end) => end !== null);
  const [low, high] = ends.length ? [Math.min(...ends), Math.max(...ends)] : [0, 1];
  const step = 11; // px from a model to the next
  const band = Math.max(26, drawn.length * step + 12);
  const [width, foot] = [room(510), section.emotions.length * band];
  const [left, right] = [84, width - 16];
  const label = `${metric.heading} of each emotion; the same numbers stand in the table below`;
  const chart = frame(width, foot + 30, label);
  const x = (value) => left + ((value - low) / (high - low || 1)) * (right - left);
  for (const at of ticks(low, high, width > 500 ? 8 : 4)) {
    chart.append(line("grid", x(at), x(at), 0, foot), text(x(at), foot + 20, short(at), "middle"));
  }
  section.emotions.forEach((emotion, k) => {
    const middle = k * band + band / 2;
    if (k) chart.append(line("grid", 0, width, k * band, k * band));
    chart.append(text(0, middle + 4, emotion, "start", "name"));
    drawn.forEach(({ row, place, points }, order) => {
      const [value, from, to] = points[k] ?? [null];
      if (value === null) return;
      const y = middle + (order - (drawn.length - 1) / 2) * step;
      const interval = from === null ? "" : ` (${signed(from)} to ${signed(to)})`;
      if (from !== null) chart.append(line(`whisker ${colour(place)}`, x(from), x(to), y, y));
      chart.append(marker(place, x(value), y, `${section.rows[row].name}, ${emotion}: ${signed(value)}${interval}`));
    });
  });
  return chart;
}

// ---- Quality against cost -------------------------------------------------------------------------------------------

const EVERYWHERE = ["params", "flops"]; // costs that are the same on any machine

function noWorse(one, other, axis, ranking) {
  const cheap = axis.cheap === "low" ? one.x <= other.x : one.x >= other.x;
  return cheap && (ranking.better === "lower" ? one.y <= other.y : one.y >= other.y);
}

// The rows than which none is both cheaper and better, from the cheapest or dearest on.
function front(rows, axis, ranking) {
  const beats = (one, other) => noWorse(one, other, axis, ranking) && !noWorse(other, one, axis, ranking);
  return rows.filter((row) => !rows.some((other) => beats(other, row))).sort((one, other) => one.x - other.x);
}

function scatter(section, ranking, axis) {
  const { rows, machines } = section.costs;
  const found = ranking.rows
    .map((row, place) => ({ row, place, value: ranking.values[place], cost: rows.find((each) => each.row === row) }))
    .filter(({ value, cost }) => value && value[0] !== null && cost?.[axis.key] > 0)
    .map((each) => ({ ...each, name: section.rows[each.row].name, x: each.cost[axis.key], y: each.value[0] }));
  if (!found.length) return note("Nothing to draw: no row has both.");
  const said = found.map(({ name, x, y }) => `${name} ${large(x)}, ${signed(y)}`).join("; ");
  const [width, height] = [room(720), 340];
  const chart = frame(width, height, `${ranking.heading} against ${axis.heading}: ${said}`);
  const [left, right, top, bottom] = [52, width - 110, 14, height - 40];
  const logs = found.map(({ x }) => Math.log10(x));
  const ends = found.flatMap(({ value }) => value.filter((end) => end !== null));
  const pad = Math.max(0.08, (Math.max(...logs) - Math.min(...logs)) * 0.06);
  const [x0, x1] = [Math.min(...logs) - pad, Math.max(...logs) + pad];
  const [y0, y1] = [Math.min(...ends), Math.max(...ends)];
  const x = (value) => left + ((Math.log10(value) - x0) / (x1 - x0)) * (right - left);
  const y = (value) => {
    const share = (value - y0) / (y1 - y0 || 1);
    return top + (ranking.better === "lower" ? share : 1 - share) * (bottom - top);
  };
  for (const at of ticks(y0, y1)) {
    chart.append(line("grid", left, right, y(at), y(at)), text(left - 7, y(at) + 4, short(at), "end"));
  }
  const steps = x1 - x0 > 2 ? [1] : [1, 2, 5];
  for (let power = Math.floor(x0); power <= x1; power += 1) {
    for (const at of steps.map((step) => step * 10 ** power)) {
      if (Math.log10(at) < x0 || Math.log10(at) > x1) continue;
      chart.append(line("grid", x(at), x(at), top, bottom), text(x(at), bottom + 17, large(at), "middle"));
    }
  }
  const down = ranking.better === "lower" ? ", upside down: better is up" : "";
  const end = axis.cheap === "low" ? "left" : "right";
  chart.append(text((left + right) / 2, height - 4, `${axis.heading}; cheap: ${end}`, "middle"));
  chart.append(text(left, 8, `${ranking.heading}${down}`));
  for (const machine of EVERYWHERE.includes(axis.key) ? [null] : machines.keys()) {
    const best = front(found.filter(({ cost }) => machine === null || cost.machine === machine), axis, ranking);
    const path = best.map((each, k) => {
      if (k === 0) return `M${x(each.x)},${y(each.y)}`;
      return axis.cheap === "low" ? `H${x(each.x)}V${y(each.y)}` : `V${y(each.y)}H${x(each.x)}`;
    });
    chart.append(svg("path", { class: "front", d: path.join("") }));
    chart.append(...best.map((each) => svg("circle", { class: "ring", cx: x(each.x), cy: y(each.y), r: 8 })));
  }
  const labels = []; // none stands on another
  for (const each of found) {
    const [, low, high] = each.value;
    const [across, middle] = [x(each.x), y(each.y)];
    if (low !== null) chart.append(line(`whisker ${colour(each.place)}`, across, across, y(low), y(high)));
    const title = `${each.name}: ${large(each.x)} ${axis.heading}, ${ranking.heading} ${signed(each.y)}`;
    let at = middle + 4;
    while (labels.some(([near, taken]) => Math.abs(near - across) < 100 && Math.abs(taken - at) < 13)) at += 13;
    labels.push([across, at]);
    const name = each.name.length > 20 ? `${each.name.slice(0, 19)}…` : each.name;
    chart.append(marker(each.place, across, middle, title), text(across + 11, at, name, "start", "name"));
  }
  return chart;
}

// ---- Confusions -----------------------------------------------------------------------------------------------------

function header(names) {
  return el("thead", {}, el("tr", {}, el("td"), names.map((name) => el("th", { scope: "col" }, el("span", {}, name)))));
}

const MARKED = 50; // from which on a confusion is one that people make too

// Shares in thousandths: of the faces of an emotion (row) those that are read as each (column). `people`: the same of
// annotators; confusions that they make too are framed.
function confusion(emotions, shares, caption, people = null) {
  const rows = shares.map((of, shown) => {
    const cells = of.map((share, read) => {
      const percent = share >= 5 ? String(Math.round(share / 10)) : "";
      const theirs = shown !== read && share >= MARKED ? (people?.[shown][read] ?? 0) : 0;
      const kinds = [shown === read ? "diagonal" : "", share > 550 ? "dark" : "", theirs >= MARKED ? "people" : ""];
      const too = theirs ? `; by people: ${(theirs / 10).toFixed(1)} %` : "";
      const said = `${emotions[shown]} read as ${emotions[read]}: ${((share ?? 0) / 10).toFixed(1)} %${too}`;
      const attributes = { class: kinds.join(" "), title: share === null ? "no face of it" : said };
      const cell = el("td", attributes, share === null && shown === read ? "n/a" : percent);
      if (share) cell.style.background = `rgb(var(--heat) / ${share / 1000})`;
      return cell;
    });
    return el("tr", {}, el("th", { scope: "row" }, emotions[shown]), cells);
  });
  const table = el("table", { class: "confusion" }, header(emotions), el("tbody", {}, rows));
  return el("figure", {}, el("figcaption", {}, caption), el("div", { class: "scroll" }, table));
}

// ---- Faces ----------------------------------------------------------------------------------------------------------

// Some faces of a line of a sheet: the whole picture, moved behind a window.
function strip(sheet, row, from, many, side, alt) {
  const size = { width: sheet.columns * side, height: sheet.lines * side };
  const image = el("img", { src: sheet.src, alt, ...size });
  const box = el("div", { class: "strip" }, image);
  box.style.width = `${many * side}px`;
  box.style.height = `${side}px`;
  image.style.left = `${-from * side}px`;
  image.style.top = `${-row * side}px`;
  return box;
}

const sideOf = (sheet) => Math.max(sheet.side, sheet.side < 40 ? 56 : 64);

// Lines of faces, [[name, strip]], below the names of their columns.
function faces(rows, columns, side) {
  const box = el("div", { class: "sheet" });
  box.style.gridTemplateColumns = "max-content max-content";
  if (columns.length) {
    const heads = el("div", { class: "heads" }, columns.map((name) => el("span", {}, name)));
    heads.style.gridTemplateColumns = `repeat(${columns.length}, ${side}px)`;
    box.append(el("span"), heads);
  }
  for (const [name, picture] of rows) box.append(el("span", {}, name), picture);
  return region("Faces", box);
}
