// The charts of a vehicle and of a meter. Each stands in a figure that says in words what it shows, and has its figures as a
// table, for whoever does not see it or wants to copy them.

import { drawChart } from "./charts.js";
import { make } from "./dom.js";
import { moment, number, percent, quantity } from "./format.js";
import { column, localTime, ratioRange, starts, total, widths, withGaps } from "./series.js";

const KWH = "%{y:.2f} kWh";
const bars = (name, x, y, width, color) => ({ type: "bar", name, x, y, width, marker: { color }, hovertemplate: KWH });
const line = (name, x, y, color, template, more = {}) => ({
  type: "scatter", mode: "lines+markers", name, x, y, line: { color, width: 2 }, marker: { color, size: 5 },
  hovertemplate: template, connectgaps: false, ...more,
});

/** Gives the chart of energy: AC beside DC. `ac` is the name of the AC figure, `acWords` what it is called. */
export function energyChart(intervals, ac = "totalAcConsumedKwh", acWords = "Billed AC") {
  const x = starts(intervals);
  const wide = widths(intervals, 0.42);
  const all = total(intervals);
  return {
    title: "Energy",
    words: `${quantity(all[ac], "kWh")} ${acWords.charAt(0).toLowerCase()}${acWords.slice(1)}, ${quantity(all.totalDcDeliveredKwh, "kWh")} delivered DC in all`,
    build: (now) => ({
      traces: [
        { ...bars(acWords, x, column(intervals, ac), wide, now.ac), offset: widths(intervals, 0.08) },
        { ...bars("Delivered DC", x, column(intervals, "totalDcDeliveredKwh"), wide, now.dc), offset: widths(intervals, 0.5) },
      ],
      layout: { yaxis: { title: { text: "kWh" }, rangemode: "tozero" } },
    }),
    head: [acWords, "Delivered DC", "Lost"],
    cells: (each) => [each[ac], each.totalDcDeliveredKwh, each.energyLossKwh].map((value) => quantity(value, "kWh", 2)),
  };
}

/** Gives the chart of efficiency, with the threshold as a line. */
export function efficiencyChart(intervals, threshold) {
  const x = starts(intervals);
  const y = column(intervals, "efficiencyRatio", 100);
  return {
    title: "Efficiency, DC / AC",
    words: `${percent(total(intervals).efficiencyRatio)} in all, threshold ${percent(threshold, 0)}`,
    build: (now) => ({
      traces: [
        line("DC / AC", x, y, now["ink-soft"], "%{y:.1f} %", {
          marker: {
            size: 8,
            color: y.map((each) => (each !== null && each < threshold * 100 ? now.bad : now.dc)),
            symbol: y.map((each) => (each !== null && each < threshold * 100 ? "triangle-up" : "circle")),
          },
        }),
      ],
      layout: {
        showlegend: false,
        yaxis: { title: { text: "%" }, range: ratioRange(y, threshold), rangemode: "normal" },
        shapes: [{ type: "line", xref: "paper", x0: 0, x1: 1, y0: threshold * 100, y1: threshold * 100, line: { color: now.bad, width: 1.5, dash: "dash" } }],
        annotations: [{ xref: "paper", x: 1, xanchor: "left", y: threshold * 100, text: percent(threshold, 0), showarrow: false, font: { color: now.bad } }],
      },
    }),
    head: ["DC / AC"],
    cells: (each) => [percent(each.efficiencyRatio)],
  };
}

/** Gives the chart of a battery: charge on the left axis, temperature on the right one. */
export function batteryChart(intervals) {
  const x = starts(intervals);
  return {
    title: "State of charge and battery temperature",
    words: "state of charge at the end of each interval, mean temperature in it",
    build: (now) => ({
      traces: [
        line("Charge", x, column(intervals, "lastSoc"), now.ac, "%{y:.0f} %"),
        line("Temperature", x, column(intervals, "avgBatteryTemp"), now.lost, "%{y:.1f} °C", { yaxis: "y2", line: { color: now.lost, width: 2, dash: "dot" }, marker: { color: now.lost, size: 6, symbol: "diamond" } }),
      ],
      layout: {
        yaxis: { title: { text: "%" }, range: [0, 104] },
        yaxis2: { title: { text: "°C" }, overlaying: "y", side: "right", showgrid: false, rangemode: "normal", tickmode: "auto", nticks: 6 },
      },
    }),
    head: ["Charge (min, max, last)", "Battery (mean)"],
    cells: (each) => [
      each.lastSoc === null ? "–" : `${number(each.minSoc)}, ${number(each.maxSoc)}, ${number(each.lastSoc)} %`,
      quantity(each.avgBatteryTemp, "°C"),
    ],
  };
}

/** Gives the chart of a meter's voltage: mean, and the band from the least to the greatest. */
export function voltageChart(intervals) {
  const x = starts(intervals);
  return {
    title: "Voltage",
    words: "mean of each interval, and the band between its least and its greatest",
    build: (now) => ({
      traces: [
        line("Greatest", x, column(intervals, "maxVoltage"), now.line, "%{y:.1f} V", { mode: "lines" }),
        line("Least", x, column(intervals, "minVoltage"), now.line, "%{y:.1f} V", { mode: "lines", fill: "tonexty", fillcolor: "rgba(128,128,128,0.18)" }),
        line("Mean", x, column(intervals, "avgVoltage"), now.ac, "%{y:.1f} V"),
      ],
      layout: { showlegend: false, yaxis: { title: { text: "V" }, rangemode: "normal" } },
    }),
    head: ["Voltage (mean, least, greatest)"],
    cells: (each) => [each.avgVoltage === null ? "–" : `${number(each.avgVoltage, 1)}, ${number(each.minVoltage, 1)}, ${number(each.maxVoltage, 1)} V`],
  };
}

const hooks = { Energy: "chart-energy", "Efficiency, DC / AC": "chart-efficiency", Voltage: "chart-voltage" };

/**
 * Shows charts of a series in a place, one below the other; a reader's open tables stay open. `charts(series, intervals)` gives
 * them.
 */
export function showCharts(place, series, intervals, charts) {
  const range = [series.periodStart, series.periodEnd].map(localTime);
  charts(series, withGaps(intervals)).forEach((chart, index) => {
    let figure = place.children[index];
    if (!figure) {
      figure = frameOf(chart);
      place.append(figure);
    }
    const [caption, canvas, details] = figure.children;
    caption.lastChild.textContent = chart.words;
    canvas.setAttribute("aria-label", `${chart.title}: ${chart.words}`);
    details.lastChild.replaceChildren(tableOf(chart, intervals));
    const build = (now) => {
      const { traces, layout } = chart.build(now);
      return { traces, layout: { ...layout, xaxis: { range } } };
    };
    drawChart(canvas, build).catch((error) => {
      canvas.replaceChildren(make("p", { class: "sub" }, `${error.message} The figures are in the table below.`));
      details.open = true;
    });
  });
}

function frameOf(chart) {
  const caption = make("figcaption", {}, make("h2", {}, chart.title), make("span", { class: "sub" }));
  const canvas = make("div", { class: "canvas", role: "img", "data-test": hooks[chart.title] ?? "chart-battery" });
  const scroll = make("div", { class: "scroll figures", tabindex: 0, role: "region", "aria-label": `${chart.title}, figures` });
  return make("figure", { class: "card chart" }, caption, canvas, make("details", {}, make("summary", {}, "Figures"), scroll));
}

function tableOf(chart, intervals) {
  const head = ["From", ...chart.head].map((words, index) => make("th", { scope: "col", class: index ? "num" : null }, words));
  const rows = intervals.map((each) =>
    make("tr", {}, make("th", { scope: "row" }, moment(each.start)), ...chart.cells(each).map((words) => make("td", { class: "num" }, words))),
  );
  return make("table", { class: "plain" }, make("thead", {}, make("tr", {}, ...head)), make("tbody", {}, ...rows));
}
