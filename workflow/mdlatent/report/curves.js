// Learning curves by epoch.
const ERRORS = {
  coordinate: "Part of the variance of the structures that is lost (error of superposed atoms and of pair distances, divided by the fluctuation squared)",
};
function drawCurves(run) {
  const curves = run.curves;
  byId("curves").hidden = !curves;
  byId("no-curves").hidden = Boolean(curves);
  if (!curves) {
    byId("no-curves").textContent = run.model + " was fitted in one step: there are no learning curves.";
    return;
  }
  const line = (name, label, color, more = {}) => ({ type: "scatter", mode: "lines+markers", x: curves.epoch, y: curves[name], name: label,
    line: { color, width: 1.8 }, marker: { size: 4 }, hovertemplate: "epoch %{x}: %{y:.4g}<extra>" + label + "</extra>", ...more });
  const traces = [line("train_reconstruction", "training", "#0072B2")];
  if (curves.validation_reconstruction.some((value) => value !== null)) traces.push(line("validation_reconstruction", "validation", "#D55E00"));
  draw("loss-plot", traces, { xaxis: axis("epoch"), yaxis: logAxis("mean squared error (no unit)", traces.flatMap((trace) => trace.y)) },
    "learning_curve", "Reconstruction error of training and validation frames by epoch, logarithmic axis");
  byId("loss-caption").textContent = (ERRORS[run.family] || "Mean squared error of the scaled distances (divided by a fixed length, so without unit)") + ", of training frames with the noise of the latent, of validation frames without."
    + (run.weights ? " Weights taken from " + run.weights + "." : "");
  draw("kl-plot", [line("kl_nats", "KL divergence (nats)", "#009E73"), line("active_dimensions", "active dimensions", "#5a6570", { yaxis: "y2", line: { color: "#5a6570", width: 1.8, shape: "hv", dash: "dot" }, marker: { size: 0.1 } })],
    { xaxis: axis("epoch"), yaxis: axis("KL divergence (nats)", { rangemode: "tozero" }),
      yaxis2: axis("active dimensions (count)", { overlaying: "y", side: "right", range: [0, run.dim + 0.5], dtick: Math.max(1, Math.ceil(run.dim / 8)), showgrid: false }), margin: { l: 56, r: 56, t: 8, b: 46 } },
    "information", "Kullback-Leibler divergence and active dimensions by epoch");
}
