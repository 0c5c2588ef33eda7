// Where the numbers come from: /status.json, and two histograms of /metrics.

const TOKEN_KEYS = ["token", "key", "api_key"];
const PATIENCE_MS = 8000;
const WINDOW_SECONDS = 60;
const SERIES =
  /^guerdon_(queue_seconds|batch_size)_(sum|count)\{reward="((?:[^"\\]|\\.)*)"\} (\S+)$/gm;

/** A server that could not be asked, and what to do about it. */
export class Unreachable extends Error {
  constructor(title, advice) {
    super(title);
    this.advice = advice;
  }
}

/** The token that the page was opened with goes into a header, and nowhere else. */
function requestOptions(query) {
  const fields = new URLSearchParams(query);
  const key = TOKEN_KEYS.find((name) => fields.get(name));
  if (key === undefined) return { cache: "no-store" }; // HTTP Basic is added by the browser
  const authorization = `Bearer ${fields.get(key)}`;
  return { cache: "no-store", credentials: "omit", headers: { authorization } };
}

export class Source {
  #options;
  #snapshots = [];

  constructor(query) {
    this.#options = requestOptions(query);
  }

  /** The status of the server, and per reward the mean wait and batch size where they are known. */
  async read() {
    const [status, metrics] = await Promise.all([
      this.#get("status.json").then((answer) => this.#json(answer)),
      this.#get("metrics").then((answer) => answer.text(), () => null),
    ]);
    return { status, means: this.#means(status, metrics) };
  }

  async #json(answer) {
    try {
      return await answer.json();
    } catch {
      throw new Unreachable(
        "The answer of the server is not what it should be.",
        "Is something else listening on this port?",
      );
    }
  }

  async #get(path) {
    let answer;
    try {
      const signal = AbortSignal.timeout(PATIENCE_MS);
      // An address with a password in it (user:password@host) is none that may be fetched.
      const address = new URL(path, location.origin + location.pathname);
      answer = await fetch(address, { ...this.#options, signal });
    } catch (error) {
      const slow = error.name === "TimeoutError";
      throw new Unreachable(
        slow ? "The server does not answer in time." : "The server cannot be reached.",
        slow
          ? "It may be overloaded or stopped: see its log and the load of its machine."
          : "It may have ended, or the network is down: see its log, and whether the process runs.",
      );
    }
    if (answer.ok) return answer;
    if (answer.status === 401) {
      throw new Unreachable(
        "The server does not accept the token.",
        "Open this page again with a token that it knows: /?token=TOKEN.",
      );
    }
    throw new Unreachable(
      `The server answers with status ${answer.status}.`,
      "Its log says why.",
    );
  }

  /** Means over the last minute where batches ran in it, and since the start. */
  #means(status, metrics) {
    if (metrics === null) return new Map();
    const now = { id: status.server_id, time: status.time, series: readSeries(metrics) };
    this.#snapshots = this.#snapshots.filter(
      (old) => old.id === now.id && old.time >= now.time - WINDOW_SECONDS && old.time < now.time,
    );
    this.#snapshots.push(now);
    const before = this.#snapshots[0];
    const means = new Map();
    for (const reward of status.rewards) {
      const mean = (name) => meanOf(now.series, before.series, reward.name, name);
      means.set(reward.name, { wait: mean("queue_seconds"), batch: mean("batch_size") });
    }
    return means;
  }
}

function readSeries(text) {
  const series = new Map();
  for (const [, name, part, label, value] of text.matchAll(SERIES)) {
    const reward = label.replace(/\\(.)/g, (_, escaped) => (escaped === "n" ? "\n" : escaped));
    series.set(JSON.stringify([reward, name, part]), Number(value));
  }
  return series;
}

function meanOf(now, before, reward, name) {
  const at = (series, part) => series.get(JSON.stringify([reward, name, part])) ?? 0;
  const total = at(now, "count");
  if (!total) return { recent: null, whole: null };
  const fresh = total - at(before, "count");
  const recent = fresh > 0 ? (at(now, "sum") - at(before, "sum")) / fresh : null;
  return { recent, whole: at(now, "sum") / total };
}
