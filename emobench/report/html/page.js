"use strict";
// Sorts, filters and draws. Every text is set as text and never as markup; no style is set but through the CSSOM, which
// the page's policy allows; nothing is loaded and nothing is sent.
(() => {
  const { sections } = JSON.parse(document.getElementById("data").textContent);
  const parts = [...document.querySelectorAll(".part")];
  const SVG = "http://www.w3.org/2000/svg";
  const MINUS = "\u2212";

  // ---- Elements ------------------------------------------------------------------------------------------------------

  function fill(node, attributes, children) {
    for (const [name, value] of Object.entries(attributes)) {
      if (value === null || value === undefined || value === false) continue;
      if (name.startsWith("on")) node.addEventListener(name.slice(2), value);
      else node.setAttribute(name, value === true ? "" : value);
    }
    node.append(...children.flat().filter((child) => child !== null && child !== undefined && child !== ""));
    return node;
  }
  const el = (tag, attributes = {}, ...children) => fill(document.createElement(tag), attributes, children);
  const svg = (tag, attributes = {}, ...children) => fill(document.createElementNS(SVG, tag), attributes, children);
  const signed = (value, digits = 3) => value.toFixed(digits).replace("-", MINUS);
  const count = (value) => Math.round(value).toLocaleString("en");

  function choice(label, options, chosen, change) {
    const select = el("select", { onchange: () => change(select.value) });
    for (const [value, text] of options) select.append(el("option", { value }, text));
    select.value = String(chosen);
    return el("label", {}, `${label} `, select);
  }

  // ---- The state in the address: a link to it shows the same -----------------------------------------------------------

  const state = new URLSearchParams(location.hash.slice(1));
  let written = location.hash;

  function keep(changes) {
    for (const [name, value] of Object.entries(changes)) {
      if (value === "" || value === null) state.delete(name);
      else state.set(name, value);
    }
    const text = state.toString();
    written = text ? `#${text}` : "";
    history.replaceState(null, "", text ? `#${text}` : location.href.split("#")[0]);
  }

  // ---- More on a number, on demand -------------------------------------------------------------------------------------

  const LABELS = { interval: "95 % interval", n: "measured on", seeds: "by seed", p: "corrected p", hardware: "on", why: "note" };
  const more = el("div", { class: "more", role: "tooltip", id: "more", hidden: true });
  document.body.append(more);
  let shownFor = null;

  function show(button) {
    const facts = Object.entries(LABELS).filter(([name]) => button.dataset[name]);
    if (!facts.length) return;
    more.replaceChildren(el("dl", {}, facts.flatMap(([name, label]) => [el("dt", {}, label), el("dd", {}, button.dataset[name])])));
    more.hidden = false;
    const box = button.getBoundingClientRect();
    const wide = more.offsetWidth;
    more.style.left = `${Math.max(12, Math.min(box.left, document.documentElement.clientWidth - wide - 12)) + scrollX}px`;
    more.style.top = `${box.bottom + 6 + scrollY}px`;
    button.setAttribute("aria-describedby", "more");
    shownFor = button;
  }
  function hide() {
    if (shownFor) shownFor.removeAttribute("aria-describedby");
    shownFor = null;
    more.hidden = true;
  }
  const numbered = (event) => event.target.closest?.("button.n");
  document.addEventListener("focusin", (event) => (numbered(event) ? show(numbered(event)) : hide()));
  document.addEventListener("click", (event) => (numbered(event) ? show(numbered(event)) : hide()));
  document.addEventListener("mouseover", (event) => {
    if (numbered(event)) show(numbered(event));
    else if (shownFor && shownFor !== document.activeElement) hide();
  });
  document.addEventListener("keydown", (event) => { if (event.key === "Escape") hide(); });

  // Of a table's numbers one takes part in the order of tabs; the arrow keys lead to the others.
  for (const table of document.querySelectorAll("table.data")) {
    table.querySelectorAll("button.n").forEach((button, place) => { button.tabIndex = place === 0 ? 0 : -1; });
    table.addEventListener("keydown", (event) => {
      const button = numbered(event);
      const way = { ArrowLeft: [0, -1], ArrowRight: [0, 1], ArrowUp: [-1, 0], ArrowDown: [1, 0] }[event.key];
      if (!button || !way) return;
      event.preventDefault();
      const rows = [...table.tBodies[0].rows].filter((row) => !row.hidden);
      const cell = button.closest("td, th");
      let [row, column] = [rows.indexOf(cell.parentElement), cell.cellIndex];
      for (;;) {
        [row, column] = [row + way[0], column + way[1]];
        const next = rows[row]?.cells[column];
        if (!next) return;
        const found = next.querySelector("button.n");
        if (!found) continue;
        button.tabIndex = -1;
        found.tabIndex = 0;
        found.focus();
        return;
      }
    });
  }

  // ---- Tables: sorted, and as CSV ----------------------------------------------------------------------------------------

  function compared(one, other, down) {
    if (one === undefined || other === undefined) return (one === undefined) - (other === undefined); // without a value: last
    const numbers = [Number(one), Number(other)];
    const order = numbers.some(Number.isNaN) ? one.localeCompare(other) : numbers[0] - numbers[1];
    return down ? -order : order;
  }

  function sort(table, column, down) {
    const body = table.tBodies[0];
    const rows = [...body.rows];
    rows.forEach((row, place) => { row.dataset.place ??= place; });
    const value = (row) => row.cells[column].dataset.v;
    rows.sort((one, other) => compared(value(one), value(other), down) || one.dataset.place - other.dataset.place);
    body.append(...rows);
    [...table.tHead.rows[0].cells].forEach((cell, place) => {
      if (place === column) cell.setAttribute("aria-sort", down ? "descending" : "ascending");
      else cell.removeAttribute("aria-sort");
    });
  }

  function csv(table) {
    const quoted = (text) => {
      const plain = /^[=+\-@\t\r]/.test(text) && Number.isNaN(Number(text)) ? `'${text}` : text; // never a formula
      return /[",\n]/.test(plain) ? `"${plain.replaceAll('"', '""')}"` : plain;
    };
    const cells = (row) => [...row.cells].flatMap((cell) => {
      const button = cell.querySelector("button.n");
      const text = cell.textContent.trim().replaceAll(MINUS, "-");
      const bounds = (button?.dataset.interval ?? "").replaceAll(MINUS, "-").split(" to ");
      return [button && cell.dataset.v ? cell.dataset.v : text, bounds.length === 2 ? bounds[0] : "", bounds[1] ?? ""];
    });
    const head = [...table.tHead.rows[0].cells].flatMap((cell) => {
      const text = cell.textContent.trim();
      return [text, `${text}: low`, `${text}: high`];
    });
    const lines = [head, ...[...table.tBodies[0].rows].filter((row) => !row.hidden).map(cells)];
    const used = head.map((_, column) => column % 3 === 0 || lines.slice(1).some((line) => line[column]));
    return lines.map((line) => line.filter((_, column) => used[column]).map(quoted).join(",")).join("\n") + "\n";
  }

  function download(text, name) {
    const url = URL.createObjectURL(new Blob([text], { type: "text/csv" }));
    el("a", { href: url, download: name }).click();
    setTimeout(() => URL.revokeObjectURL(url), 1000);
  }

  const tables = [...document.querySelectorAll("table.data")];
  tables.forEach((table, number) => {
    [...table.tHead.rows[0].cells].forEach((cell, column) => {
      const button = el("button", { type: "button", title: "Sort" }, ...cell.childNodes);
      cell.append(button);
      button.addEventListener("click", () => {
        const first = [...table.tBodies[0].rows].map((row) => row.cells[column].dataset.v).find((value) => value !== undefined);
        const before = cell.getAttribute("aria-sort");
        const down = before === "descending" ? false : before === "ascending" ? true : !Number.isNaN(Number(first)) && !cell.classList.contains("w");
        sort(table, column, down);
        keep({ sort: `${number}.${column}.${down ? "down" : "up"}` });
      });
    });
    const name = table.closest(".part")?.dataset.name;
    if (name && table.querySelector("button.n")) {
      const file = `${name}.csv`.replaceAll(/[^\w.-]+/g, "-");
      const button = el("button", { type: "button", class: "quiet", onclick: () => download(csv(table), file) }, "Download as CSV");
      const tabs = table.closest(".panel") ? null : table.closest(".part").querySelector(".tabs");
      if (tabs) tabs.append(button);
      else table.parentElement.after(el("p", { class: "note" }, button));
    }
  });

  // ---- Filters -----------------------------------------------------------------------------------------------------------

  const form = document.querySelector(".filters");
  const fields = [...form.elements].filter((field) => field.name);

  function filter() {
    const wanted = Object.fromEntries(fields.map((field) => [field.name, field.value.trim()]));
    const words = (wanted.q ?? "").toLowerCase();
    let all = 0;
    let seen = 0;
    for (const part of parts) {
      let mine = 0;
      for (const row of part.querySelectorAll("table.filtered tbody tr")) {
        const fits = fields.every(({ name }) => name === "q" || !wanted[name] || (row.dataset[name] ?? part.dataset[name]) === wanted[name]);
        row.hidden = !fits || !(row.querySelector("th")?.textContent ?? "").toLowerCase().includes(words);
        if (row.closest(".panel")) continue;
        all += 1;
        mine += row.hidden ? 0 : 1;
      }
      seen += mine;
      part.hidden = mine === 0;
    }
    form.querySelector("output").textContent = seen === all ? `${all} rows` : `${seen} of ${all} rows`;
    document.querySelector(".none").hidden = seen > 0;
  }
  form.addEventListener("input", () => {
    filter();
    keep(Object.fromEntries(fields.map((field) => [field.name, field.value.trim()])));
  });
  form.addEventListener("submit", (event) => event.preventDefault());
  form.addEventListener("reset", () => setTimeout(() => form.dispatchEvent(new Event("input"))));

  // ---- Series of charts ----------------------------------------------------------------------------------------------------

  const SHAPES = ["M-4,0a4,4 0 1,0 8,0a4,4 0 1,0 -8,0", "M-3.6,-3.6h7.2v7.2h-7.2z", "M0,-4.8L4.4,3.4H-4.4z", "M0,-5L5,0L0,5L-5,0z", "M0,4.8L4.4,-3.4H-4.4z",
    "M-1.6,-4.6h3.2v3h3v3.2h-3v3h-3.2v-3h-3v-3.2h3z"];
  const colour = (place) => `c${place % 6} dash${Math.floor(place / 6) % 3}`;
  const marker = (place, x, y, title) => svg("path", { class: `point c${place % 6}`, d: SHAPES[(place + Math.floor(place / 6)) % 6], transform: `translate(${x},${y})` },
    title ? svg("title", {}, title) : null);
  const swatch = (place) => svg("svg", { class: "swatch", viewBox: "0 0 22 10", "aria-hidden": "true" },
    svg("line", { class: `series ${colour(place)}`, x1: 0, x2: 22, y1: 5, y2: 5 }), marker(place, 11, 5));

  function ticks(low, high, about = 5) {
    const wide = high - low || 1;
    const power = 10 ** Math.floor(Math.log10(wide / about));
    const step = [1, 2, 5, 10].map((each) => each * power).find((each) => wide / each <= about);
    const found = [];
    for (let at = Math.ceil(low / step - 1e-9) * step; at <= high + step * 1e-6; at += step) found.push(Number(at.toPrecision(12)));
    return found;
  }
  const short = (value, largest = Math.abs(value)) => (value !== 0 && (largest >= 1e4 || largest < 1e-2) ? String(value.toExponential(1)).replace(".0e", "e").replace("e+", "e")
    : String(Number(value.toPrecision(6)))).replaceAll("-", MINUS);
  const large = (value) => {
    const [size, unit] = [[1e12, " T"], [1e9, " G"], [1e6, " M"], [1e3, " k"], [0, ""]].find(([each]) => value >= each);
    return `${Number((size ? value / size : value).toPrecision(3))}${unit}`;
  };

  function frame(width, height, label) {
    return svg("svg", { class: "chart", viewBox: `0 0 ${width} ${height}`, width, height, role: "img", "aria-label": label });
  }

  // Lines over a common axis: [{ place, x, y, name }], values null where there is none.
  function lines(series, { label, xlabel, width = 340, height = 210, low = null, high = null, marks = [], points = false }) {
    const chart = frame(width, height, label);
    const known = series.flatMap((each) => each.x.map((x, k) => [x, each.y[k]])).filter(([, y]) => y !== null);
    if (!known.length) return chart;
    const xs = known.map(([x]) => x);
    const ys = known.map(([, y]) => y);
    const [left, right, top, bottom] = [52, 8, 8, 34];
    const [x0, x1] = [Math.min(...xs), Math.max(...xs)];
    let [y0, y1] = [low ?? Math.min(...ys), high ?? Math.max(...ys)];
    if (y0 === y1) [y0, y1] = [y0 - 0.5, y1 + 0.5];
    const x = (value) => left + ((value - x0) / (x1 - x0 || 1)) * (width - left - right);
    const y = (value) => height - bottom - ((value - y0) / (y1 - y0)) * (height - top - bottom);
    for (const at of ticks(y0, y1)) {
      chart.append(svg("line", { class: "grid", x1: left, x2: width - right, y1: y(at), y2: y(at) }),
        svg("text", { x: left - 6, y: y(at) + 4, "text-anchor": "end" }, short(at, Math.max(Math.abs(y0), Math.abs(y1)))));
    }
    for (const at of ticks(x0, x1)) chart.append(svg("text", { x: x(at), y: height - bottom + 16, "text-anchor": "middle" }, short(at)));
    for (const mark of marks) chart.append(svg("line", { class: "rule", x1: x(mark), x2: x(mark), y1: top, y2: height - bottom }));
    chart.append(svg("text", { x: (left + width - right) / 2, y: height - 2, "text-anchor": "middle" }, xlabel));
    for (const each of series) {
      let path = "";
      each.x.forEach((at, k) => { if (each.y[k] !== null) path += `${path && each.y[k - 1] !== null ? "L" : "M"}${x(at).toFixed(1)},${y(each.y[k]).toFixed(1)}`; });
      chart.append(svg("path", { class: `series ${colour(each.place)}`, d: path }, svg("title", {}, each.name)));
      if (points || each.x.length < 12) {
        each.x.forEach((at, k) => { if (each.y[k] !== null) chart.append(marker(each.place, x(at), y(each.y[k]), `${each.name}, ${short(at)}: ${short(each.y[k])}`)); });
      }
    }
    return chart;
  }

  const legend = (names) => el("div", { class: "legend" }, names.map(([place, name]) => el("span", {}, swatch(place), name)));

  // A legend whose boxes choose what is drawn.
  function chooser(names, chosen, change) {
    return el("div", { class: "legend", role: "group", "aria-label": "Models shown" }, names.map(([place, name]) => {
      const box = el("input", { type: "checkbox", onchange: () => { if (box.checked) chosen.add(place); else chosen.delete(place); change(); } });
      box.checked = chosen.has(place);
      return el("label", {}, box, swatch(place), name);
    }));
  }

  // ---- What the tabs draw --------------------------------------------------------------------------------------------------

  const draw = {};

  draw.differences = (section, target) => {
    for (const ranking of section.rankings) {
      const block = el("div", {});
      target.append(block);
      matrix(section, ranking, block);
    }
  };

  function matrix(section, ranking, target) {
    const name = (place) => section.rows[ranking.rows[place]].name;
    const pairs = ranking.pairs.map(([first, second, difference, low, high, p, known, certain, borderline, error, spread]) =>
      ({ first, second, difference, low, high, p, known, certain, borderline, error, spread }));
    target.append(el("h4", {}, `Pairs by ${ranking.heading}`));
    if (!pairs.length) {
      const why = ranking.rows.length < 2 ? "There is one model alone." : "Fewer than three seeds: this number orders only, and no pair is compared.";
      target.append(el("p", { class: "note" }, why));
      return;
    }
    const certain = pairs.filter((pair) => pair.certain).length;
    const errors = pairs.map((pair) => pair.error).filter((error) => error !== null).sort((one, other) => one - other);
    const median = errors.length ? errors[Math.floor((errors.length - 1) / 2)] : null;
    const least = median === null ? null : section.found * median;
    target.append(el("p", {}, `${certain} of ${pairs.length} differences ${certain === 1 ? "is" : "are"} certain. `,
      least === null ? "" : el("strong", {}, `The smallest difference that this board could have detected is about ${least.toFixed(3)}`),
      least === null ? "" : ` (the median pair; ${errors.length > 1 ? `${(section.found * errors[0]).toFixed(3)} to ${(section.found * errors.at(-1)).toFixed(3)} over all` : "there is one"}).`));
    const detail = el("p", { class: "detail", "aria-live": "polite" }, "Choose a pair for its interval and what it would need.");
    const wished = el("input", { type: "number", min: "0.0001", step: "any", value: least === null ? "0.01" : Number((least / 2).toPrecision(1)), oninput: () => tell() });
    const needs = el("output", { "aria-live": "polite" });
    let chosen = null;

    function needed(pair, difference) {
      if (pair.error === null) return "no interval, so that this is not known";
      const times = (section.found * pair.error / difference) ** 2;
      const seeds = Math.max(1, ...[pair.first, pair.second].map((place) => section.rows[ranking.rows[place]].seeds.length));
      const units = ranking.units ? `${count(Math.ceil(ranking.units * times))} ${ranking.unit}, now ${count(ranking.units)}` : "";
      if (pair.known) return [units, `${count(Math.max(3, Math.ceil(seeds * times)))} seeds, now ${seeds}`].filter(Boolean).join("; and ");
      const seeded = pair.spread === null ? "how many seeds would say it of other trainings is not known" : `${count(Math.max(3, Math.ceil((section.found * pair.spread / difference) ** 2)))} seeds of each would say it of other trainings too`;
      return `${units}, between these very networks; ${seeded}`;
    }

    function tell() {
      const difference = Number(wished.value);
      if (!(difference > 0)) { needs.textContent = "a difference above 0"; return; }
      const middle = [...pairs].filter((pair) => pair.error !== null).sort((one, other) => one.error - other.error);
      const pair = chosen ?? middle[Math.floor((middle.length - 1) / 2)];
      if (!pair) { needs.textContent = "no pair has an interval"; return; }
      needs.textContent = `for ${chosen ? `${name(pair.first)} and ${name(pair.second)}` : "the median pair"}: ${needed(pair, difference)}.`;
    }

    const table = el("table", { class: "matrix" });
    const places = ranking.rows.map((_, place) => place);
    table.append(el("thead", {}, el("tr", {}, el("td"), places.map((place) => el("th", { scope: "col" }, el("span", {}, name(place)))))));
    const body = el("tbody");
    for (const row of places) {
      const line = el("tr", {}, el("th", { scope: "row" }, name(row)));
      for (const column of places) {
        const pair = pairs.find((each) => Math.min(row, column) === each.first && Math.max(row, column) === each.second);
        if (row === column || !pair) { line.append(el("td")); continue; }
        const sign = row === pair.first ? 1 : -1;
        const difference = sign * pair.difference;
        const better = pair.certain && difference > 0;
        const kind = !pair.certain ? ["", "≈"] : better ? ["better", "▲"] : ["worse", "▼"];
        const said = `${name(row)} over ${name(column)}: ${signed(difference)}, ${pair.certain ? (better ? "certainly better" : "certainly worse") : pair.borderline ? "borderline, not told apart" : "not told apart"}`;
        const button = el("button", { type: "button", class: kind[0], "aria-label": said, "aria-pressed": "false", onclick: () => {
          body.querySelectorAll("[aria-pressed=true]").forEach((each) => each.setAttribute("aria-pressed", "false"));
          button.setAttribute("aria-pressed", "true");
          chosen = pair;
          const ends = pair.low === null ? "no interval" : [sign * pair.low, sign * pair.high].sort((one, other) => one - other).map((end) => signed(end)).join(" to ");
          detail.replaceChildren(el("strong", {}, said), ` (95 % interval ${ends}; corrected p ${pair.p < 0.001 ? "< 0.001" : `= ${pair.p.toFixed(3)}`}${pair.known ? "" : "; of these trained networks only"}). `,
            pair.error === null ? "" : `It could have found ${(section.found * pair.error).toFixed(3)}.`);
          tell();
        } }, `${kind[1]} ${signed(difference)}`);
        line.append(el("td", {}, button));
      }
      body.append(line);
    }
    table.append(body);
    target.append(el("p", { class: "note" }, "How much better the row is than the column: ▲ certainly better, ▼ certainly worse, ≈ not told apart (Holm, 5 %)."),
      el("div", { class: "scroll", tabindex: "0", role: "region", "aria-label": `Pairs by ${ranking.heading}` }, table), detail,
      el("p", {}, el("label", {}, "A difference of ", wished), " would need, ", needs),
      el("p", { class: "note" }, `A difference d of a pair by itself is found with 80 % power at 5 %, two-sided, where d = 2.8 · SE; the pair's standard error SE is the width of its 95 % interval over 3.92. ` +
        `A smaller d takes (2.8 · SE / d)² times as many ${ranking.unit === "seeds" ? "seeds" : `${ranking.unit}${pairs.some((pair) => pair.known) ? ", and as many times the seeds" : ""}`}. Holm's correction for ${pairs.length} pairs asks for somewhat more.`));
    if (ranking.left_out) target.append(el("p", { class: "note" }, `${ranking.left_out} further rows are left out here; all pairs are in metrics.json.`));
    tell();
  }

  draw.emotions = (section, target) => {
    const side = el("div", { class: "figures" });
    target.append(side);
    for (const metric of section.emotion) {
      const names = metric.rows.map(({ row }, place) => [place, section.rows[row].name]);
      const chosen = new Set(names.filter(([place]) => !section.rows[metric.rows[place].row].control).slice(0, 5).map(([place]) => place));
      const holder = el("div");
      const redraw = () => holder.replaceChildren(dots(section, metric, chosen));
      side.append(el("div", { class: "half" }, el("h4", {}, metric.heading), chooser(names, chosen, redraw), holder));
      redraw();
    }
  };

  // Each emotion a band, each model a dot with its interval.
  function dots(section, metric, chosen) {
    const drawn = metric.rows.map((each, place) => ({ ...each, place })).filter(({ place }) => chosen.has(place));
    const ends = drawn.flatMap(({ points }) => points.flatMap((point) => point ?? [])).filter((end) => end !== null);
    const [low, high] = ends.length ? [Math.min(...ends), Math.max(...ends)] : [0, 1];
    const step = 11;
    const band = Math.max(26, drawn.length * step + 12);
    const [left, right, bottom] = [84, 16, 26];
    const [width, height] = [Math.min(510, Math.max(320, document.documentElement.clientWidth - 40)), section.emotions.length * band + bottom + 4];
    const chart = frame(width, height, `${metric.heading} of each emotion; the same numbers stand in the table below`);
    const x = (value) => left + ((value - low) / (high - low || 1)) * (width - left - right);
    for (const at of ticks(low, high, width > 500 ? 8 : 4)) {
      chart.append(svg("line", { class: "grid", x1: x(at), x2: x(at), y1: 0, y2: height - bottom }), svg("text", { x: x(at), y: height - 8, "text-anchor": "middle" }, short(at)));
    }
    section.emotions.forEach((emotion, k) => {
      const middle = k * band + band / 2;
      if (k) chart.append(svg("line", { class: "grid", x1: 0, x2: width, y1: k * band, y2: k * band }));
      chart.append(svg("text", { class: "name", x: 0, y: middle + 4 }, emotion));
      drawn.forEach(({ row, place, points }, order) => {
        const [value, from, to] = points[k] ?? [null];
        if (value === null) return;
        const y = middle + (order - (drawn.length - 1) / 2) * step;
        if (from !== null) chart.append(svg("line", { class: `whisker c${place % 6}`, x1: x(from), x2: x(to), y1: y, y2: y }));
        chart.append(marker(place, x(value), y, `${section.rows[row].name}, ${emotion}: ${signed(value)}${from === null ? "" : ` (${signed(from)} to ${signed(to)})`}`));
      });
    });
    return chart;
  }

  function confusion(emotions, shares, caption) {
    const table = el("table", { class: "confusion" });
    table.append(el("thead", {}, el("tr", {}, el("td"), emotions.map((emotion) => el("th", { scope: "col" }, el("span", {}, emotion))))));
    const body = el("tbody");
    shares.forEach((line, shown) => {
      const row = el("tr", {}, el("th", { scope: "row" }, emotions[shown]));
      line.forEach((share, read) => {
        const text = share === null ? (shown === read ? "n/a" : "") : share >= 5 ? String(Math.round(share / 10)) : "";
        const cell = el("td", { class: `${shown === read ? "diagonal" : ""}${share > 550 ? " dark" : ""}`, title: share === null ? "no face of it" : `${emotions[shown]} read as ${emotions[read]}: ${(share / 10).toFixed(1)} %` }, text);
        if (share) cell.style.background = `rgb(var(--heat) / ${share / 1000})`;
        row.append(cell);
      });
      body.append(row);
    });
    table.append(body);
    return el("figure", {}, el("figcaption", {}, caption), el("div", { class: "scroll" }, table));
  }

  draw.confusions = (section, target) => {
    target.append(el("p", { class: "note" }, "Of the faces of each emotion (row), the percentage that is read as each (column); means over seeds. What rounds to 0 is left empty."));
    target.append(el("div", { class: "figures" }, section.confusions.map(({ row, shares }) => confusion(section.emotions, shares, el("strong", {}, section.rows[row].name)))));
  };

  // ---- Faces -----------------------------------------------------------------------------------------------------------

  // Some faces of a line of a sheet, as one picture that is moved behind a window.
  function strip(sheet, line, from, many, side, text) {
    const image = el("img", { src: sheet.src, alt: text, width: sheet.columns * side, height: sheet.lines * side });
    const box = el("div", { class: "strip" }, image);
    box.style.width = `${many * side}px`;
    box.style.height = `${side}px`;
    image.style.left = `${-from * side}px`;
    image.style.top = `${-line * side}px`;
    return box;
  }
  const sideOf = (sheet) => Math.max(sheet.side, sheet.side < 40 ? 56 : 64);

  function heads(names, side) {
    const box = el("div", { class: "heads" }, names.map((name) => el("span", {}, name)));
    box.style.gridTemplateColumns = `repeat(${names.length}, ${side}px)`;
    return box;
  }

  function sheetOf(lines, columns, side) { // [[label, strip]]
    const box = el("div", { class: "sheet" });
    box.style.gridTemplateColumns = "max-content max-content";
    if (columns.length) box.append(el("span"), heads(columns, side));
    for (const [label, picture] of lines) box.append(el("span", {}, label), picture);
    return el("div", { class: "scroll", tabindex: "0", role: "region", "aria-label": "Faces" }, box);
  }

  draw.faces = (section, target) => {
    if (section.curves.length) {
      const series = section.curves.map(({ row, x, y }, place) => ({ place, x, y, name: section.rows[row].name }));
      target.append(el("h4", {}, "Intensity asked for, from neutral to the emotion"), legend(series.map(({ place, name }) => [place, name])),
        lines(series, { label: "The panel's probability of the emotion over the intensity asked for", xlabel: "intensity asked for; up: the panel's probability of the emotion", width: 420, height: 240, low: 0, high: 1, points: true }));
    }
    for (const kind of new Set(section.pictures.map((each) => each.kind))) {
      const mine = section.pictures.filter((each) => each.kind === kind);
      const there = mine.filter((each) => each.sheet);
      target.append(el("h4", {}, `${kind[0].toUpperCase()}${kind.slice(1)}`));
      if (there.length) {
        const names = there[0].lines;
        const holder = el("div");
        const first = names.length > 1 && names[0] === "neutral" ? 1 : 0;
        const redraw = (value) => {
          holder.replaceChildren(...(value === "all" ? there.map((each) => {
            const side = sideOf(each.sheet);
            return el("figure", {}, el("figcaption", {}, el("strong", {}, section.rows[each.row].name), `: ${each.caption}`),
              sheetOf(each.lines.map((name, line) => [name, strip(each.sheet, line, 0, each.sheet.columns, side, `${section.rows[each.row].name}, ${name}`)]), each.columns, side));
          }) : [sheetOf(there.filter((each) => each.lines.length > value).map((each) => [section.rows[each.row].name, strip(each.sheet, Number(value), 0, each.sheet.columns, sideOf(there[0].sheet), `${section.rows[each.row].name}, ${names[value]}`)]), there[0].columns, sideOf(there[0].sheet))]));
        };
        target.append(el("div", { class: "controls-of-chart" }, choice("show", [...names.map((name, line) => [line, name]), ["all", "each model by itself"]], first, redraw)), holder);
        redraw(String(first));
      }
      const without = mine.filter((each) => !each.sheet);
      if (without.length) {
        target.append(el("p", { class: "note" }, "Left out, so that this page stays small: ", without.flatMap((each, k) => [k ? ", " : "", each.path ? el("a", { href: each.path }, section.rows[each.row].name) : section.rows[each.row].name]), "."));
      }
    }
  };

  // ---- Disagreements -----------------------------------------------------------------------------------------------------

  draw.apart = (section, target, part) => {
    const apart = section.apart;
    const reads = apart.what === "test faces";
    const names = apart.rows.map((row) => section.rows[row].name);
    const at = (name, otherwise) => { const found = part.dataset.name === state.get("at") ? names.indexOf(state.get(name)) : -1; return found < 0 ? otherwise : found; };
    let [a, b] = [at("a", 0), at("b", 1)];
    if (a === b) b = a === 0 ? 1 : 0;
    let which = "all";
    let many = 24;
    const holder = el("div");
    const digit = (text, place) => (text[place] === "-" ? -1 : Number(text[place]));
    const emotion = (k) => (k < 0 ? "none of these" : section.emotions[k]);
    const right = (row, place) => { // of judges: most of them read what was asked for
      const asked = digit(apart.asked, place);
      const votes = apart.read[row].filter((read) => digit(read, place) === asked).length;
      return votes > apart.read[row].length / 2;
    };
    const differ = (place) => (reads ? apart.read[a][0][place] !== apart.read[b][0][place] : right(a, place) !== right(b, place));
    const kinds = {
      all: ["all", () => true],
      a: [() => `only ${names[a]} right`, (place) => right(a, place)],
      b: [() => `only ${names[b]} right`, (place) => right(b, place)],
      ...(reads ? { none: ["both wrong", (place) => !right(a, place) && !right(b, place)] } : {}),
    };
    const picture = (place) => {
      const side = 56;
      const label = `${reads ? "face" : "faces"} ${apart.number[place]}`;
      if (reads) {
        const k = apart.picture ? apart.picture.faces.indexOf(place) : -1;
        return k < 0 ? [] : [strip(apart.picture, Math.floor(k / apart.picture.columns), k % apart.picture.columns, 1, side, label)];
      }
      const [line, column] = apart.lines[place];
      return [a, b].flatMap((row) => {
        const mine = section.pictures.find((each) => each.row === apart.rows[row] && each.kind === (apart.what === "edits" ? "edits" : "samples"));
        if (line < 0 || !mine?.sheet || column >= mine.sheet.columns || line >= mine.sheet.lines) return [];
        const named = (from, name) => el("figure", {}, strip(mine.sheet, line, from, 1, side, `${label}, ${name}`), el("figcaption", {}, name));
        return [...(apart.what === "edits" && row === a ? [named(0, "source")] : []), named(column, names[row])];
      });
    };
    const answer = (row, place) => {
      const each = apart.read[row].map((read) => emotion(digit(read, place)));
      const said = new Set(each).size === 1 ? each[0] : each.map((read, judge) => `${read} (${apart.judges[judge]})`).join(", ");
      const sure = reads ? ` 0.${apart.sure[row].slice(2 * place, 2 * place + 2)}` : "";
      return el("span", { class: "wide" }, el("span", { class: right(row, place) ? "right" : "wrong" }, right(row, place) ? "✓" : "✕"), el("span", {}, names[row]), el("span", {}, said, sure));
    };
    const redraw = () => {
      const places = [...apart.number.keys()].filter(differ);
      const counts = Object.fromEntries(Object.entries(kinds).map(([kind, [, fits]]) => [kind, places.filter(fits).length]));
      const shown = places.filter(kinds[which][1]).map((place) => [picture(place), place]).sort((one, other) => (other[0].length > 0) - (one[0].length > 0));
      const said = (kind) => { const text = kinds[kind][0]; return typeof text === "string" ? text : text(); };
      holder.replaceChildren(
        el("p", { "aria-live": "polite" }, el("strong", {}, `${names[a]} and ${names[b]} differ on ${count(places.length)} of ${count(apart.of)} ${apart.what}`), ": ",
          Object.keys(kinds).filter((kind) => kind !== "all").map((kind) => `${said(kind)} ${count(counts[kind])}`).join(", "), "."),
        el("div", { class: "controls-of-chart" }, choice("show", Object.keys(kinds).map((kind) => [kind, `${said(kind)} (${counts[kind]})`]), which, (value) => { which = value; many = 24; redraw(); })),
        el("ul", { class: "cards" }, shown.slice(0, many).map(([faces, place]) => el("li", {}, faces,
          el("span", { class: reads ? null : "below" }, reads ? "shows " : apart.what === "faces" ? "shows " : "asked for ", el("strong", {}, emotion(digit(apart.asked, place))), el("br"), `${reads ? "row" : apart.what === "requests" ? "request" : "source row"} ${count(apart.number[place])}`),
          answer(a, place), answer(b, place)))),
        ...(shown.length > many ? [el("button", { type: "button", class: "plain", onclick: () => { many += 48; redraw(); } }, `Show more of ${count(shown.length)}`)] : []));
    };
    const options = names.map((name, place) => [place, name]);
    const chosen = () => { keep({ at: part.dataset.name, tab: "apart", a: names[a], b: names[b] }); redraw(); };
    target.append(el("div", { class: "controls-of-chart" }, choice("first", options, a, (value) => { a = Number(value); chosen(); }), choice("second", options, b, (value) => { b = Number(value); chosen(); })), holder);
    const seeds = new Set(apart.seed);
    const whose = reads ? (apart.picture ? "Faces are drawn again from their numbers; some have no room here. " : "Faces of real people are not shown: their row numbers are those of the dataset. ")
      : "Right: most judges read what was asked for. " + (apart.what === "requests" ? "The n-th face of an emotion; noise means nothing outside of one model. " : "");
    target.append(el("p", { class: "note" }, whose, seeds.size === 1 ? `Of seed ${[...seeds][0]}.` : "Of each model's first seed.",
      apart.apart > apart.number.length ? ` Of ${count(apart.apart)} faces on which any two differ, the ${count(apart.number.length)} that divide the models most.` : ""));
    redraw();
  };

  // ---- Training, cost, judges ----------------------------------------------------------------------------------------------

  draw.training = (section, target) => {
    const rows = section.training;
    const show = (name) => (rows.length > 1 ? rows.filter((each) => String(each.row) === name || name === "all") : rows);
    const holder = el("div", { class: "figures" });
    const redraw = (name) => holder.replaceChildren(...show(name).map(({ row, runs }) => {
      const scores = [...new Set(runs.flatMap((run) => Object.keys(run.columns)))].filter((column) => column.startsWith("val_") && column !== "val_loss").slice(0, 6);
      const panels = [["loss", ["train_loss", "val_loss"]], ["validation", scores], ["learning rate", ["lr"]]];
      const marks = [...new Set(runs.map((run) => run.best).filter((best) => best !== null))];
      return el("figure", {}, el("figcaption", {}, el("strong", {}, section.rows[row].name), runs.length > 1 ? `, ${runs.length} seeds` : ""),
        el("div", { class: "figures" }, panels.map(([heading, columns]) => {
          const there = columns.filter((column) => runs.some((run) => run.columns[column]));
          if (!there.length) return null;
          const plain = (column) => column.replace(/^val_(?!loss)/, "").replace("_loss", "").replaceAll("_", " ");
          const series = there.flatMap((column, place) => runs.filter((run) => run.columns[column]).map((run) => ({ place, x: run.epochs, y: run.columns[column], name: `${plain(column)}, seed ${run.seed}` })));
          return el("div", {}, there.length > 1 ? legend(there.map((column, place) => [place, plain(column)])) : el("p", { class: "note" }, heading),
            lines(series, { label: `${section.rows[row].name}: ${heading} over epochs`, xlabel: "epoch", width: 300, height: 180, low: heading === "learning rate" ? 0 : null, marks }));
        })));
    }));
    if (rows.length > 1) target.append(el("div", { class: "controls-of-chart" }, choice("model", [...rows.map(({ row }) => [row, section.rows[row].name]), ["all", "all"]], rows[0].row, redraw)));
    target.append(holder);
    redraw(String(rows[0]?.row ?? "all"));
  };

  draw.cost = (section, target) => {
    const { axes, rows, machines } = section.costs;
    let axis = axes[0];
    let ranking = section.rankings[0];
    if (!ranking) { target.append(el("p", { class: "note" }, "No row is ranked.")); return; }
    const holder = el("div");
    const redraw = () => holder.replaceChildren(scatter(section, ranking, axis, rows, machines));
    target.append(el("div", { class: "controls-of-chart" },
      choice("cost", axes.map((each) => [each.key, each.heading]), axis.key, (value) => { axis = axes.find((each) => each.key === value); redraw(); }),
      section.rankings.length > 1 ? choice("quality", section.rankings.map((each) => [each.name, each.heading]), ranking.name, (value) => { ranking = section.rankings.find((each) => each.name === value); redraw(); }) : null), holder,
      el("p", { class: "note" }, "Ringed: the Pareto front, the rows than which none is both cheaper and better. ", machines.length > 1 ? "Times and memory of different machines do not compare, so that each machine has a front of its own." : `Measured on ${machines[0]}.`));
    redraw();
  };

  function scatter(section, ranking, axis, rows, machines) {
    const found = ranking.rows.map((row, place) => ({ row, place, value: ranking.values[place], cost: rows.find((each) => each.row === row) }))
      .filter(({ value, cost }) => value && value[0] !== null && cost && cost[axis.key] > 0)
      .map((each) => ({ ...each, x: each.cost[axis.key], y: each.value[0], machine: each.cost.machine }));
    const width = Math.min(720, Math.max(320, document.documentElement.clientWidth - 80));
    const [height, left, right, top, bottom] = [340, 52, 110, 14, 40];
    const chart = frame(width, height, `${ranking.heading} against ${axis.heading}: ${found.map(({ row, x, y }) => `${section.rows[row].name} ${large(x)}, ${signed(y)}`).join("; ")}`);
    if (!found.length) return el("p", { class: "note" }, "Nothing to draw: no row has both.");
    const logs = found.map(({ x }) => Math.log10(x));
    const ends = found.flatMap(({ value }) => value.filter((end) => end !== null));
    const pad = Math.max(0.08, (Math.max(...logs) - Math.min(...logs)) * 0.06);
    const [x0, x1] = [Math.min(...logs) - pad, Math.max(...logs) + pad];
    const [y0, y1] = [Math.min(...ends), Math.max(...ends)];
    const x = (value) => left + ((Math.log10(value) - x0) / (x1 - x0)) * (width - left - right);
    const y = (value) => { const share = (value - y0) / (y1 - y0 || 1); return top + (ranking.better === "lower" ? share : 1 - share) * (height - top - bottom); };
    for (const at of ticks(y0, y1)) chart.append(svg("line", { class: "grid", x1: left, x2: width - right, y1: y(at), y2: y(at) }), svg("text", { x: left - 7, y: y(at) + 4, "text-anchor": "end" }, short(at)));
    for (let power = Math.floor(x0); power <= x1; power += 1) {
      for (const part of [1, 2, 5]) {
        const at = part * 10 ** power;
        if (Math.log10(at) < x0 || Math.log10(at) > x1 || (part !== 1 && x1 - x0 > 2)) continue;
        chart.append(svg("line", { class: "grid", x1: x(at), x2: x(at), y1: top, y2: height - bottom }), svg("text", { x: x(at), y: height - bottom + 17, "text-anchor": "middle" }, large(at)));
      }
    }
    chart.append(svg("text", { x: (left + width - right) / 2, y: height - 4, "text-anchor": "middle" }, `${axis.heading}${axis.cheap === "low" ? "; cheap: left" : "; cheap: right"}`),
      svg("text", { x: left, y: 8 }, `${ranking.heading}${ranking.better === "lower" ? ", upside down: better is up" : ""}`));
    const everywhere = axis.key === "params" || axis.key === "flops";
    for (const machine of everywhere ? [null] : machines.keys()) {
      const mine = found.filter((each) => machine === null || each.machine === machine);
      const front = mine.filter((one) => !mine.some((other) => other !== one && noWorse(other, one, axis, ranking) && !noWorse(one, other, axis, ranking)));
      front.sort((one, other) => one.x - other.x);
      let path = "";
      front.forEach((each, k) => { path += k === 0 ? `M${x(each.x)},${y(each.y)}` : axis.cheap === "low" ? `H${x(each.x)}V${y(each.y)}` : `V${y(each.y)}H${x(each.x)}`; });
      chart.append(...front.map((each) => svg("circle", { class: "ring", cx: x(each.x), cy: y(each.y), r: 8 })));
      if (front.length > 1) chart.append(svg("path", { class: "front", d: path }));
    }
    const labels = [];
    for (const { row, place, value, x: cost, y: quality } of found) {
      if (value[1] !== null) chart.append(svg("line", { class: `whisker c${place % 6}`, x1: x(cost), x2: x(cost), y1: y(value[1]), y2: y(value[2]) }));
      chart.append(marker(place, x(cost), y(quality), `${section.rows[row].name}: ${large(cost)} ${axis.heading}, ${ranking.heading} ${signed(quality)}`));
      let at = y(quality) + 4;
      while (labels.some(([other, height]) => Math.abs(other - x(cost)) < 100 && Math.abs(height - at) < 13)) at += 13;
      labels.push([x(cost), at]);
      chart.append(svg("text", { class: "name", x: x(cost) + 9, y: at }, section.rows[row].name.length > 20 ? `${section.rows[row].name.slice(0, 19)}…` : section.rows[row].name));
    }
    return chart;
  }
  const noWorse = (one, other, axis, ranking) => (axis.cheap === "low" ? one.x <= other.x : one.x >= other.x) && (ranking.better === "lower" ? one.y <= other.y : one.y >= other.y);

  draw.judges = (section, target) => {
    target.append(el("div", { class: "figures" }, section.judges.map((card) => el("article", { class: "judge" }, el("h4", {}, `${card.role}: `, card.row),
      el("dl", { class: "facts" }, [["architecture", card.architecture], ["seed", card.seed], ...(card.recall === undefined ? [] : [["recall on real test faces", card.recall]]),
        ["trained on", `${card.data.slice(0, 12)}…`], ["weights", `${card.weights.slice(0, 12)}…${card.committed ? "" : ", not committed"}`], ...(card.needs.length ? [["made with", card.needs.join(", ")]] : [])]
        .flatMap(([name, value]) => [el("dt", {}, name), el("dd", {}, String(value))])),
      card.shares ? confusion(section.emotions, card.shares, "what it reads in real test faces, %") : null))));
  };

  // ---- Tabs ----------------------------------------------------------------------------------------------------------------

  const drawn = new WeakSet();

  function open(part, tab, focus = false) {
    for (const button of part.querySelectorAll("[role=tab]")) {
      const chosen = button.dataset.tab === tab;
      button.setAttribute("aria-selected", String(chosen));
      button.tabIndex = chosen || (!tab && button === button.parentElement.firstElementChild) ? 0 : -1;
      if (chosen && focus) button.focus();
    }
    for (const panel of part.querySelectorAll(".panel")) {
      panel.hidden = panel.dataset.tab !== tab;
      if (!panel.hidden && !drawn.has(panel)) {
        drawn.add(panel);
        draw[tab]?.(sections[part.dataset.place], panel.querySelector(".draw"), part);
      }
    }
  }

  for (const part of parts) {
    open(part, null);
    const buttons = [...part.querySelectorAll("[role=tab]")];
    buttons.forEach((button, place) => {
      button.addEventListener("click", () => {
        const closes = button.getAttribute("aria-selected") === "true";
        open(part, closes ? null : button.dataset.tab);
        keep({ at: closes ? null : part.dataset.name, tab: closes ? null : button.dataset.tab, a: null, b: null });
      });
      button.addEventListener("keydown", (event) => {
        const to = { ArrowRight: place + 1, ArrowLeft: place - 1, Home: 0, End: buttons.length - 1 }[event.key];
        if (to === undefined) return;
        event.preventDefault();
        buttons.forEach((each, k) => { each.tabIndex = k === (to + buttons.length) % buttons.length ? 0 : -1; });
        buttons[(to + buttons.length) % buttons.length].focus();
      });
    });
  }

  // ---- From the address ------------------------------------------------------------------------------------------------------

  function restore() {
    for (const field of fields) {
      const value = state.get(field.name) ?? "";
      field.value = value;
      if (field.value !== value) field.value = ""; // an option that is not here
    }
    filter();
    const [number, column, way] = (state.get("sort") ?? "").split(".");
    if (tables[number]?.tHead.rows[0].cells[column]) sort(tables[number], Number(column), way === "down");
    const part = parts.find((each) => each.dataset.name === state.get("at"));
    if (part && [...part.querySelectorAll("[role=tab]")].some((button) => button.dataset.tab === state.get("tab"))) {
      open(part, state.get("tab"));
      part.scrollIntoView();
    }
  }

  for (const link of document.querySelectorAll("a.go")) { // without a change of the address, which keeps the filter
    link.addEventListener("click", (event) => {
      event.preventDefault();
      const part = document.querySelector(link.getAttribute("href"));
      if (part.hidden) form.reset();
      setTimeout(() => part.scrollIntoView());
    });
  }
  addEventListener("hashchange", () => {
    if (location.hash === written || location.hash === "#results") return;
    for (const name of [...state.keys()]) state.delete(name);
    for (const [name, value] of new URLSearchParams(location.hash.slice(1))) state.set(name, value);
    written = location.hash;
    restore();
  });
  addEventListener("beforeprint", () => document.querySelectorAll(".trust details, .meaning").forEach((each) => { each.open = true; }));

  form.hidden = false;
  restore();
})();
