"use strict";
// The grid of a reading, for the page of `selfie read` and for `selfie serve`.
// Every text goes in through textContent: nothing that a model wrote is ever markup.

const tag = (name, className = "", text = "") => {
  const node = document.createElement(name);
  if (className) node.className = className;
  if (text) node.textContent = text;
  return node;
};
// whole words, case and a plural s aside
const words = (text) => {
  const found = text.normalize("NFC").toLowerCase().match(/[\p{L}\p{N}\p{M}]+/gu) ?? [];
  return ` ${found.map((word) => (word.length > 3 ? word.replace(/s$/, "") : word)).join(" ")} `;
};
const percent = (value) => `${Math.round(value * 100)} %`;

const SILENT = "·", REPEATS = "↺";
/** A label as it is shown: silent where it is withheld, unless all are asked for. */
const shownLabel = (cell, all) => (cell.withheld && !all ? SILENT : (cell.label || "∅") + (cell.repeats ? ` ${REPEATS}` : ""));

/** What the color of a cell means: {name: "confidence" or "gain", zero, full, threshold}. */
class Measure {
  constructor({ name, zero, full, threshold }) { Object.assign(this, { name, zero, full, threshold }); }
  value(cell) { return cell[this.name]; }
  share(cell) { return !cell.label ? 0 : Math.min(1, Math.max(0, ((this.value(cell) ?? this.zero) - this.zero) / (this.full - this.zero))); }
  doubted(cell) { return !cell.label || Boolean(cell.withheld) || this.value(cell) === null || this.value(cell) <= this.zero; }
  words(cell) {
    const value = this.value(cell);
    if (cell.withheld === "no concept") return "the adapter answers: no concept";
    if (value === null) return `${this.name} unknown`;
    return this.name === "confidence" ? `confidence ${percent(value)}` : `gain ${value.toFixed(2)} nats per token`;
  }
}

/** A value of a cell as text: a number, a string, or a list of those or of labels with numbers. */
function asText(value) {
  if (Array.isArray(value)) return value.map(asText).join(", ");
  if (value === null || typeof value !== "object") return typeof value === "number" ? String(Math.round(value * 100) / 100) : String(value);
  const { label, ...rest } = value, numbers = Object.entries(rest).filter(([, one]) => typeof one === "number");
  return `${label ?? ""}${numbers.length ? ` (${numbers.map(([key, one]) => `${key.replaceAll("_", " ")} ${asText(one)}`).join(", ")})` : ""}`;
}

/** Runs of columns: one for every token that is read, one for each run of those that are not. */
function columnsOf(tokens, positions) {
  const read = new Set(positions);
  const columns = [];
  for (const token of tokens) {
    const last = columns.at(-1);
    if (read.has(token.position)) columns.push({ tokens: [token], read: true });
    else if (last && !last.read) last.tokens.push(token);
    else columns.push({ tokens: [token], read: false });
  }
  return columns;
}

const widthOf = (column) => (column.read ? 7.2 : 3.2); // in rem
// in rem: the layers' column; in compact mode the narrowest column, a silent one, and one that holds a short label
const HEAD = 3, NARROWEST = 0.8, SILENT_WIDTH = 1.3, ROOMY = 4;
const rem = () => parseFloat(getComputedStyle(document.documentElement).fontSize);
// fields of a cell that have a line of their own; what else a cell has is shown under its name
const KNOWN = new Set(["layer", "position", "label", "raw", "log_prob", "tokens", "ended", "gain", "confidence", "withheld", "repeats", "lens", "explained", "further"]);
/** What the label explains of its state, and the concepts after it; empty where they were not read. */
function concepts(cell, all) {
  if (typeof cell.explained !== "number") return [];
  const shown = cell.further.filter((one) => all || !one.withheld);
  const named = shown.map((one) => `${one.label || "∅"} (${percent(one.explained)})`).join(", ");
  return [["explained", `${percent(cell.explained)} of the state`], ...(named ? [["further concepts", named]] : [])];
}

class Grid {
  /** frame: {tokens, layers, positions}; reading: {name (may be empty), measure, trained_layers}. */
  constructor(frame, { name, measure, trained_layers: trained }) {
    this.trained = new Set(trained);
    this.measure = new Measure(measure);
    this.layers = [...frame.layers].sort((a, b) => b - a); // the last block on top
    this.columns = columnsOf(frame.tokens, frame.positions);
    this.read = this.columns.filter((column) => column.read).map((column) => column.tokens[0]);
    this.cells = new Map();
    this.nodes = new Map();
    this.word = " ";
    this.all = false; // whether labels that are withheld are shown
    this.node = tag("section", "grid");
    if (name) this.node.append(tag("h2", "", name));
    this.scroll = tag("div", "scroll");
    this.node.append(this.scroll);
    this.scroll.append(this.#table(name));
    this.last()?.setAttribute("tabindex", "0");
  }

  key(layer, position) { return `${layer}:${position}`; }
  /** The cell at which a grid opens: the last token, at the last layer that the adapter was trained on. */
  last() { return this.nodes.get(this.key(this.layers.find((layer) => this.trained.has(layer)) ?? this.layers[0], this.read.at(-1)?.position)); }
  /** In rem, with columns as wide as labels need them. */
  get fullWidth() { return this.columns.reduce((sum, column) => sum + widthOf(column), HEAD); }

  #table(name) {
    const table = tag("table", "cells");
    table.setAttribute("role", "grid");
    table.setAttribute("aria-label", `${name ? `${name}: ` : ""}labels, layers up and tokens across`);
    table.setAttribute("aria-rowcount", this.layers.length + 1);
    const columns = table.appendChild(tag("colgroup"));
    this.widths = [HEAD, ...this.columns.map(widthOf)].map(() => columns.appendChild(tag("col")));
    this.table = table;
    this.setWidths(false);
    const body = table.createTBody();
    for (const layer of this.layers) {
      const row = body.insertRow();
      const head = tag("th", this.trained.has(layer) ? "trained" : "", String(layer));
      head.scope = "row";
      head.dataset.layer = layer;
      head.title = `output of block ${layer}` + (this.trained.has(layer) ? ": the adapter was trained on this layer" : "");
      row.append(head);
      for (const column of this.columns) {
        const node = row.insertCell();
        if (!column.read) { node.className = "gap"; node.setAttribute("aria-hidden", "true"); continue; }
        const { position } = column.tokens[0];
        node.className = "cell waiting";
        node.setAttribute("role", "gridcell");
        node.setAttribute("aria-label", `layer ${layer}, token ${position}: waiting`);
        node.tabIndex = -1;
        node.dir = "auto";
        node.dataset.layer = layer;
        node.dataset.position = position;
        this.nodes.set(this.key(layer, position), node);
      }
    }
    const row = table.createTFoot().insertRow();
    const corner = tag("th", "corner", "layer");
    row.append(corner);
    for (const column of this.columns) {
      const text = column.tokens.filter((token) => !token.part?.match(/^[2-9]/)).map((token) => token.text).join("");
      const head = tag("th", column.read ? "" : "unread");
      const bdi = tag("bdi", "", text + (column.read && column.tokens[0].part ? ` ${column.tokens[0].part}` : ""));
      head.append(bdi);
      head.scope = "col";
      const at = column.tokens.map((token) => token.position);
      head.title = `token ${at.length > 1 ? `${at[0]} to ${at.at(-1)}` : at[0]}: ${text}` + (column.read ? "" : " (not read)");
      if (column.read) head.dataset.position = at[0];
      row.append(head);
    }
    return table;
  }

  /** Set the widths of the columns. compact: all of them share the space there is. Silent tokens are
   *  narrow; where the others get too little for labels, all are narrow but the one opened last. */
  setWidths(compact) {
    this.compact = compact;
    const wide = widthOf({ read: true });
    let widths = this.columns.map(widthOf);
    if (compact) {
      const space = this.scroll.clientWidth / rem() - 0.2 - HEAD, gap = 1 / rem();
      const chosen = (column) => column.read && column.tokens[0].position === this.opened;
      const others = this.columns.filter((column) => !chosen(column)), speaking = others.filter((column) => this.#speaks(column));
      const even = Math.max(NARROWEST, (space - wide) / Math.max(1, others.length) - gap);
      const each = Math.min(wide, (space - wide - (others.length - speaking.length) * SILENT_WIDTH) / Math.max(1, speaking.length) - gap);
      widths = this.columns.map((column) => {
        if (chosen(column)) return wide;
        if (each >= ROOMY) return this.#speaks(column) ? each : Math.min(SILENT_WIDTH, widthOf(column));
        return column.read ? even : Math.min(even, 1);
      });
    }
    [HEAD, ...widths].forEach((width, i) => { this.widths[i].style.width = `${width}rem`; });
    this.table.style.width = `${widths.reduce((sum, width) => sum + width, HEAD)}rem`;
    this.table.classList.toggle("short", this.columns.every((column, i) => !column.read || widths[i] >= ROOMY));
    this.columns.forEach((column, i) => { for (const node of this.nodesOf(column)) node.classList.toggle("open", widths[i] >= ROOMY); });
  }
  /** Whether a label of the column is shown. */
  #speaks(column) {
    const position = column.tokens[0].position;
    return column.read && this.layers.some((layer) => { const cell = this.cells.get(this.key(layer, position)); return cell && cell.label && (this.all || !cell.withheld); });
  }
  nodesOf(column) {
    const position = column.tokens[0].position;
    return this.node.querySelectorAll(`[data-position="${position}"]`);
  }
  /** Open the column of a token. */
  open(position) {
    this.opened = position;
    if (this.compact) this.setWidths(true);
  }
  /** Color by another measure. */
  rescale(measure) {
    this.measure = new Measure(measure);
    for (const [key, cell] of this.cells) this.#paint(this.nodes.get(key), cell);
  }

  add(cells) {
    for (const cell of cells) {
      const key = this.key(cell.layer, cell.position);
      const node = this.nodes.get(key);
      if (!node) continue;
      this.cells.set(key, cell);
      this.#paint(node, cell);
    }
    if (this.compact) this.setWidths(true);
  }

  #paint(node, cell) {
    const silent = cell.withheld && !this.all;
    const share = silent ? 0 : this.measure.share(cell);
    node.style.setProperty("--c", share.toFixed(3));
    node.replaceChildren(shownLabel(cell, this.all));
    // Not in the text: a cell's name must contain its text, and the lens's word comes last in the name.
    if (cell.lens !== null) node.dataset.lens = cell.lens || "∅";
    node.classList.remove("waiting");
    node.classList.toggle("silent", Boolean(silent));
    node.classList.toggle("doubted", this.measure.doubted(cell));
    node.setAttribute("aria-label", this.spoken(cell));
    this.#mark(node, cell);
  }

  /** Show the labels that are withheld, or hide them again. */
  showAll(all) {
    this.all = all;
    for (const [key, cell] of this.cells) this.#paint(this.nodes.get(key), cell);
    if (this.compact) this.setWidths(true);
  }

  spoken(cell) {
    const token = this.read.find((one) => one.position === cell.position);
    const lens = cell.lens === null ? "" : `, logit lens ${cell.lens || "∅"}`;
    return `layer ${cell.layer}, token ${cell.position} ${token.text}: ${this.said(cell)}, ${this.measure.words(cell)}${lens}`;
  }
  /** The label in words, or why it is not shown. */
  said(cell) {
    if (cell.withheld && !this.all) return `withheld, ${cell.withheld}`;
    return (cell.label || "nothing written") + (cell.repeats ? " (repeats words of the text)" : "");
  }

  find(text) {
    this.word = words(text);
    for (const [key, cell] of this.cells) this.#mark(this.nodes.get(key), cell);
    return [...this.cells.values()].filter((cell) => this.#named(cell)).length;
  }
  #named(cell) { return (this.all || !cell.withheld) && this.word.trim() !== "" && words(cell.label).includes(this.word); }
  #mark(node, cell) { node.classList.toggle("found", this.#named(cell)); }

  select(layer, position) {
    for (const node of this.node.querySelectorAll('[aria-selected="true"]')) node.removeAttribute("aria-selected");
    for (const node of this.node.querySelectorAll(".here")) node.classList.remove("here");
    this.nodes.get(this.key(layer, position))?.setAttribute("aria-selected", "true");
    for (const head of this.node.querySelectorAll(`th[data-layer="${layer}"], th[data-position="${position}"]`)) head.classList.add("here");
  }

  /** The cell that a key leads to from (layer, position), or undefined. */
  step(layer, position, key, whole) {
    const row = this.layers.indexOf(layer), column = this.read.findIndex((token) => token.position === position);
    const last = [this.layers.length - 1, this.read.length - 1];
    const to = {
      ArrowUp: [row - 1, column], ArrowDown: [row + 1, column], ArrowLeft: [row, column - 1], ArrowRight: [row, column + 1],
      PageUp: [Math.max(0, row - 5), column], PageDown: [Math.min(last[0], row + 5), column],
      Home: [whole ? 0 : row, 0], End: [whole ? last[0] : row, last[1]],
    }[key];
    if (!to) return undefined;
    const [r, c] = to;
    return r < 0 || c < 0 || r > last[0] || c > last[1] ? null : this.nodes.get(this.key(this.layers[r], this.read[c].position));
  }
}

/** Grids side by side over one prompt: one selection, one tooltip, one panel of details. */
class Stage {
  constructor(host, frame, readings) {
    this.frame = frame;
    this.grids = readings.map((reading) => new Grid(frame, reading));
    const box = tag("div", "grids");
    box.append(...this.grids.map((grid) => grid.node));
    this.details = tag("aside", "details");
    this.details.setAttribute("aria-label", "details of the chosen cell");
    this.details.setAttribute("aria-live", "polite");
    this.#hint();
    const stage = tag("div", "stage");
    stage.append(box, this.details);
    host.replaceChildren(stage);
    this.tip = document.getElementById("tip");
    for (const grid of this.grids) this.#listen(grid);
    this.stage = stage;
    this.setCompact(this.grids.some((grid) => grid.fullWidth * rem() > grid.scroll.clientWidth));
    new ResizeObserver(() => { if (this.compact) for (const grid of this.grids) grid.setWidths(true); }).observe(box);
    if (this.grids.length > 1) for (const grid of this.grids) this.#scrollTogether(grid);
  }

  #hint() {
    const hint = tag("p", "hint");
    hint.append("Choose a cell with the mouse, or walk with the ", tag("kbd", "", "arrow keys"), " and press ", tag("kbd", "", "Enter"), ". ", tag("kbd", "", "Esc"), " closes.");
    this.details.replaceChildren(hint);
    this.details.classList.remove("chosen");
  }

  /** Narrow columns and no panel at the side, or columns that are wide enough for labels. */
  setCompact(compact) {
    this.compact = compact;
    this.stage.classList.toggle("compact", compact);
    for (const grid of this.grids) grid.setWidths(compact);
  }
  /** Choose the last token at the last trained layer, and bring it into view. */
  openAtEnd() {
    const node = this.grids[0]?.last();
    if (!node || this.chosen) return;
    this.open(node);
    for (const grid of this.grids) {
      const mine = grid.nodes.get(grid.key(node.dataset.layer, node.dataset.position));
      grid.scroll.scrollLeft = mine.offsetLeft;
      grid.scroll.scrollTop = mine.offsetTop - grid.scroll.clientHeight / 2;
    }
  }

  #listen(grid) {
    const at = (event) => event.target.closest?.("td.cell");
    grid.scroll.addEventListener("click", (event) => { const node = at(event); if (node) { node.focus(); this.open(node); } });
    grid.scroll.addEventListener("pointerover", (event) => this.#tell(grid, at(event)));
    grid.scroll.addEventListener("pointerleave", () => this.#tell(grid, null));
    grid.scroll.addEventListener("scroll", () => this.#tell(grid, null));
    grid.scroll.addEventListener("focusin", (event) => {
      const node = at(event);
      if (!node) return;
      for (const other of grid.nodes.values()) if (other.tabIndex === 0) other.tabIndex = -1;
      node.tabIndex = 0;
      if (node.matches(":focus-visible")) requestAnimationFrame(() => this.#tell(grid, node));
    });
    grid.scroll.addEventListener("focusout", () => this.#tell(grid, null));
    grid.scroll.addEventListener("keydown", (event) => {
      const node = at(event);
      if (!node || event.altKey || event.metaKey) return;
      const place = [Number(node.dataset.layer), Number(node.dataset.position)];
      if (event.key === "Enter" || event.key === " ") this.open(node);
      else if (event.key === "Escape") this.close();
      else {
        const to = grid.step(...place, event.key, event.ctrlKey);
        if (to === undefined) return;
        to?.focus();
        to?.scrollIntoView({ block: "nearest", inline: "nearest" });
      }
      event.preventDefault();
    });
  }

  #scrollTogether(grid) {
    grid.scroll.addEventListener("scroll", () => {
      for (const other of this.grids) {
        if (other !== grid && other.scroll.scrollLeft !== grid.scroll.scrollLeft) other.scroll.scrollLeft = grid.scroll.scrollLeft;
        if (other !== grid && other.scroll.scrollTop !== grid.scroll.scrollTop) other.scroll.scrollTop = grid.scroll.scrollTop;
      }
    });
  }

  #tell(grid, node) {
    const cell = node && grid.cells.get(grid.key(node.dataset.layer, node.dataset.position));
    this.tip.hidden = !cell;
    if (!cell) return;
    const label = tag("b", "", grid.said(cell));
    label.dir = "auto";
    this.tip.replaceChildren(label, tag("small", "", `layer ${cell.layer} · token ${cell.position} · ${grid.measure.words(cell)}`));
    const box = node.getBoundingClientRect(), mine = this.tip.getBoundingClientRect();
    const above = box.top - mine.height - 8;
    this.tip.style.left = `${Math.max(8, Math.min(box.left, innerWidth - mine.width - 8))}px`;
    this.tip.style.top = `${above > 8 ? above : box.bottom + 8}px`;
  }

  open(node) {
    const layer = Number(node.dataset.layer), position = Number(node.dataset.position);
    this.chosen = [layer, position];
    for (const grid of this.grids) { grid.select(layer, position); grid.open(position); }
    this.#detail();
  }
  close() {
    this.chosen = undefined;
    for (const grid of this.grids) grid.select(-1, -1);
    this.tip.hidden = true;
    this.#hint();
  }

  #detail() {
    const [layer, position] = this.chosen;
    const token = this.frame.tokens.find((one) => one.position === position);
    this.details.replaceChildren();
    this.details.classList.add("chosen");
    for (const grid of this.grids) {
      const cell = grid.cells.get(grid.key(layer, position));
      const heading = grid.node.querySelector("h2")?.textContent;
      if (heading) this.details.append(tag("h2", "", heading));
      const label = tag("p", "label", cell ? grid.said(cell) : "waiting");
      label.dir = "auto";
      const where = tag("p", "where");
      where.append(`layer ${layer}, token ${position} “`, tag("bdi", "", token.text), "”");
      this.details.append(label, where);
      if (cell) this.details.append(this.#facts(grid, cell));
      this.details.append(tag("h2", "", "This token through the layers"), this.#column(grid, position, layer));
    }
  }

  #facts(grid, cell) {
    const rows = [
      ["confidence", cell.confidence === null ? "none" : percent(cell.confidence)],
      ["shown", cell.withheld ? `no: ${cell.withheld}` : "yes"],
      ["gain", cell.gain === null ? "unknown" : `${cell.gain.toFixed(2)} nats per token over the zero vector`],
      ["log p", cell.log_prob === null ? "unknown" : `${cell.log_prob.toFixed(2)} nats over ${cell.tokens} tokens`],
      ["written", cell.raw],
      ["ended", cell.ended ? "yes" : "no: cut off"],
      ...(cell.repeats ? [["repeats", "only words of the text before this token"]] : []),
      ...(cell.lens !== null ? [["logit lens", cell.lens || "∅"]] : []),
      ...concepts(cell, grid.all),
      ...Object.entries(cell).filter(([key, value]) => !KNOWN.has(key) && value !== null && value !== false).map(([key, value]) => [key.replaceAll("_", " "), asText(value)]),
    ];
    const list = tag("dl");
    for (const [key, value] of rows) list.append(tag("dt", "", key), tag("dd", "", value));
    return list;
  }

  #column(grid, position, layer) {
    const list = tag("ol");
    for (const one of grid.layers) {
      const cell = grid.cells.get(grid.key(one, position));
      const item = tag("li", one === layer ? "here" : "");
      const swatch = tag("i"), text = tag("span", "", cell ? shownLabel(cell, grid.all) : "…");
      if (cell && !(cell.withheld && !grid.all)) swatch.style.setProperty("--c", grid.measure.share(cell).toFixed(3));
      text.dir = "auto";
      item.append(tag("b", "", String(one)), swatch, text);
      list.append(item);
    }
    return list;
  }

  add(which, cells) {
    this.grids[which].add(cells);
    if (this.chosen) this.#detail();
  }
  showAll(all) {
    for (const grid of this.grids) grid.showAll(all);
    if (this.chosen) this.#detail();
  }
  find(text) { return this.grids.map((grid) => grid.find(text)).reduce((a, b) => a + b, 0); }
}

/** A checkbox with its label. */
function toggle(id, text, checked, onChange) {
  const label = tag("label", "box"), box = tag("input");
  Object.assign(box, { type: "checkbox", checked, id });
  box.addEventListener("change", () => onChange(box.checked));
  label.append(box, text);
  return label;
}
/** A checkbox that shows what is withheld, and hides it again. */
const withheldToggle = (all, onAll) => toggle("show-withheld", "show what was withheld", all, onAll);

/** Legend and search field above a stage; returns what searches again.
 *  all: whether labels that are withheld are shown at first. */
function tools(host, readings, find, all, stage) {
  const legend = tag("div", "legend"), ramp = tag("span", "ramp");
  const { name, zero, full, random } = readings[0].measure, confidence = name === "confidence";
  for (const { measure } of readings) {
    if (!(measure.threshold > 0)) continue; // none, or one for each layer and kind of position
    const mark = ramp.appendChild(tag("i"));
    mark.style.left = `${(100 * (measure.threshold - zero)) / (full - zero)}%`;
    mark.title = `threshold ${percent(measure.threshold)}: below it, the label is withheld`;
  }
  legend.append(tag("span", "", `color: ${name}`));
  const apart = new Set(readings.map(({ measure }) => measure.zero)).size > 1; // each grid has its own random directions
  legend.append(confidence ? "0 %" : apart ? "random directions" : String(Math.round(zero * 100) / 100), ramp, confidence ? "100 %" : apart ? `${Math.round((full - zero) * 100) / 100} nats per token more` : `${Math.round(full * 100) / 100} nats per token or more`);
  if (!confidence) legend.title = "gain over the zero vector" + (random ? `; the color begins at the highest of ${random} random directions` : "");
  const marks = tag("span");
  if (!confidence) marks.append(tag("em", "", "in italics"), random ? " no more than random directions; " : " the vector adds nothing; ");
  marks.append(`${REPEATS} repeats words of the text`);
  if (readings.some((reading) => reading.withholds)) marks.prepend(`${SILENT} withheld; `);
  const label = tag("label", "find"), input = tag("input"), count = tag("output");
  Object.assign(input, { type: "search", value: find, placeholder: "a word", id: "find" });
  label.append("mark labels that name", input, count);
  const search = () => {
    const found = stage.find(input.value);
    count.textContent = input.value.trim() ? `${found} ${found === 1 ? "cell" : "cells"}` : "";
  };
  input.addEventListener("input", search);
  host.replaceChildren(legend, marks, label);
  if (readings.some((reading) => reading.withholds)) {
    marks.after(withheldToggle(all, (on) => { stage.showAll(on); search(); }));
    stage.showAll(all);
  }
  const layers = [...new Set(readings.flatMap((reading) => reading.trained_layers))].sort((a, b) => a - b);
  if (layers.length) marks.after(tag("span", "trained", `trained on layer${layers.length > 1 ? "s" : ""} ${layers.join(", ")}`));
  const box = stage.stage;
  if (readings.some((reading) => reading.lens)) {
    label.before(toggle("lens-words", "logit lens", true, (on) => box.classList.toggle("no-lens", !on)));
  }
  label.before(toggle("compact", "compact", stage.compact, (on) => stage.setCompact(on)));
  return search;
}
