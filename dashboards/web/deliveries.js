// Deliveries: what became of each, and what people do by hand. Who steps in says who and why, which
// is put on record; whether they may is the service's to say.

import { h } from "./dom.js";
import * as format from "./format.js";

const EVERY_MS = 3000;
/** Where the view of all deliveries is. */
export const VIEW = "#/deliveries";

const STATES = {
  pending: ["\u2026", "pending"], delivered: ["\u2713", "delivered"], refused: ["\u00d7", "refused"],
  dead: ["\u00d7", "given up"], nothing: ["\u2013", "nothing to do"], taken_back: ["\u21b6", "taken back"],
};

/** What may be done to an analysis that runs: button, question, what it means. */
const DEEDS = {
  rollback: ["Roll back", "Roll this release back?", "The analysis ends with your verdict, which is final, and its mechanisms are told."],
  promote: ["Promote", "Promote this release?", "The analysis ends with your verdict, which is final, and its mechanisms are told."],
  cancel: ["Cancel", "Cancel this analysis?", "It ends without a verdict, and nobody is told."],
  resend: ["Send again", "Send this again?", "It is sent under the same key: a receiver that has it already may leave it at that."],
};

/** The name that was given last, so that it is typed once. */
let who = "";

/** The deliveries of one analysis. */
export function deliveries(view) {
  return h("section", { class: "block" }, h("h2", null, "Deliveries"),
    h("div", { class: "card flush" }, view.deliveries.length
      ? h("ul", { class: "deliveries" }, view.deliveries.map((one) => row(one, mayResend(view, one))))
      : h("p", { class: "quiet" }, view.state === "running" ? "The verdict will be sent once it is final." : "Nobody was to be told.")));
}

/** After a later decision an earlier one is not sent again. */
function mayResend(view, one) {
  return one.state !== "taken_back" && (one.action !== "advance" || view.state === "running");
}

function row(one, mayResend, where) {
  const [mark, word] = STATES[one.state] || ["?", one.state];
  return h("li", { "data-key": one.key },
    h("span", { class: "state", "data-state": one.state }, h("i", { "aria-hidden": "true" }, mark), word),
    h("div", null,
      h("b", null, one.mechanism), one.action && h("span", { class: "action" }, one.action),
      where,
      h("small", null, [
        one.attempts > 0 && `${one.attempts} ${one.attempts === 1 ? "attempt" : "attempts"}`,
        one.last_answer,
        one.delivered_at && format.moment(one.delivered_at),
        one.next_attempt_at && `next at ${format.moment(one.next_attempt_at)}`,
      ].filter(Boolean).join(" \u00b7 ")),
      one.does && one.state !== "nothing" && h("small", null, `does: ${one.does}`)),
    mayResend && h("button", { type: "button", class: "small", "data-deed": "resend", "data-about": one.key,
      "aria-label": `Send ${one.action} to ${one.mechanism} again` }, one.state === "pending" ? "Try now" : "Send again"));
}

/** What people did, of which there is mostly nothing. */
export function byHand(view) {
  const done = view.interventions || [];
  return done.length > 0 && h("section", { class: "block" }, h("h2", null, "By hand"),
    h("ul", { class: "card flush deliveries" }, done.map((one, index) => h("li", { "data-key": `hand ${index}` },
      h("span", { class: "state" }, { override: "overridden", cancel: "cancelled", resend: "sent again" }[one.what] || one.what),
      h("div", null,
        h("b", null, one.who || "somebody"), one.verdict && h("span", { class: "action" }, one.verdict),
        one.why && h("p", null, one.why),
        h("small", null, format.moment(one.at), one.delivery && ` \u00b7 ${one.delivery}`))))));
}

/** What can be done to an analysis as long as it runs. */
export function deeds(view) {
  return view.state === "running" && h("p", { class: "deeds" },
    ["rollback", "promote", "cancel"].map((deed) => h("button", {
      type: "button", class: "small", "data-deed": deed, "data-about": view.id,
    }, DEEDS[deed][0], "\u2026")));
}

/** Asks who and why when a button of a deed is clicked, does it, and then calls `done`. */
export function listen(main, fetchJson, done) {
  const click = (event) => {
    const button = event.target.closest("[data-deed]");
    if (button) ask(button.dataset.deed, button.dataset.about, fetchJson, done);
  };
  main.addEventListener("click", click);
  return () => main.removeEventListener("click", click);
}

function path(deed, about) {
  const name = encodeURIComponent(about);
  if (deed === "resend") return `/v1/deliveries/${name}/resend`;
  return `/v1/analyses/${name}/${deed === "cancel" ? "cancel" : "override"}`;
}

function ask(deed, about, fetchJson, done) {
  const [word, question, means] = DEEDS[deed];
  const fault = h("p", { class: "fault", role: "alert" });
  const name = h("input", { name: "who", required: true, maxlength: "200", autocomplete: "name" });
  name.value = who;
  const why = h("textarea", { name: "why", required: true, maxlength: "500", rows: "3" });
  const act = h("button", { type: "submit", class: "act", "data-tone": deed }, word);
  const back = h("button", { type: "button" }, "Back");
  const form = h("form", null,
    h("h2", { id: "question" }, question), h("p", null, means), h("p", null, h("code", null, about)),
    h("label", null, "Who", name), h("label", null, "Why", why), fault,
    h("p", { class: "deeds" }, back, act));
  const dialog = h("dialog", { "aria-labelledby": "question" }, form);
  form.addEventListener("submit", async (event) => {
    event.preventDefault();
    who = name.value.trim();
    act.disabled = true;
    const order = { who, why: why.value.trim() };
    try {
      await fetchJson(path(deed, about), deed === "rollback" || deed === "promote" ? { verdict: deed, ...order } : order);
      dialog.close();
      done();
    } catch (error) {
      fault.textContent = error.message || "The service does not answer.";
      act.disabled = false;
    }
  });
  back.addEventListener("click", () => dialog.close());
  dialog.addEventListener("close", () => dialog.remove());
  document.body.append(dialog);
  dialog.showModal();
  (who ? why : name).focus();
}

/** The view of everything that has not arrived. */
export class Deliveries {
  constructor(parts) {
    Object.assign(this, parts);
  }

  start() {
    document.title = "Deliveries \u2013 rollgate";
    this.deaf = listen(this.main, this.fetchJson, () => this.load());
    this.load();
  }

  stop() {
    this.isOver = true;
    clearTimeout(this.timer);
    this.deaf();
  }

  async load() {
    clearTimeout(this.timer);
    try {
      const of = (state) => this.fetchJson(`/v1/deliveries?state=${state}&limit=50`);
      const [pending, dead, refused] = await Promise.all(["pending", "dead", "refused"].map(of));
      if (this.isOver) return;
      this.connection("live", "live");
      this.show(view(pending, dead, refused));
      this.isShown = true;
    } catch (error) {
      if (this.isOver) return;
      this.connection("lost", "connection lost, trying again");
      if (!this.isShown) this.show(this.problem("The deliveries cannot be read", error));
    }
    this.timer = setTimeout(() => this.load(), EVERY_MS);
  }
}

function view(pending, dead, refused) {
  return h("main", null,
    h("nav", { class: "back" }, h("a", { href: "#/" }, "\u2190 All analyses")),
    h("h1", null, "Deliveries"),
    part("Pending", pending, "Nothing waits to be told."),
    part("Given up", dead, "Nothing was given up."),
    part("Refused", refused, "Nobody refused anything."));
}

function part(title, page, empty) {
  const where = (one) => h("span", null, " of ", h("a", { href: `#/analyses/${encodeURIComponent(one.analysis)}` }, one.service || one.analysis));
  const count = `${page.deliveries.length}${page.next === null ? "" : " and more"}`;
  return h("section", { class: "lines", "data-key": title },
    h("h2", null, title, h("span", { class: "count" }, count)),
    page.deliveries.length
      ? h("ul", { class: "card flush deliveries" }, page.deliveries.map((one) => row(one, true, where(one))))
      : h("p", { class: "quiet" }, empty));
}
