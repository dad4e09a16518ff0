// Rule files: a banner while one of them does not load, and a view of all of them.

import { h, morph } from "./dom.js";
import * as format from "./format.js";

const EVERY_MS = 3000;
const FILES_SHOWN = 3;
const FAULTS_IN_BANNER = 2;
const FAULTS_IN_VIEW = 20;
/** Where the view of all rule files is. */
export const VIEW = "#/rules";
const SHA_SHOWN = 12;

const WORDS = {
  good: ["\u2713", "in use"], bad: ["\u00d7", "does not load"], gone: ["\u25cb", "gone"],
};

/** Reads the state of the rule files as long as the page is open, and shows what is wrong. */
export function watchRules(banner, fetchJson) {
  let files = null;
  const show = () => {
    const content = files && troubles(files);
    banner.hidden = !content;
    const wanted = banner.cloneNode(false);
    if (content) wanted.append(content);
    morph(banner, wanted);
  };
  const load = async () => {
    try {
      files = await fetchJson("/v1/rules");
      show();
    } catch {
      // That the service does not answer is said elsewhere; what was shown last stays.
    }
    setTimeout(load, EVERY_MS);
  };
  window.addEventListener("hashchange", show);
  load();
}

/** What is wrong, for the top of every view; the view of all rule files says it itself. */
function troubles(files) {
  const bad = location.hash === VIEW ? [] : files.rules.filter((file) => file.state === "bad");
  if (!bad.length && !files.directory_fault) return null;
  const more = bad.length - FILES_SHOWN;
  return h("div", { class: "troubles" },
    files.directory_fault && h("section", { class: "trouble", "data-key": "directory" },
      h("h2", null, h("i", { "aria-hidden": "true" }, "\u00d7"), "The rule files cannot be read"),
      h("p", null, files.directory_fault, ". What was read before stays in use.")),
    bad.slice(0, FILES_SHOWN).map((file) => h("section", { class: "trouble", "data-key": file.name },
      h("h2", null, h("i", { "aria-hidden": "true" }, "\u00d7"), h("span", null, "Rule file ", h("code", null, file.file), " does not load")),
      faults(file, FAULTS_IN_BANNER),
      h("p", null, `Since ${format.moment(file.since)}. `, inUse(file), " ", h("a", { href: VIEW }, "All rule files")))),
    more > 0 && h("p", { class: "trouble", "data-key": "more" }, `${more} more rule ${more === 1 ? "file does" : "files do"} not load. `,
      h("a", { href: VIEW }, "All rule files")));
}

function inUse(file) {
  if (!file.sha256) return "There is no version before it: analyses that name it are refused.";
  return ["New analyses use the version of ", format.moment(file.loaded_at), " ",
    h("code", { title: file.sha256 }, file.sha256.slice(0, SHA_SHOWN)), "."];
}

function faults(file, count) {
  const shown = file.faults.slice(0, count);
  const more = file.faults.length - shown.length + file.more_faults;
  return h("ul", { class: "faults" }, shown.map(fault),
    more > 0 && h("li", null, `and ${more} more`));
}

function fault(one) {
  return h("li", null,
    one.line && h("code", { class: "place" }, `${one.line}:${one.column}`),
    h("span", null, h("b", null, one.message),
      one.means && h("small", null, `so ${one.means}`),
      one.expected && h("small", null, `expected ${one.expected}`),
      one.hint && h("small", null, `hint: ${one.hint}`),
      one.lint && h("small", null, "lint ", h("code", null, one.lint))));
}

/** The view of all rule files. */
export class Rules {
  constructor(parts) {
    Object.assign(this, parts);
  }

  start() {
    document.title = "Rule files \u2013 rollgate";
    this.load();
  }

  stop() {
    this.isOver = true;
    clearTimeout(this.timer);
  }

  async load() {
    try {
      const files = await this.fetchJson("/v1/rules");
      if (this.isOver) return;
      this.connection("live", "live");
      this.show(view(files));
      this.isShown = true;
    } catch (error) {
      if (this.isOver) return;
      if (error.status === 403) this.connection("over", "not allowed");
      else this.connection("lost", "connection lost, trying again");
      if (!this.isShown) this.show(this.problem("The rule files cannot be read", error));
    }
    this.timer = setTimeout(() => this.load(), EVERY_MS);
  }
}

function view(files) {
  return h("main", null,
    h("nav", { class: "back" }, h("a", { href: "#/" }, "\u2190 All analyses")),
    h("h1", null, "Rule files"),
    h("section", { class: "lines" },
      files.rules.length
        ? h("ul", null, files.rules.map(line))
        : h("p", { class: "quiet" }, "The directory holds no rule file yet."),
      files.ignored.length > 0 && [h("h2", null, "Not taken"),
        h("ul", { class: "card faults" }, files.ignored.map((one) => h("li", { "data-key": one.file },
          h("span", null, h("b", null, one.file), h("small", null, one.why)))))]));
}

function line(file) {
  const [mark, word] = WORDS[file.state] || ["?", file.state];
  return h("li", { "data-key": file.name, class: "card rulefile" },
    h("span", { class: "state", "data-state": file.state }, h("i", { "aria-hidden": "true" }, mark), word),
    h("div", null,
      h("b", null, file.sha256 ? h("a", { href: `/v1/rules/${encodeURIComponent(file.name)}` }, file.name) : file.name),
      h("small", null, file.state === "gone"
        ? `Not in the directory since ${format.moment(file.since)}: new analyses are refused, running ones go on.`
        : inUseLine(file)),
      file.faults.length > 0 && faults(file, FAULTS_IN_VIEW),
      file.warnings.length > 0 && h("details", { class: "warnings" },
        h("summary", null, `${file.warnings.length} ${file.warnings.length === 1 ? "warning" : "warnings"}`),
        h("ul", { class: "faults" }, file.warnings.map(fault)))));
}

function inUseLine(file) {
  if (!file.sha256) return "There is no version in use.";
  return ["In use since ", format.moment(file.loaded_at), ", sha256 ",
    h("code", { title: file.sha256 }, file.sha256.slice(0, SHA_SHOWN))];
}
