// Every request to the service, with the token where it wants one. The token is kept for this tab
// only and never put into an address.

import { h } from "./dom.js";

const KEY = "rollgate.token";

/** Told when the service wants a token, or another one. */
let denied = () => {};
/** Nothing is asked while somebody is asked for a token. */
let isDenied = false;

export const token = () => sessionStorage.getItem(KEY);

/** Like `fetch`, with the token. An answer of 401 leads to the form for one. */
export async function ask(path, init = {}) {
  if (isDenied) throw Object.assign(new Error("A token is needed."), { status: 401 });
  const sent = token();
  const answer = await send(path, init, sent);
  // One that was sent before somebody signed in says nothing about the token there is now.
  if (answer.status === 401 && sent === token()) {
    isDenied = true;
    denied();
  }
  return answer;
}

function send(path, init, sent) {
  const headers = new Headers(init.headers);
  if (sent) headers.set("authorization", `Bearer ${sent}`);
  return fetch(path, { cache: "no-store", ...init, headers });
}

/** The answer as JSON; a problem is thrown in its own words, with its `status`. */
export async function askJson(path, init = {}) {
  const answer = await ask(path, { ...init, headers: { accept: "application/json", ...init.headers } });
  const body = await answer.json();
  if (!answer.ok) throw Object.assign(new Error(body.detail || answer.statusText), { status: answer.status });
  return body;
}

/** Follows an event stream until it ends. `heard` is called with each event's name and data. */
export async function follow(path, { signal, opened, heard }) {
  const answer = await ask(path, { signal, headers: { accept: "text/event-stream" } });
  if (!answer.ok || answer.status === 204) return;
  opened();
  const reader = answer.body.pipeThrough(new TextDecoderStream()).getReader();
  let rest = "";
  for (;;) {
    const { done, value } = await reader.read();
    if (done) return;
    const events = (rest + value).split("\n\n");
    rest = events.pop();
    for (const event of events) {
      const lines = event.split("\n").map((line) => /^(event|data): ?(.*)$/.exec(line)).filter(Boolean);
      const of = (name) => lines.filter((line) => line[1] === name).map((line) => line[2]).join("\n");
      if (of("data")) heard(of("event"), of("data"));
    }
  }
}

/** Shows who asks, leads to the form where nobody may, and opens what only a token opens. */
export function watchAccess(place, again) {
  denied = again;
  place.addEventListener("click", (event) => {
    if (!event.target.closest("button")) return;
    sessionStorage.removeItem(KEY);
    place.hidden = true;
    isDenied = true;
    again();
  });
  document.addEventListener("click", async (event) => {
    // A link sends no token: the text is fetched with it, and shown.
    const link = event.target.closest("a[href^='/v1/']");
    if (!link || !token()) return;
    event.preventDefault();
    const answer = await ask(link.getAttribute("href"));
    const text = new Blob([await answer.text()], { type: "text/plain;charset=utf-8" });
    if (answer.ok) location.assign(URL.createObjectURL(text));
  });
  if (token()) askJson("/v1/access").then((who) => say(place, who)).catch(() => {});
}

function say(place, who) {
  place.replaceChildren(h("span", null, h("b", null, who.token), ` may ${who.scope}`), h("button", { type: "button" }, "Sign out"));
  place.hidden = false;
}

/** The form for a token, in place of what it would show. */
export class SignIn {
  constructor({ place, show, connection, signedIn }) {
    Object.assign(this, { place, show, connection, signedIn });
  }

  static get isNeeded() {
    return isDenied;
  }

  start() {
    document.title = "Sign in \u2013 rollgate";
    this.connection("over", "signed out");
    this.draw("");
    document.getElementById("main").addEventListener("submit", this.submit = (event) => this.enter(event));
    document.getElementById("token").focus();
  }

  stop() {
    this.isOver = true;
    document.getElementById("main").removeEventListener("submit", this.submit);
  }

  draw(trouble) {
    this.show(h("main", null, h("section", { class: "card signin" },
      h("h1", null, "This rollgate wants a token"),
      h("form", null,
        h("label", { for: "token" }, "Token"),
        h("input", { id: "token", name: "token", type: "password", autocomplete: "off", spellcheck: "false", required: true, "aria-describedby": "trouble" }),
        h("button", { type: "submit" }, "Sign in")),
      h("p", { id: "trouble", role: "alert" }, trouble),
      h("p", { class: "quiet" }, "It is kept until this tab is closed. Whoever runs rollgate makes one with ", h("code", null, "rollgate token"), "; to look on, the scope ", h("code", null, "read"), " is enough."))));
  }

  async enter(event) {
    event.preventDefault();
    const entered = document.getElementById("token").value.trim();
    if (!entered) return;
    try {
      const answer = await send("/v1/access", {}, entered);
      const said = await answer.json();
      if (this.isOver) return;
      if (!answer.ok) { this.draw(`Not taken: ${said.detail}.`); return; }
      sessionStorage.setItem(KEY, entered);
      isDenied = false;
      say(this.place, said);
      this.signedIn();
    } catch {
      if (!this.isOver) this.draw("The service does not answer.");
    }
  }
}
