// Conversations, kept in this browser and nowhere else.

const KEY = "colibri-conversations";
const MOST = 50;
const MOST_TURNS = 100;

let all = load();

function load() {
  try {
    const kept = JSON.parse(localStorage.getItem(KEY));
    return Array.isArray(kept) ? kept.filter((one) => one && Array.isArray(one.turns)) : [];
  } catch {
    return [];
  }
}

export const list = () => all;
export const get = (id) => all.find((one) => one.id === id);

export function create() {
  const made = { id: crypto.randomUUID?.() ?? String(Math.random()).slice(2), title: "", turns: [] };
  all.unshift(made);
  return made;
}

export function save(conversation) {
  conversation.turns.splice(0, conversation.turns.length - MOST_TURNS);
  all = [conversation, ...all.filter((one) => one !== conversation)].slice(0, MOST);
  for (;;) {
    try {
      localStorage.setItem(KEY, JSON.stringify(all.filter((one) => one.turns.length > 0)));
      return;
    } catch {
      // Full, or forbidden: the oldest goes, and with nothing left to go there is nothing to keep.
      if (all.length <= 1) return;
      all.pop();
    }
  }
}

export function remove(id) {
  all = all.filter((one) => one.id !== id);
  try { localStorage.setItem(KEY, JSON.stringify(all)); } catch { /* as above */ }
}

export function setting(name, value) {
  try {
    if (value === undefined) return localStorage.getItem(`colibri-${name}`);
    localStorage.setItem(`colibri-${name}`, value);
  } catch { /* settings then last as long as the page */ }
  return value ?? null;
}
