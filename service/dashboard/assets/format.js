// Figures and times in words. Nothing here touches the page, so tests run it by itself.

const NONE = "–";
const NARROW = "\u202f"; // between a figure and its unit, where no line may break

const cache = new Map();

function plain(digits) {
  let found = cache.get(digits);
  if (!found) {
    found = new Intl.NumberFormat("en", { minimumFractionDigits: digits, maximumFractionDigits: digits });
    cache.set(digits, found);
  }
  return found;
}

/** Gives a number with so many digits behind the point, a dash for none. */
export function number(value, digits = 0) {
  return value === null || value === undefined || Number.isNaN(value) ? NONE : plain(digits).format(value);
}

/** Gives a figure with its unit. */
export function quantity(value, unit, digits = 1) {
  return value === null || value === undefined ? NONE : `${number(value, digits)}${NARROW}${unit}`;
}

/** Gives the scale in which figures of up to `largest` kWh (or kW) read well: the same for all that stand together. */
export function scale(largest, unit = "kWh") {
  const size = Math.abs(largest ?? 0);
  if (size >= 1e7) return { unit: unit.replace("k", "G"), factor: 1e-6 };
  if (size >= 1e4) return { unit: unit.replace("k", "M"), factor: 1e-3 };
  return { unit, factor: 1 };
}

/** Gives a figure of energy or power in a scale; small figures keep more digits. */
export function scaled(value, { unit, factor }) {
  if (value === null || value === undefined) return NONE;
  const told = value * factor;
  return quantity(told, unit, Math.abs(told) < 10 && told !== 0 ? 2 : 1);
}

/** Gives a ratio in percent. */
export function percent(ratio, digits = 1) {
  return ratio === null || ratio === undefined ? NONE : quantity(ratio * 100, "%", digits);
}

/** Gives bytes in a unit that reads well. */
export function bytes(value) {
  if (value === null || value === undefined) return NONE;
  const units = ["B", "KiB", "MiB", "GiB", "TiB"];
  let step = 0;
  let told = value;
  while (told >= 1024 && step < units.length - 1) {
    told /= 1024;
    step += 1;
  }
  return quantity(told, units[step], step === 0 ? 0 : 1);
}

/** Gives a length of time in its two largest units. */
export function duration(seconds) {
  if (seconds === null || seconds === undefined) return NONE;
  const whole = Math.max(0, Math.round(seconds));
  if (whole < 60) return `${whole}${NARROW}s`;
  const minutes = Math.floor(whole / 60);
  if (minutes < 60) return `${minutes}${NARROW}min`;
  const hours = Math.floor(minutes / 60);
  if (hours < 48) return minutes % 60 ? `${hours}${NARROW}h ${minutes % 60}${NARROW}min` : `${hours}${NARROW}h`;
  const days = Math.floor(hours / 24);
  return hours % 24 && days < 14 ? `${days}${NARROW}d ${hours % 24}${NARROW}h` : `${days}${NARROW}d`;
}

/** Gives how long ago a moment was (ms since 1970 both), in one unit. */
export function ago(moment, now) {
  if (moment === null || moment === undefined) return "never";
  const seconds = Math.round((now - moment) / 1000);
  if (seconds < 2) return "now";
  if (seconds < 60) return `${seconds}${NARROW}s ago`;
  if (seconds < 3600) return `${Math.floor(seconds / 60)}${NARROW}min ago`;
  if (seconds < 48 * 3600) return `${Math.floor(seconds / 3600)}${NARROW}h ago`;
  return `${Math.floor(seconds / 86400)}${NARROW}d ago`;
}

/** Gives a day and a time in the reader's zone. */
export function moment(text) {
  if (!text) return NONE;
  return WHEN.format(new Date(text)).replace(", ", `${NARROW} `);
}

/** Gives the time of a moment in the reader's zone, with the day where it is not today's. */
export function clock(ms, now) {
  const at = new Date(ms);
  return at.toDateString() === new Date(now).toDateString() ? TIME.format(at) : moment(at.toISOString());
}

const WHEN = new Intl.DateTimeFormat("en-GB", {
  day: "numeric", month: "short", hour: "2-digit", minute: "2-digit", hourCycle: "h23",
});
const TIME = new Intl.DateTimeFormat("en-GB", { hour: "2-digit", minute: "2-digit", hourCycle: "h23" });

/** Gives the name of the reader's time zone, as the API takes it. */
export function zone() {
  return Intl.DateTimeFormat().resolvedOptions().timeZone || "UTC";
}

/** Gives how a zone is ahead of UTC at a moment: "UTC+1", "UTC-3:30". */
export function offset(minutesBehind) {
  const minutes = -minutesBehind;
  if (minutes === 0) return "UTC";
  const size = Math.abs(minutes);
  const rest = size % 60 ? `:${String(size % 60).padStart(2, "0")}` : "";
  return `UTC${minutes > 0 ? "+" : "-"}${Math.floor(size / 60)}${rest}`;
}
