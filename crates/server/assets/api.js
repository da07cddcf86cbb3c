// Calls to the server: the key, errors, and events over `fetch` (an EventSource can neither post nor show a key).

const KEY = "colibri-key";
let askForKey = async () => null;

export function onKeyNeeded(ask) {
  askForKey = ask;
}

export const hasKey = () => sessionStorage.getItem(KEY) !== null;

// Each tab waits in a line of its own.
const CLIENT = crypto.randomUUID ? crypto.randomUUID() : String(Math.random()).slice(2);

export class ApiError extends Error {
  constructor(status, body) {
    super(body?.message ?? `The server answered with status ${status}.`);
    this.status = status;
    this.code = body?.code;
    this.hint = body?.hint;
  }
}

export async function request(path, { method = "GET", json, body, headers = {}, signal, keepalive } = {}) {
  for (;;) {
    const sent = { "x-client": CLIENT, ...headers };
    const key = sessionStorage.getItem(KEY);
    if (key) sent.authorization = `Bearer ${key}`;
    if (json !== undefined) sent["content-type"] = "application/json";
    let response;
    try {
      response = await fetch(path, {
        method, headers: sent, signal, keepalive, credentials: "omit",
        body: json === undefined ? body : JSON.stringify(json),
      });
    } catch (error) {
      if (error.name === "AbortError") throw error;
      throw new ApiError(0, { message: "The server cannot be reached." });
    }
    if (response.ok) return response;
    if (response.status === 401) {
      const given = await askForKey(key !== null);
      if (given) {
        sessionStorage.setItem(KEY, given);
        continue;
      }
    }
    let told;
    try { told = (await response.json()).error; } catch { told = undefined; }
    throw new ApiError(response.status, told);
  }
}

export const getJson = async (path, options) => (await request(path, options)).json();

// Calls onEvent(name, data, id) for each event until the stream ends.
export async function readEvents(response, onEvent) {
  const reader = response.body.pipeThrough(new TextDecoderStream()).getReader();
  let rest = "";
  for (;;) {
    const { done, value } = await reader.read();
    if (done) return;
    rest += value;
    let end;
    while ((end = rest.indexOf("\n\n")) >= 0) {
      const block = rest.slice(0, end);
      rest = rest.slice(end + 2);
      let name = "message", id, data = "";
      for (const line of block.split("\n")) {
        if (line.startsWith("event:")) name = line.slice(6).trim();
        else if (line.startsWith("id:")) id = line.slice(3).trim();
        else if (line.startsWith("data:")) data += line.slice(5).trimStart();
      }
      if (data) onEvent(name, JSON.parse(data), id);
    }
  }
}

const pause = (milliseconds) => new Promise((go) => setTimeout(go, milliseconds));

// Follows a stream that may be taken up again, until `isEnd` says yes or it is aborted.
export async function follow(path, onEvent, { signal, isEnd = () => false, after = "0" } = {}) {
  let last = after, wait = 250, ended = false;
  while (!ended && !signal?.aborted) {
    try {
      const response = await request(path, { headers: { "last-event-id": last }, signal });
      await readEvents(response, (name, data, id) => {
        if (id) last = id;
        wait = 250;
        if (isEnd(name, data)) ended = true;
        onEvent(name, data);
      });
      // A log that has ended closes its stream, also when its end was seen before.
      if (!ended) await pause(wait);
    } catch (error) {
      if (signal?.aborted || error.status === 404 || error.status === 401) return;
      await pause(wait);
    }
    wait = Math.min(wait * 2, 5000);
  }
}

// The address of a picture: the path itself, or what was fetched with the key.
const pictures = new Map();
export async function picture(path) {
  if (!hasKey()) return path;
  if (!pictures.has(path)) {
    const fetched = request(path).then((response) => response.blob()).then((blob) => URL.createObjectURL(blob));
    pictures.set(path, fetched);
    fetched.catch(() => pictures.delete(path));
    if (pictures.size > 200) {
      const [oldest, url] = pictures.entries().next().value;
      pictures.delete(oldest);
      url.then(URL.revokeObjectURL, () => {});
    }
  }
  return pictures.get(path);
}

export function setPicture(image, path) {
  picture(path).then((url) => { image.src = url; }, () => { image.alt = "The picture cannot be shown."; });
}
