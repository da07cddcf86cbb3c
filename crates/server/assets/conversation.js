// The conversation: questions, answers as they are written, citations and hits, and what was said before.

import { ApiError, follow, getJson, readEvents, request, setPicture } from "./api.js";
import { announce, duration, find, h, iconButton, plural } from "./dom.js";
import { markdown } from "./markdown.js";
import * as store from "./store.js";

let current = null;
let running = null;
let openPage = () => {};
let chosenDocuments = () => [];

export function start(options) {
  ({ openPage, chosenDocuments } = options);
  const question = find("question");
  find("ask").addEventListener("submit", (event) => { event.preventDefault(); ask(); });
  find("search").addEventListener("click", search);
  find("stop").addEventListener("click", stop);
  find("new").addEventListener("click", () => { choose(store.create()); question.focus(); });
  question.addEventListener("keydown", (event) => {
    if (event.key === "Enter" && !event.shiftKey && !event.isComposing) { event.preventDefault(); ask(); }
  });
  question.addEventListener("input", grow);
  document.addEventListener("keydown", (event) => {
    if (event.key === "Escape" && running && !document.querySelector("dialog[open]")) stop();
    if (event.key === "/" && !/^(INPUT|TEXTAREA|SELECT)$/.test(document.activeElement?.tagName ?? "")) { event.preventDefault(); question.focus(); }
  });
  // A page that is left tells so at once, and does not wait to be missed.
  window.addEventListener("pagehide", () => {
    if (running?.id) request(`/api/asks/${running.id}`, { method: "DELETE", keepalive: true }).catch(() => {});
  });
  choose(store.get(store.setting("conversation")) ?? store.list()[0] ?? store.create());
}

function grow() {
  const question = find("question");
  question.style.height = "auto";
  question.style.height = `${Math.min(question.scrollHeight, 190)}px`;
}

function choose(conversation) {
  if (running) stop();
  current = conversation;
  store.setting("conversation", conversation.id);
  show();
}

function show() {
  const turns = find("turns");
  turns.replaceChildren(...(current.turns.length ? current.turns.map(turnElement) : [welcome()]));
  turns.scrollTop = turns.scrollHeight;
  showHistory();
}

function welcome() {
  return h("div", { class: "welcome" }, h("img", { src: "/assets/icon.svg", alt: "", width: 56, height: 56 }),
    h("h2", {}, "Ask your own documents"),
    h("p", {}, "Pages are found by what they look like and by the words on them, and every answer shows the pages it rests on."),
    h("div", { class: "begin" }, h("button", { type: "button", class: "primary", onclick: () => find("files").click() }, "Choose files"),
      h("p", {}, "or drop them anywhere: PDFs, scans, slides, pictures")));
}

function showHistory() {
  const kept = store.list().filter((one) => one.turns.length);
  find("history").replaceChildren(...kept.map((one) => h("li", { class: `item ${one === current ? "current" : ""}` },
    h("button", { type: "button", class: "open", "aria-current": one === current ? "true" : null, onclick: () => choose(one) },
      h("span", { class: "name" }, one.title), h("span", { class: "about" }, plural(one.turns.length, "turn"))),
    iconButton("bin", `Forget the conversation ${one.title}`, () => {
      store.remove(one.id);
      if (one === current) choose(store.list()[0] ?? store.create());
      else showHistory();
    }))));
}

const place = (page) => `${page.name} p.${page.page}`;

// A page by the name an answer gives it, with what is known of its regions.
function pageNamed(turn, name) {
  const known = [...(turn.evidence ?? []), ...(turn.citations ?? [])];
  const page = known.find((one) => place(one) === name && one.page_id);
  return page && { ...page, query: turn.question };
}

function withRegions(turn, page) {
  const found = (turn.evidence ?? []).find((one) => one.page_id === page.page_id);
  return { ...page, regions: found?.regions ?? page.regions, query: turn.question };
}

function chip(turn, page) {
  return h("button", { type: "button", class: "chip", onclick: () => openPage(withRegions(turn, page)), title: page.document }, place(page));
}

// What a page was found by: of both rankings the score of each, since their fusion is a number that says nothing alone.
function scores(page) {
  const known = [["look", page.visual], ["text", page.text_score]].filter(([, score]) => typeof score === "number");
  // Of very few documents every word is common, and then BM25 is next to nothing.
  const shown = (score) => (score < 0.0005 ? "" : ` ${score.toFixed(score < 0.095 ? 3 : 1)}`);
  if (!known.length) return `score${shown(page.score)}`;
  return known.map(([by, score]) => by + shown(score)).join(" · ");
}

function hit(turn, page) {
  const image = h("img", { alt: "", loading: "lazy" });
  setPicture(image, `/api/pages/${page.page_id}/thumbnail.webp`);
  const said = turn.kind === "search" && page.text?.trim();
  return h("button", { type: "button", class: "hit", "data-page": page.page_id, "aria-label": `${place(page)}, rank ${page.rank}, ${scores(page)}`,
    title: page.document, onclick: () => openPage(withRegions(turn, page)) },
    h("span", { class: "frame" }, image, h("span", { class: "rank" }, String(page.rank))),
    h("span", { class: "name" }, place(page)), h("span", { class: "score" }, scores(page)),
    said && h("span", { class: "said" }, page.text));
}

// A notice says in short what there is to know; the reason and what to do are one click away.
function noteElement(note) {
  const parts = /^([^(]+?)\s*\(([\s\S]*)$/.exec(note);
  const short = parts ? parts[1] : note, rest = parts ? parts[2].replace(/\)(?=\.|$)/, "") : "";
  const words = short.charAt(0).toUpperCase() + short.slice(1);
  if (!rest) return h("p", { class: "note" }, words);
  return h("details", { class: "note" }, h("summary", {}, `${words}.`), ...markdown(rest));
}

function copyButton(turn) {
  const button = h("button", { type: "button", class: "copy", onclick: async () => {
    try {
      await navigator.clipboard.writeText(turn.answer);
      button.textContent = "Copied";
      announce("The answer is copied");
    } catch {
      announce("The browser does not let the answer be copied");
    }
  } }, "Copy");
  return button;
}

// Everything of a turn, made anew from what is known of it.
function turnElement(turn) {
  const box = h("div", { class: "answered" });
  fill(box, turn);
  return h("article", { class: "turn", "aria-label": turn.question }, h("div", { class: "asked" }, turn.question), box);
}

function fill(box, turn) {
  const parts = [];
  for (const note of turn.notes ?? []) parts.push(noteElement(note));
  if (turn.kind === "search") {
    parts.push(turn.evidence?.length
      ? h("div", { class: "hits" }, ...turn.evidence.map((page) => hit(turn, page)))
      : h("p", {}, turn.state === "running" ? "" : "No page fits."));
  } else if (turn.answer) {
    const cite = (name) => {
      const page = pageNamed(turn, name);
      return page ? chip(turn, page) : null;
    };
    const prose = h("div", { class: "prose" }, ...markdown(turn.answer, cite));
    if (turn.state === "running") prose.lastElementChild?.classList.add("caret");
    parts.push(prose);
  }
  if (turn.state === "running" && turn.status) parts.push(h("p", { class: "status" }, h("span", { class: "spinner", "aria-hidden": "true" }), turn.status));
  if (turn.error) parts.push(h("p", { class: "failure", role: "alert" }, turn.hint ? `${turn.error} (${turn.hint})` : turn.error));
  if (turn.state === "stopped") parts.push(h("p", { class: "status" }, "Stopped."));
  if (turn.citations?.length) parts.push(h("div", { class: "chips" }, h("span", { class: "chips-label" }, "Rests on"), ...turn.citations.map((page) => chip(turn, page))));
  if (turn.kind !== "search" && turn.evidence?.length) parts.push(h("div", { class: "evidence", role: "group", "aria-label": "Pages that were found" }, ...turn.evidence.map((page) => hit(turn, page))));
  if (turn.foot) parts.push(h("div", { class: "foot" }, ...turn.foot.map((text) => h("span", {}, text)), turn.answer && navigator.clipboard && copyButton(turn)));
  box.replaceChildren(...parts);
}

// Draws a turn again at most once a frame, and keeps the end in sight if it was.
function painter(turn, element) {
  const box = element.querySelector(".answered"), turns = find("turns");
  let waiting = false;
  const paint = () => {
    if (!waiting) return;
    waiting = false;
    const atEnd = turns.scrollTop + turns.clientHeight >= turns.scrollHeight - 60;
    fill(box, turn);
    if (atEnd) turns.scrollTop = turns.scrollHeight;
  };
  return () => {
    if (waiting) return;
    waiting = true;
    // A tab in the background has no frames; its answer is there all the same.
    requestAnimationFrame(paint);
    setTimeout(paint, 250);
  };
}

function begin(kind) {
  const question = find("question");
  const text = question.value.trim();
  if (!text || running) return null;
  question.value = "";
  grow();
  const turn = { kind, question: text, answer: "", state: "running", status: "looking for pages", notes: [] };
  const before = current.turns.filter((one) => one.kind === "ask" && one.state === "done" && one.answer);
  if (!current.turns.length) find("turns").replaceChildren();
  current.title ||= text.slice(0, 80);
  current.turns.push(turn);
  store.save(current);
  const element = turnElement(turn);
  find("turns").append(element);
  find("turns").scrollTop = find("turns").scrollHeight;
  running = { turn, conversation: current, abort: new AbortController(), paint: painter(turn, element) };
  find("send").hidden = true;
  find("stop").hidden = false;
  find("search").disabled = true;
  showHistory();
  return { turn, before };
}

function end(turn, run) {
  turn.status = "";
  store.save(run.conversation);
  run.paint();
  if (running !== run) return;
  running = null;
  find("send").hidden = false;
  find("stop").hidden = true;
  find("search").disabled = false;
  showHistory();
}

function scope() {
  const where = find("where").value.split("\n").map((line) => line.trim()).filter(Boolean);
  return { mode: find("mode").value, where, documents: chosenDocuments() };
}

function failed(turn, error) {
  if (error.name === "AbortError") { turn.state = "stopped"; return; }
  turn.state = "failed";
  turn.error = error.message;
  turn.hint = error instanceof ApiError ? error.hint : undefined;
}

async function search() {
  const begun = begin("search");
  if (!begun) return;
  const { turn } = begun, run = running;
  try {
    const found = await getJson("/api/search", { method: "POST", json: { query: turn.question, k: 20, ...scope() }, signal: run.abort.signal });
    turn.evidence = found.hits;
    turn.state = "done";
    turn.foot = [plural(found.hits.length, "page"), `by ${found.mode === "hybrid" ? "look and text" : found.mode}`, duration(found.milliseconds)];
    announce(`${plural(found.hits.length, "page")} found`);
  } catch (error) {
    failed(turn, error);
  }
  end(turn, run);
}

async function ask() {
  const begun = begin("ask");
  if (!begun) return;
  const { turn, before } = begun, run = running;
  const history = before.map((one) => ({ question: one.question, answer: one.answer }));
  const json = { question: turn.question, pages: Number(find("pages").value) || 3, history, ...scope() };
  let last = "0";
  const onEvent = (name, data, id) => {
    if (id) last = id;
    take(turn, run, name, data);
    run.paint();
  };
  try {
    const response = await request("/api/ask", { method: "POST", json, signal: run.abort.signal });
    try {
      await readEvents(response, onEvent);
    } catch (error) {
      if (error.name === "AbortError") throw error;
    }
    // The connection broke before the end: what was missed is asked for.
    if (turn.state === "running" && run.id) {
      await follow(`/api/asks/${run.id}/events`, onEvent, { signal: run.abort.signal, after: last, isEnd: (name) => name === "done" || name === "failed" });
    }
    run.abort.signal.throwIfAborted();
    if (turn.state === "running") throw new ApiError(0, { message: "The connection was lost." });
  } catch (error) {
    failed(turn, error);
  }
  end(turn, run);
}

function take(turn, run, name, data) {
  if (name === "status") {
    if (data.ask) run.id = data.ask;
    if (data.stage === "note") turn.notes.push(data.message);
    else turn.status = data.message;
  } else if (name === "evidence") {
    turn.evidence = data.pages;
    turn.status = "reading";
  } else if (name === "token") {
    turn.answer += data.text;
    turn.status = "";
  } else if (name === "citation") {
    (turn.citations ??= []).push(data);
  } else if (name === "done") {
    turn.state = data.stop === "cancelled" ? "stopped" : "done";
    turn.answer = data.answer;
    turn.citations = data.citations;
    const times = data.timings_ms;
    turn.foot = [data.generator === "quotes" ? "quoted from the pages" : data.generator.split("/").pop(), `found in ${duration(times.retrieve)}`];
    if (data.new_tokens) turn.foot.push(`first word after ${duration(times.first_token)}`, plural(data.new_tokens, "token"));
    turn.foot.push(`${duration(times.total)} in all`);
    announce(`Answer: ${data.answer}`.slice(0, 600));
  } else if (name === "failed") {
    if (data.code === "cancelled") turn.state = "stopped";
    else Object.assign(turn, { state: "failed", error: data.error, hint: data.hint });
  }
}

function stop() {
  if (!running) return;
  const run = running;
  if (run.id) request(`/api/asks/${run.id}`, { method: "DELETE" }).catch(() => {});
  run.abort.abort();
}
