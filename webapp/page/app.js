// Starts the parts of the page once the server has said what there is.

import { startAnswers } from "./answer.js";
import { get } from "./ask.js";
import { find, problem } from "./dom.js";
import { startImages } from "./images.js";
import { startNotes } from "./notes.js";
import { state } from "./state.js";
import { startSymptoms } from "./symptoms.js";

try {
  state.about = await get("about");
  find("runs").textContent = state.about.runs.map((run) => run.name).join(" · ") + (state.about.blind ? " · blinded reading" : "");
  find("layout").hidden = false;
  startSymptoms();
  startAnswers();
  startNotes();
  startImages();
} catch (error) {
  problem(`The page could not start: ${error.message}`);
}
