// What is shown, and who draws it. Figures are drawn one after the other, so that the page answers while it fills.
const App = { run: 0, state: 0, drawing: 0 };

function showRun(index) {
  App.run = index;
  App.state = 0;
  const run = prepared(DATA.runs[index]);
  for (const place of document.querySelectorAll(".which")) place.textContent = run.model + (seedsOf(run.model).length > 1 ? ", seed " + run.seed : "");
  const notice = byId("no-states");
  notice.hidden = Boolean(run.states.length);
  notice.textContent = run.states.length ? "" : run.message || "No state was found: all frames are noise.";
  mapTools(run, () => drawMap(run, App.state, showState));
  lanesTools(run, () => drawLanes(run));
  viewerTools(() => drawStructures(run, App.state, true));
  byId("populations-plot").closest(".pair").hidden = !run.states.length;
  const turn = ++App.drawing;
  const jobs = [
    () => drawMap(run, App.state, showState), () => statesTable(run, App.state, showState), () => drawStructures(run, App.state, false),
    () => drawLanes(run), () => run.states.length && drawPopulations(run), () => run.states.length && drawTransitions(run),
    () => drawMarkov(run), () => drawSweep(run),
    () => drawMatrices(run, index, App.state, showState), () => drawCurves(run), () => { document.body.dataset.ready = run.key; },
  ];
  const next = () => {
    if (turn !== App.drawing || !jobs.length) return;
    jobs.shift()();
    setTimeout(next, 0);
  };
  delete document.body.dataset.ready;
  next();
}

function showState(state) {
  const run = DATA.runs[App.run];
  if (state < 0 || state === App.state || !run.states.length) return;
  App.state = state;
  statesTable(run, state, showState);
  drawStructures(run, state, false);
  drawMap(run, state, showState);
  drawMatrices(run, App.run, state, showState);
}

const seedsOf = (model) => DATA.runs.filter((run) => run.model === model).map((run) => run.seed);

function chooser() {
  const models = [...new Set(DATA.runs.map((run) => run.model))], place = byId("choose");
  const current = DATA.runs[App.run];
  if (DATA.runs.length < 2) return;
  const go = (model, seed) => {
    const index = DATA.runs.findIndex((run) => run.model === model && run.seed === seed);
    showRun(index);
    chooser();
  };
  const pick = (model) => go(model, seedsOf(model).includes(current.seed) ? current.seed : seedsOf(model)[0]);
  const options = models.map((model) => [model, model]);
  place.replaceChildren(models.length <= 4 ? segments("Model", options, current.model, pick) : picker("Model", options, current.model, pick));
  const seeds = seedsOf(current.model);
  if (seeds.length > 1) {
    const chosen = (seed) => go(current.model, Number(seed));
    const choices = seeds.map((seed) => [seed, seeds.length <= 6 ? "seed " + seed : String(seed)]);
    place.append(seeds.length <= 6 ? segments("Seed", choices, current.seed, chosen) : picker("Seed", choices, current.seed, chosen));
  }
}

chooser();
drawComparison();
drawConformers();
showRun(0);
