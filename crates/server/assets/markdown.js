// Markdown to elements. What a model or a document says may be anything: it becomes text nodes inside a
// fixed set of elements, never markup, and links lead to the web only.

import { h } from "./dom.js";

const INLINE = /(`+)([^`]|[^`][\s\S]*?[^`])\1(?!`)|\*\*(?=\S)([\s\S]*?\S)\*\*|__(?=\S)([\s\S]*?\S)__|\*(?=\S)([^*\n]*?\S)\*|\b_(?=\S)([^_\n]*?\S)_\b|\[([^\]\n]+)\]\((https?:\/\/[^\s)]+)\)|\[([^\]\n]{1,200}? p\.\d+)\]/g;

// `cite("paper.pdf p.2")` gives the element of a citation, or nothing where it is none.
function inline(text, cite, depth = 0) {
  const out = [];
  let at = 0;
  const nested = (inner) => (depth < 8 ? inline(inner, cite, depth + 1) : [inner]);
  for (const match of text.matchAll(INLINE)) {
    const [whole, , code, strong, strong2, soft, soft2, label, target, citation] = match;
    let element = null;
    if (code !== undefined) element = h("code", {}, code.trim());
    else if (strong ?? strong2) element = h("strong", {}, ...nested(strong ?? strong2));
    else if (soft ?? soft2) element = h("em", {}, ...nested(soft ?? soft2));
    else if (label) element = h("a", { href: target, target: "_blank", rel: "noopener noreferrer nofollow" }, ...nested(label));
    else if (citation) element = cite?.(citation) ?? null;
    if (!element) continue;
    if (match.index > at) out.push(text.slice(at, match.index));
    out.push(element);
    at = match.index + whole.length;
  }
  if (at < text.length) out.push(text.slice(at));
  return out;
}

// Lines of a paragraph, with breaks where the text has them.
function lines(list, cite) {
  return list.flatMap((line, number) => (number ? [h("br"), ...inline(line, cite)] : inline(line, cite)));
}

const BULLET = /^(\s*)([-*+]|\d{1,9}[.)])\s+(.*)$/;
const cells = (line) => line.trim().replace(/^\||\|$/g, "").split("|").map((cell) => cell.trim());

export function markdown(source, cite) {
  const rows = source.replace(/\r\n?/g, "\n").split("\n");
  const out = [];
  let at = 0;
  while (at < rows.length) {
    const row = rows[at];
    const fence = /^\s*(```+|~~~+)/.exec(row);
    const heading = /^(#{1,6})\s+(.*)$/.exec(row);
    if (!row.trim()) {
      at += 1;
    } else if (fence) {
      const body = [];
      at += 1;
      while (at < rows.length && !rows[at].trim().startsWith(fence[1])) body.push(rows[at++]);
      at += 1;
      out.push(h("pre", {}, h("code", {}, body.join("\n"))));
    } else if (heading) {
      out.push(h(heading[1].length < 3 ? "h3" : "h4", {}, ...inline(heading[2], cite)));
      at += 1;
    } else if (/^\s*([-*_])(\s*\1){2,}\s*$/.test(row)) {
      out.push(h("hr"));
      at += 1;
    } else if (row.trimStart().startsWith(">")) {
      const body = [];
      while (at < rows.length && rows[at].trimStart().startsWith(">")) body.push(rows[at++].trimStart().replace(/^>\s?/, ""));
      out.push(h("blockquote", {}, ...lines(body, cite)));
    } else if (BULLET.test(row)) {
      const [list, next] = bullets(rows, at, cite);
      out.push(list);
      at = next;
    } else if (row.includes("|") && /^\s*\|?\s*:?-{2,}/.test(rows[at + 1] ?? "")) {
      const head = h("tr", {}, ...cells(row).map((cell) => h("th", {}, ...inline(cell, cite))));
      const body = [];
      at += 2;
      while (at < rows.length && rows[at].includes("|")) {
        body.push(h("tr", {}, ...cells(rows[at++]).map((cell) => h("td", {}, ...inline(cell, cite)))));
      }
      out.push(h("table", {}, h("thead", {}, head), h("tbody", {}, ...body)));
    } else {
      const body = [];
      while (at < rows.length && rows[at].trim() && !/^(#{1,6}\s|\s*(```|~~~)|\s*>)/.test(rows[at]) && !(body.length && BULLET.test(rows[at]))) body.push(rows[at++]);
      out.push(h("p", {}, ...lines(body, cite)));
    }
  }
  return out;
}

function bullets(rows, start, cite, depth = 0) {
  const [, margin, mark] = BULLET.exec(rows[start]);
  const list = h(/\d/.test(mark) ? "ol" : "ul");
  let at = start;
  while (at < rows.length) {
    const match = BULLET.exec(rows[at]);
    if (!match || match[1].length < margin.length) break;
    if (match[1].length > margin.length && depth < 6 && list.lastElementChild) {
      const [inner, next] = bullets(rows, at, cite, depth + 1);
      list.lastElementChild.append(inner);
      at = next;
      continue;
    }
    const body = [match[3]];
    at += 1;
    while (at < rows.length && rows[at].trim() && /^\s{2,}/.test(rows[at]) && !BULLET.test(rows[at])) body.push(rows[at++].trim());
    list.append(h("li", {}, ...lines(body, cite)));
  }
  return [list, at];
}
