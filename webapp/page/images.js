// The list of images: dropped ones, or those of a split with filters.

import { get, thumbnail, upload } from "./ask.js";
import { choices, find, make, own, percent, problem } from "./dom.js";
import { emit, hidden, on, state } from "./state.js";

const PART = 60;
const DROPPED = "upload";
const dropped = [];
let shown = [];
let asking = 0; // the number of the last request; older answers are dropped

export function startImages() {
  const { splits, runs, limits } = state.about;
  const names = { train: "training", val: "validation", test: "test" };
  const options = Object.entries(splits).map(([name, count]) => [name, `${names[name] ?? name} (${count})`]);
  choices(find("split"), [...options, [DROPPED, "dropped images"]]);
  if ("test" in splits) find("split").value = "test";
  choices(find("class"), [["", "all"], ...runs[0].classes.map((name) => [name, name])]);
  const most = Math.floor(limits.upload_bytes / 2 ** 20);
  find("drop-note").textContent = `They stay in the memory of this computer. At most ${most} MB each.`;
  find("split").addEventListener("change", () => {
    find("patient").value = ""; // the numbers of patients are those of one split
  });
  for (const id of ["split", "outcome", "class", "patient"]) find(id).addEventListener("change", () => list());
  find("more").addEventListener("click", () => list(shown.length));
  find("list").addEventListener("keydown", byKey);
  startDropping();
  on("labelled", () => list(0, true));
  list();
}

// -- the list -------------------------------------------------------------------------------------

async function list(offset = 0, quiet = false) {
  const split = find("split").value;
  const number = ++asking;
  const filters = split !== DROPPED && !state.about.blind;
  for (const id of ["outcome-box", "class-box"]) find(id).hidden = !filters;
  if (split === DROPPED) {
    find("patient-box").hidden = true;
    show([...dropped], dropped.length, 0);
    return;
  }
  const values = { run: state.about.runs[0].id, split, offset, limit: quiet ? Math.max(shown.length, PART) : PART };
  if (filters) {
    Object.assign(values, { outcome: find("outcome").value, class_name: find("class").value });
    values.patient = find("patient").value;
  }
  try {
    if (!quiet) find("count").textContent = "Reading the images …";
    const found = await get("images", values);
    if (number !== asking) return;
    // After a reload of the page the server still knows what was labelled: it tells its prediction.
    if (state.about.blind) found.images.filter((image) => image.prediction).forEach((image) => state.labelled.add(image.id));
    const patients = found.patients ?? [];
    find("patient-box").hidden = !filters || !patients.length;
    choices(find("patient"), [["", "all"], ...patients.map((name) => [name, name])]);
    show(found.images, found.total, offset);
  } catch (error) {
    if (number === asking) {
      show([], 0, 0);
      find("count").textContent = error.message;
    }
  }
}

function show(images, total, offset) {
  shown = offset ? [...shown, ...images] : images;
  find("list").replaceChildren(...shown.map(option));
  find("more").hidden = shown.length >= total;
  find("count").textContent = total ? `${shown.length} of ${total} images` : "No image.";
  rove();
}

function option(image) {
  const known = image.prediction && !hidden(image);
  const outcome = !known || !image.truth ? "" : image.truth === image.prediction ? "correct" : "incorrect";
  const chosen = state.image?.id === image.id;
  return make(
    "li",
    {
      role: "option", id: `option-${image.id.replace("/", "-")}`, "aria-selected": chosen ? "true" : "false",
      tabindex: "-1", "data-id": image.id, title: image.name, on: { click: () => choose(image, true) },
    },
    make("img", { src: thumbnail(image.id, 128), alt: "", loading: "lazy", width: 72, height: 72 }),
    make("span", { class: "name", dir: "auto" }, lastPart(image.name)),
    known ? make("span", {}, own(image.prediction)) : null,
    known ? make("span", {}, percent(image.probability)) : null,
    outcome ? make("span", { class: outcome === "correct" ? "good" : "bad" }, outcome) : null,
  );
}

/** The part of a name that tells images of one folder apart; the whole is a tooltip. */
const lastPart = (name) => name.split("/").at(-1);

/** One image of the list is in the tab order: the chosen one, or the first. */
function rove() {
  const items = [...find("list").children];
  const index = Math.max(0, shown.findIndex((image) => image.id === state.image?.id));
  items.forEach((item, i) => item.setAttribute("tabindex", i === index ? "0" : "-1"));
}

export function choose(image, focus = false) {
  state.image = image;
  const items = [...find("list").children];
  items.forEach((item) => item.setAttribute("aria-selected", item.dataset.id === image.id ? "true" : "false"));
  rove();
  const item = items.find((one) => one.dataset.id === image.id);
  if (focus && item) item.focus();
  emit("image", image);
}

function byKey(event) {
  const index = shown.findIndex((image) => image.id === event.target.dataset?.id);
  if (index < 0) return;
  const columns = getComputedStyle(find("list")).gridTemplateColumns.split(" ").length;
  const wide = getComputedStyle(find("list")).gridAutoFlow === "column" ? 1 : columns;
  const steps = { ArrowRight: 1, ArrowLeft: -1, ArrowDown: wide, ArrowUp: -wide, Home: -index, End: shown.length - 1 - index };
  let next = index;
  if (event.key in steps) next = index + steps[event.key];
  else if (event.key !== "Enter" && event.key !== " ") return;
  event.preventDefault();
  if (shown[next]) choose(shown[next], true);
}

// -- dropping -------------------------------------------------------------------------------------

function startDropping() {
  const zone = find("drop");
  const hold = (event) => {
    if (![...(event.dataTransfer?.types ?? [])].includes("Files")) return;
    event.preventDefault(); // else the browser opens the file in place of the page
    zone.classList.toggle("over", event.type === "dragover");
  };
  for (const event of ["dragover", "dragleave", "drop"]) document.addEventListener(event, hold);
  document.addEventListener("drop", (event) => take(event.dataTransfer?.files ?? []));
  find("files").addEventListener("change", (event) => {
    take([...event.target.files]);
    event.target.value = "";
  });
}

async function take(files) {
  files = [...files];
  if (!files.length) return;
  problem();
  const { upload_bytes: most, uploads } = state.about.limits;
  const failed = [];
  let first = null;
  for (const [i, file] of files.entries()) {
    find("count").textContent = `Reading ${i + 1} of ${files.length} images …`;
    try {
      if (i >= uploads) throw new Error(`only the first ${uploads} files are read`);
      if (file.size > most) throw new Error(`larger than ${Math.floor(most / 2 ** 20)} MB`);
      const found = await upload(file);
      const image = { ...found, truth: null, prediction: null };
      dropped.push(image);
      first ??= image;
      if (dropped.length > uploads) dropped.shift();
    } catch (error) {
      const line = error.message;
      failed.push(line.startsWith(file.name) ? line : `${file.name}: ${line}`);
    }
  }
  const lines = failed.map((line) => make("p", { class: "alert", dir: "auto" }, line));
  find("failed").replaceChildren(...lines.slice(0, 10));
  if (lines.length > 10) find("failed").append(make("p", {}, `and ${lines.length - 10} more`));
  find("split").value = DROPPED;
  await list();
  if (first) choose(first);
}
