// The decision matrix: one row per clause, each with what it found and how far it is from firing.

import { h } from "./dom.js";
import * as format from "./format.js";

const KINDS = {
  evidence_decades: "Evidence",
  held_secs: "Time held",
  checks: "Checks",
  count: "Count",
};

const ACTIONS = { rollback: "roll back", investigate: "investigate", ok: "note" };

/** The whole matrix of a report. */
export function matrix(report, decidingRule) {
  return [report.gap && gap(report), table(report, decidingRule)];
}

/** Part of the canary gave nothing: the rules may be calm and the release is still not promoted. */
function gap(report) {
  const tell = report.final ? "Part of the canary gave no data" : "Part of the canary gives no data, so it is not promoted";
  return h("p", { class: "gap", "data-key": "gap" },
    h("span", { class: "state", "data-state": "not_enough_data" }, h("i", { "aria-hidden": "true" }, "?"), tell),
    h("small", null, format.missing(report.gap)));
}

function table(report, decidingRule) {
  const head = ["Rule", "Finding", "Canary", "Baseline", "Bound", "Until it fires"];
  return h("table", { class: "matrix" },
    h("caption", { class: "hidden" }, "Decision matrix: every rule, what it found, and how far it is from firing"),
    h("thead", null, h("tr", null, head.map((text) => h("th", { scope: "col" }, text)))),
    report.findings.map((finding) => ruleBody(finding, finding.rule === decidingRule)));
}

function ruleBody(finding, isDeciding) {
  const [first, ...rest] = finding.clauses;
  const isOne = rest.length === 0 && first && first.clause === finding.rule;
  const rows = isOne
    ? [clauseRow(first, ruleCell(finding, isDeciding), stateCell(finding))]
    : [h("tr", { class: "joined" }, ruleCell(finding, isDeciding), stateCell(finding), h("td", { colspan: "4", class: "rest" })),
       finding.clauses.map((clause) => clauseRow(clause,
         h("th", { scope: "row", class: "clause" }, h("code", null, clause.clause)),
         stateCell(clause)))];
  return h("tbody", { "data-state": finding.state, "data-then": finding.then, "data-decides": isDeciding }, rows);
}

function ruleCell(finding, isDeciding) {
  return h("th", { scope: "row", class: "rule" },
    h("code", null, finding.rule),
    h("span", { class: "then", "data-then": finding.then }, "\u2192 ", ACTIONS[finding.then] || finding.then),
    isDeciding && h("span", { class: "decides" }, "decided"),
    finding.reason && h("span", { class: "why" }, finding.reason));
}

function stateCell(finding) {
  const { mark, word } = format.state(finding.state);
  const since = finding.in_state_secs;
  return h("td", { "data-label": "Finding" },
    h("span", { class: "state", "data-state": finding.state }, h("i", { "aria-hidden": "true" }, mark), word),
    since > 0 && h("small", null, "for ", format.span(since)));
}

function clauseRow(clause, rule, state) {
  const { unit, samples } = clause;
  const range = format.interval(clause.interval, unit);
  // A health clause has a word and no number.
  const status = unit === "health" && clause.estimate === null ? clause.note : null;
  const canary = [
    h("b", status && { class: "status", "data-status": status }, status || format.number(clause.estimate, unit)),
    range && h("small", { title: "95 % interval of this window\u2019s estimate" }, range),
    sample(samples.canary_events, samples.canary_total, unit),
    clause.missing && h("small", { class: "missing" }, format.missing(clause.missing)),
    clause.note && !status && h("small", { class: "note" }, clause.note),
  ];
  const hasBaseline = typeof clause.baseline === "number";
  return [h("tr", null, rule, state,
    h("td", { "data-label": "Canary" }, canary),
    h("td", { "data-label": "Baseline", class: hasBaseline ? "" : "none" },
      hasBaseline ? [format.number(clause.baseline, unit), sample(samples.baseline_events, samples.baseline_total, unit)] : "\u2013"),
    h("td", { "data-label": "Bound", class: clause.bound === null ? "none" : "" }, format.number(clause.bound, unit)),
    h("td", { "data-label": "Until it fires", class: "far" }, meter(clause))), more(clause)];
}

/** What the evidence rests on, over the whole width: who is to blame, how far apart the arms are at
 *  any look, and the noise that was reckoned with. */
function more(clause) {
  const { effect, blame, progress, unit } = clause;
  if (!effect && !blame && !progress.noise) return null;
  return h("tr", { class: "more" }, h("td", { colspan: "6" },
    blame && h("span", { class: "blame" }, format.blame(blame)),
    effect && h("span", null, format.effect(effect, unit)),
    progress.noise && h("span", null, format.noise(progress))));
}

function sample(events, total, unit) {
  if (unit !== "share" || !(total > 0)) return null;
  return h("small", null, `${format.number(events, "count")} of ${format.number(total, "count")}`);
}

function meter(clause) {
  const { kind, value, needed } = clause.progress;
  const fill = needed > 0 ? Math.min(1, Math.max(0, value / needed)) : 0;
  const words = format.progress(clause.progress);
  const level = fill >= 1 ? "full" : fill >= 0.6 ? "near" : "low";
  return [
    h("div", {
      class: "meter", role: "meter", "data-level": level, vars: { "--fill": fill.toFixed(4) },
      "aria-label": `${KINDS[kind] || kind} of ${clause.clause}`,
      "aria-valuemin": "0", "aria-valuemax": needed, "aria-valuenow": Math.min(needed, Math.max(0, value)),
      "aria-valuetext": words,
    }, h("div", { class: "fill" })),
    h("small", null, words),
  ];
}

/** What promotion asks to be shown, signal by signal; nothing where it asks for no proof. */
export function proofs(report) {
  const asked = report.signals.filter((signal) => signal.proof);
  if (!asked.length) return null;
  return h("section", { class: "block" }, h("h2", null, "Promotion asks for"),
    h("ul", { class: "card flush proofs" }, asked.map(({ name, unit, proof }) => {
      const fill = proof.shown ? 1 : Math.min(1, Math.max(0, proof.decades / proof.needed));
      const words = format.proof(proof, unit, report.final);
      return h("li", { "data-key": name },
        h("span", { class: "state", "data-state": proof.shown ? "clear" : "open" },
          h("i", { "aria-hidden": "true" }, proof.shown ? "\u2713" : "\u25cb"), proof.shown ? "shown" : "open"),
        h("span", null, h("code", null, name), ` ${format.margin(proof, unit)}`),
        h("div", { class: "far" },
          h("div", {
            class: "meter", role: "meter", "data-level": proof.shown ? "good" : "low", vars: { "--fill": fill.toFixed(4) },
            "aria-label": `Proof of ${name}`, "aria-valuemin": "0", "aria-valuemax": proof.needed,
            "aria-valuenow": Math.min(proof.needed, Math.max(0, proof.decades)), "aria-valuetext": words,
          }, h("div", { class: "fill" })),
          !proof.shown && h("small", null, words)));
    })));
}
