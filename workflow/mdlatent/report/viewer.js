// Structures of the chosen state, superposed.
const Viewer = { gl: null, style: "auto", all: true, color: "state", text: "", atoms: 0 };

const structureIndex = (run, state) => {
  let k = 0;
  for (const other of DATA.runs) { if (other === run) return k + state; k += other.states.length; }
  return -1;
};
const fileOf = (run, state) => DATA.files[structureIndex(run, state)];

// The PDB file again, from what its models share and their coordinates in 0.001 Å. For drawing, the bonds named at its
// end stand in every model, or the viewer would give them to one alone.
function pdbText(entry, drawing) {
  const bonds = drawing ? entry.tail.filter((line) => line.startsWith("CONECT")) : [];
  const template = DATA.structures.templates[entry.template].split("\n"), xyz = unpack(entry.xyz), lines = entry.head.slice();
  const field = (code) => (code / 1000).toFixed(3).padStart(8);
  let k = 0;
  for (const model of entry.models) {
    lines.push(model);
    for (const line of template) {
      if (line.startsWith("ATOM  ") || line.startsWith("HETATM")) {
        lines.push(line.slice(0, 30) + field(xyz[k]) + field(xyz[k + 1]) + field(xyz[k + 2]) + line.slice(30));
        k += 3;
      } else {
        if (line.startsWith("ENDMDL")) lines.push(...bonds);
        lines.push(line);
      }
    }
  }
  return lines.concat(entry.tail).join("\n") + "\n";
}

function viewerTools(redraw) {
  const set = (key) => (value) => { Viewer[key] = value; redraw(); };
  byId("viewer-tools").replaceChildren(
    segments("Style", [["auto", "Cartoon"], ["stick", "Sticks"]], Viewer.style, set("style")),
    segments("Structures", [["true", "All"], ["false", "Medoid"]], String(Viewer.all), (value) => { Viewer.all = value === "true"; redraw(); }),
    segments("Colour of the structures", [["state", "State"], ["spectrum", "Chain"]], Viewer.color, set("color")),
    element("button", { type: "button", class: "plain", onclick: () => { Viewer.gl?.zoomTo(); Viewer.gl?.render(); } }, "Reset"),
  );
}

function empty(text) {
  const place = byId("viewer");
  if (Viewer.gl) Viewer.gl.clear();
  place.querySelector(".empty")?.remove();
  if (text) place.append(element("div", { class: "empty" }, text));
}

function start() {
  if (Viewer.gl) return true;
  const place = byId("viewer");
  try {
    Viewer.gl = WEBGL ? $3Dmol.createViewer(place, { id: "viewer-canvas", backgroundColor: "white", antialias: true, cartoonQuality: 8, disableFog: true }) : null;
  } catch { Viewer.gl = null; }
  if (!Viewer.gl) return false;
  // The page scrolls over the viewer until it has been clicked; then the wheel zooms.
  place.addEventListener("wheel", (event) => { if (document.activeElement !== place) event.stopImmediatePropagation(); }, { capture: true });
  place.addEventListener("pointerdown", () => place.focus({ preventScroll: true }));
  new ResizeObserver(() => Viewer.gl.resize()).observe(place);
  return true;
}

function drawStructures(run, state, keepView) {
  const card = byId("viewer-card"), caption = byId("viewer-caption"), place = byId("viewer");
  const lone = !run.states.length;
  card.hidden = lone;
  card.parentElement.style.gridTemplateColumns = lone ? "minmax(0, 1fr)" : "";
  if (lone) return;
  Viewer.text = "";
  const row = run.states[state], index = structureIndex(run, state), entry = DATA.structures.entries[index];
  const link = element("a", { href: encodeURI(DATA.files[index]) }, "cluster_" + state + ".pdb");
  const others = row.representatives.length - 1, pick = row.representatives[0];
  const words = "State " + state + ": its medoid" + (others ? " (solid) and the " + others + " nearest frames, superposed on the mapped atoms" : "");
  place.setAttribute("aria-label", words);
  place.dataset.state = state;
  const about = words + ". Medoid: " + pick.simulation + ", frame " + count(pick.frame) + (pick.time_ps === null ? "" : ", " + duration(pick.time_ps)) + ". File: ";
  caption.replaceChildren(about, link);
  if (!entry) { empty("This structure is too large for the page. Open " + DATA.files[index] + " in a molecular viewer."); return; }
  Viewer.text = pdbText(entry, false);
  if (DATA.structures.reduced) caption.append(". Shown here: " + DATA.structures.reduced + ".");
  else caption.append(", or ", element("a", { href: "#", role: "button", onclick: (event) => { event.preventDefault(); save("state_" + state + ".pdb", Viewer.text); } }, "save it from this page"), ".");
  if (!start()) { empty("This browser offers no WebGL, so structures cannot be drawn. Open " + DATA.files[index] + " in a molecular viewer."); return; }
  empty("");
  const gl = Viewer.gl, view = keepView ? gl.getView() : null;
  gl.removeAllModels();
  // Hydrogens tell something in small molecules and hide everything in large ones.
  const nAtoms = unpack(entry.xyz).length / 3 / entry.models.length;
  const models = gl.addModels(pdbText(entry, true), "pdb", { keepH: nAtoms <= 120 });
  const shown = Viewer.all ? models : models.slice(0, 1);
  for (const model of models.slice(shown.length)) gl.removeModel(model);
  shown.forEach((model, k) => dress(gl, model, stateColor(state), k === 0));
  Viewer.atoms = shown.reduce((sum, model) => sum + model.selectedAtoms({}).length, 0);
  place.dataset.models = shown.length;
  if (view) gl.setView(view);
  else { gl.setView([0, 0, 0, 0, ...entry.view]); gl.zoomTo(); }
  gl.render();
}

// Cartoon for chains of residues, sticks for everything small.
function dress(gl, model, color, first) {
  const key = (atom) => atom.chain + atom.resi + (atom.icode || ""), polymer = new Set();
  for (const atom of model.selectedAtoms({})) if (atom.atom === "CA" || atom.atom === "P") polymer.add(key(atom));
  const chains = polymer.size >= 5;
  byId("viewer-tools").firstChild.hidden = !chains;
  const paint = Viewer.color === "spectrum" ? { color: "spectrum" } : { color };
  const carbon = Viewer.color === "spectrum" ? {} : { colorscheme: { prop: "elem", map: { ...$3Dmol.elementColors.defaultColors, C: color } } };
  const opacity = first ? 1 : 0.55, id = model.getID();
  const sticks = (radius) => ({ stick: { radius: first ? radius : 0.6 * radius, opacity, ...carbon }, ...(chains ? {} : { sphere: { scale: first ? 0.22 : 0.14, opacity, ...carbon } }) });
  gl.setStyle({ model: id }, {});
  if (Viewer.style === "stick" || !chains) gl.setStyle({ model: id }, sticks(0.14));
  else {
    gl.setStyle({ model: id }, { cartoon: { ...paint, opacity, thickness: first ? 0.4 : 0.2, arrows: true } });
    gl.setStyle({ model: id, predicate: (atom) => !polymer.has(key(atom)) }, sticks(0.14)); // ligands, caps
  }
}

function save(name, text) {
  const url = URL.createObjectURL(new Blob([text], { type: "chemical/x-pdb" }));
  element("a", { href: url, download: name }).click();
  setTimeout(() => URL.revokeObjectURL(url), 10000);
}
