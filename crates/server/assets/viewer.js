// A page: its picture, the regions that made it a hit, the heat of each word of the question, its text.

import { getJson, setPicture } from "./api.js";
import { announce, find, h, iconButton } from "./dom.js";

const STEPS = [0.5, 0.75, 1, 1.25, 1.5, 2, 3, 4];
let shown = null;

// A warm scale that is read by lightness as well as by hue.
function colour(heat) {
  const t = heat / 255;
  return [Math.round(255 - 30 * t), Math.round(214 - 150 * t), Math.round(70 - 50 * t), Math.round(200 * Math.max(0, 2 * t - 1) ** 1.3)];
}

export function empty() {
  shown = null;
  find("pane-pages").replaceChildren(h("p", { class: "viewer-empty" }, "Pages that an answer rests on are shown here. Choose a citation, a hit or a document."));
}

// Shows `{page_id, regions, query}`; `query` is what the heat is about.
export async function open(wanted) {
  const pane = find("pane-pages");
  const info = await getJson(`/api/pages/${wanted.page_id}`);
  const query = wanted.query || "";
  const regions = wanted.regions ?? [];
  const title = `${info.name}, page ${info.number}`;
  const image = h("img", { alt: `Picture of ${title}` });
  const canvas = h("canvas", { "aria-hidden": "true" });
  const sheet = h("div", { class: "sheet" }, image, canvas);
  const stage = h("div", { class: "stage", tabindex: 0, role: "group", "aria-label": `${title}. Plus and minus change the size.` }, sheet);
  const zoomed = h("span", { class: "zoom" }, "100 %");
  const state = { page_id: wanted.page_id, zoom: 1, sheet, stage, zoomed, canvas, marks: [], info, query, regions };
  shown = state;
  const width = info.width || 1, height = info.height || 1;
  sheet.style.aspectRatio = `${width} / ${height}`;
  image.addEventListener("load", () => {
    sheet.style.aspectRatio = `${image.naturalWidth} / ${image.naturalHeight}`;
    stage.dataset.loaded = String(wanted.page_id);
  });
  setPicture(image, `/api/pages/${wanted.page_id}.webp?size=1600`);
  for (const [number, region] of regions.entries()) {
    const [left, top, right, bottom] = region.box;
    const mark = h("div", { class: "region", title: `score ${region.score.toFixed(2)}` }, h("span", {}, String(number + 1)));
    Object.assign(mark.style, { left: `${left * 100}%`, top: `${top * 100}%`, width: `${(right - left) * 100}%`, height: `${(bottom - top) * 100}%` });
    sheet.append(mark);
    state.marks.push(mark);
  }
  const go = (id) => () => id && open({ page_id: id, query }).then(() => find("pane-pages").querySelector(".stage").focus());
  const before = iconButton("left", "Page before", go(info.previous));
  const after = iconButton("right", "Next page", go(info.next));
  before.disabled = !info.previous;
  after.disabled = !info.next;
  const bar = h("div", { class: "viewer-bar" },
    h("h2", { title: info.document }, title), before, after,
    iconButton("minus", "Smaller", () => step(-1)), zoomed, iconButton("plus", "Larger", () => step(1)),
    iconButton("fit", "Fit to width", () => zoom(1)));
  const words = h("div", { class: "words", role: "group", "aria-label": "What is marked on the page" });
  words.hidden = regions.length === 0 && !query;
  if (regions.length) {
    const toggle = h("button", { type: "button", "aria-pressed": "true", onclick: () => {
      const on = toggle.getAttribute("aria-pressed") !== "true";
      toggle.setAttribute("aria-pressed", String(on));
      for (const mark of state.marks) mark.hidden = !on;
    } }, `Regions (${regions.length})`);
    words.append(toggle);
  }
  const text = h("details", { class: "page-text" },
    h("summary", {}, info.text.trim() ? "Text of this page" : "This page has no text layer"),
    h("pre", {}, info.text));
  pane.replaceChildren(h("div", { class: "viewer" }, bar, words, stage, text));
  stage.addEventListener("wheel", (event) => {
    if (!event.ctrlKey) return;
    event.preventDefault();
    step(event.deltaY < 0 ? 1 : -1);
  }, { passive: false });
  stage.addEventListener("keydown", (event) => {
    const keys = { "+": () => step(1), "=": () => step(1), "-": () => step(-1), 0: () => zoom(1), PageUp: go(info.previous), PageDown: go(info.next) };
    if (keys[event.key] && !event.ctrlKey && !event.metaKey) { event.preventDefault(); keys[event.key](); }
  });
  announce(`${title} is shown`);
  if (query) heat(state, words);
}

function zoom(to) {
  if (!shown) return;
  shown.zoom = to;
  shown.sheet.style.width = `${to * 100}%`;
  shown.zoomed.textContent = `${Math.round(to * 100)} %`;
}

function step(by) {
  if (!shown) return;
  const next = by > 0 ? STEPS.find((size) => size > shown.zoom) : STEPS.findLast((size) => size < shown.zoom);
  if (next) zoom(next);
}

async function heat(state, words) {
  let map;
  try {
    map = await getJson(`/api/pages/${state.page_id}/heatmap?q=${encodeURIComponent(state.query)}`);
  } catch {
    return;
  }
  if (shown !== state || !map.tokens.length) return;
  const groups = intoWords(map.tokens);
  const buttons = [];
  const choose = (button, tokens) => {
    const on = button.getAttribute("aria-pressed") !== "true";
    for (const other of buttons) other.setAttribute("aria-pressed", "false");
    button.setAttribute("aria-pressed", String(on));
    draw(state.canvas, map.boxes, on ? tokens : []);
    state.canvas.dataset.word = on ? button.textContent : "";
  };
  const add = (label, tokens) => {
    const button = h("button", { type: "button", "aria-pressed": "false" }, label);
    button.addEventListener("click", () => choose(button, tokens));
    buttons.push(button);
    words.append(button);
  };
  words.append(h("span", { class: "label" }, "Heat:"));
  add("all words", groups.flatMap((group) => group.tokens));
  for (const group of groups) add(group.text, group.tokens);
  words.hidden = false;
}

// Tokens are parts of words; a person thinks in words. A part that begins with a space begins one.
function intoWords(tokens) {
  const groups = [];
  for (const token of tokens) {
    const text = token.text.replace(/[Ġ▁]/g, " ");
    const begins = /^\s/.test(text) || !groups.length || /^[^\p{L}\p{N}]/u.test(text);
    if (begins) groups.push({ text: text.trim(), tokens: [token] });
    else {
      groups.at(-1).text += text;
      groups.at(-1).tokens.push(token);
    }
  }
  return groups.filter((group) => /[\p{L}\p{N}]/u.test(group.text));
}

// How hot each box is for tokens together: the hottest of them counts, and of each only what stands out on this page. A
// token that is warm everywhere, as small words are on blank paper, says nothing about a place.
function together(tokens) {
  const means = tokens.map(({ heat }) => heat.reduce((sum, one) => sum + one, 0) / heat.length);
  const above = (token, number, at) => 255 * (Math.max(0, token.heat[at] - means[number]) / Math.max(1, 255 - means[number])) ** 2;
  return tokens[0].heat.map((_, at) => Math.max(...tokens.map((token, number) => above(token, number, at))));
}

// What is cooler than half way is left as it is, and smaller boxes are drawn over larger ones.
function draw(canvas, boxes, tokens) {
  const scale = Math.min(2, window.devicePixelRatio || 1);
  canvas.width = Math.round(canvas.clientWidth * scale);
  canvas.height = Math.round(canvas.clientHeight * scale);
  const context = canvas.getContext("2d");
  context.clearRect(0, 0, canvas.width, canvas.height);
  if (!tokens.length) return;
  const area = ([left, top, right, bottom]) => (right - left) * (bottom - top);
  const order = boxes.map((box, at) => at).sort((a, b) => area(boxes[b]) - area(boxes[a]));
  const heats = together(tokens);
  for (const at of order) {
    const [red, green, blue, alpha] = colour(heats[at]);
    if (alpha < 12) continue;
    const [left, top, right, bottom] = boxes[at];
    context.fillStyle = `rgb(${red} ${green} ${blue} / ${(alpha / 255 * 0.72).toFixed(3)})`;
    context.fillRect(left * canvas.width, top * canvas.height, (right - left) * canvas.width, (bottom - top) * canvas.height);
  }
}
