// Puts the parts together: what is where, what is open, light and dark, the key.

import * as activity from "./activity.js";
import { onKeyNeeded } from "./api.js";
import * as conversation from "./conversation.js";
import * as documents from "./documents.js";
import { announce, find, icon } from "./dom.js";
import { setting } from "./store.js";
import * as viewer from "./viewer.js";

const TABS = ["pages", "activity", "system"];
const narrow = matchMedia("(max-width: 1080px)");

function theme() {
  const kept = setting("theme");
  if (kept) document.documentElement.dataset.theme = kept;
  find("theme").addEventListener("click", () => {
    const dark = document.documentElement.dataset.theme
      ? document.documentElement.dataset.theme === "dark"
      : matchMedia("(prefers-color-scheme: dark)").matches;
    document.documentElement.dataset.theme = setting("theme", dark ? "light" : "dark");
  });
}

function tab(name, focus = false) {
  for (const one of TABS) {
    const button = find(`tab-${one}`), on = one === name;
    button.setAttribute("aria-selected", String(on));
    button.tabIndex = on ? 0 : -1;
    find(`pane-${one}`).hidden = !on;
    if (on && focus) button.focus();
  }
  if (name === "system") activity.system().catch((error) => announce(error.message));
  if (name === "activity") find("pane-activity").scrollTop = find("pane-activity").scrollHeight;
}

function drawer(button, box, focusWhenShown) {
  const show = (on) => {
    find(box).classList.toggle("shown", on);
    find(button).setAttribute("aria-expanded", String(on));
    if (on) focusWhenShown?.();
  };
  find(button).addEventListener("click", () => show(!find(box).classList.contains("shown")));
  return show;
}

const openPanel = drawer("show-panel", "panel");
const openSide = drawer("show-documents", "side");

async function openPage(page) {
  try {
    tab("pages");
    await viewer.open(page);
    openPanel(true);
    openSide(false);
    for (const hit of document.querySelectorAll(".hit")) {
      if (hit.dataset.page === String(page.page_id)) hit.setAttribute("aria-current", "true");
      else hit.removeAttribute("aria-current");
    }
  } catch (error) {
    announce(error.message);
    find("pane-pages").textContent = error.message;
  }
}

function keyDialog() {
  const dialog = find("key-dialog");
  let waiting = null;
  dialog.addEventListener("cancel", (event) => event.preventDefault());
  onKeyNeeded((wasWrong) => {
    waiting ??= new Promise((given) => {
      find("key-wrong").hidden = !wasWrong;
      find("key").value = "";
      if (!dialog.open) dialog.showModal();
      find("key-form").onsubmit = (event) => {
        event.preventDefault();
        dialog.close();
        waiting = null;
        given(find("key").value);
      };
    });
    return waiting;
  });
}

async function main() {
  find("theme").append(icon("theme"));
  find("show-documents").append(icon("menu"));
  find("show-panel").append(icon("panel"));
  find("close-panel").append(icon("close"));
  theme();
  keyDialog();
  viewer.empty();
  find("close-panel").addEventListener("click", () => { openPanel(false); find("show-panel").focus(); });
  for (const [at, name] of TABS.entries()) {
    find(`tab-${name}`).addEventListener("click", () => tab(name));
    find(`tab-${name}`).addEventListener("keydown", (event) => {
      const by = { ArrowRight: 1, ArrowLeft: -1 }[event.key];
      if (by) tab(TABS[(at + by + TABS.length) % TABS.length], true);
    });
  }
  document.addEventListener("keydown", (event) => {
    if (event.key !== "Escape" || document.querySelector("dialog[open]")) return;
    if (narrow.matches) { openPanel(false); openSide(false); }
  });
  conversation.start({ openPage, chosenDocuments: documents.chosenDocuments });
  const refresh = () => activity.summary().catch((error) => { find("summary").textContent = error.message; });
  await refresh();
  activity.start(refresh);
  await documents.start({ openPage, changed: refresh });
  const linked = /^#page=(\d+)$/.exec(location.hash);
  if (linked) openPage({ page_id: Number(linked[1]) });
  document.documentElement.dataset.ready = "yes";
}

main().catch((error) => {
  find("summary").textContent = error.message;
});
