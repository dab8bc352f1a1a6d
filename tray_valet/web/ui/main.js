// The page: looks at the valet, shows what it sees, and says so when nobody answers.
import { Api, Gone, Refused } from "./api.js";
import { el, replace } from "./dom.js";
import { timeOfDay } from "./format.js";
import { Header } from "./header.js";
import { drawIcons, icon } from "./icons.js";
import { Limits } from "./limits.js";
import { Overview } from "./overview.js";

const LOOK_MS = 2000;
const SOON_MS = 1000; // while something counts down
const FACT_MS = 120; // facts come in bunches; one look answers them all
const RETRY_S = 5;
const PAGES = ["overview", "limits"];
const byId = (id) => document.getElementById(id);

class Page {
  #api = new Api();
  #status = null;
  #isGone = false;
  #isLockedOut = false;
  #retryAt = 0;
  #timer = null;
  #looking = null;
  #isActivityNew = true;
  #commands = 0;
  #problem = "";

  constructor() {
    this.header = new Header({ act: (path, question) => this.#act(path, question), retry: () => this.#look() });
    this.overview = new Overview({ unload: (model) => this.#unload(model) });
    this.limits = new Limits(byId("page-limits"), { save: (change) => this.#api.put("/config", change) });
  }

  async start() {
    drawIcons(document);
    try {
      await this.#api.openSession();
    } catch (error) {
      if (error instanceof Gone) this.#lose();
    }
    this.#turnTo();
    addEventListener("hashchange", () => {
      this.#turnTo();
      this.#look();
    });
    document.addEventListener("visibilitychange", () => document.hidden || this.#look());
    await this.#look();
    this.#api.follow(() => {
      this.#isActivityNew = true;
      this.#lookIn(FACT_MS);
    });
    setInterval(() => this.#tick(), 500);
  }

  get #pageName() {
    const name = location.hash.slice(1);
    return PAGES.includes(name) ? name : PAGES[0];
  }

  #turnTo() {
    for (const name of PAGES) {
      byId(`page-${name}`).hidden = name !== this.#pageName;
      const link = document.querySelector(`.side a[href="#${name}"]`);
      if (name === this.#pageName) link.setAttribute("aria-current", "page");
      else link.removeAttribute("aria-current");
    }
  }

  /** Look once; whoever asks meanwhile gets the same look. */
  #look() {
    this.#looking ??= this.#lookOnce().finally(() => {
      this.#looking = null;
      const isMoving = this.#status && (this.#status.watchdog.resumes_in_seconds !== null || /ing$/.test(this.#status.watchdog.state));
      this.#lookIn(isMoving ? SOON_MS : LOOK_MS);
    });
    return this.#looking;
  }

  #lookIn(ms) {
    clearTimeout(this.#timer);
    if (this.#isGone || this.#isLockedOut) return;
    this.#timer = setTimeout(() => (document.hidden ? this.#lookIn(LOOK_MS) : this.#look()), ms);
  }

  async #lookOnce() {
    try {
      const [status] = await Promise.all([this.#api.get("/status"), this.#lookAtPage()]);
      if (this.#status && this.#status.version !== status.version) location.reload();
      this.#status = status;
      this.#isGone = this.#isLockedOut = false;
      this.#problem = "";
      this.#show();
    } catch (error) {
      this.#isActivityNew = true; // it may have been among what was not answered
      if (error instanceof Gone) this.#lose();
      else if (error instanceof Refused && (error.status === 401 || error.status === 403)) this.#lockOut();
      else this.#complain(error);
    }
  }

  async #lookAtPage() {
    if (this.#pageName === "limits") {
      const [stored, explained] = await Promise.all([this.#api.get("/config"), this.#api.get("/explain")]);
      this.limits.show(stored, explained.signals);
      return;
    }
    const isActivityNew = this.#isActivityNew;
    this.#isActivityNew = false;
    const [memory, happened] = await Promise.all([this.#api.get("/memory"), isActivityNew ? this.#api.get("/activity") : null]);
    this.overview.showMemory(memory);
    if (happened) this.overview.showActivity(happened.activity);
  }

  #show() {
    if (document.body.classList.contains("stale")) this.#setControls(true);
    document.body.classList.remove("stale");
    byId("version").textContent = this.#status.version;
    this.header.show(this.#status, this.#commands > 0);
    this.overview.showModels(this.#status);
    this.limits.setEnabled(true);
    this.#note();
  }

  #note() {
    const { settings_problem: mistake } = this.#status ?? {};
    const notes = [
      this.#isGone && note("Nothing can be changed until it is back.", "Your models go on as they were, but nothing steps aside for a game. If this stays, start Tray Valet from your applications menu."),
      this.#problem && note("That did not work.", this.#problem),
      !this.#isGone && mistake && note("The settings file has a mistake.", `The last good settings stay in use. ${mistake}`),
    ].filter(Boolean);
    const text = notes.map((each) => each.textContent).join("\n");
    if (byId("notes").textContent !== text) replace(byId("notes"), ...notes);
  }

  #lose() {
    this.#isGone = true;
    this.#retryAt = Date.now() + RETRY_S * 1000;
    document.body.classList.add("stale");
    this.limits.setEnabled(false);
    this.#setControls(false);
    this.#note();
    this.#tick();
  }

  #lockOut() {
    this.#isLockedOut = true;
    byId("page-overview").hidden = byId("page-limits").hidden = true;
    this.header.showLockedOut();
  }

  #complain(error) {
    this.#problem = error.message;
    this.#note();
  }

  /** What the valet does not have to be asked for: the seconds to the next try. */
  #tick() {
    if (!this.#isGone) return;
    const leftS = (this.#retryAt - Date.now()) / 1000;
    if (leftS <= 0 && !this.#looking) this.#look();
    const asOf = this.#status ? timeOfDay(this.#status.taken_at) : timeOfDay(Date.now() / 1000);
    this.header.showGone(asOf, Math.max(0, leftS), RETRY_S);
  }

  #setControls(isEnabled) {
    for (const button of byId("main").querySelectorAll("button.btn")) button.disabled = !isEnabled;
  }

  async #act(path, question) {
    if (question && !(await ask(question))) return;
    this.#commands += 1;
    this.#problem = "";
    this.header.show(this.#status, true);
    try {
      await this.#api.post(path);
    } catch (error) {
      if (error instanceof Gone) this.#lose();
      else this.#complain(error);
    }
    this.#commands -= 1;
    const problem = this.#problem;
    await this.#look();
    if (problem) this.#complain(new Error(problem));
  }

  async #unload(model) {
    await this.#api.post(`/unload?provider=${encodeURIComponent(model.provider)}`, { model: model.name });
    await this.#look();
  }
}

function note(head, text) {
  return el("div", { class: "note warn", role: "alert" }, icon("warn"), el("p", {}, el("b", {}, head), ` ${text}`));
}

/** Ask; resolves to whether the answer was yes. */
function ask({ title, text, yes }) {
  const dialog = byId("question");
  byId("question-title").textContent = title;
  byId("question-text").textContent = text;
  byId("question-yes").textContent = yes;
  dialog.returnValue = "";
  dialog.showModal();
  return new Promise((resolve) => dialog.addEventListener("close", () => resolve(dialog.returnValue === "yes"), { once: true }));
}

new Page().start();
