// What the parts of the page share: the runs, the chosen image, the edited symptoms.

export const state = {
  about: null,
  image: null, // {id, name, truth} of the chosen image
  labelled: new Set(), // ids of images that the reader labelled
  kept: {}, // run -> a copy of edited symptoms, to compare with
};

const listeners = {};
const edits = {}; // run -> {now, past, future, key}

export function on(event, listener) {
  (listeners[event] ??= []).push(listener);
}

export function emit(event, ...values) {
  for (const listener of listeners[event] ?? []) listener(...values);
}

export const runOf = (id) => state.about.runs.find((run) => run.id === id);

/** Whether the model's answer on an image is hidden still. */
export const hidden = (image) => state.about.blind && !state.labelled.has(image.id);

// -- edited symptoms ------------------------------------------------------------------------------

function historyOf(run) {
  return (edits[run] ??= { now: structuredClone(runOf(run).symptoms), past: [], future: [], key: null });
}

export const symptomsOf = (run) => historyOf(run).now;
export const canUndo = (run) => historyOf(run).past.length > 0;
export const canRedo = (run) => historyOf(run).future.length > 0;

/** Change the symptoms of a run. Changes in a row with the same key are undone together. */
export function change(run, mutate, key = null) {
  const history = historyOf(run);
  if (key === null || key !== history.key) {
    history.past.push(structuredClone(history.now));
    if (history.past.length > 200) history.past.shift();
  }
  history.key = key;
  history.future = [];
  const replaced = mutate(history.now);
  if (replaced !== undefined) history.now = replaced;
  emit("edited", run, key !== null);
}

function move(run, from, to) {
  const history = historyOf(run);
  if (!history[from].length) return;
  history[to].push(history.now);
  history.now = history[from].pop();
  history.key = null;
  emit("edited", run, false);
}

export const undo = (run) => move(run, "past", "future");
export const redo = (run) => move(run, "future", "past");

/** What a request sends: null for the trained symptoms; rows without words are left out. */
export function asked(run, which) {
  if (!runOf(run).explainable || which === "trained") return null;
  const symptoms = which === "kept" ? state.kept[run] : symptomsOf(run);
  if (!symptoms) return null;
  const worded = symptoms.map((entry) => ({
    ...entry,
    phrases: entry.phrases.filter((phrase) => phrase.text.trim()),
  }));
  // A new class without phrases is not finished yet.
  const ready = worded.filter((entry) => !entry.new || entry.phrases.some((phrase) => phrase.on));
  return JSON.stringify(ready) === JSON.stringify(runOf(run).symptoms) ? null : ready;
}
