// Notes of a reader on single images, and how far they agree with the model.

import { get, post } from "./ask.js";
import { choices, find, make, own } from "./dom.js";
import { emit, on, state } from "./state.js";

const drafts = {}; // id of an image -> label and remark that are not saved yet

export function startNotes() {
  const { runs, blind, notes_file: file } = state.about;
  const none = blind ? "choose your label" : "no label";
  choices(find("note-label"), [["", none], ...runs[0].classes.map((name) => [name, name])]);
  find("notes-file").textContent = file ? `Notes are kept in ${file}` : "";
  find("note-reader").value = sessionStorage.getItem("reader") ?? "";
  find("note").addEventListener("submit", save);
  find("note").addEventListener("input", () => {
    drafts[state.image.id] = [find("note-label").value, find("note-remark").value];
  });
  on("image", (image) => {
    [find("note-label").value, find("note-remark").value] = drafts[image.id] ?? ["", ""];
    find("note-result").textContent = "";
  });
  refresh();
}

async function save(event) {
  event.preventDefault();
  const { image } = state;
  const isShown = () => state.image.id === image.id; // else the result would be read as another's
  if (!image) return;
  const [label, remark, reader] = ["note-label", "note-remark", "note-reader"].map((id) => find(id).value.trim());
  sessionStorage.setItem("reader", reader);
  try {
    await post("note", { image: image.id, label, remark, reader });
    delete drafts[image.id];
    const first = label && !state.labelled.has(image.id);
    if (label) state.labelled.add(image.id);
    if (first && state.about.blind) emit("labelled", image);
    if (isShown()) find("note-result").textContent = "Saved.";
    refresh();
  } catch (error) {
    if (isShown()) find("note-result").replaceChildren(make("span", { class: "bad" }, error.message));
  }
}

async function refresh() {
  try {
    const notes = await get("notes");
    find("notes-count").textContent = notes.length === 1 ? "1 note" : `${notes.length} notes`;
    find("notes").replaceChildren(...notes.map(row));
    const { text } = await get("agreement", { run: state.about.runs[0].id });
    find("agreement").textContent = text;
  } catch (error) {
    find("agreement").textContent = error.message;
  }
}

function row(note) {
  const cell = (text) => make("td", { class: "words" }, own(text ?? ""));
  return make("tr", {}, make("td", {}, own(note.name ?? note.image)), cell(note.label), cell(note.remark), cell(note.reader));
}
