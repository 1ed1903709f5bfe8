// Makes the tables of a report sortable, filterable and savable. The page is whole without it.
"use strict";

const LONG = 20; // rows from which on a table also has filters by value, and can be shown whole
const MOST_CHOICES = 12;
const collator = new Intl.Collator("en", { numeric: true, sensitivity: "base" });

function element(tag, attributes, ...children) {
  const made = document.createElement(tag);
  for (const [name, value] of Object.entries(attributes)) made.setAttribute(name, value);
  made.append(...children);
  return made;
}

function button(text, action) {
  const made = element("button", { type: "button" }, text);
  made.addEventListener("click", action);
  return made;
}

// The number of a cell; null where there is none.
function numberOf(cell) {
  const text = cell.dataset.sort ?? cell.textContent.trim();
  const number = Number(text);
  return text === "" || Number.isNaN(number) ? null : number;
}

function csvField(text) {
  return /[",\r\n]/.test(text) ? `"${text.replaceAll('"', '""')}"` : text;
}

function enhance(table) {
  const scroll = table.parentElement;
  const body = table.tBodies[0];
  const original = [...body.rows];
  const heads = [...table.tHead.rows[0].cells];
  const texts = new Map(original.map((row) => [row, row.textContent.toLowerCase()]));
  const choices = [];
  const count = element("span", { class: "count", role: "status" });
  const filter = element("input", { type: "search", placeholder: "Filter rows" });
  const name = scroll.getAttribute("aria-label");
  filter.setAttribute("aria-label", `${name}: show rows that contain`);

  function sortBy(place, direction) {
    heads.forEach((head) => head.setAttribute("aria-sort", "none"));
    let rows = original;
    if (direction !== "none") {
      heads[place].setAttribute("aria-sort", direction);
      rows = sorted(place, direction === "ascending" ? 1 : -1);
    }
    body.append(...rows);
  }

  // Sorts by a column; cells without a value stay at the end in both directions.
  function sorted(place, sign) {
    const isNumber = heads[place].classList.contains("number");
    const keyed = original.map((row) => {
      const cell = row.cells[place];
      const text = cell.textContent.trim();
      return [row, isNumber ? numberOf(cell) : text === "" ? null : text];
    });
    const compare = isNumber ? (a, b) => (a < b ? -1 : a > b ? 1 : 0) : collator.compare;
    keyed.sort(([, a], [, b]) => {
      if (a === null || b === null) return (a === null) - (b === null);
      return sign * compare(a, b);
    });
    return keyed.map(([row]) => row);
  }

  function apply() {
    const words = filter.value.toLowerCase().split(/\s+/).filter(Boolean);
    let shown = 0;
    for (const row of original) {
      const fits = words.every((word) => texts.get(row).includes(word))
        && choices.every(([place, select]) =>
          select.value === "" || row.cells[place].textContent === select.value.slice(1));
      row.hidden = !fits;
      shown += fits;
    }
    const all = original.length;
    const rows = all === 1 ? "row" : "rows";
    count.textContent = shown === all ? `${all} ${rows}` : `${shown} of ${all} ${rows}`;
  }

  function csv() {
    const lines = [heads.map((head) => csvField(head.dataset.csv ?? head.textContent.trim()))];
    const totals = table.tFoot ? [...table.tFoot.rows] : [];
    for (const row of [...body.rows, ...totals]) {
      if (row.hidden) continue;
      lines.push([...row.cells].map((cell) =>
        csvField(cell.dataset.csv ?? cell.dataset.sort ?? cell.textContent)));
    }
    return lines.map((line) => `${line.join(",")}\r\n`).join("");
  }

  function download() {
    const url = URL.createObjectURL(new Blob([csv()], { type: "text/csv;charset=utf-8" }));
    const link = element("a", { href: url, download: `${table.dataset.name}.csv` });
    document.body.append(link);
    link.click();
    link.remove();
    setTimeout(() => URL.revokeObjectURL(url), 10000);
  }

  async function copy(event) {
    const pressed = event.currentTarget;
    try {
      await navigator.clipboard.writeText(csv());
      pressed.textContent = "Copied";
    } catch {
      pressed.textContent = "Copying is not allowed here";
    }
    setTimeout(() => { pressed.textContent = "Copy"; }, 2000);
  }

  function choiceFor(place) {
    const values = [...new Set(original.map((row) => row.cells[place].textContent))];
    if (values.length < 2 || values.length > MOST_CHOICES) return [];
    const title = heads[place].textContent.trim();
    const select = element("select", { "aria-label": `${name}: ${title}` });
    select.append(element("option", { value: "" }, `${title}: all`));
    for (const value of values.sort(collator.compare)) {
      select.append(element("option", { value: `=${value}` }, value || "(empty)"));
    }
    select.addEventListener("change", apply);
    choices.push([place, select]);
    return [select];
  }

  function makeSortable() {
    heads.forEach((head, place) => {
      const text = head.textContent;
      const press = button(text, () => {
        const now = head.getAttribute("aria-sort");
        const next = { none: "ascending", ascending: "descending", descending: "none" };
        sortBy(place, next[now]);
      });
      head.replaceChildren(press);
      head.setAttribute("aria-sort", "none");
    });
  }

  function makeTools() {
    const tools = element("div", { class: "tools" });
    if (original.length > 5) tools.append(filter);
    if (original.length > LONG) {
      heads.forEach((head, place) => {
        if (place > 0 && !head.classList.contains("number")) tools.append(...choiceFor(place));
      });
    }
    tools.append(count);
    if (original.length > LONG) {
      const whole = button("Show whole", () => {
        const isWhole = scroll.classList.toggle("whole");
        const fits = isWhole && table.scrollWidth <= scroll.clientWidth;
        scroll.classList.toggle("fits", fits);
        whole.textContent = isWhole ? "Show in a box" : "Show whole";
      });
      tools.append(whole);
    }
    tools.append(button("Copy", copy), button("Download CSV", download));
    scroll.before(tools);
  }

  // Shows a row that a filter hides, when a link leads to it.
  table.addEventListener("reveal", () => {
    filter.value = "";
    for (const [, select] of choices) select.value = "";
    apply();
  });
  filter.addEventListener("input", apply);
  makeTools();
  makeSortable();
  apply();
}

// Opens what hides the place that the address names, and goes there.
function reveal() {
  const target = document.getElementById(location.hash.slice(1));
  if (target === null) return;
  const inside = target.querySelector(":scope > details.closed");
  if (inside !== null) inside.open = true;
  for (let at = target.parentElement; at !== null; at = at.parentElement) {
    if (at.tagName === "DETAILS") at.open = true;
  }
  if (target.hidden) target.closest("table").dispatchEvent(new Event("reveal"));
  target.scrollIntoView({ block: target.tagName === "TR" ? "center" : "start" });
}

// Marks the section that is read in the contents, which are open where they stand beside the text.
function followContents() {
  const links = new Map();
  for (const link of document.querySelectorAll(".contents a")) {
    links.set(document.getElementById(link.getAttribute("href").slice(1)), link);
  }
  const seen = new IntersectionObserver((entries) => {
    const entered = entries.filter((entry) => entry.isIntersecting).pop();
    if (entered === undefined) return;
    for (const link of links.values()) link.removeAttribute("aria-current");
    links.get(entered.target).setAttribute("aria-current", "true");
  }, { rootMargin: "-10% 0px -80% 0px" });
  for (const section of links.keys()) seen.observe(section);
  const wide = matchMedia("(min-width: 1400px)");
  const details = document.querySelector(".contents details");
  const open = () => { details.open = wide.matches; };
  wide.addEventListener("change", open);
  open();
}

// Paper can open nothing: what is closed is printed too.
addEventListener("beforeprint", () => {
  for (const closed of document.querySelectorAll("section details:not([open])")) {
    closed.open = true;
    closed.dataset.closed = "";
  }
});
addEventListener("afterprint", () => {
  for (const opened of document.querySelectorAll("details[data-closed]")) {
    opened.open = false;
    delete opened.dataset.closed;
  }
});

document.querySelectorAll(".scroll > table").forEach(enhance);
followContents();
addEventListener("hashchange", reveal);
reveal();
