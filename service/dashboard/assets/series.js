// From what the API tells of each hour or day to what a chart draws. Nothing here touches the page.

/** Says a moment in the reader's zone as charts take it, which know no zones. */
export function localTime(text) {
  const at = new Date(text);
  const two = (value) => String(value).padStart(2, "0");
  const day = `${at.getFullYear()}-${two(at.getMonth() + 1)}-${two(at.getDate())}`;
  return `${day} ${two(at.getHours())}:${two(at.getMinutes())}:${two(at.getSeconds())}`;
}

/** Puts an interval without figures wherever some are missing, so that no line crosses what was not measured. */
export function withGaps(intervals) {
  return intervals.flatMap((each, index) => {
    const before = intervals[index - 1];
    return before && Date.parse(before.end) < Date.parse(each.start) ? [{ start: before.end, end: each.start }, each] : [each];
  });
}

/** Gives where intervals start: there stand their points, and there begin their bars. */
export function starts(intervals) {
  return intervals.map(({ start }) => localTime(start));
}

/** Gives a share of the length of each interval, ms. */
export function widths(intervals, share) {
  return intervals.map(({ start, end }) => (Date.parse(end) - Date.parse(start)) * share);
}

/** Gives one figure of each interval, null where it has none. */
export function column(intervals, name, factor = 1) {
  return intervals.map((interval) => {
    const value = interval[name];
    return value === null || value === undefined ? null : value * factor;
  });
}

/** Sums up intervals: energies, and the ratio of their sums (never a mean of ratios). */
export function total(intervals) {
  const sum = (name) => intervals.reduce((all, each) => all + (each[name] ?? 0), 0);
  const ac = sum("totalAcConsumedKwh");
  const dc = sum("totalDcDeliveredKwh");
  return {
    totalAcConsumedKwh: ac,
    totalDcDeliveredKwh: dc,
    energyLossKwh: ac - dc,
    efficiencyRatio: ac > 0 ? dc / ac : null,
    meteredAcKwh: sum("meteredAcKwh"),
  };
}

/** Gives the range of an efficiency axis (percent) that shows all points and the threshold. */
export function ratioRange(ratios, threshold) {
  const told = ratios.filter((ratio) => ratio !== null);
  const least = Math.min(threshold * 100, ...told);
  const most = Math.max(100, ...told);
  return [Math.max(0, Math.floor((least - 4) / 5) * 5), Math.ceil((most + 0.5) / 5) * 5];
}
