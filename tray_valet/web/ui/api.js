// The control API: one request at a time to the valet that served this page.

const READ_MS = 8000;
const COMMAND_MS = 180000; // a pause is bounded by the valet itself; this bounds the valet
const RECONNECT_MS = 1000;

/** The valet refused: `status`, its sentence, and the `details` of what it refused. */
export class Refused extends Error {
  constructor(status, error) {
    super(error?.message ?? `The valet answered ${status}.`);
    this.status = status;
    this.details = error?.details ?? [];
    this.param = error?.param ?? null;
  }
}

/** Nobody answers. */
export class Gone extends Error {}

export class Api {
  /** The key lives here and nowhere else: it ends with the page. */
  #token = null;

  /** Spend the one-time code in the address, if there is one, and take it out of the address. */
  async openSession() {
    const code = new URLSearchParams(location.hash.slice(1)).get("code");
    if (!code) return;
    history.replaceState(null, "", location.pathname);
    this.#token = (await this.post("/ui/session", { code })).token;
  }

  get(path) {
    return this.#exchange("GET", path, undefined, READ_MS);
  }

  post(path, body) {
    return this.#exchange("POST", path, body, COMMAND_MS);
  }

  put(path, body) {
    return this.#exchange("PUT", path, body, READ_MS);
  }

  /** Call `onFact` for everything that happens, for ever; a gap counts as something that happened. */
  async follow(onFact) {
    for (;;) {
      try {
        const answer = await fetch("/events", { headers: this.#headers(), cache: "no-store" });
        if (answer.ok) await readEvents(answer.body.getReader(), onFact);
      } catch {
        // The valet is gone; the regular look will say so.
      }
      onFact();
      await new Promise((resolve) => setTimeout(resolve, RECONNECT_MS));
    }
  }

  async #exchange(method, path, body, limitMs) {
    const headers = this.#headers();
    if (body !== undefined) headers["Content-Type"] = "application/json";
    let answer, text;
    try {
      answer = await fetch(path, {
        method,
        headers,
        body: body === undefined ? undefined : JSON.stringify(body),
        cache: "no-store",
        signal: AbortSignal.timeout(limitMs),
      });
      text = await answer.text();
    } catch (error) {
      throw new Gone(String(error));
    }
    const value = parsed(text);
    if (!answer.ok) throw new Refused(answer.status, value?.error);
    return value;
  }

  #headers() {
    return this.#token ? { Authorization: `Bearer ${this.#token}` } : {};
  }
}

async function readEvents(reader, onFact) {
  const decoder = new TextDecoder();
  let rest = "";
  for (;;) {
    const { done, value } = await reader.read();
    if (done) return;
    const frames = (rest + decoder.decode(value, { stream: true })).split("\n\n");
    rest = frames.pop();
    if (frames.some((frame) => !frame.startsWith(":"))) onFact();
  }
}

function parsed(text) {
  try {
    return JSON.parse(text);
  } catch {
    return null;
  }
}
