// The page: a list of analyses and one analysis live. It only reads; the service decides.

import { SignIn, askJson, follow, token, watchAccess } from "./access.js";
import { h, morph } from "./dom.js";
import * as format from "./format.js";
import { matrix, proofs } from "./matrix.js";
import { Plot, writer } from "./plot.js";
import { Rules, VIEW, watchRules } from "./rules.js";

const LIST_EVERY_MS = 3000;
const RETRY_MS = 3000;
const DELIVERIES_EVERY_MS = 4000;
/** Intervals without a look after which the page says so, and the least time for it. */
const LATE_INTERVALS = 3;
const LATE_MS_MIN = 3000;
const POINTS_MAX = 3600;
const EVIDENCE_STYLES = ["one", "two", "three", "four", "five"];

const main = document.getElementById("main");
const link = document.getElementById("link");
const asker = document.getElementById("asker");
let current = { stop() {} };

/** Says in the top bar whether what is shown is fresh. */
function connection(state, words) {
  link.dataset.state = state;
  if (link.textContent !== words) link.textContent = words;
}

function route() {
  current.stop();
  const id = /^#\/analyses\/([^/]+)$/.exec(location.hash);
  main.replaceChildren(h("p", { class: "quiet" }, "Loading"));
  connection("wait", "connecting");
  if (SignIn.isNeeded) current = new SignIn({ place: asker, show: morphMain, connection, signedIn: route });
  else if (id) current = new Analysis(decodeURIComponent(id[1]));
  else if (location.hash === VIEW) current = new Rules({ fetchJson: askJson, connection, problem, show: morphMain });
  else current = new List();
  current.start();
  window.scrollTo(0, 0);
}

function badge(state, word) {
  const { key, mark, word: text } = format.verdict(state, word);
  return h("span", { class: "badge", "data-verdict": key }, h("i", { "aria-hidden": "true" }, mark), text);
}

class List {
  constructor() {
    this.pages = 1;
  }

  start() {
    document.title = "rollgate";
    main.addEventListener("click", this.click = (event) => this.more(event));
    this.load();
  }

  stop() {
    this.isOver = true;
    clearTimeout(this.timer);
    main.removeEventListener("click", this.click);
  }

  async load() {
    try {
      const lines = [];
      let after = null;
      for (let page = 0; page < this.pages; page += 1) {
        const path = `/v1/analyses?limit=50${after ? `&after=${encodeURIComponent(after)}` : ""}`;
        const found = await askJson(path);
        lines.push(...found.analyses);
        after = found.next;
        if (!after) break;
      }
      if (this.isOver) return;
      connection("live", "live");
      this.show(lines, after);
    } catch (error) {
      if (this.isOver) return;
      if (error.status === 403) { forbidden(error); return; }
      connection("lost", "connection lost, trying again");
      if (!main.querySelector(".lines")) morphMain(problem("The list cannot be read", error));
    }
    this.timer = setTimeout(() => this.load(), LIST_EVERY_MS);
  }

  more(event) {
    if (!event.target.closest("#more")) return;
    this.pages += 1;
    clearTimeout(this.timer);
    this.load();
  }

  show(lines, next) {
    const running = lines.filter((line) => line.state === "running");
    const over = lines.filter((line) => line.state !== "running");
    document.title = running.length ? `${running.length} running \u2013 rollgate` : "rollgate";
    if (!lines.length) {
      morphMain(h("main", null, h("section", { class: "card hollow lines" },
        h("h1", null, "No analyses yet"),
        h("p", null, "An analysis begins when a controller or a pipeline orders one:"),
        h("pre", { tabindex: "0" }, h("code", null, orderExample())),
        h("p", null, "It appears here by itself."))));
      return;
    }
    morphMain(h("main", null,
      h("h1", null, "Analyses"),
      section("Running", running, "Nothing is being released."),
      over.length > 0 && section("Over", over, ""),
      next && h("p", { class: "quiet" }, h("button", { id: "more", type: "button" }, "Show older"))));
  }
}

const orderExample = () => `curl ${location.origin}/v1/analyses -H 'Content-Type: application/json'${token() ? " \\\n  -H 'Authorization: Bearer TOKEN'" : ""} -d '{
  "service": "shop", "rules": "recommended",
  "canary":   {"version": "v2", "targets": ["http://10.0.0.7:8080"]},
  "baseline": {"version": "v1", "targets": ["http://10.0.0.1:8080"]}}'`;

function section(title, lines, empty) {
  return h("section", { class: "lines", "data-key": title },
    h("h2", null, title, h("span", { class: "count" }, lines.length)),
    lines.length ? h("ul", null, lines.map(listLine)) : h("p", { class: "quiet" }, empty));
}

function listLine(line) {
  const when = line.decided_at ?? line.started_at;
  return h("li", { "data-key": line.id },
    h("a", { class: "card entry", href: `#/analyses/${encodeURIComponent(line.id)}` },
      badge(line.state, line.verdict),
      h("span", { class: "what" }, h("b", null, line.service), versions(line.canary_version, line.baseline_version)),
      h("span", { class: "reason" }, line.reason || "No look has been taken yet."),
      h("time", { datetime: new Date(when * 1000).toISOString(), title: format.moment(when) },
        line.state === "running" ? "began " : "", format.ago(when))));
}

function versions(canary, baseline) {
  return h("span", { class: "versions" }, h("span", null, canary || "canary"),
    baseline && [" against ", h("span", null, baseline)]);
}

function problem(title, error) {
  return h("main", null, h("section", { class: "card hollow", role: "alert" },
    h("h1", null, title), h("p", null, error.message || "The service does not answer."),
    h("p", null, h("a", { href: "#/" }, "All analyses"))));
}

/** It is known who asks, or from where, and that may not be: trying again would change nothing. */
function forbidden(error) {
  connection("over", "not allowed");
  morphMain(problem("This may not be asked", error));
}

function morphMain(wanted) {
  wanted.id = "main";
  wanted.setAttribute("tabindex", "-1");
  morph(main, wanted);
}

class Analysis {
  constructor(id) {
    this.id = id;
    this.path = `/v1/analyses/${encodeURIComponent(id)}`;
    this.plots = new Map();
  }

  start() {
    this.heardAt = Date.now();
    this.pulse = setInterval(() => this.checkLate(), 1000);
    this.load();
  }

  stop() {
    this.isOver = true;
    clearTimeout(this.timer);
    clearInterval(this.pulse);
    if (this.events) this.events.abort();
  }

  again(wait) {
    clearTimeout(this.timer);
    if (!this.isOver) this.timer = setTimeout(() => this.load(), wait);
  }

  /** Reads everything anew, then follows while it runs. */
  async load() {
    try {
      const [view, history] = await Promise.all([askJson(this.path), askJson(`${this.path}/history`)]);
      if (this.isOver) return;
      this.view = view;
      this.history = history;
      this.show();
      if (view.state === "running") this.follow();
      else this.rest();
    } catch (error) {
      if (this.isOver) return;
      if (error.status === 404) {
        connection("live", "live");
        morphMain(problem("There is no such analysis", error));
        return;
      }
      if (error.status === 403) { forbidden(error); return; }
      this.lost();
      if (!this.view) morphMain(problem("The analysis cannot be read", error));
      this.again(RETRY_MS);
    }
  }

  follow() {
    if (this.events) this.events.abort();
    const events = new AbortController();
    this.events = events;
    const ended = () => {
      // Ended by us, or by the verdict that was heard.
      if (events.signal.aborted) return;
      this.lost();
      this.again(RETRY_MS);
    };
    follow(`${this.path}/events`, {
      signal: events.signal,
      opened: () => connection("live", "live"),
      heard: (name, data) => {
        if (events.signal.aborted) return;
        if (name === "look") this.look(JSON.parse(data));
        if (name === "verdict") { events.abort(); this.load(); }
      },
    }).then(ended, ended);
  }

  /** A stream that is open and silent looks like calm, and is not. */
  checkLate() {
    if (!this.view || this.view.state !== "running" || !["live", "late"].includes(link.dataset.state)) return;
    const silentMs = Date.now() - this.heardAt;
    if (silentMs < Math.max(LATE_MS_MIN, LATE_INTERVALS * this.view.interval_secs * 1000)) return;
    connection("late", `no new look for ${format.span(silentMs / 1000)}`);
  }

  lost() {
    const report = this.view && this.view.report;
    connection("lost", report ? `connection lost, showing look ${report.look}` : "connection lost, trying again");
  }

  /** Over: only deliveries may still move. */
  rest() {
    connection("over", "analysis is over");
    if (this.view.deliveries.some((delivery) => delivery.state === "pending")) this.again(DELIVERIES_EVERY_MS);
  }

  look(report) {
    this.heardAt = Date.now();
    connection("live", "live");
    const known = this.view.report ? this.view.report.look : 0;
    this.view.report = report;
    // Looks were missed while the connection was down: the history has them.
    if (report.look > known + 1) { this.load(); return; }
    if (report.look > known) append(this.history, report);
    this.show();
  }

  show() {
    const { view, history } = this;
    const report = view.report;
    const { mark, word } = format.verdict(view.state, report ? report.verdict : "watching");
    document.title = `${mark} ${word} \u2013 ${view.service} \u2013 rollgate`;
    morphMain(h("main", null,
      headline(view, report),
      report && h("section", { class: "block" }, h("h2", null, "Decision matrix"),
        h("div", { class: "card flush" }, matrix(report, report.rule))),
      report && proofs(report),
      h("section", { class: "block" }, h("h2", null, "Canary against baseline"),
        h("div", { class: "plots" }, history.signals.filter((one) => one.unit !== "health").map((one) => this.plot(`signal ${one.name}`)))),
      history.evidence.length > 0 && h("section", { class: "block" }, h("h2", null, "Evidence"),
        h("div", { class: "plots wide" }, this.plot("evidence"))),
      h("div", { class: "pair" }, deliveries(view), facts(view))));
    this.drawPlots();
  }

  /** The place of a plot. A plot draws itself, so its node is put there once and then left alone. */
  plot(key) {
    if (!this.plots.has(key)) {
      const plot = new Plot();
      plot.node.setAttribute("data-key", key);
      this.plots.set(key, plot);
    }
    return h("figure", { "data-key": key, "data-own": true });
  }

  drawPlots() {
    for (const place of main.querySelectorAll("figure[data-own]")) {
      const { node } = this.plots.get(place.dataset.key);
      if (place !== node) place.replaceWith(node);
    }
    const { view, history } = this;
    const report = view.report;
    const limits = report ? signalLimits(report) : new Map();
    const { key, word } = format.verdict(view.state, report ? report.verdict : "");
    const common = {
      start: view.started_at, at: history.at,
      end: view.state === "running" ? view.started_at + Math.min(view.hold_secs, 120) : 0,
      mark: report && report.decided_at ? { at: report.decided_at, label: word, style: key } : null,
    };
    for (const one of history.signals) {
      const plot = this.plots.get(`signal ${one.name}`);
      if (!plot) continue;
      plot.update({
        ...common, title: one.name, limits: limits.get(one.name) || [], isWhole: one.unit === "count", isBytes: one.unit === "bytes", least: one.unit === "share" ? 0.01 : 1, write: writer(one.unit), axis: writer(one.unit),
        series: [
          { label: "baseline", style: "baseline", values: one.baseline },
          { label: "canary", style: "canary", values: one.canary },
        ],
      });
    }
    const evidence = this.plots.get("evidence");
    if (evidence) {
      evidence.update({
        ...common, title: "Share of the evidence that a rule needs to fire",
        limits: [{ label: "fires", value: 1 }], keepLimits: true, axis: writer("share"),
        write: (value, one) => typeof value === "number" ? `${(value * one.needed).toFixed(1)} of ${one.needed.toFixed(1)}` : "\u2013",
        series: history.evidence.map((one, index) => ({
          label: one.clause, needed: one.needed, style: EVIDENCE_STYLES[index % EVIDENCE_STYLES.length],
          values: one.decades.map((value) => typeof value === "number" ? Math.max(0, value) / one.needed : null),
        })),
      });
    }
  }
}

/** Constant bounds of a signal's clauses, for its plot. Bounds that move with the baseline are in
 *  the matrix only. */
function signalLimits(report) {
  const limits = new Map();
  for (const clause of report.findings.flatMap((finding) => finding.clauses)) {
    if (typeof clause.bound !== "number" || typeof clause.baseline === "number") continue;
    const list = limits.get(clause.signal) || [];
    if (!list.some((limit) => limit.value === clause.bound)) list.push({ label: clause.clause, value: clause.bound });
    limits.set(clause.signal, list);
  }
  return limits;
}

function append(history, report) {
  history.at.push(report.at);
  for (const signal of history.signals) {
    const now = report.signals.find((one) => one.name === signal.name);
    signal.canary.push(now ? now.canary : null);
    signal.baseline.push(now ? now.baseline : null);
  }
  const clauses = report.findings.flatMap((finding) => finding.clauses);
  for (const line of history.evidence) {
    const now = clauses.find((clause) => clause.clause === line.clause && clause.progress.kind === "evidence_decades");
    line.decades.push(now ? now.progress.value : null);
  }
  if (history.at.length > POINTS_MAX) thin(history);
}

/** Every second look is dropped: an analysis of hours stays light, and keeps its shape. */
function thin(history) {
  const half = (values) => values.filter((_, index) => index % 2 === 0);
  history.at = half(history.at);
  for (const signal of history.signals) {
    signal.canary = half(signal.canary);
    signal.baseline = half(signal.baseline);
  }
  for (const line of history.evidence) line.decades = half(line.decades);
}

function headline(view, report) {
  const verdict = format.verdict(view.state, report ? report.verdict : "watching");
  return h("section", { class: "card headline", "data-verdict": verdict.key },
    h("nav", null, h("a", { href: "#/" }, "\u2190 All analyses")),
    h("div", { class: "say" },
      h("span", { class: "disc", "aria-hidden": "true" }, verdict.mark),
      h("div", null,
        h("h1", { id: "verdict" }, verdict.word),
        h("p", { class: "of" }, h("b", null, view.service), " ", versions(view.canary.version, view.baseline && view.baseline.version)))),
    h("p", { class: "sentence", id: "reason", "aria-live": "polite" }, sentence(view, report)),
    hold(view, report));
}

function sentence(view, report) {
  if (view.state === "cancelled") {
    const { who, why } = view.cancelled || {};
    return `Cancelled${who ? ` by ${who}` : ""}${why ? `: ${why}` : "."}`;
  }
  if (!report) return "No look has been taken yet.";
  return report.reason;
}

function hold(view, report) {
  const elapsed = report ? report.elapsed_secs : 0;
  const whole = view.hold_secs > 0 ? Math.min(1, elapsed / view.hold_secs) : 1;
  const left = view.hold_secs - elapsed;
  const isOver = view.state !== "running";
  const tell = isOver
    ? (report && report.decided_at ? `Decided after ${format.span(report.decided_at - view.started_at)}` : `Over after ${format.span(elapsed)}`)
    : left > 0 ? `${format.span(left)} of the hold to go` : `Hold is over; ends within ${format.span(view.deadline_secs - elapsed)}`;
  return h("div", { class: "hold" },
    h("div", {
      class: "meter thick", role: "progressbar", "aria-label": "Hold time", "aria-valuemin": "0",
      "aria-valuemax": "100", "aria-valuenow": Math.round(whole * 100), vars: { "--fill": whole.toFixed(4) },
    }, h("div", { class: "fill" })),
    h("p", null, h("span", null, tell),
      h("span", null, Math.round(left) >= 0 ? `watched ${format.span(elapsed)} of ${format.span(view.hold_secs)}`
        : `watched ${format.span(elapsed)}, hold ${format.span(view.hold_secs)}`),
      report && h("span", null, `look ${format.number(report.look, "count")}`),
      release(view, report)));
}

/** Where a progressive release stands. */
function release(view, report) {
  const steps = view.steps || [];
  if (!steps.length) return null;
  const at = report && report.release_step !== null ? report.release_step : 0;
  return h("span", null, `step ${at + 1} of ${steps.length}, ${format.number(steps[at].weight, "share")} of the traffic`);
}

const DELIVERY = {
  pending: "\u2026", delivered: "\u2713", refused: "\u00d7", dead: "\u00d7",
};

function deliveries(view) {
  return h("section", { class: "block" }, h("h2", null, "Deliveries"),
    h("div", { class: "card flush" }, view.deliveries.length
      ? h("ul", { class: "deliveries" }, view.deliveries.map((one) => h("li", { "data-key": one.key },
          h("span", { class: "state", "data-state": one.state }, h("i", { "aria-hidden": "true" }, DELIVERY[one.state] || "?"), one.state),
          h("b", null, one.mechanism),
          h("small", null, `${one.attempts} ${one.attempts === 1 ? "attempt" : "attempts"}`,
            one.last_answer && ` \u00b7 ${one.last_answer}`,
            one.next_attempt_at && ` \u00b7 next at ${format.moment(one.next_attempt_at)}`))))
      : h("p", { class: "quiet" }, view.state === "running" ? "The verdict will be sent once it is final." : "Nobody was to be told.")));
}

function facts(view) {
  const arm = (of) => of && h("dd", null, h("b", null, of.version || "no version given"),
    of.selector ? h("code", null, of.selector) : h("details", null,
      h("summary", null, `${of.targets.length} ${of.targets.length === 1 ? "instance" : "instances"}`),
      h("ul", null, of.targets.map((target) => h("li", null, h("code", null, target))))));
  return h("section", { class: "block" }, h("h2", null, "About"),
    h("dl", { class: "card facts" },
      h("dt", null, "Canary"), arm(view.canary),
      view.baseline && [h("dt", null, "Baseline"), arm(view.baseline)],
      h("dt", null, "Rules"), h("dd", null, h("a", { href: `/v1/analyses/${encodeURIComponent(view.id)}/rules` }, view.rules.name), " ", h("code", { title: view.rules.sha256 }, view.rules.sha256.slice(0, 12))),
      h("dt", null, "Began"), h("dd", null, format.moment(view.started_at)),
      h("dt", null, "Looks"), h("dd", null, `every ${format.span(view.interval_secs)}, until ${format.span(view.deadline_secs)} at the latest`),
      h("dt", null, "Id"), h("dd", null, h("code", null, view.id))));
}

watchAccess(asker, route);
watchRules(document.getElementById("troubles"), askJson);
window.addEventListener("hashchange", route);
route();
