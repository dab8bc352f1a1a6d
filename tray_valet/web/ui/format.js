// Numbers as people read them. GB are 2³⁰ bytes, as graphics tools show them.

const SPACE = "\u00a0"; // a number and its unit stay on one line

/** A size given in MB (2²⁰ bytes): “10.6 GB”, “42 MB” under 0.1 GB. */
export function size(mb) {
  return mb < 102.4 ? `${Math.round(mb)}${SPACE}MB` : `${gb(mb)}${SPACE}GB`;
}

/** “19.1 of 24.0 GB”. */
export function sizeOf(usedMb, totalMb) {
  return `${gb(usedMb)} of ${gb(totalMb)}${SPACE}GB`;
}

/** A live percentage: “46.4%”. */
export function livePct(value) {
  return `${value.toFixed(1)}%`;
}

/** A limit: “85%”. */
export function limitPct(value) {
  return `${Number(value.toFixed(1))}%`;
}

/** A length of time: “4.1 s”, “12 s”, “3 min”, “2 h”. */
export function duration(seconds) {
  if (seconds < 9.95) return `${seconds.toFixed(1)}${SPACE}s`;
  if (seconds < 119.5) return `${Math.round(seconds)}${SPACE}s`;
  if (seconds < 7170) return `${Math.round(seconds / 60)}${SPACE}min`;
  return `${Math.round(seconds / 3600)}${SPACE}h`;
}

/** A setting in seconds: “30 s”, exactly as it is stored. */
export function settingS(seconds) {
  return `${seconds}${SPACE}s`;
}

/** The seconds in “30”, “30 s” or “2 min”; null for what is no time. */
export function parseSeconds(text) {
  const found = /^\s*(\d+(?:[.,]\d+)?)\s*(s|sec|seconds?|min|minutes?|h|hours?)?\s*$/i.exec(text);
  if (!found) return null;
  const unit = (found[2] ?? "s")[0].toLowerCase();
  return Number(found[1].replace(",", ".")) * { s: 1, m: 60, h: 3600 }[unit];
}

/** A time of day from Unix seconds: “21:08”. */
export function timeOfDay(unixSeconds) {
  const when = new Date(unixSeconds * 1000);
  return `${pad(when.getHours())}:${pad(when.getMinutes())}`;
}

/** A whole number with thousands: “16,384”. */
export function whole(value) {
  return value.toLocaleString("en-US");
}

function gb(mb) {
  return (mb / 1024).toFixed(1);
}

function pad(number) {
  return String(number).padStart(2, "0");
}
