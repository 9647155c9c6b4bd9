"use strict";
// Counts what goes wrong, so that a test (or a reader) can see on <body> that nothing did.
(() => {
  const body = document.body;
  body.dataset.errors = "0";
  const failed = () => { body.dataset.errors = String(Number(body.dataset.errors) + 1); };
  const complain = console.error;
  console.error = (...all) => { failed(); complain(...all); };
  addEventListener("error", failed, true);
  addEventListener("unhandledrejection", failed);
  document.addEventListener("securitypolicyviolation", failed);

  const VARIABLE = /^var\((--[a-z]+)\)$/;
  const touch = matchMedia("(pointer: coarse)").matches;

  // A copy of `value` with CSS variables as the colours they stand for just now.
  const coloured = (value, style) => {
    if (Array.isArray(value)) return value.map((inner) => coloured(inner, style));
    if (value && typeof value === "object") {
      return Object.fromEntries(Object.entries(value).map(([key, inner]) => [key, coloured(inner, style)]));
    }
    const name = typeof value === "string" && VARIABLE.exec(value);
    return name ? style.getPropertyValue(name[1]).trim() : value;
  };

  const config = (name) => ({
    responsive: true,
    displaylogo: false,
    showTips: false,
    showLink: false,
    showSendToCloud: false,
    plotlyServerURL: "",
    displayModeBar: touch ? true : "hover",
    modeBarButtonsToRemove: ["select2d", "lasso2d", "autoScale2d"],
    toImageButtonOptions: { format: "png", scale: 2, filename: `joulemeter-${name}` },
  });

  const drawAll = (figures) => {
    const style = getComputedStyle(document.documentElement);
    for (const [name, figure] of Object.entries(figures)) {
      const { data, layout } = coloured(figure, style);
      // A finger on a plot scrolls the page until its owner picks a tool.
      Plotly.react(name, data, touch ? { ...layout, dragmode: false } : layout, config(name));
    }
  };

  // A logarithm has no place for zero and below: they are drawn at a tenth of the smallest positive mean.
  const linearOrLog = (plot, figure, log) => {
    const positive = figure.data[2].y.filter((value) => value > 0);
    const floor = Math.min(...positive) / 10;
    figure.data = figure.data.map((trace, at) => at === 0 || trace.yaxis !== "y2" ? trace : {
      ...trace,
      linear: trace.linear || trace.y,
      y: (trace.linear || trace.y).map((value) => log && value !== null ? Math.max(value, floor) : value),
    });
    Object.assign(figure.layout.yaxis2, { type: log ? "log" : "linear", autorange: true });
    figure.layout.uirevision = String(log);
  };

  const controls = (figures) => {
    const figure = figures.waveform;
    if (!figure) return;
    const whole = figure.layout.xaxis.range.slice();
    const act = {
      whole: () => Plotly.relayout("waveform", { "xaxis.range": whole.slice(), "yaxis2.autorange": true }),
      close: () => Plotly.relayout("waveform", { "xaxis.range": figure.close_up.slice(), "yaxis2.autorange": true }),
      log: (button) => {
        const log = button.getAttribute("aria-pressed") !== "true";
        button.setAttribute("aria-pressed", String(log));
        const kept = document.getElementById("waveform").layout.xaxis.range.slice();
        linearOrLog("waveform", figure, log);
        drawAll({ waveform: figure });
        Plotly.relayout("waveform", { "xaxis.range": kept });
      },
    };
    for (const button of document.querySelectorAll("[data-view]")) {
      button.addEventListener("click", () => act[button.dataset.view](button));
    }
    document.querySelector(".controls").hidden = false;
  };

  // Paper is light and narrow, whatever the screen is.
  const PAPER_PX = 680;
  const forPaper = (figures, paper) => {
    document.documentElement.toggleAttribute("data-paper", paper);
    drawAll(figures);
    for (const name of Object.keys(figures)) {
      if (paper) Plotly.relayout(name, { width: PAPER_PX });
      else Plotly.relayout(name, { width: null, autosize: true });
    }
    for (const details of document.querySelectorAll("details.printed")) details.open = paper;
  };

  addEventListener("DOMContentLoaded", () => {
    const figures = JSON.parse(document.getElementById("figures").textContent);
    drawAll(figures);
    controls(figures);
    matchMedia("(prefers-color-scheme: dark)").addEventListener("change", () => drawAll(figures));
    addEventListener("beforeprint", () => forPaper(figures, true));
    addEventListener("afterprint", () => forPaper(figures, false));
    body.dataset.drawn = String(Object.keys(figures).length);
  });
})();
