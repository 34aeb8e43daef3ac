// The answer: one panel, or two side by side, each of a run and a set of symptoms.

import { get, post, postForImage, thumbnail } from "./ask.js";
import { choices, find, make, own, percent, say, signed } from "./dom.js";
import { asked, emit, hidden, on, runOf, state } from "./state.js";

const WAIT = 200; // milliseconds without typing before the answer is asked for
const SETS = { edited: "edited symptoms", trained: "symptoms as trained", kept: "kept copy" };
const panels = [];
let heat = null; // {panel, class, phrase, url, controller} of the heat map that is shown

export function startAnswers() {
  panels.push(makePanel("edited", state.about.runs[0].id));
  find("compare").addEventListener("change", compare);
  find("heat-off").addEventListener("click", hideHeat);
  on("image", showImage);
  on("edited", (run) => {
    const waiting = panels.filter((panel) => panel.run === run && panel.set === "edited");
    waiting.forEach((panel) => ask(panel, WAIT));
  });
  on("kept", () => panels.forEach(fillSets));
  on("labelled", (image) => {
    if (state.image?.id === image.id) showImage(state.image);
  });
  on("heat", (entry, phrase, button) => toggleHeat(panels[0], entry, phrase, button));
  if (state.about.runs.length > 1) {
    find("compare").checked = true;
    compare();
  }
}

// -- panels ---------------------------------------------------------------------------------------

function makePanel(set, run) {
  const panel = { set, run, controller: null, timer: 0, answer: null };
  const name = panels.length ? "right" : "left";
  panel.runs = make("select", { "aria-label": `Run, ${name} column`, dir: "auto" });
  panel.sets = make("select", { "aria-label": `Symptoms, ${name} column` });
  panel.problem = make("p", { class: "alert", role: "status", hidden: true, dir: "auto" });
  panel.found = make("div", { class: "found" });
  panel.choose = make("div", { class: "choose" }, panel.runs, panel.sets);
  panel.element = make("div", { class: "panel", role: "group", "aria-label": `Answer, ${name} column` }, panel.choose, panel.problem, panel.found);
  choices(panel.runs, state.about.runs.map((one) => [one.id, one.name]));
  panel.runs.value = run;
  panel.runs.addEventListener("change", () => {
    panel.run = panel.runs.value;
    fillSets(panel);
    if (heat?.panel === panel) hideHeat();
    if (panel === panels[0]) {
      emit("run", panel.run);
      if (state.image) showNeighbours(state.image);
    }
    ask(panel);
  });
  panel.sets.addEventListener("change", () => {
    panel.set = panel.sets.value;
    if (heat?.panel === panel) hideHeat();
    ask(panel);
  });
  fillSets(panel);
  find("panels").append(panel.element);
  return panel;
}

function fillSets(panel) {
  const known = runOf(panel.run).explainable ? ["edited", "trained"] : ["trained"];
  if (state.kept[panel.run]) known.push("kept");
  choices(panel.sets, known.map((set) => [set, SETS[set]]));
  if (!known.includes(panel.set)) panel.set = known[0];
  panel.sets.value = panel.set;
  panel.runs.hidden = state.about.runs.length < 2;
  panel.choose.hidden = panel.runs.hidden && panels.length < 2 && panel.set === "edited" && !state.kept[panel.run];
}

function compare() {
  const on = find("compare").checked;
  document.body.classList.toggle("comparing", on);
  if (on && panels.length < 2) {
    const { runs } = state.about;
    panels.push(makePanel(runs.length > 1 ? "edited" : "trained", runs[runs.length > 1 ? 1 : 0].id));
    ask(panels[1]);
  } else if (!on && panels.length > 1) {
    const last = panels.pop();
    last.controller?.abort();
    if (heat?.panel === last) hideHeat();
    last.element.remove();
  }
  panels.forEach(fillSets);
}

function showImage(image) {
  hideHeat();
  find("empty").hidden = true;
  find("chosen").hidden = false;
  find("image").src = thumbnail(image.id, 640);
  find("image").alt = `The chosen image, ${image.name}`;
  find("image-name").textContent = image.name;
  for (const panel of panels) {
    panel.answer = null;
    panel.element.classList.remove("old");
    panel.found.replaceChildren();
    ask(panel);
  }
  showNeighbours(image);
}

/** Ask after `wait` milliseconds; an answer that is asked for again in between is dropped. */
function ask(panel, wait = 0) {
  clearTimeout(panel.timer);
  panel.controller?.abort();
  if (!state.image) return;
  if (hidden(state.image)) {
    panel.problem.hidden = true;
    panel.element.classList.remove("waiting");
    panel.found.replaceChildren(
      make("p", {}, "Blinded reading: the model's answer is shown after you have saved your own label for this image."),
    );
    return;
  }
  panel.element.classList.add("waiting");
  panel.timer = setTimeout(() => answer(panel), wait);
}

async function answer(panel) {
  const controller = (panel.controller = new AbortController());
  const body = { run: panel.run, image: state.image.id, symptoms: asked(panel.run, panel.set) };
  try {
    const found = await post("answer", body, controller.signal);
    if (panel.controller !== controller) return;
    panel.problem.hidden = true;
    panel.element.classList.remove("old");
    panel.answer = found;
    draw(panel);
    if (panel === panels[0]) say(`${found.verdict}.`);
    if (heat?.panel === panel) drawHeat();
  } catch (error) {
    if (error.name === "AbortError" || panel.controller !== controller) return;
    panel.problem.textContent = panel.answer ? `${error.message} (below is the answer before)` : error.message;
    panel.problem.hidden = false;
    panel.element.classList.add("old");
  }
  panel.element.classList.remove("waiting");
}

// -- what a panel shows ---------------------------------------------------------------------------

function draw(panel) {
  const found = panel.answer;
  const { evidence } = found;
  panel.found.replaceChildren(
    make("p", { class: "said" }, make("strong", {}, own(found.prediction)), ", confidence ", confidence(found), found.seeds_text ? make("span", { class: "quiet" }, ` (${found.seeds_text})`) : null),
    ...truth(found),
    found.unlike ? alert("This image is unlike the training images. The model does not know such images: do not rely on anything below.") : "",
    found.warning ? alert(`${found.warning}.`) : "",
    found.new_classes ? make("p", { class: "quiet" }, `A new class is read ${found.new_classes}.`) : "",
    shares(found),
    ...(evidence ? [reasons(evidence), waterfall(panel, evidence), disagreements(evidence)] : [noEvidence(panel)]),
    make("p", { class: "quiet" }, make("span", { dir: "auto" }, found.verdict), ". ", found.calibrated ? "The confidence is calibrated on the validation images; the probabilities are the model's own. " : "", `Answered in ${Math.round(found.milliseconds)} ms.`),
  );
}

const confidence = (found) => found.confidence_text ?? percent(found.confidence);

const alert = (text) => make("p", { class: "alert", dir: "auto" }, make("strong", {}, text));

function truth(found) {
  if (!found.truth) return [];
  const correct = found.truth === found.prediction;
  return [make("p", { class: correct ? "good" : "bad" }, `${correct ? "Correct" : "Incorrect"}: the true class is `, own(found.truth), ".")];
}

function noEvidence(panel) {
  const text = runOf(panel.run).explainable
    ? "The training images are missing, so there is no average image to compare with and no signed evidence."
    : "This run cannot be explained by symptoms.";
  return make("p", { class: "quiet" }, text);
}

function shares(found) {
  const rows = found.probabilities.map(({ class: name, probability }) =>
    make(
      "li", {},
      own(name),
      make("data", { value: probability, "data-class": name }, percent(probability)),
      make("span", { class: "bar", "aria-hidden": "true" }, make("i", { style: { width: `${100 * probability}%` } })),
    ),
  );
  return make("ul", { class: "shares", "aria-label": "Probabilities" }, rows);
}

function reasons(evidence) {
  const parts = evidence.reasons.map(([sign, found]) => {
    const lines = found.map((one) =>
      make("li", {}, own(one.text), ` (${signed(one.value)})`, one.lost ? make("span", { class: "lost" }, " its words no longer say what it measures") : null),
    );
    return make(
      "div", {},
      make("h3", {}, sign > 0 ? "For " : "Against it, for ", own(sign > 0 ? evidence.one : evidence.rival)),
      lines.length ? make("ul", {}, lines) : make("p", { class: "quiet" }, "No symptom."),
    );
  });
  return make("details", { class: "reasons" }, make("summary", {}, "The strongest reasons in words"), parts);
}

function waterfall(panel, evidence) {
  const head = make(
    "li", { class: "head" },
    make("span", { class: "label" }, "compared with the average training image"),
    make("span", {}, "log-odds of ", own(evidence.one), " over ", own(evidence.rival)),
    make("span", { class: "number" }, "evidence"), make("span", { class: "number" }, "effect on p"),
  );
  const swatch = (i) => make("span", { class: "swatch", style: { background: evidence.colours[i] } });
  return make(
    "div", {},
    make("h3", {}, "Why"),
    make("ol", { class: "fall" }, head, evidence.bars.map((bar) => barOf(panel, bar))),
    make("p", { class: "quiet" }, swatch(0), "speaks for ", own(evidence.one), "\u2003", swatch(1), "speaks for ", own(evidence.rival)),
  );
}

function barOf(panel, bar) {
  const { left, width, zero, colour } = bar;
  return make(
    "li", { class: bar.kind },
    make(
      "span", { class: "label" },
      own(bar.phrase), bar.owner ? make("span", { class: "quiet" }, " (", own(bar.owner), ")") : null,
      bar.trust.length ? make("small", { class: bar.lost ? "lost" : "", dir: "auto" }, bar.trust.join(" · ")) : null,
      bar.kind === "symptom" && runOf(panel.run).heatmaps ? mapButton(panel, bar) : null,
    ),
    make(
      "span", { class: "track", "aria-hidden": "true" },
      make("i", { style: { left: `${zero}%` } }),
      make("b", { style: { left: `${left}%`, width: `${width}%`, background: colour } }),
    ),
    make("span", { class: "number" }, signed(bar.value)),
    make("span", { class: "number" }, bar.effect === null ? "" : `${signed(bar.effect, 1)} pt`),
  );
}

function disagreements(evidence) {
  if (!evidence.disagreements.length) return "";
  const count = evidence.disagreements.length;
  return make(
    "details", {},
    make("summary", {}, `${count} symptom${count > 1 ? "s" : ""} whose bar and effect disagree`),
    make("ul", {}, evidence.disagreements.map((line) => make("li", { dir: "auto" }, `${line}.`))),
  );
}

// -- heat maps ------------------------------------------------------------------------------------

/** The class that has a symptom in what the panel reads; a shared symptom's first one. */
function ownerOf(panel, phrase) {
  const symptoms = asked(panel.run, panel.set) ?? runOf(panel.run).symptoms;
  const has = (entry) => entry.phrases.some((one) => one.on && one.text.trim() === phrase);
  return symptoms.find(has)?.class;
}

function mapButton(panel, bar) {
  const entry = bar.owner && runOf(panel.run).classes.includes(bar.owner) ? bar.owner : ownerOf(panel, bar.phrase);
  const pressed = isShown(panel, entry, bar.phrase);
  const toggle = (event) => toggleHeat(panel, entry, bar.phrase, event.currentTarget);
  return make(
    "button", { type: "button", "aria-pressed": pressed ? "true" : "false", "data-map": bar.phrase, on: { click: toggle } },
    "Heat map", make("span", { class: "unseen" }, ` of ${bar.phrase}`),
  );
}

const isShown = (panel, entry, phrase) => heat?.panel === panel && heat.class === entry && heat.phrase === phrase;

function toggleHeat(panel, entry, phrase, button) {
  if (!state.image || hidden(state.image)) return;
  const again = isShown(panel, entry, phrase);
  hideHeat();
  if (again) return;
  heat = { panel, class: entry, phrase, url: null, controller: null };
  button?.setAttribute("aria-pressed", "true");
  drawHeat();
}

async function drawHeat() {
  const { panel, class: class_name, phrase } = heat;
  heat.controller?.abort();
  const controller = (heat.controller = new AbortController());
  const body = { run: panel.run, image: state.image.id, class_name, phrase, symptoms: asked(panel.run, panel.set) };
  try {
    const blob = await postForImage("heatmap", body, controller.signal);
    if (heat?.controller !== controller) return;
    if (heat.url) URL.revokeObjectURL(heat.url);
    heat.url = URL.createObjectURL(blob);
    find("heat").src = heat.url;
    find("heat").hidden = false;
    find("heat").alt = `Heat map of ${phrase}`;
    find("image").parentElement.classList.add("heated");
    find("heat-name").textContent = `Heat map of “${phrase}” (${class_name}): the stronger the colour, the more the place raises the similarity.`;
    find("heat-off").hidden = false;
  } catch (error) {
    if (error.name === "AbortError" || heat?.controller !== controller) return;
    hideHeat();
    find("heat-name").textContent = error.message;
  }
}

function hideHeat() {
  heat?.controller?.abort();
  if (heat?.url) URL.revokeObjectURL(heat.url);
  heat = null;
  find("heat").hidden = true;
  find("heat").removeAttribute("src");
  find("heat-off").hidden = true;
  find("heat-name").textContent = "";
  find("image").parentElement.classList.remove("heated");
  for (const button of document.querySelectorAll("button[data-map]")) button.setAttribute("aria-pressed", "false");
}

// -- similar images -------------------------------------------------------------------------------

let looking = 0;

async function showNeighbours(image) {
  const number = ++looking;
  find("similar").hidden = true;
  if (hidden(image)) return;
  try {
    const found = await get("neighbours", { run: panels[0].run, image: image.id });
    if (number !== looking) return;
    find("neighbours").replaceChildren(...found.map(neighbour));
    find("similar").hidden = !found.length;
  } catch {
    // runs without kept features have no similar images to show
  }
}

function neighbour(one) {
  return make(
    "li", {},
    make("img", { src: thumbnail(one.id, 160), alt: `Training image ${one.name}`, loading: "lazy", width: 112, height: 112 }),
    make("strong", {}, own(one.label)), ` ${one.similarity.toFixed(3)} `, make("span", { class: "quiet", dir: "auto" }, one.name.split("/").at(-1)),
  );
}
