// Numbers, times and elements as people read them. Text enters the page only as text nodes.

const UNKNOWN = "unknown";
const grouped = new Intl.NumberFormat("en", { maximumFractionDigits: 0 });
const short = new Intl.NumberFormat("en", { maximumSignificantDigits: 3 });
const exact = new Intl.NumberFormat("en", { maximumSignificantDigits: 6, useGrouping: false });
const clock = new Intl.DateTimeFormat(undefined, {
  hour: "2-digit", minute: "2-digit", second: "2-digit", hourCycle: "h23",
});

/** An element with a class, and children that are elements or text. */
export function element(tag, className, ...children) {
  const made = document.createElement(tag);
  if (className) made.className = className;
  made.append(...children);
  return made;
}

/** Sets text only where it differs, so that a selection survives. */
export function setText(node, text) {
  if (node.textContent !== text) node.textContent = text;
}

export function isNumber(value) {
  return typeof value === "number" && Number.isFinite(value);
}

export function count(value) {
  return isNumber(value) ? grouped.format(value) : UNKNOWN;
}

export function plural(value, one, many) {
  return `${count(value)} ${value === 1 ? one : many}`;
}

/** A number of any size, with three significant digits. */
export function rough(value) {
  if (!isNumber(value)) return UNKNOWN;
  return Math.abs(value) >= 1000 ? grouped.format(value) : short.format(value);
}

/** A score or an edge of a histogram. */
export function score(value) {
  if (!isNumber(value)) return UNKNOWN;
  const size = Math.abs(value);
  return size && (size >= 1e6 || size < 1e-4) ? value.toExponential(3) : exact.format(value);
}

export function share(part, whole) {
  const percent = (100 * part) / whole;
  if (percent > 0 && percent < 0.1) return "<0.1%";
  if (percent < 100 && percent > 99.9) return ">99.9%";
  return `${percent.toFixed(1).replace(/\.0$/, "")}%`;
}

export function milliseconds(value) {
  if (!isNumber(value)) return UNKNOWN;
  if (value >= 1000) return `${short.format(value / 1000)} s`;
  return `${short.format(value)} ms`;
}

/** A span of time in its two largest units. */
export function duration(seconds) {
  const whole = Math.max(0, Math.floor(seconds));
  if (whole < 60) return `${whole} s`;
  if (whole < 3600) return `${Math.floor(whole / 60)} min ${whole % 60} s`;
  if (whole < 86400) return `${Math.floor(whole / 3600)} h ${Math.floor((whole % 3600) / 60)} min`;
  return `${Math.floor(whole / 86400)} d ${Math.floor((whole % 86400) / 3600)} h`;
}

export function bytes(value) {
  if (!isNumber(value)) return UNKNOWN;
  const units = ["B", "KiB", "MiB", "GiB", "TiB"];
  let unit = 0;
  while (value >= 1024 && unit < units.length - 1) {
    value /= 1024;
    unit += 1;
  }
  return `${short.format(value)} ${units[unit]}`;
}

export function clockTime(seconds) {
  return clock.format(new Date(seconds * 1000));
}

/** An identifier of one kind, as words. */
export function words(name) {
  return name.replaceAll("_", " ");
}
