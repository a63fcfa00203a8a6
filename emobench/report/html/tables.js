// Tables: more on a number on demand, sorting, CSV, and the filter of all of them.

// ---- More on a number -----------------------------------------------------------------------------------------------

const LABELS = {
  interval: "95 % interval",
  n: "measured on",
  seeds: "by seed",
  p: "corrected p",
  hardware: "on",
  why: "note",
};
const more = el("div", { class: "more", role: "tooltip", id: "more", hidden: true });
document.body.append(more);
let shownFor = null;

function show(button) {
  const facts = Object.entries(LABELS).filter(([name]) => button.dataset[name]);
  if (!facts.length) return;
  const lines = facts.flatMap(([name, label]) => [el("dt", {}, label), el("dd", {}, button.dataset[name])]);
  more.replaceChildren(el("dl", {}, lines));
  more.hidden = false;
  const box = button.getBoundingClientRect();
  const last = document.documentElement.clientWidth - more.offsetWidth - 12;
  more.style.left = `${Math.max(12, Math.min(box.left, last)) + scrollX}px`;
  more.style.top = `${box.bottom + 6 + scrollY}px`;
  button.setAttribute("aria-describedby", "more");
  shownFor = button;
}

function hide() {
  shownFor?.removeAttribute("aria-describedby");
  shownFor = null;
  more.hidden = true;
}

const numberAt = (event) => event.target.closest?.("button.n");
for (const kind of ["focusin", "click"]) {
  document.addEventListener(kind, (event) => (numberAt(event) ? show(numberAt(event)) : hide()));
}
document.addEventListener("mouseover", (event) => {
  if (numberAt(event)) show(numberAt(event));
  else if (shownFor && shownFor !== document.activeElement) hide();
});
document.addEventListener("keydown", (event) => {
  if (event.key === "Escape") hide();
});

// Of a table's numbers one takes part in the order of tabs; the arrow keys lead to the others.
const WAYS = { ArrowLeft: [0, -1], ArrowRight: [0, 1], ArrowUp: [-1, 0], ArrowDown: [1, 0] };

function roam(table) {
  table.querySelectorAll("button.n").forEach((button, place) => {
    button.tabIndex = place === 0 ? 0 : -1;
  });
  table.addEventListener("keydown", (event) => {
    const button = numberAt(event);
    const way = WAYS[event.key];
    if (!button || !way) return;
    event.preventDefault();
    const rows = [...table.tBodies[0].rows].filter((row) => !row.hidden);
    const cell = button.closest("td, th");
    let [row, column] = [rows.indexOf(cell.parentElement), cell.cellIndex];
    let next = null;
    do {
      [row, column] = [row + way[0], column + way[1]];
      if (!rows[row]?.cells[column]) return;
      next = rows[row].cells[column].querySelector("button.n");
    } while (!next);
    button.tabIndex = -1;
    next.tabIndex = 0;
    next.focus();
  });
}

// ---- Sorted ---------------------------------------------------------------------------------------------------------

const isNumber = (text) => text !== undefined && text !== "" && !Number.isNaN(Number(text));

function compared(one, other, down) {
  if (one === undefined || other === undefined) return (one === undefined) - (other === undefined); // without one: last
  const order = isNumber(one) && isNumber(other) ? one - other : one.localeCompare(other);
  return down ? -order : order;
}

function sort(table, column, down) {
  const rows = [...table.tBodies[0].rows];
  rows.forEach((row, place) => {
    row.dataset.place ??= place; // as they are ranked
  });
  const value = (row) => row.cells[column].dataset.v;
  rows.sort((one, other) => compared(value(one), value(other), down) || one.dataset.place - other.dataset.place);
  table.tBodies[0].append(...rows);
  [...table.tHead.rows[0].cells].forEach((cell, place) => {
    if (place === column) cell.setAttribute("aria-sort", down ? "descending" : "ascending");
    else cell.removeAttribute("aria-sort");
  });
}

// Numbers are sorted downwards first, words upwards.
function downwards(table, column) {
  const before = table.tHead.rows[0].cells[column].getAttribute("aria-sort");
  if (before) return before === "ascending";
  const values = [...table.tBodies[0].rows].map((row) => row.cells[column].dataset.v);
  return !table.tHead.rows[0].cells[column].classList.contains("w") && isNumber(values.find((value) => value));
}

// ---- As CSV ---------------------------------------------------------------------------------------------------------

function quoted(text) {
  const plain = /^[=+\-@\t\r]/.test(text) && !isNumber(text) ? `'${text}` : text; // never a formula to a spreadsheet
  return /[",\n]/.test(plain) ? `"${plain.replaceAll('"', '""')}"` : plain;
}

// Each column as three: the value at full length, and the ends of its interval; those without any are left out.
function csv(table) {
  const cells = (row) =>
    [...row.cells].flatMap((cell) => {
      const button = cell.querySelector("button.n");
      const text = cell.textContent.trim().replaceAll(MINUS, "-");
      const ends = (button?.dataset.interval ?? "").replaceAll(MINUS, "-").split(" to ");
      return [(button && cell.dataset.v) || text, ...(ends.length === 2 ? ends : ["", ""])];
    });
  const names = [...table.tHead.rows[0].cells].map((cell) => cell.textContent.trim());
  const head = names.flatMap((name) => [name, `${name}: low`, `${name}: high`]);
  const rows = [...table.tBodies[0].rows].filter((row) => !row.hidden).map(cells);
  const used = head.map((_, column) => column % 3 === 0 || rows.some((row) => row[column]));
  return [head, ...rows].map((line) => `${line.filter((_, column) => used[column]).map(quoted).join(",")}\n`).join("");
}

function download(text, name) {
  const url = URL.createObjectURL(new Blob([text], { type: "text/csv" }));
  el("a", { href: url, download: name }).click();
  setTimeout(() => URL.revokeObjectURL(url), 1000);
}

function offerCsv(table) {
  const name = table.closest(".part")?.dataset.name;
  if (!name || !table.querySelector("button.n")) return;
  const file = `${name}.csv`.replaceAll(/[^\w.-]+/g, "-");
  const save = () => download(csv(table), file);
  const button = el("button", { type: "button", class: "quiet", onclick: save }, "Download as CSV");
  if (table.closest(".panel")) table.parentElement.after(note(button));
  else table.closest(".part").querySelector(".tabs").append(button);
}

const tables = [...document.querySelectorAll("table.data")];
tables.forEach((table, number) => {
  [...table.tHead.rows[0].cells].forEach((cell, column) => {
    const click = () => {
      const down = downwards(table, column);
      sort(table, column, down);
      keep({ sort: `${number}.${column}.${down ? "down" : "up"}` });
    };
    cell.append(el("button", { type: "button", title: "Sort", onclick: click }, ...cell.childNodes));
  });
  roam(table);
  offerCsv(table);
});

// ---- Filtered -------------------------------------------------------------------------------------------------------

const form = document.querySelector(".filters");
const fields = [...form.elements].filter((field) => field.name);
const wanted = () => Object.fromEntries(fields.map((field) => [field.name, field.value.trim()]));

function filter() {
  const { q, ...facets } = wanted();
  const asked = Object.entries(facets).filter(([, value]) => value);
  let [all, seen] = [0, 0];
  for (const part of parts) {
    let mine = 0;
    for (const row of part.querySelectorAll("table.filtered tbody tr")) {
      const fits = asked.every(([name, value]) => (row.dataset[name] ?? part.dataset[name]) === value);
      row.hidden = !fits || !row.querySelector("th")?.textContent.toLowerCase().includes(q.toLowerCase());
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
  keep(wanted());
});
form.addEventListener("submit", (event) => event.preventDefault());
form.addEventListener("reset", () => setTimeout(() => form.dispatchEvent(new Event("input"))));
