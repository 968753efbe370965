// The script of a report: tables sort, a method chooses the pictures, and #case-KEY is a page of its own.
"use strict";
const data = JSON.parse(document.getElementById("data").textContent);
const byId = id => document.getElementById(id);
const report = byId("report"), page = byId("page"), title = document.title;
const names = Object.keys(data.metrics), places = new Map(data.cases.map((entry, at) => [entry[0], at]));
const entries = new Map([...document.querySelectorAll(".entry")].map(entry => [entry.dataset.key, entry]));
const address = key => "#case-" + encodeURIComponent(key);
const shown = value => typeof value === "number" ? String(value) : value ?? "-";

function add(parent, tag, text = "", values = {}) {
  const element = Object.assign(document.createElement(tag), values);
  element.textContent = text;
  parent.append(element);
  return element;
}

for (const table of document.querySelectorAll("table.sortable")) {
  table.querySelectorAll("thead th").forEach((head, at) => head.addEventListener("click", () => {
    const up = head.getAttribute("aria-sort") === "descending";
    table.querySelectorAll("thead th").forEach(other => other.removeAttribute("aria-sort"));
    head.setAttribute("aria-sort", up ? "ascending" : "descending");
    const body = table.tBodies[0];
    const value = ({cells}) => cells[at].dataset.value === undefined ? cells[at].textContent : parseFloat(cells[at].dataset.value);
    const order = (a, b) => {
      const [x, y] = [value(a), value(b)];
      if (Number.isNaN(x) || Number.isNaN(y)) return Number.isNaN(x) - Number.isNaN(y);
      return (x < y ? -1 : x > y ? 1 : 0) * (up ? 1 : -1);
    };
    body.append(...[...body.rows].sort(order));
  }));
}

// The truth over each result, seen when one points at it; the file has it once.
for (const entry of entries.values()) {
  const truth = entry.querySelector(".truth").src;
  for (const pair of entry.querySelectorAll(".pair")) add(pair, "img", "", {src: truth, alt: "truth"});
}

// Pictures that a method chooses.
function choose(method) {
  for (const entry of entries.values()) entry.hidden = true;
  for (const [key, why] of data.galleries[method]) {
    const entry = entries.get(key);
    entry.hidden = false;
    entry.querySelector(".why").textContent = why;
    byId("gallery").append(entry);
  }
}

// The table of all cases.
function list() {
  const at = names.indexOf(byId("metric").value), body = byId("cases").tBodies[0];
  body.textContent = "";
  byId("cases").querySelectorAll("th").forEach(head => head.removeAttribute("aria-sort"));
  for (const [key, subset, , difficulty, figures] of data.cases) {
    const row = add(body, "tr");
    add(add(row, "td"), "a", key, {href: address(key)});
    add(row, "td", subset);
    for (const value of [difficulty, ...figures.map(own => Array.isArray(own) ? own[at] : null)]) {
      add(row, "td", shown(value)).dataset.value = value ?? "";
    }
  }
}

// A case's own page.
function show(key) {
  page.textContent = "";
  const at = places.get(key), way = add(page, "p");
  add(way, "a", "whole report", {href: "#"});
  add(page, "h1", key);
  if (at === undefined) {
    add(page, "p", "This report has no figures of such a case.", {className: "warning"});
    return;
  }
  for (const [word, other] of [["previous", data.cases[at - 1]], ["next", data.cases[at + 1]]]) {
    if (other) {
      way.append(" · ");
      add(way, "a", word, {href: address(other[0])});
    }
  }
  const [, subset, objects, difficulty, figures] = data.cases[at];
  add(page, "p", `${subset}, ${objects} objects, difficulty ${shown(difficulty)}`, {className: "note"});
  if (entries.has(key)) {
    page.append(entries.get(key).querySelector(".case").cloneNode(true));
  } else {
    add(page, "p", `No pictures of this case are kept: the report has those of ${entries.size} cases.`, {className: "note"});
  }
  const table = add(add(page, "div", "", {className: "scroll"}), "table");
  const head = add(add(table, "thead"), "tr"), body = add(table, "tbody");
  for (const text of ["metric", ...data.methods]) add(head, "th", text);
  names.forEach((name, number) => {
    const row = add(body, "tr");
    add(row, "td", data.metrics[name]);
    for (const own of figures) add(row, "td", Array.isArray(own) ? shown(own[number]) : own);
  });
}

let left = 0;
function follow() {
  const key = location.hash.startsWith("#case-") ? decodeURIComponent(location.hash.slice(6)) : null;
  if (key !== null && page.hidden) left = scrollY;
  const back = key === null && !page.hidden;
  report.hidden = key !== null;
  page.hidden = key === null;
  document.title = key === null ? title : `${key}: ${title}`;
  if (key !== null) {
    show(key);
    scrollTo(0, 0);
  } else if (back) {
    scrollTo(0, left);
  }
}

if (byId("chooser")) {
  byId("chooser").addEventListener("change", event => choose(event.target.value));
  choose(byId("chooser").value);
}
byId("metric").addEventListener("change", list);
byId("all").addEventListener("toggle", () => byId("cases").tBodies[0].rows.length || list());
addEventListener("hashchange", follow);
follow();
