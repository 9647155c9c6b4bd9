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

  // -- the waveform: what is drawn follows what is looked at --------------------------------------------------------

  // Steps drawn at once, three times the width of what is seen, so that there is something to pan into.
  const STEPS = 6000, BESIDE = 1;
  // Around a window that is looked at, in its lengths.
  const AIR = 0.3;

  // Steps as detail.py packs them: half floats, low bytes before high ones, deflated.
  const unpack = async (steps) => {
    const bytes = Uint8Array.from(atob(steps.packed), (letter) => letter.charCodeAt(0));
    const stream = new ReadableStream({ start: (sink) => { sink.enqueue(bytes); sink.close(); } });
    const inflated = stream.pipeThrough(new DecompressionStream("deflate"));
    const flat = new Uint8Array(await new Response(inflated).arrayBuffer());
    const all = flat.length / 2;
    const value = (at) => {
      const bits = flat[at] | flat[all + at] << 8, exponent = bits >> 10 & 31, fraction = bits & 1023;
      if (exponent === 31) return NaN;
      const size = exponent ? (1024 + fraction) * 2 ** (exponent - 25) : fraction * 2 ** -24;
      return (bits >> 15 ? -size : size) * steps.scale;
    };
    const part = (which) => Float32Array.from({ length: steps.count }, (_, at) => value(which * steps.count + at));
    return { start: steps.start, step: steps.step, count: steps.count, low: part(0), high: part(1), mean: part(2) };
  };

  // The steps in [from, to), joined to at most STEPS of them.
  const cut = (steps, from, to) => {
    const at = (time) => Math.min(Math.max((time - steps.start) / steps.step, 0), steps.count);
    const first = Math.floor(at(from)), last = Math.ceil(at(to)), join = Math.max(1, Math.ceil((last - first) / STEPS));
    const found = { borders: [], low: [], high: [], mean: [] };
    for (let begin = first; begin < last; begin += join) {
      let low = Infinity, high = -Infinity, total = 0, seen = 0;
      for (let i = begin; i < Math.min(begin + join, last); i++) {
        if (Number.isNaN(steps.mean[i])) continue;
        low = Math.min(low, steps.low[i]);
        high = Math.max(high, steps.high[i]);
        total += steps.mean[i];
        seen++;
      }
      found.borders.push(steps.start + begin * steps.step);
      found.low.push(seen ? low : null);
      found.high.push(seen ? high : null);
      found.mean.push(seen ? total / seen : null);
    }
    found.borders.push(steps.start + last * steps.step);
    return found;
  };

  // One closed outline per unbroken run, as figures.py draws it.
  const outline = ({ borders, low, high }) => {
    const x = [], y = [];
    for (let first = 0; first < low.length; first++) {
      if (low[first] === null) continue;
      let last = first;
      while (last < low.length && low[last] !== null) last++;
      for (let i = first; i < last; i++) { x.push(borders[i], borders[i + 1]); y.push(high[i], high[i]); }
      for (let i = last - 1; i >= first; i--) { x.push(borders[i + 1], borders[i]); y.push(low[i], low[i]); }
      x.push(null);
      y.push(null);
      first = last;
    }
    return { x, y };
  };

  // Spans (start and stop in turn) as boxes; where there are too many to tell apart, near ones are joined.
  const boxes = (edges, from, to, most, { bottom, top }) => {
    let spans = [];
    for (let i = 0; i < edges.length; i += 2) if (edges[i + 1] > from && edges[i] < to) spans.push([edges[i], edges[i + 1]]);
    if (spans.length > most) {
      const close = (to - from) / most, joined = [spans[0].slice()];
      for (const [start, stop] of spans.slice(1)) {
        const before = joined[joined.length - 1];
        if (start - before[1] < close) before[1] = Math.max(before[1], stop);
        else joined.push([start, stop]);
      }
      spans = joined;
    }
    return {
      x: spans.flatMap(([start, stop]) => [start, start, stop, stop, null]),
      y: spans.flatMap(() => [bottom, top, top, bottom, null]),
    };
  };

  // The hover line of the window that holds each middle, or none.
  const namesAt = (middles, { windows, names }) => {
    let at = -1;
    return middles.map((time) => {
      while (2 * (at + 1) < windows.length && windows[2 * (at + 1)] <= time) at++;
      return at >= 0 && time < windows[2 * at + 1] ? names[at] || "" : "";
    });
  };

  const Wave = (figure) => {
    const whole = figure.layout.xaxis.range.slice(), afar = figure.data, detail = figure.detail;
    const plot = document.getElementById("waveform");
    const extents = afar.map(({ y }) => ({ bottom: y[0], top: y[1] }));
    // A logarithm has no place for zero and below: they are drawn at a tenth of the smallest positive mean.
    const floor = Math.min(...afar[2].y.filter((value) => value > 0)) / 10;
    let pieces = [], log = false;

    // The finest steps that hold all that is seen; null where those drawn from afar do.
    const holding = (from, to) => {
      if (to - from > 0.6 * (whole[1] - whole[0])) return null;
      const [start, stop] = [Math.max(from, whole[0]), Math.min(to, whole[1])];
      return pieces.find((steps) => {
        const slack = 2 * steps.step;
        return steps.start <= start + slack && stop <= steps.start + steps.count * steps.step + slack;
      }) || null;
    };

    const near = (from, to) => {
      const steps = holding(from, to);
      if (!steps) return afar;
      const [left, right] = [from - BESIDE * (to - from), to + BESIDE * (to - from)];
      const part = cut(steps, left, right);
      const middles = part.mean.map((_, i) => (part.borders[i] + part.borders[i + 1]) / 2);
      const names = namesAt(middles, detail);
      const said = (value) => value === null ? null : Number(value.toPrecision(4));
      const hover = part.mean.map((_, i) => [said(part.low[i]), said(part.high[i]), names[i]]);
      return afar.map((trace, at) => {
        if (at === 0) return { ...trace, ...boxes(detail.windows, left, right, detail.most_spans, extents[0]) };
        if (at === 1) return { ...trace, ...outline(part) };
        if (at === 2) return { ...trace, x: middles, y: part.mean, customdata: hover };
        return { ...trace, ...boxes(detail.lanes[at - 3], left, right, detail.most_spans, extents[at]) };
      });
    };

    const raised = (trace) => trace.yaxis !== "y2" || !log ? trace
      : { ...trace, y: trace.y.map((value) => value === null ? null : Math.max(value, floor)) };

    const draw = () => {
      figure.data = near(...figure.layout.xaxis.range).map(raised);
      drawAll({ waveform: figure });
      plot.dataset.steps = String(figure.data[2].x.length);
    };

    const see = (first, last) => {
      const [from, to] = [Math.max(first, whole[0]), Math.min(last, whole[1])];
      figure.layout.xaxis.range = [from, to];
      delete figure.layout.yaxis2.range;
      figure.layout.yaxis2.autorange = true;
      figure.layout.uirevision = `${from} ${to} ${log}`;
      draw();
    };

    plot.on("plotly_relayout", (change) => {
      if (!Object.keys(change).some((key) => key.startsWith("xaxis"))) return;
      const { xaxis, yaxis2 } = plot.layout;
      figure.layout.xaxis.range = change["xaxis.autorange"] ? whole.slice() : xaxis.range.slice();
      Object.assign(figure.layout.yaxis2, { autorange: yaxis2.autorange, range: yaxis2.range && yaxis2.range.slice() });
      if (yaxis2.autorange !== false) delete figure.layout.yaxis2.range;
      draw();
    });

    if (detail && window.DecompressionStream) {
      Promise.all(detail.steps.map(unpack)).then((unpacked) => {
        pieces = unpacked;
        body.dataset.detailed = String(pieces.length);
        draw();
      });
    }

    return {
      see,
      whole: () => see(...whole),
      close: () => see(...figure.close_up),
      // To the first or last window that is seen whole, or from a single one to its neighbour.
      step: (forwards) => {
        const edges = detail ? detail.windows : afar[0].x.filter((_, i) => i % 5 === 0 || i % 5 === 2);
        const [from, to] = figure.layout.xaxis.range, middle = (from + to) / 2;
        const all = Array.from({ length: edges.length / 2 }, (_, i) => [edges[2 * i], edges[2 * i + 1]]);
        const seen = all.filter(([start, stop]) => from <= start && stop <= to);
        const next = seen.length > 1 ? seen[forwards ? 0 : seen.length - 1]
          : forwards ? all.find(([start]) => start > middle) : all.findLast(([, stop]) => stop < middle);
        if (next) see(next[0] - (next[1] - next[0]) * AIR, next[1] + (next[1] - next[0]) * AIR);
      },
      logarithmic: (on) => {
        log = on;
        figure.layout.yaxis2.type = on ? "log" : "linear";
        see(...figure.layout.xaxis.range);
      },
    };
  };

  const controls = (wave) => {
    const act = {
      whole: () => wave.whole(),
      close: () => wave.close(),
      before: () => wave.step(false),
      after: () => wave.step(true),
      log: (button) => {
        const log = button.getAttribute("aria-pressed") !== "true";
        button.setAttribute("aria-pressed", String(log));
        wave.logarithmic(log);
      },
    };
    for (const button of document.querySelectorAll("[data-view]")) {
      button.addEventListener("click", () => act[button.dataset.view](button));
    }
    document.querySelector(".controls").hidden = false;
    const spread = document.getElementById("spread");
    if (!spread) return;
    // A window that stands out is looked at by a click on it.
    spread.on("plotly_click", ({ points: [point] }) => {
      const [start, stop] = point.customdata || [null, null];
      if (start === null || stop === null) return;
      wave.see(start - (stop - start) * AIR, stop + (stop - start) * AIR);
      document.getElementById("waveform").scrollIntoView({ block: "center" });
    });
  };

  // Paper is light and narrow, whatever the screen is, and not to be wasted.
  const PAPER_PX = 680, PAPER_MOST_PX = 320;
  const forPaper = (figures, paper) => {
    document.documentElement.toggleAttribute("data-paper", paper);
    drawAll(figures);
    for (const [name, { layout: { height } }] of Object.entries(figures)) {
      const low = name.startsWith("bars") ? height : Math.min(height, PAPER_MOST_PX);
      const width = PAPER_PX - (document.getElementById(name).closest(".card") ? 40 : 0);
      if (paper) Plotly.relayout(name, { width, height: low });
      else Plotly.relayout(name, { width: null, height, autosize: true });
    }
    for (const details of document.querySelectorAll("details.printed")) details.open = paper;
  };

  addEventListener("DOMContentLoaded", () => {
    const figures = JSON.parse(document.getElementById("figures").textContent);
    drawAll(figures);
    if (figures.waveform) controls(Wave(figures.waveform));
    matchMedia("(prefers-color-scheme: dark)").addEventListener("change", () => drawAll(figures));
    addEventListener("beforeprint", () => forPaper(figures, true));
    addEventListener("afterprint", () => forPaper(figures, false));
    body.dataset.drawn = String(Object.keys(figures).length);
  });
})();
