// Asks the run how it goes, once a second, and shows it.
"use strict";

const EVERY_MS = 1000;
const at = (id) => document.getElementById(id);
const whole = (n) => (n === null || n === undefined ? "–" : n.toLocaleString("en"));
const decimal = (n, digits) => (n === null || n === undefined ? "–" : n.toFixed(digits));
const color = (name) => getComputedStyle(document.documentElement).getPropertyValue(name).trim();

function duration(seconds) {
  const parts = [Math.floor(seconds / 3600), Math.floor(seconds / 60) % 60, Math.floor(seconds) % 60];
  return parts[0] ? `${parts[0]} h ${parts[1]} min` : parts[1] ? `${parts[1]} min ${parts[2]} s` : `${parts[2]} s`;
}

/** Fills a table with rows of a name and a value. */
function fill(table, rows) {
  const cell = (text, kind) => {
    const td = document.createElement("td");
    td.textContent = text;
    td.className = kind;
    return td;
  };
  table.replaceChildren(...rows.map(([name, value]) => {
    const row = document.createElement("tr");
    row.append(cell(name, ""), cell(value, "number"));
    return row;
  }));
}

function cards(values) {
  at("numbers").replaceChildren(...values.map(([value, what]) => {
    const card = document.createElement("div");
    const [number, text] = [document.createElement("b"), document.createElement("span")];
    number.textContent = value;
    text.textContent = what;
    card.append(number, text);
    return card;
  }));
}

/** A plot over the steps of the run, as wide as its place. */
class Plot {
  constructor(id, name, digits) {
    [this.place, this.name, this.digits, this.data] = [at(id), name, digits, [[], []]];
    addEventListener("resize", () => this.plot?.setSize(this.size()));
    matchMedia("(prefers-color-scheme: dark)").addEventListener("change", () => this.draw());
  }

  size() {
    return { width: this.place.clientWidth, height: 220 };
  }

  draw() {
    const axis = { stroke: color("--soft"), grid: { stroke: color("--line"), width: 1 }, ticks: { show: false } };
    const value = (_, v) => decimal(v, this.digits);
    this.plot?.destroy();
    this.plot = new uPlot({
      ...this.size(),
      scales: { x: { time: false } },
      axes: [axis, { ...axis, size: 60 }],
      series: [
        { label: "step", value: (_, v) => whole(v) },
        { label: this.name, stroke: color("--accent"), width: 1.5, points: { show: false }, value },
      ],
    }, this.data, this.place);
  }

  show(steps, values) {
    this.data = [steps, values];
    if (this.plot) {
      this.plot.setData(this.data);
    } else {
      this.draw();
    }
  }
}

const plots = {
  similarity: new Plot("similarity", "similarity", 3),
  staleness: new Plot("staleness", "steps", 0),
  wait: new Plot("wait", "ms", 2),
};

function showProgress(progress) {
  at("progress").hidden = !progress;
  if (!progress) return;
  const share = progress.total ? progress.done / progress.total : null;
  const bar = at("progress").querySelector("progress");
  if (share === null) bar.removeAttribute("value");
  else bar.value = share;
  const of = progress.total ? ` of ${whole(progress.total)}` : "";
  at("progress").querySelector("span").textContent = `${progress.stage}: ${whole(progress.done)}${of} samples`;
}

function warnings(run) {
  const all = [
    [run.refreshes.failed, "refreshes have failed; the log says why"],
    [run.skipped, "samples could not be encoded, and are in no mini-batch"],
    [run.inconsistent, "pairs are left out: their positives are not among the nearest to their anchors"],
    [run.source.skipped_rows, "rows lay in damaged parts, and are left out"],
    [run.unplaced, "samples were kept out of an epoch by guards"],
    [run.repeated, "mini-batches had samples once more, so that epochs are as long as on other hosts"],
    [run.unsaved, "graphs could not be recorded for a resume"],
  ];
  return all.filter(([count]) => count > 0).map(([count, what]) => `${whole(count)} ${what}.`).join(" ");
}

function showRun(run, seconds) {
  const total = run.total === null ? "" : ` of ${whole(run.total)}`;
  at("state").textContent = `mini-batch ${whole(run.delivered)}${total}, epoch ${whole(run.epoch)}, `
    + `${duration(seconds)} since the start, ${whole(run.data_set_samples)} samples`;
  const text = warnings(run);
  at("warning").hidden = text === "";
  at("warning").textContent = text;
  cards([
    [decimal(run.similarity, 3), "in-batch similarity"],
    [whole(run.staleness), "steps of staleness"],
    [whole(run.graph_version), "graph"],
    [whole(run.model_version), "model"],
    [run.ready === null ? "–" : `${run.ready} of ${run.prefetch}`, "mini-batches ready"],
    [`${decimal(run.trainer_wait, 1)} s`, "the trainer has waited"],
  ]);
  at("running").hidden = false;
  const { step, similarity, staleness, wait_ms: wait } = run.history;
  plots.similarity.show(step, similarity);
  plots.staleness.show(step, staleness);
  plots.wait.show(step, wait);

  const { published, skipped, failed, cancelled } = run.refreshes;
  const took = Object.entries(run.refresh_seconds).map(([stage, time]) => [`seconds of ${stage}`, decimal(time, 2)]);
  fill(at("refreshes"), [
    ["published", whole(published)],
    ["skipped, since nothing would have changed", whole(skipped)],
    ["failed", whole(failed)],
    ["cancelled for a newer model", whole(cancelled)],
    ...took,
  ]);
  const named = (name) => name.replaceAll("_", " ");
  fill(at("counts"), Object.entries(run.counts).map(([name, count]) => [named(name), whole(count)]));
}

async function ask() {
  try {
    const status = await (await fetch("status")).json();
    showProgress(status.progress);
    if (status.run) showRun(status.run, status.seconds);
    else at("state").textContent = `starting, for ${duration(status.seconds)}`;
  } catch {
    at("state").textContent = "The run has ended, or cannot be reached. This page asks again.";
    showProgress(null);
  }
  setTimeout(ask, EVERY_MS);
}

ask();
