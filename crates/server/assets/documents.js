// Documents: adding, watching them come in, choosing and removing.

import { ApiError, follow, getJson, request, setPicture } from "./api.js";
import { announce, bytes, find, h, icon, iconButton, plural } from "./dom.js";

let documents = [];
const chosen = new Set();
let openPage = () => {};
let changed = () => {};

export const chosenDocuments = () => [...chosen];

export function start(options) {
  openPage = options.openPage;
  changed = options.changed;
  const drop = find("drop"), files = find("files");
  find("choose").addEventListener("click", () => files.click());
  files.addEventListener("change", () => { upload([...files.files]); files.value = ""; });
  // The whole page takes what is dropped, so that a file that misses its mark does not replace the app.
  for (const name of ["dragenter", "dragover"]) {
    document.addEventListener(name, (event) => {
      if (![...event.dataTransfer.types].includes("Files")) return;
      event.preventDefault();
      drop.classList.add("over");
    });
  }
  document.addEventListener("dragleave", (event) => { if (!event.relatedTarget) drop.classList.remove("over"); });
  document.addEventListener("drop", (event) => {
    event.preventDefault();
    drop.classList.remove("over");
    upload([...event.dataTransfer.files]);
  });
  document.addEventListener("paste", (event) => {
    const pasted = [...(event.clipboardData?.files ?? [])];
    if (pasted.length) { event.preventDefault(); upload(pasted); }
  });
  const form = find("address-form");
  find("by-address").addEventListener("click", () => {
    form.hidden = !form.hidden;
    if (!form.hidden) find("address").focus();
  });
  form.addEventListener("submit", (event) => {
    event.preventDefault();
    const address = find("address").value.trim();
    if (!address) return;
    find("address").value = "";
    form.hidden = true;
    const isUrl = /^https?:\/\//i.test(address);
    begin(address, () => request(
      isUrl ? "/api/documents/url" : "/api/documents/paths",
      { method: "POST", json: isUrl ? { url: address } : { paths: [address] } },
    ));
  });
  find("filter").addEventListener("input", show);
  return refresh().then(resume);
}

export async function refresh() {
  documents = (await getJson("/api/documents")).documents;
  const known = new Set(documents.map((one) => one.id));
  for (const id of chosen) if (!known.has(id)) chosen.delete(id);
  show();
  changed(documents);
}

// Jobs that were begun before this page was opened are watched too.
async function resume() {
  const { jobs } = await getJson("/api/jobs");
  for (const job of jobs.reverse()) if (job.state === "waiting" || job.state === "running") watch(job, card(job.title));
}

function show() {
  const wanted = find("filter").value.trim().toLowerCase();
  const fits = (one) => !wanted || `${one.name} ${one.title}`.toLowerCase().includes(wanted);
  find("filter").hidden = documents.length < 6 && !wanted;
  find("no-documents").hidden = documents.length > 0;
  find("num-documents").textContent = documents.length ? String(documents.length) : "";
  find("documents").replaceChildren(...documents.filter(fits).map(item));
  showChosen();
}

function showChosen() {
  const line = find("chosen");
  line.hidden = chosen.size === 0;
  line.textContent = `Questions go to ${plural(chosen.size, "document")} only`;
}

function item(one) {
  const thumb = h("img", { class: "thumb", alt: "", width: 33, height: 42, loading: "lazy" });
  if (one.first_page) setPicture(thumb, `/api/pages/${one.first_page}/thumbnail.webp`);
  const box = h("input", {
    type: "checkbox", "aria-label": `Ask only ${one.name}`, title: "Ask only this document", checked: chosen.has(one.id),
    onchange: () => { if (box.checked) chosen.add(one.id); else chosen.delete(one.id); showChosen(); },
  });
  const about = [plural(one.num_pages, "page"), bytes(one.size_bytes)];
  if (one.title && one.title !== one.name) about.push(one.title);
  return h("li", { class: "item" }, box, thumb,
    h("button", { type: "button", class: "open", title: one.path, onclick: () => one.first_page && openPage({ page_id: one.first_page }) },
      h("span", { class: "name" }, one.name), h("span", { class: "about" }, about.join(" · "))),
    iconButton("bin", `Remove ${one.name}`, () => remove(one)));
}

async function remove(one) {
  if (!confirm(`Remove ${one.name} from the index?`)) return;
  begin(one.name, () => request(`/api/documents/${one.id}`, { method: "DELETE" }));
}

function upload(files) {
  for (const file of files) {
    begin(file.name, () => request(`/api/documents?name=${encodeURIComponent(file.name)}`, {
      method: "POST", body: file, headers: { "content-type": "application/octet-stream" },
    }), `sending ${bytes(file.size)}`);
  }
}

// A card for work in progress, with a way to stop it.
function card(title) {
  const bar = h("progress", { max: 1, "aria-label": `Progress of ${title}` });
  const about = h("p", { class: "about" }, "waiting");
  const close = iconButton("close", `Stop ${title}`, () => {});
  const element = h("li", { class: "job" }, h("div", { class: "row" }, h("p", { class: "name", title }, title), close), bar, about);
  find("jobs").append(element);
  return { element, bar, about, close, title };
}

function fail(shown, error) {
  shown.element.classList.add("failed");
  shown.bar.hidden = true;
  shown.about.textContent = error instanceof ApiError && error.hint ? `${error.message} (${error.hint})` : error.message;
  shown.close.onclick = () => shown.element.remove();
  shown.close.setAttribute("aria-label", `Dismiss ${shown.title}`);
  announce(`${shown.title}: ${error.message}`);
}

async function begin(title, send, words = "waiting") {
  const shown = card(title);
  shown.about.textContent = words;
  try {
    watch(await (await send()).json(), shown);
  } catch (error) {
    fail(shown, error);
  }
}

const ENDS = ["done", "failed", "stopped"];

async function watch(job, shown) {
  shown.close.onclick = () => request(`/api/jobs/${job.id}`, { method: "DELETE" }).catch(() => {});
  let last = job;
  await follow(`/api/jobs/${job.id}/events`, (name, data) => {
    if (name === "job") {
      last = data;
      progress(shown, data);
    } else if (name === "fetch") {
      shown.about.textContent = `fetching: ${bytes(data.done_bytes)}${data.total_bytes ? ` of ${bytes(data.total_bytes)}` : ""}`;
      if (data.total_bytes) shown.bar.value = data.done_bytes / data.total_bytes;
    } else if (name === "status") {
      shown.about.textContent = data.message;
    } else if (name === "document") {
      refresh().catch(() => {});
    }
  }, { isEnd: (name, data) => name === "job" && ENDS.includes(data.state) });
  await refresh().catch(() => {});
  if (last.state === "failed") {
    fail(shown, { message: [last.error, last.hint].filter(Boolean).join(". ") || "It failed." });
  } else {
    announce(`${shown.title}: ${last.state === "done" ? "ready" : last.state}`);
    shown.element.remove();
  }
}

function progress(shown, job) {
  if (job.state === "waiting") {
    shown.about.textContent = "waiting for its turn";
  } else if (job.state === "running" && job.kind === "remove") {
    shown.about.textContent = "removing";
  } else if (job.state === "running") {
    const whole = Math.max(job.documents, 1);
    const within = job.current && job.pages ? job.page / job.pages : 0;
    if (job.pages_done || job.documents_done) shown.bar.value = Math.min((job.documents_done + (job.current ? within : 0)) / whole, 1);
    const parts = [];
    if (job.current) parts.push(job.documents > 1 ? `${job.current}, page ${job.page} of ${job.pages}` : `page ${job.page} of ${job.pages}`);
    else parts.push("reading");
    if (job.documents > 1) parts.push(`${job.documents_done} of ${plural(job.documents, "document")}`);
    shown.about.replaceChildren(parts.join(" · "));
  }
}

export const nameIcon = () => icon("page", 14);
