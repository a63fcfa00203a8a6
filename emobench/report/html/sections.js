// What stands under the tabs of a section, drawn when a tab is first opened.

const draw = {};

// ---- Differences ----------------------------------------------------------------------------------------------------

const PAIR = [
  "first", "second", "difference", "low", "high", "p", "known", "certain", "borderline", "error", "spread",
];

draw.differences = (section, target) => {
  for (const ranking of section.rankings) {
    const pairs = ranking.pairs.map((values) => Object.fromEntries(PAIR.map((name, k) => [name, values[k]])));
    target.append(el("div", {}, el("h4", {}, `Pairs by ${ranking.heading}`), ...differences(section, ranking, pairs)));
  }
};

function differences(section, ranking, pairs) {
  if (ranking.rows.length < 2) return [note("There is one model alone.")];
  if (!pairs.length) return [note("Fewer than three seeds: this number orders only, and no pair is compared.")];
  const name = (place) => section.rows[ranking.rows[place]].name;
  const certain = pairs.filter((pair) => pair.certain).length;
  const known = pairs.filter((pair) => pair.error !== null).sort((one, other) => one.error - other.error);
  const middle = known[Math.floor((known.length - 1) / 2)];
  const least = (pair) => section.found * pair.error;
  const said = el("p", {}, `${certain} of ${pairs.length} differences ${certain === 1 ? "is" : "are"} certain. `);
  if (middle) {
    const range = `${least(known[0]).toFixed(3)} to ${least(known.at(-1)).toFixed(3)} over all`;
    const found = `The smallest difference that this board could have detected is about ${least(middle).toFixed(3)}`;
    said.append(
      el("strong", {}, found),
      known.length > 1 ? ` (the median pair; ${range}).` : ".",
    );
  }
  const detail = el("p", { "aria-live": "polite" }, "Choose a pair for its interval and what it would need.");
  const start = middle ? Number((least(middle) / 2).toPrecision(1)) : 0.01;
  const wished = el("input", { type: "number", min: "0.0001", step: "any", value: start, oninput: () => tell() });
  const needs = el("output", { "aria-live": "polite" });
  let chosen = null;

  function tell() {
    const pair = chosen ?? middle;
    const difference = Number(wished.value);
    const whose = chosen ? `${name(chosen.first)} and ${name(chosen.second)}` : "the median pair";
    if (!(difference > 0)) needs.textContent = "a difference above 0.";
    else if (!pair || pair.error === null) needs.textContent = "what is not known: there is no interval.";
    else needs.textContent = `for ${whose}: ${needed(section, ranking, pair, difference)}.`;
  }

  function choose(pair, sign, title) {
    chosen = pair;
    const ends = pair.low === null ? [] : [sign * pair.low, sign * pair.high].sort(ascending);
    const interval = ends.length ? ends.map((end) => signed(end)).join(" to ") : "none";
    const p = pair.p < 0.001 ? "< 0.001" : `= ${pair.p.toFixed(3)}`;
    const whose = pair.known ? "" : "; of these trained networks only";
    detail.replaceChildren(el("strong", {}, title), ` (95 % interval: ${interval}; corrected p ${p}${whose}). `);
    if (pair.error !== null) detail.append(`It could have found ${least(pair).toFixed(3)}.`);
    tell();
  }

  tell();
  return [
    said,
    note(
      "How much better the row is than the column: ▲ certainly better, ▼ certainly worse, ≈ not told apart (Holm, ",
      "5 %).",
    ),
    region(`Pairs by ${ranking.heading}`, matrix(ranking.rows.map((_, place) => name(place)), pairs, choose)),
    detail,
    el("p", {}, el("label", {}, "A difference of ", wished), " would need, ", needs),
    note(...explained(ranking, pairs)),
  ];
}

// (2.8 · SE / d)² times as many faces, and seeds where they are in the error.
function needed(section, ranking, pair, difference) {
  const times = ((section.found * pair.error) / difference) ** 2;
  const counts = [pair.first, pair.second].map((place) => section.rows[ranking.rows[place]].seeds.length);
  const units = `${count(Math.ceil(ranking.units * times))} ${ranking.unit}, now ${count(ranking.units)}`;
  const seeds = `${count(Math.max(3, Math.ceil(Math.max(...counts) * times)))} seeds, now ${Math.max(...counts)}`;
  if (pair.known) return ranking.units ? `${units}; and ${seeds}` : seeds;
  if (pair.spread === null) return `${units}, between these very networks; of other trainings nothing is known`;
  const more = count(Math.max(3, Math.ceil(((section.found * pair.spread) / difference) ** 2)));
  return `${units}, between these very networks; ${more} seeds of each would say it of other trainings too`;
}

function* explained(ranking, pairs) {
  yield "A difference d of a pair by itself is found with 80 % power at 5 %, two-sided, where d = 2.8 · SE; the ";
  yield "pair's standard error SE is the width of its 95 % interval over 3.92. A smaller d takes (2.8 · SE / d)² ";
  yield `times as many ${ranking.unit}`;
  if (ranking.unit !== "seeds" && pairs.some((pair) => pair.known)) yield ", and as many times the seeds";
  yield `. Holm's correction for ${pairs.length} pairs asks for somewhat more.`;
  if (ranking.left_out) yield ` ${ranking.left_out} further rows are left out here; all pairs are in metrics.json.`;
}

function matrix(names, pairs, choose) {
  const body = el("tbody");
  const found = new Map(pairs.map((pair) => [`${pair.first} ${pair.second}`, pair]));
  names.forEach((name, row) => {
    const cells = names.map((other, column) => {
      const pair = found.get(`${Math.min(row, column)} ${Math.max(row, column)}`);
      if (row === column || !pair) return el("td");
      const sign = row === pair.first ? 1 : -1;
      const difference = sign * pair.difference;
      const [kind, mark, outcome] = told(pair, difference);
      const title = `${name} over ${other}: ${signed(difference)}, ${outcome}`;
      const press = () => {
        body.querySelector("[aria-pressed=true]")?.setAttribute("aria-pressed", "false");
        button.setAttribute("aria-pressed", "true");
        choose(pair, sign, title);
      };
      const attributes = { type: "button", class: kind, "aria-label": title, "aria-pressed": "false", onclick: press };
      const button = el("button", attributes, `${mark} ${signed(difference)}`);
      return el("td", {}, button);
    });
    body.append(el("tr", {}, el("th", { scope: "row" }, name), cells));
  });
  return el("table", { class: "matrix" }, header(names), body);
}

function told(pair, difference) {
  if (!pair.certain) return ["", "≈", pair.borderline ? "borderline, not told apart" : "not told apart"];
  return difference > 0 ? ["better", "▲", "certainly better"] : ["worse", "▼", "certainly worse"];
}

// ---- Emotions and confusions ----------------------------------------------------------------------------------------

draw.emotions = (section, target) => {
  const side = el("div", { class: "figures" });
  target.append(side);
  for (const metric of section.emotion) {
    const names = metric.rows.map(({ row }, place) => [place, section.rows[row].name]);
    const models = names.filter(([place]) => !section.rows[metric.rows[place].row].control);
    const chosen = new Set(models.slice(0, 5).map(([place]) => place));
    const holder = el("div");
    const redraw = () => holder.replaceChildren(dots(section, metric, chosen));
    side.append(el("div", { class: "half" }, el("h4", {}, metric.heading), chooser(names, chosen, redraw), holder));
    redraw();
  }
};

draw.confusions = (section, target) => {
  const matrices = section.confusions.map(({ row, shares }) =>
    confusion(section.emotions, shares, el("strong", {}, section.rows[row].name), section.people));
  target.append(
    note(
      "Of the faces of each emotion (row), the percentage that is read as each (column); means over seeds. What ",
      "rounds to 0 is left empty.",
      section.people ? " Framed: confusions of at least 5 % that at least one person in twenty makes too." : "",
    ),
    el("div", { class: "figures" }, matrices),
  );
};

// ---- Faces ----------------------------------------------------------------------------------------------------------

draw.faces = (section, target) => {
  if (section.curves.length) {
    const series = section.curves.map(({ row, x, y }, place) => ({ place, x, y, name: section.rows[row].name }));
    const label = "The panel's probability of the emotion over the intensity asked for";
    const xlabel = "intensity asked for; up: the panel's probability of the emotion";
    target.append(
      el("h4", {}, "Intensity asked for, from neutral to the emotion"),
      legend(series.map(({ place, name }) => [place, name])),
      lines(series, { label, xlabel, width: 420, height: 240, low: 0, high: 1 }),
    );
  }
  if (section.fading.length) {
    const named = section.fading.map((each, place) => ({ ...each, place, name: section.rows[each.row].name }));
    const drawn = (of, heading, xlabel) => {
      const series = named.map((each) => ({ ...each, y: each[of] }));
      const label = `${heading}: the mean probability of what was read over the share of the pixels`;
      const chart = lines(series, { label, xlabel, width: 420, height: 240, low: 0, high: 1 });
      return el("div", { class: "half" }, el("h4", {}, heading), chart);
    };
    target.append(
      legend(named.map(({ place, name }) => [place, name])),
      el(
        "div",
        { class: "figures" },
        drawn("deletion", "Deletion: what counts most goes first", "% of the pixels gone; up: probability of what was read"),
        drawn("insertion", "Insertion: what counts most comes first", "% of the pixels there; up: probability of what was read"),
      ),
    );
  }
  for (const kind of new Set(section.pictures.map((each) => each.kind))) {
    const mine = section.pictures.filter((each) => each.kind === kind);
    target.append(el("h4", {}, `${kind[0].toUpperCase()}${kind.slice(1)}`));
    const there = mine.filter((each) => each.sheet);
    if (there.length) target.append(...gallery(section, there));
    const without = mine.filter((each) => !each.sheet).map((each) => {
      const name = section.rows[each.row].name;
      return [" ", each.path ? el("a", { href: each.path }, name) : name];
    });
    if (without.length) target.append(note("Left out, so that this page stays small:", ...without.flat()));
  }
};

// A line of all models side by side, such as an emotion or a source; or each model by itself.
function gallery(section, pictures) {
  const { lines: names, columns } = pictures[0];
  const side = sideOf(pictures[0].sheet);
  const name = (each) => section.rows[each.row].name;
  const one = (each, row) =>
    strip(each.sheet, row, 0, each.sheet.columns, side, `${name(each)}, ${each.lines[row]}`);
  const holder = el("div");
  const redraw = (value) => {
    if (value === "all") {
      holder.replaceChildren(...pictures.map((each) => {
        const caption = el("figcaption", {}, el("strong", {}, name(each)), `: ${each.caption}`);
        return el("figure", {}, caption, faces(each.lines.map((of, row) => [of, one(each, row)]), each.columns, side));
      }));
      return;
    }
    const shown = pictures.filter((each) => value < each.lines.length);
    holder.replaceChildren(faces(shown.map((each) => [name(each), one(each, Number(value))]), columns, side));
  };
  const first = names.length > 1 && names[0] === "neutral" ? 1 : 0;
  const options = [...names.map((of, row) => [row, of]), ["all", "each model by itself"]];
  redraw(first);
  return [el("div", { class: "choices" }, choice("show", options, first, redraw)), holder];
}

// ---- Disagreements --------------------------------------------------------------------------------------------------

const SHOWN = 24; // faces at first
const digit = (digits, place) => (digits[place] === "-" ? -1 : Number(digits[place]));

draw.apart = (section, target, part) => {
  const { apart } = section;
  const names = apart.rows.map((row) => section.rows[row].name);
  const mine = part.dataset.name === state.get("at");
  let [a, b] = ["a", "b"].map((key, k) => (mine && names.includes(state.get(key)) ? names.indexOf(state.get(key)) : k));
  if (a === b) b = a === 0 ? 1 : 0;
  const holder = el("div");
  const redraw = () => holder.replaceChildren(...pairOf(section, names, a, b));
  const chosen = () => {
    keep({ at: part.dataset.name, tab: "apart", a: names[a], b: names[b] });
    redraw();
  };
  const options = names.map((name, place) => [place, name]);
  const first = choice("first", options, a, (value) => { a = Number(value); chosen(); });
  const second = choice("second", options, b, (value) => { b = Number(value); chosen(); });
  target.append(el("div", { class: "choices" }, first, second), holder, note(...provenance(apart)));
  redraw();
};

function* provenance(apart) {
  if (apart.what !== "test faces") {
    yield "Right: more than half of the judges read what was asked for. ";
    if (apart.what === "requests") yield "The n-th face of an emotion; noise means nothing outside of one model. ";
  } else if (apart.picture) yield "Faces are drawn again from their numbers; some have no room here. ";
  else yield "Faces of real people are not shown: row numbers are those of the dataset. ";
  yield new Set(apart.seed).size === 1 ? `Of seed ${apart.seed[0]}.` : "Of each model's first seed.";
  if (apart.apart > apart.number.length) {
    const kept = count(apart.number.length);
    yield ` Of ${count(apart.apart)} faces on which any two differ, the ${kept} that divide the models most.`;
  }
}

// Whether a row is right about a face: most of its judges (a classifier: itself) read what it shows, or was asked for.
function right(apart, row, place) {
  const asked = digit(apart.asked, place);
  const votes = apart.read[row].filter((read) => digit(read, place) === asked).length;
  return votes > apart.read[row].length / 2;
}

// Two rows of a section: how often they differ, and a card for each face on which they do.
function pairOf(section, names, a, b) {
  const { apart } = section;
  const reads = apart.what === "test faces";
  const differ = (place) =>
    reads ? apart.read[a][0][place] !== apart.read[b][0][place] : right(apart, a, place) !== right(apart, b, place);
  const kinds = [
    ["all", () => true],
    [`only ${names[a]} right`, (place) => right(apart, a, place)],
    [`only ${names[b]} right`, (place) => right(apart, b, place)],
    ["both wrong", (place) => !right(apart, a, place) && !right(apart, b, place)],
  ].slice(0, reads ? 4 : 3);
  const places = [...apart.number.keys()].filter(differ);
  const counts = kinds.map(([, fits]) => places.filter(fits).length);
  const list = el("ul", { class: "cards" });
  const further = el("button", { type: "button", class: "plain" });
  let [which, many] = [0, SHOWN];
  const redraw = () => {
    const found = places.filter(kinds[which][1]).map((place) => [picturesOf(section, names, a, b, place), place]);
    found.sort((one, other) => (other[0].length > 0) - (one[0].length > 0));
    list.replaceChildren(...found.slice(0, many).map(([shown, place]) => card(section, names, a, b, place, shown)));
    further.hidden = found.length <= many;
    further.textContent = `Show more of ${count(found.length)}`;
  };
  further.addEventListener("click", () => { many += 2 * SHOWN; redraw(); });
  const title = `${names[a]} and ${names[b]} differ on ${count(places.length)} of ${count(apart.of)} ${apart.what}`;
  const rest = kinds.slice(1).map(([said], k) => `${said} ${count(counts[k + 1])}`).join(", ");
  const options = kinds.map(([said], k) => [k, `${said} (${counts[k]})`]);
  const change = (value) => { [which, many] = [Number(value), SHOWN]; redraw(); };
  redraw();
  return [
    el("p", { "aria-live": "polite" }, el("strong", {}, title), `: ${rest}.`),
    el("div", { class: "choices" }, choice("show", options, which, change)),
    list,
    further,
  ];
}

function picturesOf(section, names, a, b, place) {
  const { apart } = section;
  const side = 56;
  const label = `face ${apart.number[place]}`;
  if (apart.what === "test faces") {
    const k = apart.picture ? apart.picture.faces.indexOf(place) : -1;
    const { columns } = apart.picture ?? {};
    return k < 0 ? [] : [strip(apart.picture, Math.floor(k / columns), k % columns, 1, side, label)];
  }
  const [row, column] = apart.lines[place];
  const kind = apart.what === "edits" ? "edits" : "samples";
  return [a, b].flatMap((of) => {
    const sheet = section.pictures.find((each) => each.row === apart.rows[of] && each.kind === kind)?.sheet;
    if (row < 0 || !sheet || column >= sheet.columns || row >= sheet.lines) return [];
    const named = (from, name) =>
      el("figure", {}, strip(sheet, row, from, 1, side, `${label}, ${name}`), el("figcaption", {}, name));
    return [...(kind === "edits" && of === a ? [named(0, "source")] : []), named(column, names[of])];
  });
}

function card(section, names, a, b, place, pictures) {
  const { apart, emotions } = section;
  const emotion = (digits) => emotions[digit(digits, place)] ?? "none of these";
  const [verb, noun] = {
    "test faces": ["shows", "row"],
    requests: ["asked for", "request"],
    edits: ["asked for", "source row"],
    faces: ["shows", "source row"],
  }[apart.what];
  const answer = (row) => {
    const each = apart.read[row].map(emotion);
    const alike = new Set(each).size === 1;
    const said = alike ? each[0] : each.map((read, judge) => `${read} (${apart.judges[judge]})`).join(", ");
    const sure = apart.sure ? ` 0.${apart.sure[row].slice(2 * place, 2 * place + 2)}` : "";
    const good = right(apart, row, place);
    const kind = good ? "right" : "wrong";
    const mark = el("span", { class: kind, role: "img", "aria-label": kind }, good ? "✓" : "✕");
    return el("span", { class: "wide" }, mark, el("span", {}, names[row]), el("span", {}, said, sure));
  };
  const asked = el("strong", {}, emotion(apart.asked));
  const about = el("span", {}, `${verb} `, asked, el("br"), `${noun} ${count(apart.number[place])}`);
  if (pictures.length > 1) about.className = "below";
  return el("li", {}, pictures, about, answer(a), answer(b));
}

// ---- Training, cost, judges -----------------------------------------------------------------------------------------

draw.training = (section, target) => {
  const rows = section.training;
  if (!rows.length) return;
  const holder = el("div", { class: "figures" });
  const redraw = (name) => {
    const shown = rows.filter((each) => name === "all" || each.row === Number(name));
    holder.replaceChildren(...shown.map(({ row, runs }) => trained(section.rows[row].name, runs)));
  };
  const options = [...rows.map(({ row }) => [row, section.rows[row].name]), ["all", "all"]];
  if (rows.length > 1) target.append(el("div", { class: "choices" }, choice("model", options, rows[0].row, redraw)));
  target.append(holder);
  redraw(rows[0].row);
};

function trained(name, runs) {
  const columns = [...new Set(runs.flatMap((run) => Object.keys(run.columns)))];
  const scores = columns.filter((column) => column.startsWith("val_") && column !== "val_loss").slice(0, COLOURS);
  const panels = { loss: ["train_loss", "val_loss"], validation: scores, "learning rate": ["lr"] };
  const plain = (column) => column.replace(/^val_(?!loss)/, "").replace("_loss", "").replaceAll("_", " ");
  const marks = [...new Set(runs.map((run) => run.best).filter((best) => best !== null))];
  const charts = Object.entries(panels).map(([heading, wished]) => {
    const there = wished.filter((column) => columns.includes(column));
    if (!there.length) return null;
    const series = there.flatMap((column, place) =>
      runs.filter((run) => run.columns[column]).map((run) =>
        ({ place, x: run.epochs, y: run.columns[column], name: `${plain(column)}, seed ${run.seed}` })));
    const head = there.length > 1 ? legend(there.map((column, place) => [place, plain(column)])) : note(heading);
    const label = `${name}: ${heading} over epochs`;
    const low = heading === "learning rate" ? 0 : null;
    return el("div", {}, head, lines(series, { label, xlabel: "epoch", width: 300, height: 180, low, marks }));
  });
  const caption = el("figcaption", {}, el("strong", {}, name), runs.length > 1 ? `, ${runs.length} seeds` : "");
  return el("figure", {}, caption, el("div", { class: "figures" }, charts));
}

draw.cost = (section, target) => {
  const { axes, machines } = section.costs;
  if (!section.rankings.length) {
    target.append(note("No row is ranked."));
    return;
  }
  let [axis, ranking] = [axes[0], section.rankings[0]];
  const holder = el("div");
  const redraw = () => holder.replaceChildren(scatter(section, ranking, axis));
  const costs = choice("cost", axes.map((each) => [each.key, each.heading]), axis.key, (value) => {
    axis = axes.find((each) => each.key === value);
    redraw();
  });
  const ranked = section.rankings.map((each) => [each.name, each.heading]);
  const qualities = choice("quality", ranked, ranking.name, (value) => {
    ranking = section.rankings.find((each) => each.name === value);
    redraw();
  });
  const where = machines.length > 1
    ? "Times and memory of different machines do not compare, so that each machine has a front of its own."
    : `Measured on ${machines[0]}.`;
  target.append(
    el("div", { class: "choices" }, costs, section.rankings.length > 1 ? qualities : null),
    holder,
    note("Ringed: the Pareto front, the rows than which none is both cheaper and better. ", where),
  );
  redraw();
};

draw.judges = (section, target) => {
  const cards = section.judges.map((judge) => {
    const facts = {
      architecture: judge.architecture,
      seed: judge.seed,
      "recall on real test faces": judge.recall,
      "trained on": `${judge.data.slice(0, 12)}…`,
      weights: `${judge.weights.slice(0, 12)}…${judge.committed ? "" : ", not committed"}`,
      "made with": judge.needs.join(", "),
    };
    const known = Object.entries(facts).filter(([, value]) => value !== undefined && value !== "");
    const list = known.flatMap(([name, value]) => [el("dt", {}, name), el("dd", {}, String(value))]);
    return el(
      "article",
      { class: "judge" },
      el("h4", {}, `${judge.role}: ${judge.row}`),
      el("dl", { class: "facts" }, list),
      judge.shares ? confusion(section.emotions, judge.shares, "what it reads in real test faces, %") : null,
    );
  });
  target.append(el("div", { class: "figures" }, cards));
};

// ---- Tabs -----------------------------------------------------------------------------------------------------------

const drawn = new WeakSet();
const tabsOf = (part) => [...part.querySelectorAll("[role=tab]")];

// Open a tab of a section; null: close what is open.
function open(part, tab) {
  tabsOf(part).forEach((button, place) => {
    const chosen = button.dataset.tab === tab;
    button.setAttribute("aria-selected", String(chosen));
    button.tabIndex = chosen || (tab === null && place === 0) ? 0 : -1;
  });
  for (const panel of part.querySelectorAll(".panel")) {
    panel.hidden = panel.dataset.tab !== tab;
    if (panel.hidden || drawn.has(panel)) continue;
    drawn.add(panel);
    draw[tab]?.(sections[part.dataset.place], panel.querySelector(".draw"), part);
  }
}

for (const part of parts) {
  open(part, null);
  const buttons = tabsOf(part);
  buttons.forEach((button, place) => {
    button.addEventListener("click", () => {
      const closes = button.getAttribute("aria-selected") === "true";
      const [at, tab] = closes ? [null, null] : [part.dataset.name, button.dataset.tab];
      open(part, tab);
      keep({ at, tab, a: null, b: null });
    });
    button.addEventListener("keydown", (event) => {
      const to = { ArrowRight: place + 1, ArrowLeft: place - 1, Home: 0, End: -1 }[event.key];
      if (to === undefined) return;
      event.preventDefault();
      const next = buttons.at(to % buttons.length);
      button.tabIndex = -1;
      next.tabIndex = 0;
      next.focus();
    });
  });
}

// ---- From the address, and to paper ---------------------------------------------------------------------------------

function restore() {
  for (const field of fields) {
    field.value = state.get(field.name) ?? "";
    if (field.selectedIndex === -1) field.value = ""; // an option that is not here
  }
  filter();
  const [number, column, way] = (state.get("sort") ?? "").split(".");
  if (tables[number]?.tHead.rows[0].cells[column]) sort(tables[number], Number(column), way === "down");
  const part = parts.find((each) => each.dataset.name === state.get("at"));
  if (part && tabsOf(part).some((button) => button.dataset.tab === state.get("tab"))) {
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
  if (location.hash === address || location.hash === "#results") return;
  read();
  restore();
});

addEventListener("beforeprint", () => {
  for (const each of document.querySelectorAll(".trust details, .meaning")) each.open = true;
});

form.hidden = false;
restore();
