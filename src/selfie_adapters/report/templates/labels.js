"use strict";
// Tables of labels: all rows are searched, sorted and filtered, the visible ones alone are in the page.
// Every text goes in through textContent: nothing that a model wrote is ever markup.

const make = (name, className = "", text = "") => {
  const node = document.createElement(name);
  if (className) node.className = className;
  if (text) node.textContent = text;
  return node;
};
const count = (number) => number.toLocaleString("en");
const AHEAD = 6; // rows above and below the visible ones

/** The JSON that a page holds as gzip in base64. */
async function unpacked(text) {
  const bytes = Uint8Array.from(atob(text), (letter) => letter.charCodeAt(0));
  const stream = new Blob([bytes]).stream().pipeThrough(new DecompressionStream("gzip"));
  return JSON.parse(await new Response(stream).text());
}

class Labels {
  constructor(node, { measure, datasets, verdicts, marks, columns }) {
    Object.assign(this, { node, measure, datasets, verdicts, marks, columns });
    this.size = columns.label.length;
    this.find = (name) => node.querySelector(`.${name}`);
    this.rows = this.find("rows");
    this.given = "given" in columns;
    this.rows.classList.toggle("plain", !this.given);
    this.lowered = columns.label.map((label, i) => `${this.vector(i)} ${this.given ? columns.given[i] ?? "" : ""}\n${label}`.toLowerCase());
    this.ranks = {};
    this.order = Uint32Array.from({ length: this.size }, (_, i) => i);
    this.sorted = { column: "vector", down: false };
    this.active = 0;
    this.#head();
    this.#tools();
    this.#listen();
    this.filter();
  }

  vector(i) {
    const dataset = this.datasets[this.columns.dataset[i]];
    return dataset ? `${dataset} ${this.columns.index[i]}` : String(this.columns.index[i]);
  }
  number(value) {
    if (value === null || value === undefined) return "";
    return this.measure === "confidence" ? `${Math.round(value * 100)} %` : this.measure === "rank" ? String(value) : value.toFixed(2);
  }
  text(i) { return this.columns.withheld[i] && !this.all ? "·" : this.columns.label[i] || "∅"; }

  #head() {
    this.names = this.given ? ["vector", "given", "mark", "generated", "value"] : ["vector", "mark", "generated", "value"];
    this.head = make("div", "head");
    this.head.setAttribute("role", "rowgroup");
    const row = make("div");
    row.setAttribute("role", "row");
    row.setAttribute("aria-rowindex", "1");
    this.heads = {};
    for (const name of this.names) {
      const cell = make("span", name), button = make("button", "", name === "mark" ? "=" : name === "value" ? this.measure : name);
      cell.setAttribute("role", "columnheader");
      button.type = "button";
      if (name === "mark") button.setAttribute("aria-label", "verdict");
      button.addEventListener("click", () => this.sort(name));
      cell.append(button);
      row.append(cell);
      this.heads[name] = cell;
    }
    this.head.append(row);
    this.body = make("div", "body");
    this.body.setAttribute("role", "rowgroup");
    this.rows.setAttribute("aria-colcount", String(this.names.length));
    this.rows.replaceChildren(this.head, this.body);
    this.#showSorted();
  }

  #tools() {
    const select = this.find("verdicts");
    const present = this.verdicts.filter((one) => one);
    for (const name of present) select.add(new Option(name, name));
    select.closest("label").hidden = present.length < 2;
    const values = this.columns.value.filter((value) => value !== null);
    const floor = this.find("floor");
    if (values.length && this.measure !== "rank") {
      this.lowest = values.reduce((a, b) => Math.min(a, b));
      const highest = values.reduce((a, b) => Math.max(a, b));
      if (this.measure === "confidence") this.lowest = 0;
      Object.assign(floor, { min: this.lowest, max: this.measure === "confidence" ? 1 : highest, step: "0.01" });
      floor.value = floor.min;
      this.find("least").hidden = false;
    }
    this.find("box").hidden = !this.columns.withheld.some(Boolean);
    for (const [name, event] of [["search", "input"], ["verdicts", "change"], ["floor", "input"], ["withheld", "change"]]) {
      this.find(name).addEventListener(event, () => this.filter());
    }
  }

  /** The rows that the search field, the list, the slider and the box leave. */
  filter() {
    const text = this.find("search").value.trim().toLowerCase();
    const verdict = this.verdicts.indexOf(this.find("verdicts").value || null);
    const floor = this.find("floor"), least = floor.value > floor.min && !this.find("least").hidden ? Number(floor.value) : null;
    const { value, verdict: verdicts, withheld } = this.columns;
    this.all = this.find("withheld").checked;
    this.find("level").textContent = least === null ? "any" : this.number(least);
    const kept = new Uint32Array(this.size);
    let found = 0;
    for (const i of this.order) {
      if (verdict >= 0 && verdicts[i] !== verdict) continue;
      if (least !== null && !(value[i] !== null && value[i] >= least)) continue;
      if (text && !(withheld[i] && !this.all ? this.lowered[i].split("\n")[0] : this.lowered[i]).includes(text)) continue;
      kept[found++] = i;
    }
    this.kept = kept.subarray(0, found);
    this.active = 0;
    this.find("count").textContent = found === this.size ? `${count(this.size)} labels` : `${count(found)} of ${count(this.size)} labels`;
    this.rows.setAttribute("aria-rowcount", String(found + 1));
    this.rows.scrollTop = 0;
    this.find("more").replaceChildren();
    this.chosen = undefined;
    this.draw();
  }

  /** Each row's place in the order of a column, worked out once. */
  #rank(name) {
    if (this.ranks[name]) return this.ranks[name];
    const { columns } = this;
    if (name === "vector") return (this.ranks.vector = Uint32Array.from({ length: this.size }, (_, i) => i));
    if (name === "value") return (this.ranks.value = Float64Array.from(columns.value, (value) => value ?? -Infinity));
    if (name === "mark") return (this.ranks.mark = Uint32Array.from(columns.verdict));
    const strings = columns[name === "given" ? "given" : "label"].map((text) => (text ?? "").toLowerCase());
    const places = Array.from(strings.keys()).sort((a, b) => (strings[a] < strings[b] ? -1 : strings[a] > strings[b] ? 1 : a - b));
    const rank = new Uint32Array(this.size);
    for (let place = 0, number = 0; place < places.length; place++) {
      if (place && strings[places[place]] !== strings[places[place - 1]]) number = place;
      rank[places[place]] = number;
    }
    return (this.ranks[name] = rank);
  }

  sort(column) {
    const numbers = column === "value" && this.measure !== "rank";
    const down = this.sorted.column === column ? !this.sorted.down : numbers; // numbers: the highest first
    this.sorted = { column, down };
    const rank = this.#rank(column), sign = down ? -1 : 1;
    this.order.sort((a, b) => (rank[a] === rank[b] ? a - b : rank[a] < rank[b] ? -sign : sign));
    this.#showSorted();
    this.filter();
  }
  #showSorted() {
    for (const [name, cell] of Object.entries(this.heads)) {
      const mine = name === this.sorted.column;
      cell.setAttribute("aria-sort", mine ? (this.sorted.down ? "descending" : "ascending") : "none");
      const label = cell.firstChild.textContent.replace(/ [▲▼]$/, "");
      cell.firstChild.textContent = mine ? `${label} ${this.sorted.down ? "▼" : "▲"}` : label;
    }
  }

  get step() { return this.head.offsetHeight || 32; }

  /** Put the rows that can be seen into the page. */
  draw() {
    const height = this.step;
    this.body.style.height = `${this.kept.length * height}px`;
    const first = Math.max(0, Math.floor(this.rows.scrollTop / height) - AHEAD);
    const last = Math.min(this.kept.length, Math.ceil((this.rows.scrollTop + this.rows.clientHeight) / height) + AHEAD);
    const nodes = [];
    for (let at = first; at < last; at++) nodes.push(this.#row(at, height));
    this.body.replaceChildren(...nodes);
    const active = this.kept.length ? this.id(this.active) : "";
    if (active && document.getElementById(active)) this.rows.setAttribute("aria-activedescendant", active);
    else this.rows.removeAttribute("aria-activedescendant");
  }
  id(at) { return `${this.node.id}-${at}`; }

  #row(at, height) {
    const i = this.kept[at], row = make("div", at === this.active ? "active" : "");
    row.setAttribute("role", "row");
    row.id = this.id(at);
    row.dataset.at = at;
    row.setAttribute("aria-rowindex", String(at + 2));
    row.setAttribute("aria-selected", String(i === this.chosen));
    row.style.top = `${at * height}px`;
    const verdict = this.verdicts[this.columns.verdict[i]], silent = this.columns.withheld[i] && !this.all;
    const color = { "✓": "right", "≈": "related", "✗": "wrong" }[this.marks[this.columns.verdict[i]]] ?? "silent";
    for (const name of this.names) {
      const strings = { vector: () => this.vector(i), given: () => this.columns.given[i] ?? "", mark: () => this.marks[this.columns.verdict[i]], generated: () => this.text(i), value: () => this.number(this.columns.value[i]) };
      const cell = make("span", name === "mark" ? `mark ${color}` : name === "generated" && silent ? "generated silent" : name, strings[name]());
      cell.setAttribute("role", "gridcell");
      if (name === "mark" && verdict) { cell.title = verdict; cell.setAttribute("aria-label", verdict); }
      if (name === "given" || name === "generated") cell.dir = "auto";
      row.append(cell);
    }
    return row;
  }

  /** Make a row the active one and bring it into view. */
  go(at) {
    this.active = Math.max(0, Math.min(this.kept.length - 1, at));
    const height = this.step, top = this.active * height, space = this.rows.clientHeight - height;
    if (top < this.rows.scrollTop) this.rows.scrollTop = top;
    else if (top + height > this.rows.scrollTop + space) this.rows.scrollTop = top + height - space;
    this.draw();
  }

  choose(at) {
    this.chosen = this.kept[at];
    this.go(at);
    const i = this.chosen, { columns } = this, list = make("dl");
    const facts = [
      ["vector", this.vector(i)],
      ...(this.given ? [["given", columns.given[i] ?? "none"]] : []),
      ["generated", columns.label[i] || "∅"],
      ["verdict", this.verdicts[columns.verdict[i]] || (columns.withheld[i] ? "withheld" : "")],
      [this.measure === "rank" ? "rank of its topic" : this.measure, this.number(columns.value[i]) + (this.measure === "gain" ? " nats per token" : "")],
      ...(columns.gain ? [["gain", columns.gain[i] === null ? "" : `${columns.gain[i].toFixed(2)} nats per token`]] : []),
    ];
    if (columns.details) facts.push(...columns.details[i]);
    for (const [name, text] of facts) {
      if (!text) continue;
      const value = make("dd", "", text);
      value.dir = "auto";
      list.append(make("dt", "", name), value);
    }
    this.find("more").replaceChildren(list);
  }

  #listen() {
    let waiting = false;
    this.rows.addEventListener("scroll", () => {
      if (waiting) return;
      waiting = true;
      requestAnimationFrame(() => { waiting = false; this.draw(); });
    });
    new ResizeObserver(() => this.draw()).observe(this.rows);
    this.body.addEventListener("click", (event) => {
      const row = event.target.closest("[role=row]");
      if (row) this.choose(Number(row.dataset.at));
    });
    this.rows.addEventListener("keydown", (event) => {
      if (event.target !== this.rows || event.altKey || event.metaKey || !this.kept.length) return;
      const page = Math.max(1, Math.floor(this.rows.clientHeight / this.step) - 2);
      const to = { ArrowDown: this.active + 1, ArrowUp: this.active - 1, PageDown: this.active + page, PageUp: this.active - page, Home: 0, End: this.kept.length - 1 }[event.key];
      if (to !== undefined) this.go(to);
      else if (event.key === "Enter" || event.key === " ") this.choose(this.active);
      else if (event.key === "Escape") { this.chosen = undefined; this.find("more").replaceChildren(); this.draw(); }
      else return;
      event.preventDefault();
    });
  }
}

const tables = {};
for (const packed of document.querySelectorAll("script.packed")) {
  const node = document.getElementById(packed.dataset.for);
  unpacked(packed.textContent).then(
    (content) => { node.hidden = false; tables[node.id] = new Labels(node, content); node.classList.add("ready"); },
    (error) => { node.nextElementSibling.nextElementSibling.style.display = "block"; console.warn(error); },
  );
}
