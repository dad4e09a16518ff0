// Lines over time as SVG: theme by style sheet, readable by pointer and by arrow keys.

import { h, s, morph } from "./dom.js";
import { clock, number } from "./format.js";

const HEIGHT = 190;
const MARGIN = { top: 10, right: 14, bottom: 24, left: 62 };

/** One plot. `update` takes {title, start, at, end, series: [{label, style, values}],
 *  limits: [{label, value}], keepLimits, isWhole, least, mark: {at, label, style},
 *  write, axis}; `least` is the height of a plot that holds nothing but zeros. */
export class Plot {
  constructor() {
    this.hover = null;
    this.data = null;
    this.body = h("div", { class: "canvas", tabindex: "0", role: "img" });
    this.legend = h("div", { class: "legend" });
    this.title = h("h3", null);
    this.node = h("figure", { class: "card plot", "data-own": true }, h("figcaption", null, this.title, this.legend), this.body);
    this.body.addEventListener("pointermove", (event) => this.point(event));
    this.body.addEventListener("pointerleave", () => this.show(null));
    this.body.addEventListener("blur", () => this.show(null));
    this.body.addEventListener("keydown", (event) => this.key(event));
    new ResizeObserver(() => this.draw()).observe(this.body);
  }

  update(data) {
    this.data = data;
    this.draw();
  }

  point(event) {
    if (!this.data || !this.scaleX) return;
    const x = event.clientX - this.body.getBoundingClientRect().left;
    let best = null;
    this.data.at.forEach((at, index) => {
      const gap = Math.abs(this.scaleX(at) - x);
      if (best === null || gap < best.gap) best = { gap, index };
    });
    this.show(best && best.index);
  }

  key(event) {
    if (!this.data || !this.data.at.length) return;
    const last = this.data.at.length - 1;
    const now = this.hover ?? last;
    const next = { ArrowLeft: now - 1, ArrowRight: now + 1, Home: 0, End: last }[event.key];
    if (next === undefined) return;
    event.preventDefault();
    this.show(Math.min(last, Math.max(0, next)));
  }

  show(index) {
    if (this.hover === index) return;
    this.hover = index;
    this.draw();
  }

  draw() {
    const width = this.body.clientWidth;
    if (!this.data || width < 60) return;
    const data = this.data;
    this.title.textContent = data.title;
    const scaleY = vertical(data);
    const first = data.start;
    const last = Math.max(data.end, data.at[data.at.length - 1] || data.start, first + 10);
    const inner = width - MARGIN.left - MARGIN.right;
    this.scaleX = (at) => MARGIN.left + ((at - first) / (last - first)) * inner;
    const shown = this.hover === null ? data.at.length - 1 : Math.min(this.hover, data.at.length - 1);
    morph(this.legend, h("div", { class: "legend" }, this.keys(shown)));
    const svg = s("svg", { width, height: HEIGHT, viewBox: `0 0 ${width} ${HEIGHT}`, "aria-hidden": "true" },
      this.gridY(scaleY, width), this.gridX(first, last, inner), this.limits(scaleY, width), this.mark(),
      data.series.map((one) => this.line(one, scaleY)), this.cross(scaleY));
    const wanted = h("div", { class: "canvas", tabindex: "0", role: "img", "aria-label": this.words(shown) },
      svg, !data.at.length && h("p", { class: "empty" }, "No looks yet"));
    morph(this.body, wanted);
  }

  keys(shown) {
    const when = this.hover !== null && this.data.at.length
      ? h("span", { class: "when" }, "at ", clock(this.data.at[shown] - this.data.start)) : null;
    return [this.data.series.map((one) => h("span", { class: "key" },
      s("svg", { width: 22, height: 8, "aria-hidden": "true" }, s("line", { class: `line ${one.style}`, x1: 1, x2: 21, y1: 4, y2: 4 })),
      one.label, h("b", null, this.data.write(one.values[shown], one)))), when];
  }

  words(shown) {
    const values = this.data.series.map((one) => `${one.label} ${this.data.write(one.values[shown], one)}`);
    const at = this.data.at.length ? ` at ${clock(this.data.at[shown] - this.data.start)}` : "";
    return `${this.data.title}${at}: ${values.join(", ")}. Arrow keys move in time.`;
  }

  gridY({ y, ticks, hasValues }, width) {
    return ticks.map((tick) => s("g", null,
      s("line", { class: "grid", x1: MARGIN.left, x2: width - MARGIN.right, y1: y(tick), y2: y(tick) }),
      s("text", { class: "tick", x: MARGIN.left - 8, y: y(tick) + 4, "text-anchor": "end" },
        hasValues || this.data.keepLimits ? this.data.axis(tick) : "")));
  }

  gridX(first, last, inner) {
    const step = timeStep((last - first) / Math.max(2, inner / 90));
    const marks = [];
    for (let at = 0; at <= last - first; at += step) marks.push(at);
    return marks.map((at) => s("text", {
      class: "tick", x: this.scaleX(first + at), y: HEIGHT - 6, "text-anchor": at === 0 ? "start" : "middle",
    }, clock(at)));
  }

  limits({ y, bottom, top }, width) {
    return this.data.limits.filter(({ value }) => value >= bottom && value <= top).map(({ label, value }) => s("g", null,
      s("line", { class: "limit", x1: MARGIN.left, x2: width - MARGIN.right, y1: y(value), y2: y(value) }),
      s("text", { class: "limit-word", x: MARGIN.left + 6, y: y(value) - 5 }, label)));
  }

  mark() {
    const { mark } = this.data;
    if (!mark) return null;
    const x = this.scaleX(mark.at);
    return s("g", { class: `mark ${mark.style}` },
      s("line", { x1: x, x2: x, y1: MARGIN.top, y2: HEIGHT - MARGIN.bottom }),
      s("text", { x: x - 6, y: MARGIN.top + 10, "text-anchor": "end" }, mark.label));
  }

  line(one, { y }) {
    let path = "";
    let isDown = false;
    const single = [];
    one.values.forEach((value, index) => {
      if (typeof value !== "number") { isDown = false; return; }
      const x = this.scaleX(this.data.at[index]).toFixed(1);
      path += `${isDown ? "L" : "M"}${x} ${y(value).toFixed(1)}`;
      const isAlone = !isDown && typeof one.values[index + 1] !== "number";
      if (isAlone) single.push(s("circle", { class: `dot ${one.style}`, cx: x, cy: y(value), r: 2 }));
      isDown = true;
    });
    return s("g", null, path && s("path", { class: `line ${one.style}`, d: path }), single);
  }

  cross({ y }) {
    const index = this.hover;
    if (index === null || index >= this.data.at.length) return null;
    const x = this.scaleX(this.data.at[index]);
    return s("g", null, s("line", { class: "cross", x1: x, x2: x, y1: MARGIN.top, y2: HEIGHT - MARGIN.bottom }),
      this.data.series.map((one) => typeof one.values[index] === "number"
        ? s("circle", { class: `dot ${one.style}`, cx: x, cy: y(one.values[index]), r: 4 }) : null));
  }
}

/** The y scale: from zero unless that would flatten the lines; limits nearby are kept in sight. */
function vertical(data) {
  const values = data.series.flatMap((one) => one.values).filter((value) => typeof value === "number");
  let high = values.length ? Math.max(...values) : 1;
  let low = values.length ? Math.min(...values) : 0;
  for (const { value } of data.limits) if (value <= high * 2.5 || data.keepLimits) high = Math.max(high, value);
  if (low > 0.5 * high) {
    const spread = high - low || high * 0.1 || 1;
    low -= spread * 0.4;
    high += spread * 0.4;
  } else {
    low = Math.min(0, low);
    // Above a limit that stays in sight there is room for its word and the mark's.
    high += (high - low) * (data.keepLimits ? 0.16 : 0.08) || 1.25 * (data.least || 1);
  }
  const rough = (high - low) / 4;
  // Bytes are written in steps of 1024, so their marks are round in those.
  const unit = data.isBytes && rough >= 1 ? 1024 ** Math.floor(Math.log(rough) / Math.log(1024)) : 1;
  const nice = niceStep(rough / unit) * unit;
  const step = data.isWhole ? Math.max(1, Math.ceil(nice)) : nice;
  const ticks = [];
  const from = Math.ceil(low / step - 1e-9) || 0;
  for (let index = from; index * step <= high; index += 1) ticks.push(index * step);
  const room = HEIGHT - MARGIN.top - MARGIN.bottom;
  return { ticks, bottom: low, top: high, hasValues: values.length > 0, y: (value) => HEIGHT - MARGIN.bottom - ((value - low) / (high - low)) * room };
}

function niceStep(rough) {
  const power = 10 ** Math.floor(Math.log10(rough));
  return [1, 2, 2.5, 5, 10].map((factor) => factor * power).find((step) => step >= rough) || power * 10;
}

function timeStep(rough) {
  return [5, 10, 15, 30, 60, 120, 300, 600, 900, 1800, 3600, 7200].find((step) => step >= rough) || 14400;
}

export const writer = (unit) => (value) => number(value, unit);
