// The state header: what, why with the number, what next, and the one main action.
import { el, replace } from "./dom.js";
import { size } from "./format.js";
import { icon } from "./icons.js";

const byId = (id) => document.getElementById(id);

export class Header {
  #shown = "";
  #announced = "";
  #longestWait = 0;

  /** `act(path, question?)` gives a command; `retry()` looks for the valet at once. */
  constructor({ act, retry }) {
    this.act = act;
    this.retry = retry;
  }

  /** Show the valet as it is. `isBusy`: a command of this page is on its way. */
  show(status, isBusy) {
    const { watchdog } = status;
    this.#draw({
      look: lookOf(status),
      title: watchdog.title,
      line: watchdog.line,
      buttons: actionsOf(status).map((action) => ({ ...action, isOff: isBusy })),
      wait: watchdog.resumes_in_seconds,
    });
  }

  /** The valet is gone; `nextTryS` seconds to the next look, of `everyS`. */
  showGone(asOf, nextTryS, everyS) {
    this.#draw({
      look: "warn",
      title: "Tray Valet is not running",
      line: `This page shows how things were at ${asOf}. Trying again in ${Math.ceil(nextTryS)}\u00a0s.`,
      buttons: [{ key: "retry", label: "Try now", run: (header) => header.retry() }],
      wait: nextTryS,
      longest: everyS,
    });
  }

  /** The valet runs, but does not let this page in (any more). */
  showLockedOut() {
    this.#draw({
      look: "warn",
      title: "This page has no key",
      line: "Open it from the tray, or with tray-valet open. It gets a new key each time.",
      buttons: [],
      wait: null,
    });
  }

  #draw({ look, title, line, buttons, wait, longest }) {
    const shown = JSON.stringify([look, title, line, buttons, wait]);
    if (shown === this.#shown) return;
    this.#shown = shown;
    byId("state").className = `state ${look}`;
    replace(byId("state-tile"), icon(look));
    byId("state-title").textContent = title;
    byId("state-line").textContent = line;
    replace(byId("state-actions"), ...buttons.map((each) => this.#button(each)));
    this.#countDown(wait, longest);
    this.#announce(look, title, line);
  }

  #button({ key, label, glyph, isMain, isOff, run }) {
    const kind = isMain ? "btn big main" : "btn big";
    const attributes = { type: "button", class: kind, "data-key": key, disabled: isOff, onclick: () => run(this) };
    return el("button", attributes, glyph && icon(glyph), label);
  }

  #countDown(wait, longest) {
    const line = byId("state-countdown");
    this.#longestWait = wait === null ? 0 : longest ?? Math.max(this.#longestWait, wait);
    line.hidden = wait === null || this.#longestWait === 0;
    if (!line.hidden) line.value = (100 * wait) / this.#longestWait;
  }

  /** A change of state is read out; a countdown only once, not each second. */
  #announce(look, title, line) {
    const what = `${look} ${title.replace(/\d+/g, "")}`;
    if (what === this.#announced) return;
    this.#announced = what;
    byId("announcer").textContent = `${title}. ${line}`;
  }
}

function lookOf(status) {
  const { state, resumes_in_seconds: wait } = status.watchdog;
  if (state === "provider_down") return "warn";
  if (state === "pausing" || state === "resuming" || (state === "paused" && wait !== null)) return "move";
  if (state === "paused") return "hold";
  return status.models.length ? "run" : "idle";
}

function actionsOf(status) {
  const { state, holds, resumes_in_seconds: wait } = status.watchdog;
  const pause = { key: "pause", glyph: "hold", run: (header) => header.act("/pause") };
  const resume = { key: "resume", glyph: "run", run: (header) => header.act("/resume") };
  if (state === "resuming") return [{ ...pause, glyph: null, label: "Stay paused" }];
  if (state !== "paused" && state !== "pausing") return [{ ...pause, label: "Pause" }];
  if (wait !== null) {
    return [{ ...pause, glyph: null, label: "Stay paused" }, { ...resume, label: "Resume now", isMain: true }];
  }
  const inEffect = holds.filter((hold) => !hold.overridden);
  if (inEffect.some((hold) => hold.kind === "game")) {
    return [{ key: "keep", label: "Keep running…", run: (header) => header.act("/resume", keepQuestion(status)) }];
  }
  if (inEffect.some((hold) => hold.kind === "user")) return [{ ...resume, label: "Resume", isMain: true }];
  return [{ ...resume, label: "Resume now" }];
}

function keepQuestion(status) {
  const games = status.games.filter((game) => !game.overridden && !game.ending).map((game) => game.name);
  const vramMb = status.to_bring_back.reduce((sum, model) => sum + model.vram_mb, 0);
  const ramMb = status.to_bring_back.reduce((sum, model) => sum + model.size_mb, 0);
  const take = vramMb ? `They take ${size(vramMb)} of VRAM; the` : ramMb ? `They take ${size(ramMb)}; the` : "The";
  return {
    title: `Keep models running during ${games.join(" and ") || "the game"}?`,
    text: `${take} game may stutter.`,
    yes: "Keep running",
  };
}
