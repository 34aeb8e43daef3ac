// The symptom editor: edit, add, remove, switch off, weigh; new classes; undo; save and load.

import { post } from "./ask.js";
import { find, make, own, say } from "./dom.js";
import { startChecks, suggestButton } from "./checks.js";
import { asked, canRedo, canUndo, change, emit, on, redo, runOf, state, symptomsOf, undo } from "./state.js";

const MOST_WEIGHT = 3;
let run = null; // the run whose symptoms are edited: the left column's

export function startSymptoms() {
  run = state.about.runs[0].id;
  find("undo").addEventListener("click", () => undo(run));
  find("redo").addEventListener("click", () => redo(run));
  find("reset").addEventListener("click", () => change(run, () => structuredClone(runOf(run).symptoms)));
  find("keep").addEventListener("click", keep);
  find("new-class").addEventListener("submit", addClass);
  find("save").addEventListener("submit", save);
  find("download").addEventListener("click", download);
  find("load").addEventListener("change", load);
  on("run", (chosen) => {
    run = chosen;
    render();
  });
  on("edited", (changed, typing) => {
    if (changed !== run) return;
    if (typing) summarise();
    else render();
  });
  startChecks(() => run);
  render();
}

// -- the list -------------------------------------------------------------------------------------

function render() {
  const { explainable, name, new_classes: reads } = runOf(run);
  find("symptoms-of").textContent = state.about.runs.length > 1 || !explainable ? name : "";
  find("editor-box").hidden = !explainable;
  if (!explainable) {
    find("symptoms-of").textContent = `${name}: this run has no symptoms that can be changed.`;
    return;
  }
  find("new-class").hidden = reads === null;
  find("new-class-note").textContent = reads ? `A class that the run was not trained on is read ${reads}.` : "A new class cannot be added: this method learned something for each class.";
  find("editor").replaceChildren(...symptomsOf(run).map(classBox));
  summarise();
}

function classBox(entry, c) {
  const add = make("button", { type: "button", on: { click: () => addPhrase(c) } }, "Add a phrase");
  const drop = make("button", { type: "button", on: { click: () => dropClass(c) } }, "Remove the class");
  return make(
    "fieldset", { class: "class", "data-class": entry.class },
    make("legend", {}, own(entry.class), entry.new ? make("span", { class: "tag" }, " new") : null),
    make("ul", { class: "phrases" }, entry.phrases.map((phrase, j) => row(entry, c, phrase, j))),
    make("div", { class: "toolbar" }, add, suggestButton(entry), entry.new ? drop : null),
  );
}

function row(entry, c, phrase, j) {
  const label = `${entry.class}, phrase ${j + 1}`;
  const at = (symptoms) => symptoms[c].phrases[j];
  const item = make("li", { class: phrase.on ? "" : "off" });
  const tag = make("span", { class: "tag" });
  const mark = () => {
    tag.textContent = isTrained(entry, at(symptomsOf(run)).text) ? "" : "new";
  };
  const text = make("textarea", {
    rows: 1, maxlength: 1000, dir: "auto", "aria-label": label, spellcheck: "false",
    on: {
      input: (event) => {
        change(run, (symptoms) => void (at(symptoms).text = event.target.value.replace(/\s+/g, " ")), `text ${c} ${j}`);
        mark();
      },
      keydown: (event) => {
        if (event.key === "Enter") event.preventDefault(); // a phrase is one line
      },
    },
  });
  text.value = phrase.text;
  const use = make("input", {
    type: "checkbox", "aria-label": `Use ${label}`,
    on: {
      change: (event) => {
        item.classList.toggle("off", !event.target.checked);
        change(run, (symptoms) => void (at(symptoms).on = event.target.checked), `on ${c} ${j} ${event.target.checked}`);
      },
    },
  });
  use.checked = phrase.on;
  mark();
  item.append(
    use, text,
    make("button", { type: "button", "aria-label": `Remove ${label}`, on: { click: () => dropPhrase(c, j) } }, "Remove"),
    make("div", { class: "more" }, runOf(run).weights === false ? null : weight(label, phrase, c, j), mapOf(entry, c, j), tag),
  );
  return item;
}

function weight(label, phrase, c, j) {
  const shown = make("output", {}, `× ${phrase.weight.toFixed(1)}`);
  const slider = make("input", {
    type: "range", min: 0, max: MOST_WEIGHT, step: 0.1, "aria-label": `Weight of ${label}`,
    on: {
      input: (event) => {
        const value = Number(event.target.value);
        shown.textContent = `× ${value.toFixed(1)}`;
        change(run, (symptoms) => void (symptoms[c].phrases[j].weight = value), `weight ${c} ${j}`);
      },
    },
  });
  slider.value = phrase.weight;
  return make("label", {}, "Weight", slider, shown);
}

function mapOf(entry, c, j) {
  if (!runOf(run).heatmaps) return null;
  const { text } = symptomsOf(run)[c].phrases[j];
  const toggle = (event) => emit("heat", entry.class, symptomsOf(run)[c].phrases[j].text.trim(), event.currentTarget);
  return make("button", { type: "button", "aria-pressed": "false", "data-map": text, "aria-label": `Heat map of ${entry.class}, phrase ${j + 1}`, on: { click: toggle } }, "Heat map");
}

const trainedOf = (name) => runOf(run).symptoms.find((entry) => entry.class === name)?.phrases ?? [];

const isTrained = (entry, text) => trainedOf(entry.class).some((phrase) => phrase.text === text);

/** How the symptoms differ from the trained ones, in a sentence. */
function summarise() {
  const counts = { added: 0, removed: 0, "switched off": 0, "with another weight": 0 };
  let classes = 0;
  for (const entry of symptomsOf(run)) {
    const texts = entry.phrases.map((phrase) => phrase.text);
    if (entry.new) classes += 1;
    counts.added += texts.filter((text) => text.trim() && !isTrained(entry, text)).length;
    counts.removed += trainedOf(entry.class).filter((phrase) => !texts.includes(phrase.text)).length;
    counts["switched off"] += entry.phrases.filter((phrase) => !phrase.on).length;
    counts["with another weight"] += entry.phrases.filter((phrase) => phrase.weight !== 1).length;
  }
  const parts = Object.entries(counts).filter(([, count]) => count).map(([what, count]) => `${count} ${what}`);
  if (classes) parts.push(`${classes} new class${classes > 1 ? "es" : ""}`);
  find("changes").textContent = parts.length ? `Phrases: ${parts.join(", ")}. Nothing is trained: the run reads these phrases as it is.` : "As the run was trained.";
  find("undo").disabled = !canUndo(run);
  find("redo").disabled = !canRedo(run);
  find("reset").disabled = find("keep").disabled = !parts.length;
}

// -- changes --------------------------------------------------------------------------------------

function rowsOf(c) {
  return [...find("editor").children[c].querySelectorAll("textarea")];
}

export function addPhrase(c, text = "") {
  change(run, (symptoms) => void symptoms[c].phrases.push({ text, on: true, weight: 1 }));
  rowsOf(c).at(-1)?.focus();
}

function dropPhrase(c, j) {
  change(run, (symptoms) => void symptoms[c].phrases.splice(j, 1));
  const rows = rowsOf(c);
  (rows[Math.min(j, rows.length - 1)] ?? find("undo")).focus();
  say("Removed. Undo brings it back.");
}

function addClass(event) {
  event.preventDefault();
  const name = find("new-class-name").value.trim();
  if (!name) return find("new-class-name").focus();
  find("new-class-name").value = "";
  change(run, (symptoms) => void symptoms.push({ class: name, new: true, phrases: [] }));
  addPhrase(symptomsOf(run).length - 1);
}

function dropClass(c) {
  change(run, (symptoms) => void symptoms.splice(c, 1));
  find("new-class-name").focus();
}

function keep() {
  state.kept[run] = structuredClone(symptomsOf(run));
  emit("kept", run);
  say("Kept. Choose “kept copy” in a column to compare.");
  find("changes").textContent += " A copy is kept.";
}

// -- save and load --------------------------------------------------------------------------------

const current = () => ({ run, symptoms: asked(run, "edited") ?? runOf(run).symptoms });

async function save(event) {
  event.preventDefault();
  const result = find("save-result");
  try {
    const { path, command, note } = await post("save", { ...current(), name: find("save-name").value.trim() });
    const train = command ? ["To train on it:", commandOf(command)] : [];
    result.replaceChildren("Saved as ", make("code", {}, path), ". ", ...train, note ? make("span", { class: "quiet" }, ` ${note}`) : "");
  } catch (error) {
    result.replaceChildren(make("span", { class: "bad" }, error.message));
  }
}

function commandOf(command) {
  const copy = async ({ target }) => {
    try {
      await navigator.clipboard.writeText(command);
      target.textContent = "Copied";
    } catch {
      // a page from another computer without encryption has no clipboard
      target.textContent = "Not copied: select the command and copy it";
    }
  };
  return make("span", {}, make("code", { class: "command" }, command), make("button", { type: "button", on: { click: copy } }, "Copy the command"));
}

async function download() {
  const result = find("save-result");
  try {
    const { text } = await post("symptom-file", current());
    const url = URL.createObjectURL(new Blob([text], { type: "application/json" }));
    const name = find("save-name").value.trim().replace(/[^\p{L}\p{N}._-]+/gu, "_") || "symptoms";
    make("a", { href: url, download: `${name.replace(/\.json$/, "")}.json` }).click();
    setTimeout(() => URL.revokeObjectURL(url), 10000);
    result.textContent = "";
  } catch (error) {
    result.replaceChildren(make("span", { class: "bad" }, error.message));
  }
}

async function load(event) {
  const [file] = event.target.files;
  if (!file) return;
  const result = find("save-result");
  try {
    if (file.size > 2 ** 20) throw new Error(`${file.name}: larger than 1 MB, so not a symptom file`);
    const { symptoms } = await post("read-symptom-file", { run, text: await file.text() });
    change(run, () => symptoms);
    result.textContent = `Loaded ${file.name}.`;
  } catch (error) {
    result.replaceChildren(make("span", { class: "bad" }, error.message));
  }
  event.target.value = "";
}
