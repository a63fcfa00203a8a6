// Elements, and the state in the page's address. Every text is set as text and never as markup, and no style is set but
// through the CSSOM, which the page's policy allows; nothing is loaded and nothing is sent.

const { sections } = JSON.parse(document.getElementById("data").textContent);
const parts = [...document.querySelectorAll(".part")];
const MINUS = "\u2212";

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

function svg(tag, attributes = {}, ...children) {
  return fill(document.createElementNS("http://www.w3.org/2000/svg", tag), attributes, children);
}

const note = (...children) => el("p", { class: "note" }, ...children);
const region = (label, ...children) =>
  el("div", { class: "scroll", tabindex: "0", role: "region", "aria-label": label }, ...children);
const signed = (value, digits = 3) => value.toFixed(digits).replace("-", MINUS);
const count = (value) => Math.round(value).toLocaleString("en");
const ascending = (one, other) => one - other;

// A list to choose one from: [[value, text]].
function choice(label, options, chosen, change) {
  const select = el("select", { onchange: () => change(select.value) });
  for (const [value, text] of options) select.append(el("option", { value }, text));
  select.value = String(chosen);
  return el("label", {}, `${label} `, select);
}

// ---- The state in the address: a link to it shows the same ----------------------------------------------------------

const state = new URLSearchParams(location.hash.slice(1));
let address = location.hash; // as it was written here, or read

function keep(changes) {
  for (const [name, value] of Object.entries(changes)) {
    if (value === "" || value === null) state.delete(name);
    else state.set(name, value);
  }
  const text = state.toString();
  address = text ? `#${text}` : "";
  history.replaceState(null, "", address || location.href.split("#")[0]);
}

function read() {
  for (const name of [...state.keys()]) state.delete(name);
  for (const [name, value] of new URLSearchParams(location.hash.slice(1))) state.set(name, value);
  address = location.hash;
}
