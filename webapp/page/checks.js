// The check of phrases on the training images, and suggestions from an endpoint.

import { post } from "./ask.js";
import { find, make, own } from "./dom.js";
import { asked, change, state, symptomsOf } from "./state.js";

let runNow = null; // () -> the run whose symptoms are edited
let request = null; // {run, class, consent} of the open dialog

export function startChecks(run) {
  runNow = run;
  find("check").addEventListener("click", check);
  find("dialog-send").addEventListener("click", send);
  find("dialog-add").addEventListener("click", add);
  find("dialog-close").addEventListener("click", () => find("dialog").close());
  find("dialog").addEventListener("close", () => {
    request = null;
  });
}

// -- the check ------------------------------------------------------------------------------------

async function check() {
  const run = runNow();
  find("check").disabled = true;
  find("checked").replaceChildren(make("p", { class: "quiet" }, "Checking …"));
  try {
    const rows = await post("check", { run, symptoms: asked(run, "edited") });
    const weak = rows.filter((row) => row.weak).length;
    const heads = ["class", "phrase", "AUC", "meaning"].map((name, i) => make("th", { class: i === 1 || i === 3 ? "words" : "" }, name));
    find("checked").replaceChildren(
      make("p", {}, weak ? `${weak} of ${rows.length} phrases are weak.` : `None of the ${rows.length} phrases is weak.`),
      make("div", { class: "wide" }, make("table", {}, make("thead", {}, make("tr", {}, heads)), make("tbody", {}, rows.map(checked)))),
    );
  } catch (error) {
    find("checked").replaceChildren(make("p", { class: "bad", dir: "auto" }, error.message));
  }
  find("check").disabled = false;
}

function checked(row) {
  const number = (value) => value.toFixed(2).replace(/^0/, "");
  const area = row.auc === null ? "" : number(row.auc) + (row.interval ? ` [${row.interval.map(number).join(", ")}]` : "");
  return make(
    "tr", {},
    make("td", {}, own(row.class)),
    make("td", { class: "words" }, own(row.phrase), row.weak ? make("div", { class: "weak", dir: "auto" }, `Weak: ${row.reason}`) : null),
    make("td", {}, area),
    make("td", { class: "words", dir: "auto" }, row.drift?.text ?? ""),
  );
}

// -- suggestions ----------------------------------------------------------------------------------

export function suggestButton(entry) {
  if (!state.about.endpoint) return null;
  return make("button", { type: "button", on: { click: () => open(entry.class) } }, "Suggest phrases …", make("span", { class: "unseen" }, ` for ${entry.class}`));
}

/** Show what would be sent where; nothing is sent yet. */
async function open(class_name) {
  const mine = (request = { run: runNow(), class_name });
  find("dialog-result").textContent = "";
  find("dialog-found").replaceChildren();
  find("dialog-add").hidden = true;
  find("dialog-send").hidden = false;
  find("dialog-send").disabled = true;
  find("dialog-text").textContent = "";
  find("dialog-host").textContent = state.about.endpoint;
  find("dialog").showModal();
  try {
    const { endpoint, sends } = await post("suggestion-request", mine);
    if (request !== mine) return;
    find("dialog-host").textContent = endpoint;
    find("dialog-text").textContent = sends;
    request.consent = endpoint;
    find("dialog-send").disabled = false;
    find("dialog-send").focus();
  } catch (error) {
    if (request === mine) find("dialog-result").textContent = error.message;
  }
}

async function send() {
  const mine = request; // an answer that comes after the dialog was closed is not shown in another
  find("dialog-send").disabled = true;
  find("dialog-result").textContent = "Waiting for the answer …";
  try {
    const { phrases } = await post("suggest", mine);
    if (request !== mine) return;
    const boxes = phrases.map((text) => make("label", { class: "check" }, make("input", { type: "checkbox", value: text }), own(text)));
    find("dialog-found").replaceChildren(...boxes);
    find("dialog-result").textContent = boxes.length ? "Choose the phrases to add. Read them: a language model wrote them." : "The answer has no new phrase.";
    find("dialog-send").hidden = true;
    find("dialog-add").hidden = !boxes.length;
    boxes[0]?.querySelector("input").focus();
  } catch (error) {
    if (request !== mine) return;
    find("dialog-result").textContent = error.message;
    find("dialog-send").disabled = false;
  }
}

function add() {
  const chosen = [...find("dialog-found").querySelectorAll("input:checked")].map((box) => box.value);
  const c = symptomsOf(request.run).findIndex((entry) => entry.class === request.class_name);
  if (c >= 0 && chosen.length) {
    change(request.run, (symptoms) => {
      const known = symptoms[c].phrases.map((phrase) => phrase.text);
      const fresh = chosen.filter((text) => !known.includes(text));
      symptoms[c].phrases.push(...fresh.map((text) => ({ text, on: true, weight: 1 })));
    });
  }
  find("dialog").close();
}
