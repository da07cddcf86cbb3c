// What the server is doing, and how it is.

import { follow, getJson } from "./api.js";
import { bytes, duration, find, h, plural } from "./dom.js";

const MOST_LINES = 400;
const ABOUT = { index: "index", search: "search", ask: "ask", draw: "draw", model: "model", fetch: "fetch", trouble: "trouble" };

export function start(onModels) {
  const lines = h("div", { class: "lines", role: "log", "aria-label": "Activity", "aria-live": "off" });
  find("pane-activity").replaceChildren(lines);
  follow("/api/activity", (name, line) => {
    if (name !== "activity") return;
    const pane = find("pane-activity");
    const atEnd = pane.scrollTop + pane.clientHeight >= pane.scrollHeight - 30;
    lines.append(h("div", { class: `line ${line.about === "trouble" ? "trouble" : ""}` },
      h("time", {}, new Date(line.at).toLocaleTimeString([], { hour12: false })),
      h("span", { class: "about" }, ABOUT[line.about] ?? line.about),
      h("span", { class: "what" }, line.message),
      h("span", { class: "took" }, line.milliseconds === undefined ? "" : duration(line.milliseconds), ` ${bytes(line.resident_bytes)}`)));
    while (lines.childElementCount > MOST_LINES) lines.firstElementChild.remove();
    if (atEnd) pane.scrollTop = pane.scrollHeight;
    if (line.about === "model") onModels();
  });
}

export async function summary() {
  const health = await getJson("/api/health");
  if (!health.index) return health;
  const parts = [plural(health.index.documents, "document"), plural(health.index.pages, "page")];
  if (health.generator.loaded) parts.push(health.generator.loaded.split("/").pop());
  find("summary").textContent = health.index.documents ? parts.join(" · ") : "No documents yet";
  return health;
}

const facts = (rows) => h("dl", { class: "facts" }, ...rows.filter(Boolean).flatMap(([name, value]) => [h("dt", {}, name), h("dd", {}, value)]));
// Who answers: the generator, or nobody.
function answers(generator) {
  if (!generator.only_quotes) return model(generator);
  const name = /\((.+)\)/.exec(generator.chosen)?.[1];
  return name ? `quotes of the pages: ${name} is not here, and “colibri models pull ${name}” fetches it` : "quotes of the pages, as chosen";
}
const model = (one) => (one.loaded ? `${one.loaded}${one.precision ? `, ${one.precision}` : ""}${one.bytes ? `, ${bytes(one.bytes)}` : ""}` : `${one.chosen}, not loaded`);

export async function system() {
  const health = await getJson("/api/health");
  const memory = health.memory;
  const meter = h("meter", { min: 0, max: Math.max(memory.peak_bytes, 1), value: memory.resident_bytes, "aria-label": "Memory now, of the greatest so far" });
  find("pane-system").replaceChildren(
    h("h2", {}, "Models"),
    facts([["Finds pages", model(health.retriever)], ["Answers", answers(health.generator)]]),
    h("h2", {}, "Memory"),
    facts([["Now", bytes(memory.resident_bytes)], ["Greatest", bytes(memory.peak_bytes)]]), meter,
    facts([
      memory.weights_bytes > 0 && ["Weights", `${bytes(memory.weights_bytes)}: ${bytes(memory.vision_weights_bytes)} vision, ${bytes(memory.text_weights_bytes)} text`],
      memory.shared_weights_bytes > 0 && ["Held once for two", bytes(memory.shared_weights_bytes)],
      memory.prefix_bytes > 0 && ["Prompts kept", bytes(memory.prefix_bytes)],
      ["Files and index", bytes(memory.files_bytes)],
      ["The rest", bytes(memory.other_bytes)],
    ]),
    h("h2", {}, "Index"),
    facts([
      ["Folder", health.index.path],
      ["Holds", `${plural(health.index.documents, "document")}, ${plural(health.index.pages, "page")}, ${bytes(health.index.bytes)}`],
      ["Found by look", plural(health.index.pages_with_rows, "page")],
      health.index.retriever && ["Made with", health.index.retriever],
    ]),
    h("h2", {}, "Machine"),
    facts([["Threads", String(health.machine.threads)], ["Instructions", health.machine.instruction_sets.join(", ")], ["Version", health.version],
      ["Waiting", `${plural(health.waiting_questions, "question")}, ${plural(health.open_jobs, "job")}`]]));
}
