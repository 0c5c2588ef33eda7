// The page: asks the server every two seconds, and says how old the numbers are when it cannot.

import { Card, tone } from "./card.js";
import { Source, Unreachable } from "./source.js";
import { bytes, count, duration, element, plural, rough, setText } from "./words.js";

const PAUSE_MS = 2000;
const LONGEST_PAUSE_MS = 15000;

const source = new Source(location.search);
const cards = new Map();
const part = (id) => document.getElementById(id);
let shownAt = null; // of the numbers on the page, by this browser's clock
let failing = null;
let server = null;
let pause = PAUSE_MS;
let timer = 0;
let asking = false;

function showServer(status) {
  const serving = status.rewards.filter((reward) => tone(reward.state) === "good").length;
  const all = serving === status.rewards.length;
  const broken = status.rewards.some((reward) => tone(reward.state) === "bad");
  const state = status.draining ? ["wait", "ending"] : all ? ["good", "ready"] : broken ? ["bad", "not ready"] : ["wait", "not ready yet"];
  part("state").className = `pill ${state[0]}`;
  setText(part("state"), state[1]);
  setText(
    part("server"),
    `version ${status.version} · protocol ${status.protocol} · up ${duration(status.uptime_seconds)} · start ${status.server_id}`,
  );
  const sum = (number) => status.rewards.reduce((total, reward) => total + number(reward), 0);
  const failures = sum((reward) => reward.outcomes.reduce((n, row) => n + (row.outcome === "failure" ? row.count : 0), 0));
  const totals = [
    ["rewards ready", `${count(serving)} of ${count(status.rewards.length)}`],
    ["samples/s", rough(sum((reward) => reward.samples_per_second))],
    ["samples wait", count(sum((reward) => reward.queue_depth + reward.group_waiting))],
    ["requests open", count(status.requests_open)],
    ["bodies in flight", bytes(status.bytes_in_flight)],
    ["failures since the start", count(failures)],
  ];
  part("totals").hidden = !status.rewards.length;
  part("totals").replaceChildren(
    ...totals.map(([name, value]) => element("div", "total", element("b", "", value), element("span", "quiet", name))),
  );
  part("empty").hidden = Boolean(status.rewards.length);
}

function showRewards(status, means) {
  if (server !== null && server !== status.server_id) {
    cards.clear();
    part("rewards").replaceChildren();
    setText(part("notice"), "The server has started anew: all numbers are since then.");
    part("notice").hidden = false;
  }
  server = status.server_id;
  for (const reward of status.rewards) {
    let card = cards.get(reward.name);
    if (card === undefined) {
      card = new Card();
      cards.set(reward.name, card);
      part("rewards").append(card.element);
    }
    card.show(reward, means.get(reward.name), status);
  }
}

/** How old the numbers are, and what is wrong. */
function showAge() {
  const age = shownAt === null ? null : (performance.now() - shownAt) / 1000;
  part("banner").hidden = failing === null;
  part("content").classList.toggle("stale", failing !== null && age !== null);
  setText(part("age"), age === null ? "" : `The numbers are ${duration(age)} old. The page asks every ${PAUSE_MS / 1000} seconds while it is seen.`);
  if (failing === null) return;
  const old = age === null ? "" : ` What is shown below is ${duration(age)} old.`;
  setText(part("banner-title"), failing.message);
  setText(part("banner-text"), `${failing.advice}${old} The page goes on trying.`);
  part("state").className = "pill bad";
  setText(part("state"), "no connection");
}

async function ask() {
  if (asking) return;
  asking = true;
  clearTimeout(timer);
  try {
    const { status, means } = await source.read();
    showServer(status);
    showRewards(status, means);
    shownAt = performance.now();
    failing = null;
    pause = PAUSE_MS;
  } catch (error) {
    if (!(error instanceof Unreachable)) console.error(error);
    failing = error instanceof Unreachable ? error : new Unreachable("This page has a bug.", "The browser's console has the cause; status.json has the numbers.");
    pause = Math.min(pause * 2, LONGEST_PAUSE_MS);
  } finally {
    asking = false;
  }
  showAge();
  if (!document.hidden) timer = setTimeout(ask, pause);
}

// The other pages need the token, too; it goes from address to address and is in no link.
function follow(event) {
  if (!location.search || event.metaKey || event.ctrlKey || event.shiftKey) return;
  event.preventDefault();
  location.assign(event.currentTarget.href + location.search);
}

document.addEventListener("visibilitychange", () => {
  clearTimeout(timer);
  if (!document.hidden) ask();
});
for (const link of document.querySelectorAll("nav a")) link.addEventListener("click", follow);
setInterval(showAge, 1000);
ask();
