// Charts by plotly: its script comes when a page has something to draw, after all that can be read without it.

const PLAIN = { displayModeBar: false, responsive: true, scrollZoom: false, doubleClick: "reset" };
const FONT = 'ui-sans-serif, system-ui, -apple-system, "Segoe UI", Roboto, "Helvetica Neue", Arial, sans-serif';

let loading = null;

/** Gives plotly, once its script is there. Raises an Error where it cannot be had. */
function plotly() {
  loading ??= new Promise((resolve, reject) => {
    // The security policy takes no style sheets but ours: by this id and class plotly asks for none of its own.
    const sheet = document.createElement("link");
    sheet.id = "plotly.js-style-global";
    sheet.className = "no-inline-styles";
    sheet.rel = "stylesheet";
    sheet.href = new URL("./charts.css", import.meta.url).href;
    // So it does with styles of maps, which its script would put in as it is read.
    const { plotlyStyles } = document.documentElement.dataset;
    const none = plotlyStyles.split(" ").filter(Boolean).map((id) => Object.assign(document.createElement("meta"), { id }));
    const script = document.createElement("script");
    script.src = document.documentElement.dataset.plotly;
    script.onload = () => resolve(window.Plotly);
    script.onerror = () => {
      loading = null;
      script.remove();
      sheet.remove();
      for (const each of none) each.remove();
      reject(new Error("The script that draws charts could not be loaded."));
    };
    document.head.append(sheet, ...none, script);
  });
  return loading;
}

/** Gives the colours of the page as it is now. */
export function colours() {
  const probe = document.createElement("i");
  document.body.append(probe);
  const found = {};
  for (const name of ["ac", "dc", "lost", "bad", "ink", "ink-soft", "line", "surface"]) {
    probe.style.color = `var(--${name})`;
    found[name] = getComputedStyle(probe).color;
  }
  probe.remove();
  return found;
}

const drawn = new Map();

/**
 * Draws a chart in a place, and again when the colours change. `build(colours)` gives traces and what is special about the
 * layout. Raises an Error where the script cannot be had.
 */
export async function drawChart(place, build) {
  drawn.set(place, build);
  const Plotly = await plotly();
  if (drawn.get(place) !== build) return;
  await paint(Plotly, place, build);
}

async function paint(Plotly, place, build) {
  const now = colours();
  const { traces, layout } = build(now);
  await Plotly.react(place, traces, merged(base(now, place.clientWidth), layout), PLAIN);
}

function base(now, width) {
  const axis = {
    gridcolor: now.line, linecolor: now.line, zerolinecolor: now.line, tickcolor: now.line, fixedrange: true, automargin: true,
  };
  return {
    autosize: true,
    dragmode: false, // a finger on a chart scrolls the page
    margin: { l: 46, r: 46, t: 8, b: 30 },
    paper_bgcolor: "rgba(0,0,0,0)",
    plot_bgcolor: "rgba(0,0,0,0)",
    font: { family: FONT, size: 12, color: now["ink-soft"] },
    hovermode: "x unified",
    hoverlabel: { bgcolor: now.surface, bordercolor: now.line, font: { color: now.ink, family: FONT, size: 12 } },
    legend: { orientation: "h", x: 0, y: 1.02, yanchor: "bottom", font: { color: now.ink } },
    xaxis: {
      ...axis, type: "date", showgrid: false, tickangle: 0, nticks: Math.max(3, Math.floor(width / 90)), hoverformat: "%a %d %b, %H:%M",
      spikemode: "across", spikethickness: 1, spikedash: "solid", spikecolor: now["ink-soft"],
    },
    yaxis: { ...axis, rangemode: "tozero" },
    bargap: 0.15,
  };
}

function merged(common, special) {
  const layout = { ...common, ...special };
  for (const [name, value] of Object.entries(special)) {
    if (/^[xy]axis/.test(name)) layout[name] = { ...(common[name] ?? common.yaxis), ...value };
  }
  return layout;
}

async function repaint() {
  if (!loading) return;
  const Plotly = await loading;
  for (const [place, build] of drawn) await paint(Plotly, place, build);
}
addEventListener("themechange", repaint);
matchMedia("(prefers-color-scheme: dark)").addEventListener("change", repaint);
