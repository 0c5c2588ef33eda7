// One hosted reward. Made once, then only its texts and bars change.

import { Histogram, Shares, Throughput, bounds } from "./chart.js";
import { clockTime, count, duration, element, isNumber, milliseconds, plural, rough, setText, share, words } from "./words.js";

const STATES = {
  ready: ["good", ""],
  starting: ["wait", "Its workers start, or its first fixture is being scored. Requests are taken, and wait."],
  degraded: ["warn", "Some of its replicas do not work; the others score."],
  failed: ["bad", "It does not work, and is checked again from time to time."],
  draining: ["wait", "It takes no new requests; what is there ends."],
};

export function tone(state) {
  return (STATES[state] ?? ["warn", ""])[0];
}

class Tile {
  #value = element("dd", "value");
  #more = element("dd", "quiet");
  element;

  constructor(label, ...further) {
    this.element = element("div", "tile", element("dt", "", label), this.#value, this.#more, ...further);
  }

  show(value, more) {
    setText(this.#value, value);
    setText(this.#more, more);
    this.#value.classList.toggle("none", !/\d/.test(value));
  }
}

/** The latency percentiles side by side. */
class Latency {
  #cells = new Map(["p50", "p90", "p99"].map((name) => [name, element("span", "value")]));
  #more = element("dd", "quiet");
  element = element(
    "div", "tile wide",
    element("dt", "", "Latency"),
    element("dd", "trio", ...[...this.#cells].map(([name, cell]) => element("span", "", cell, element("span", "quiet", name)))),
    this.#more,
  );

  show(latency) {
    for (const [name, cell] of this.#cells) {
      const known = isNumber(latency[name]);
      setText(cell, known ? milliseconds(latency[name]) : "–");
      cell.classList.toggle("none", !known);
    }
    const known = isNumber(latency.p50);
    setText(this.#more, known ? "of the last requests, arrival to last outcome" : "no request has ended yet");
  }
}

class Outcomes {
  #shares = new Shares();
  #rows = element("tbody");
  #table = element(
    "table", "outcomes",
    element("thead", "", element("tr", "", ...["outcome", "blame", "count", "share"].map((name) => element("th", "", name)))),
    this.#rows,
  );
  #empty = element("p", "empty", "No sample has been scored yet.");
  element = element("section", "", element("h3", "", "Outcomes since the start"), this.#shares.element, this.#table, this.#empty);

  show(outcomes) {
    const sum = (name) => outcomes.reduce((n, row) => n + (row.outcome === name ? row.count : 0), 0);
    const total = outcomes.reduce((n, row) => n + row.count, 0);
    this.#shares.show(["score", "abstention", "failure"].map((name) => [name, sum(name)]));
    this.#table.hidden = !total;
    this.#empty.hidden = Boolean(total);
    const order = ["score", "abstention", "failure"];
    const sorted = [...outcomes].sort(
      (a, b) => order.indexOf(a.outcome) - order.indexOf(b.outcome) || b.count - a.count,
    );
    this.#rows.replaceChildren(
      ...sorted.map((row) => {
        const name = row.kind ? `${row.outcome}: ${words(row.kind)}` : row.outcome;
        return element(
          "tr", "",
          element("td", "", element("span", `key ${row.outcome}`), name),
          element("td", "", row.blame || "–"),
          element("td", "", count(row.count)),
          element("td", "", share(row.count, total)),
        );
      }),
    );
    return { abstentions: sum("abstention"), failures: sum("failure") };
  }
}

class Failures {
  #list = element("ol", "failures");
  #empty = element("p", "empty", "No failure so far.");
  #heading = element("h3", "", "Recent failures");
  #key = "";
  element = element("section", "", this.#heading, this.#list, this.#empty);

  show(failures, now) {
    this.#list.hidden = !failures.length;
    this.#list.tabIndex = failures.length ? 0 : -1; // it scrolls
    this.#list.setAttribute("aria-label", "Recent failures, newest first");
    this.#empty.hidden = Boolean(failures.length);
    setText(this.#heading, failures.length ? `Recent failures (last ${failures.length})` : "Recent failures");
    const key = JSON.stringify(failures);
    const newest = [...failures].reverse();
    if (key !== this.#key) {
      this.#key = key;
      this.#list.replaceChildren(...newest.map((lost) => this.#row(lost)));
    }
    newest.forEach((lost, i) => {
      setText(this.#list.children[i].querySelector(".ago"), `${duration(now - lost.time)} ago`);
    });
  }

  #row(lost) {
    const at = element("time", "", clockTime(lost.time));
    at.dateTime = new Date(lost.time * 1000).toISOString();
    const message = element("bdi", "message", lost.message || "no message");
    const sample = lost.sample === null ? [] : [element("span", "quiet", "sample ", element("bdi", "", lost.sample))];
    return element(
      "li", "",
      element(
        "div", "facts",
        element("strong", "kind", words(lost.kind)),
        element("span", "blame", `blame: ${lost.blame}`),
        element("span", "quiet", "in ", element("bdi", "", lost.reward)),
        ...sample,
        element("span", "quiet when", at, " · ", element("span", "ago")),
      ),
      message,
    );
  }
}

/** A mean that is known over the last minute, since the start, or not at all. */
function meanText(mean, format) {
  if (!mean) return ["unknown", "/metrics did not answer"];
  if (mean.whole === null) return ["–", "no batch yet"];
  if (mean.recent === null) return [format(mean.whole), "since the start"];
  return [format(mean.recent), `in the last minute; ${format(mean.whole)} since the start`];
}

export class Card {
  #title = element("h2");
  #pill = element("span", "pill");
  #about = element("p", "about");
  #facts = element("p", "quiet facts");
  #problem = element("p", "problem");
  #spark = new Throughput();
  #rate = new Tile("Throughput", element("dd", "", this.#spark.element));
  #latency = new Latency();
  #queue = new Tile("Queue");
  #wait = new Tile("Mean wait");
  #batch = new Tile("Mean batch");
  #replicas = new Tile("Replicas");
  #outcomes = new Outcomes();
  #histogram = new Histogram();
  #failures = new Failures();
  element = element(
    "article", "card",
    element("header", "", this.#title, this.#pill),
    this.#about, this.#facts, this.#problem,
    element(
      "dl", "tiles",
      ...[this.#rate, this.#latency, this.#queue, this.#wait, this.#batch, this.#replicas].map((tile) => tile.element),
    ),
    element(
      "div", "pair", this.#outcomes.element,
      element("section", "", element("h3", "", "Scores"), this.#histogram.element),
    ),
    this.#failures.element,
  );

  show(reward, means, server) {
    setText(this.#title, reward.name);
    this.#pill.className = `pill ${tone(reward.state)}`;
    setText(this.#pill, reward.state);
    setText(this.#about, reward.description);
    const own = reward.reward === reward.name ? "" : `${reward.reward} · `;
    setText(this.#facts, `${own}${bounds(reward.value_range)} · fingerprint ${reward.fingerprint.slice(0, 12)}`);
    this.#showProblem(reward);
    this.#showLoad(reward, means, server);
    const { abstentions, failures } = this.#outcomes.show(reward.outcomes);
    const without = [
      ...(failures ? [plural(failures, "failure", "failures")] : []),
      ...(abstentions ? [plural(abstentions, "abstention", "abstentions")] : []),
    ].join(" and ");
    const verb = reward.scores ? (failures + abstentions === 1 ? " is" : " are") : failures + abstentions === 1 ? " has" : " have";
    this.#histogram.show(reward.scores, without && without + verb);
    this.#failures.show(reward.failures, server.time);
  }

  #showProblem(reward) {
    const general = (STATES[reward.state] ?? ["", ""])[1];
    const special = reward.state === "starting" ? "" : reward.problem;
    setText(this.#problem, special ? `${general} ${special}`.trim() : general);
    this.#problem.hidden = !this.#problem.textContent;
    this.#problem.className = `problem ${tone(reward.state)}`;
  }

  #showLoad(reward, means, server) {
    this.#rate.show(
      `${rough(reward.samples_per_second)}/s`,
      `samples over 10 s; ${count(reward.samples_total)} since the start`,
    );
    this.#spark.show(reward.samples_by_second, server.uptime_seconds);
    this.#latency.show(reward.latency_ms);
    const groups = reward.group_waiting ? `; ${count(reward.group_waiting)} more wait for their group` : "";
    this.#queue.show(count(reward.queue_depth), `samples wait, of at most ${count(reward.queue_bound)}${groups}`);
    const [waited, over] = meanText(means?.wait, (seconds) => milliseconds(seconds * 1000));
    this.#wait.show(waited, ["of a batch's oldest sample", over].filter(Boolean).join("; "));
    const running = `${plural(reward.batches_running, "batch runs", "batches run")} now`;
    const [size, span] = meanText(means?.batch, rough);
    this.#batch.show(size, [span, running].filter(Boolean).join("; "));
    this.#showReplicas(reward.replicas);
  }

  #showReplicas(replicas) {
    const alive = replicas.filter((replica) => replica.healthy).length;
    const workers = replicas.reduce((sum, replica) => sum + replica.workers, 0);
    const ended = new Map();
    for (const replica of replicas) {
      for (const [how, times] of Object.entries(replica.ended)) ended.set(how, (ended.get(how) ?? 0) + times);
    }
    const restarts = [...ended.values()].reduce((sum, times) => sum + times, 0);
    const causes = [...ended].filter(([, times]) => times).map(([how, times]) => `${count(times)} ${how}`);
    const why = causes.length ? ` (${causes.join(", ")})` : "";
    const own = workers ? plural(workers, "worker", "workers") : "no worker process";
    this.#replicas.show(
      `${count(alive)} of ${count(replicas.length)}`,
      `alive; ${own}; ${plural(restarts, "restart", "restarts")}${why}`,
    );
  }
}
