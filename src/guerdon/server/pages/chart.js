// Bars. Each chart has its numbers as text, too.

import { count, element, isNumber, plural, rough, score, setText } from "./words.js";

const SVG = "http://www.w3.org/2000/svg";

function shape(tag, attributes, title) {
  const made = document.createElementNS(SVG, tag);
  for (const [name, value] of Object.entries(attributes)) made.setAttribute(name, String(value));
  if (title) {
    const text = document.createElementNS(SVG, "title");
    text.textContent = title;
    made.append(text);
  }
  return made;
}

function canvas(className, width, height) {
  return shape("svg", {
    class: className, viewBox: `0 0 ${width} ${height}`, preserveAspectRatio: "none", role: "img",
  });
}

/** Bars over a common base; what is above zero is at least a visible line. */
function drawBars(svg, values, height, gap, titles) {
  const most = Math.max(...values, 1);
  svg.replaceChildren(
    ...values.flatMap((value, i) => {
      if (!(value > 0)) return [];
      const tall = Math.max((value / most) * height, 1.5);
      const place = { x: i + gap / 2, y: height - tall, width: 1 - gap, height: tall };
      return [shape("rect", place, titles(i))];
    }),
  );
}

/** Samples in each of the last seconds, as far back as the server runs. */
export class Throughput {
  #svg = canvas("spark", 60, 24);
  element = this.#svg;

  show(bySecond, uptime) {
    const known = bySecond.slice(-Math.max(1, Math.min(bySecond.length, Math.floor(uptime))));
    this.#svg.setAttribute("viewBox", `0 0 ${known.length} 24`);
    const ago = (i) => `${known.length - i} s ago: ${plural(known[i], "sample", "samples")}`;
    drawBars(this.#svg, known, 24, 0.2, ago);
    const total = known.reduce((sum, value) => sum + value, 0);
    this.#svg.setAttribute(
      "aria-label",
      `${plural(total, "sample", "samples")} in the last ${plural(known.length, "second", "seconds")}`,
    );
  }
}

/** The last scores. Failures and abstentions have no score and are in no bar. */
export class Histogram {
  #svg = canvas("bars", 20, 90);
  #low = element("span");
  #middle = element("span");
  #high = element("span");
  #caption = element("p", "quiet");
  #rows = element("tbody");
  #plot = element("div", "plot", this.#svg, element("div", "axis", this.#low, this.#middle, this.#high));
  #table = element(
    "details", "numbers",
    element("summary", "", "Histogram as numbers"),
    element(
      "table", "",
      element("thead", "", element("tr", "", element("th", "", "from"), element("th", "", "to"), element("th", "", "scores"))),
      this.#rows,
    ),
  );
  #key = "";
  element = element("div", "histogram", this.#plot, this.#caption, this.#table);

  show(bins, without) {
    this.#plot.hidden = this.#table.hidden = !bins;
    const left = without ? ` ${without} not in it.` : "";
    if (!bins) {
      setText(this.#caption, without ? `No score yet: ${without} no number.` : "No score yet.");
      return;
    }
    const { edges, counts } = bins;
    const total = counts.reduce((sum, value) => sum + value, 0);
    const single = counts.length === 1;
    const last = `the last ${plural(total, "score", "scores")}`;
    const most = Math.max(...counts);
    const told = single
      ? `${total === 1 ? "The last score is" : `All of ${last} are`} ${score(edges[0])}.`
      : `${last[0].toUpperCase()}${last.slice(1)}, from ${score(edges[0])} to ${score(edges.at(-1))}; the highest bar is ${count(most)}.`;
    setText(this.#caption, told + left);
    const key = JSON.stringify(bins);
    if (key === this.#key) return;
    this.#key = key;
    this.#svg.setAttribute("viewBox", `0 0 ${counts.length} 90`);
    this.#svg.setAttribute("aria-label", `Histogram. ${told}`);
    const from = (i) => `${score(edges[i])} to ${score(edges[i + 1])}: ${count(counts[i])}`;
    drawBars(this.#svg, counts, 90, single ? 0.9 : 0.12, from);
    setText(this.#low, single ? "" : score(edges[0]));
    setText(this.#middle, score(single ? edges[0] : (edges[0] + edges.at(-1)) / 2));
    setText(this.#high, single ? "" : score(edges.at(-1)));
    this.#rows.replaceChildren(
      ...counts.map((value, i) =>
        element(
          "tr", "",
          element("td", "", score(edges[i])),
          element("td", "", score(edges[i + 1])),
          element("td", "", count(value)),
        ),
      ),
    );
  }
}

/** Shares of scores, abstentions and failures. */
export class Shares {
  #svg = canvas("shares", 100, 8);
  element = this.#svg;

  show(parts) {
    const total = parts.reduce((sum, [, value]) => sum + value, 0);
    this.#svg.toggleAttribute("hidden", !total);
    let x = 0;
    this.#svg.replaceChildren(
      ...parts.flatMap(([name, value]) => {
        if (!(value > 0)) return [];
        const width = Math.max((value / total) * 100, 0.6);
        const bar = shape("rect", { class: name, x, y: 0, width, height: 8 }, `${name}: ${count(value)}`);
        x += width;
        return [bar];
      }),
    );
    this.#svg.setAttribute("viewBox", `0 0 ${x || 100} 8`);
    this.#svg.setAttribute("aria-label", parts.map(([name, value]) => `${name}: ${count(value)}`).join(", "));
  }
}

/** A bound that may be missing. */
export function bounds([low, high]) {
  if (!isNumber(low) && !isNumber(high)) return "values without bounds";
  if (!isNumber(high)) return `values from ${rough(low)}`;
  if (!isNumber(low)) return `values up to ${rough(high)}`;
  return `values from ${score(low)} to ${score(high)}`;
}
