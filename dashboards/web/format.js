// Numbers, times and words as people read them.

const SPACE = "\u00a0";
const MINUS = "\u2212";
const SLOPE = "_per_second";
const HEALTH = ["up", "degraded", "down"];

const isNumber = (value) => typeof value === "number" && Number.isFinite(value);

/** Three significant digits, without a tail of zeros. */
function short(value) {
  if (value === 0) return "0";
  const whole = Math.floor(Math.log10(Math.abs(value)));
  const digits = Math.min(6, Math.max(0, 2 - whole));
  const rounded = Number(value.toFixed(digits));
  return rounded.toLocaleString("en-GB", { maximumFractionDigits: digits }).replace("-", MINUS);
}

function scaled(value, steps) {
  const size = Math.abs(value);
  const [least, unit] = steps.find(([from]) => size >= from) || steps[steps.length - 1];
  return short(value / least) + SPACE + unit;
}

/** A number in its unit; a dash where there is none. */
export function number(value, unit) {
  if (!isNumber(value)) return "\u2013";
  switch (unit) {
    case "share": return short(value * 100) + SPACE + "%";
    case "seconds":
      if (value === 0) return "0" + SPACE + "s";
      return scaled(value, [[3600, "h"], [60, "min"], [1, "s"], [1e-3, "ms"], [1e-6, "\u00b5s"]]);
    case "bytes":
      if (Math.abs(value) < 1024) return short(value) + SPACE + "B";
      return scaled(value, [[1024 ** 4, "TiB"], [1024 ** 3, "GiB"], [1024 ** 2, "MiB"], [1024, "KiB"]]);
    case "per_second": return short(value) + "/s";
    case "health": return HEALTH[value] || short(value);
    case "count": return Math.round(value).toLocaleString("en-GB");
    default:
      // A slope, by the minute: nobody thinks in bytes a second when a leak takes an hour.
      return unit.endsWith(SLOPE) ? number(value * 60, unit.slice(0, -SLOPE.length)) + "/min" : short(value);
  }
}

/** `0.40 % to 0.61 %`, for an interval. */
export function interval(pair, unit) {
  return pair ? `${number(pair[0], unit)} to ${number(pair[1], unit)}` : null;
}

/** Seconds as `45 s`, `2 min 5 s`, `1 h 3 min`. */
export function span(secs) {
  if (!isNumber(secs)) return "\u2013";
  const whole = Math.max(0, Math.round(secs));
  if (whole < 60) return `${whole}${SPACE}s`;
  const [hours, minutes, rest] = [Math.floor(whole / 3600), Math.floor(whole / 60) % 60, whole % 60];
  if (hours) return `${hours}${SPACE}h` + (minutes ? ` ${minutes}${SPACE}min` : "");
  return `${minutes}${SPACE}min` + (rest ? ` ${rest}${SPACE}s` : "");
}

/** Seconds since the start, for an axis: `1:05`. */
export function clock(secs) {
  const whole = Math.max(0, Math.round(secs));
  const two = (part) => String(part).padStart(2, "0");
  const [hours, minutes, rest] = [Math.floor(whole / 3600), Math.floor(whole / 60) % 60, whole % 60];
  return hours ? `${hours}:${two(minutes)}:${two(rest)}` : `${minutes}:${two(rest)}`;
}

/** A moment as local date and time. */
export function moment(unixSecs) {
  return new Date(unixSecs * 1000).toLocaleString(undefined, { dateStyle: "medium", timeStyle: "medium" });
}

/** A moment as `12 s ago`, `3 h ago`, or its date when it is long ago. */
export function ago(unixSecs) {
  const secs = Date.now() / 1000 - unixSecs;
  if (secs < 0 || secs > 86400) {
    return new Date(unixSecs * 1000).toLocaleString(undefined, { dateStyle: "medium", timeStyle: "short" });
  }
  if (secs < 10) return "just now";
  if (secs < 60) return `${Math.round(secs)}${SPACE}s ago`;
  if (secs < 3600) return `${Math.round(secs / 60)}${SPACE}min ago`;
  return `${Math.round(secs / 3600)}${SPACE}h ago`;
}

const VERDICTS = {
  watching: { mark: "\u25cf", word: "Watching" },
  investigate: { mark: "!", word: "Investigate" },
  advance: { mark: "\u2192", word: "Advance" },
  promote: { mark: "\u2713", word: "Promote" },
  rollback: { mark: "\u21b6", word: "Roll back" },
  inconclusive: { mark: "?", word: "Inconclusive" },
  cancelled: { mark: "\u00d7", word: "Cancelled" },
};

/** Mark, word and style of a verdict; a cancelled analysis has none and says so. */
export function verdict(state, word) {
  const key = state === "cancelled" ? "cancelled" : Object.hasOwn(VERDICTS, word) ? word : "inconclusive";
  return { key, ...VERDICTS[key] };
}

const STATES = {
  fires: { mark: "\u25b2", word: "fires" },
  clear: { mark: "\u2713", word: "clear" },
  not_enough_data: { mark: "?", word: "not enough data" },
  asleep: { mark: "\u2013", word: "asleep" },
};

/** Mark and word of a finding's state. */
export function state(key) {
  return STATES[key] || { mark: "?", word: String(key) };
}

const MISSING = {
  first_look: "First look: a counter needs two readings",
  no_traffic: "No traffic",
  scrape_failed: "The target did not answer",
  stale: "The data is too old",
  warm_up: "Still warming up",
  absent_series: "The target has no such series",
  bad_value: "The value cannot be right",
  unclear_health: "The health answer cannot be understood",
  bucket_layout: "The histograms' buckets do not fit",
  not_observed: "Not observed by this source",
  query_failed: "The metrics server did not answer",
};

/** Why there is no value, in words. */
export function missing(reason) {
  const words = MISSING[reason.why] || String(reason.why).replaceAll("_", " ");
  return reason.detail ? `${words}: ${reason.detail}` : words;
}

/** A fixed number of decimals; what rounds to zero has no sign. */
const fixed = (value, digits) => (Number((isNumber(value) ? value : 0).toFixed(digits)) || 0).toFixed(digits).replace("-", MINUS);

/** How far a clause is, in words. */
export function progress(of) {
  switch (of.kind) {
    case "evidence_decades": return `${fixed(of.value, 1)} of ${fixed(of.needed, 1)} decades`;
    case "held_secs": return of.value > 0 ? `held ${span(of.value)} of ${span(of.needed)}` : `not held, needs ${span(of.needed)}`;
    case "checks": return `${of.value} of ${of.needed} checks`;
    case "count": return `${number(of.value, "count")} of ${number(of.needed, "count")}`;
    default: return `${short(of.value)} of ${short(of.needed)}`;
  }
}

const isRatio = (effect) => effect.kind === "rate_ratio" || effect.kind === "quantile_ratio";

function effectValue(effect, value, unit) {
  // Two digits: its interval is wider than the third.
  if (isRatio(effect)) return `${value >= 9.95 ? short(Math.round(value)) : Number(value.toFixed(1))}\u00d7`;
  return effect.kind === "sign_share" ? number(value, "share") : number(value, unit);
}

/** How far apart the arms are: `8.1\u00d7 the baseline's, 95 % interval 4.2\u00d7 to 15\u00d7 at any look`. */
export function effect(of, unit) {
  const value = (end) => effectValue(of, end, unit);
  const hasLow = isNumber(of.low) && !(isRatio(of) && of.low <= 0);
  const ends = hasLow && isNumber(of.high) ? `${value(of.low)} to ${value(of.high)}`
    : hasLow ? `${value(of.low)} and more`
    : isNumber(of.high) ? `up to ${value(of.high)}` : "open on both sides";
  const what = {
    rate_ratio: `${value(of.estimate)} the baseline\u2019s`,
    quantile_ratio: `${value(of.estimate)} the baseline\u2019s`,
    sign_share: `beyond the bound at ${value(of.estimate)} of looks`,
    slope_difference: `${value(of.estimate)} more than the baseline`,
  }[of.kind] || value(of.estimate);
  return `${what}, ${number(of.confidence, "share")} interval ${ends} at any look`;
}

const SOLE_SHARE_MIN = 0.5;

/** What is to blame for the evidence, in the words of the terminal. */
export function blame({ by, name, share, bad, of }) {
  const most = number(share, "share");
  if (by === "edge") return `Strongest beyond ${name}, at ${bad} of ${of} bucket edges`;
  if (bad <= 1 && share >= SOLE_SHARE_MIN) return `One ${by} of ${of} is to blame: ${name} has ${most} of the excess`;
  if (by === "instance" && 2 * bad > of) return `The version is to blame, not one instance: ${bad} of ${of} are bad by themselves`;
  const counted = bad === 0 ? `none of ${of} ${by}s is bad by itself yet`
    : bad === 1 ? `1 of ${of} ${by}s is bad by itself` : `${bad} of ${of} ${by}s are bad by themselves`;
  const lead = by === "instance" && share < SOLE_SHARE_MIN ? "No one instance stands out, most" : "Most";
  return `${lead} is from ${name}, ${most} of the excess; ${counted}`;
}

/** The noise factor and where it came from. */
export function noise({ noise_factor: factor, noise: from }) {
  const history = from.history_secs > 0 ? `measured on ${span(from.history_secs)} of history` : "";
  const origin = from.origin === "history" ? history
    : from.origin === "analysis" ? (history ? `${history} and on this analysis` : "measured on this analysis")
    : "a stated prior";
  return `noise factor ${short(factor)}, ${origin}`;
}

/** What promotion asks to be shown of a signal: `within 2\u00d7 of the baseline or below 1 %`. */
export function margin({ factor, or }, unit) {
  const [within, side] = factor >= 1 ? [`within ${short(factor)}\u00d7 of the baseline`, "below"]
    : [`above ${short(factor)}\u00d7 the baseline`, "above"];
  return isNumber(or) ? `${within} or ${side} ${number(or, unit)}` : within;
}

/** A length of time that is only a guess. */
function about(secs) {
  if (secs < 90) return `${Math.max(10, Math.ceil(secs / 10) * 10)}${SPACE}s`;
  if (secs < 5400) return `${Math.round(secs / 60)}${SPACE}min`;
  if (secs < 129600) return `${Math.round(secs / 3600)}${SPACE}h`;
  return `${Math.round(secs / 86400)}${SPACE}days`;
}

/** How far a proof is, in words. */
export function proof({ decades, needed, shown, remaining_secs: left, per_sec: pace }, unit, isOver) {
  if (shown) return "shown";
  const soFar = `${fixed(Math.max(0, decades), 1)} of ${fixed(needed, 1)} decades`;
  if (isOver) return soFar;
  if (isNumber(left)) {
    const traffic = unit === "per_second" ? "at today\u2019s traffic" : `at ${short(pace)} requests/s`;
    return `${soFar}, about ${about(left)} more ${traffic}`;
  }
  return pace > 0 ? `${soFar}; cannot be shown at today\u2019s traffic` : `${soFar}; without traffic it cannot be shown`;
}
