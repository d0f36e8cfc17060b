// Requests to the public JSON API, with an API key if one is required.

const KEY = "nitamono-key";

export class ApiError extends Error {
  constructor(status, title, detail) {
    super(detail);
    this.status = status;
    this.title = title;
  }
}

let memoryKey = null; // used if the browser allows no storage
let askKey = async () => null;

export function onKeyNeeded(ask) {
  askKey = ask;
}

function storedKey() {
  try {
    return sessionStorage.getItem(KEY);
  } catch {
    return memoryKey;
  }
}

function storeKey(key) {
  memoryKey = key;
  try {
    if (key === null) sessionStorage.removeItem(KEY);
    else sessionStorage.setItem(KEY, key);
  } catch {
    // Without storage the key lasts as long as the page.
  }
}

export function hasKey() {
  return storedKey() !== null;
}

async function send(path, options = {}) {
  const key = storedKey();
  const headers = key === null ? {} : { Authorization: `Bearer ${key}` };
  let response;
  try {
    response = await fetch(path, { ...options, headers: { ...headers, ...options.headers } });
  } catch (error) {
    if (error.name === "AbortError") throw error;
    throw new ApiError(0, "No connection", "The server cannot be reached. Check your connection and try again.");
  }
  if (response.ok) return response;
  const problem = await response.json().catch(() => ({}));
  const detail = problem.detail ?? `The server responded with status ${response.status}.`;
  throw new ApiError(response.status, problem.title ?? "Something went wrong", detail);
}

let asking = null; // a single dialog, even if several requests need the key

async function request(path, options = {}) {
  const used = storedKey();
  try {
    return await send(path, options);
  } catch (error) {
    if (!(error instanceof ApiError) || error.status !== 401) throw error;
    if (storedKey() === used) {
      storeKey(null);
      asking ??= askKey(used === null ? null : error.message).finally(() => (asking = null));
      const key = await asking;
      if (key === null) throw error;
      storeKey(key);
    }
    return request(path, options);
  }
}

async function json(path, options) {
  return (await request(path, options)).json();
}

const inCollection = (collection) => `v1/collections/${encodeURIComponent(collection)}`;

// Paths in responses start with "/v1"; relative paths also work if the page is served below a prefix.
export const relative = (path) => path.replace(/^\//, "");

export const limits = () => json("v1/limits");
export const collections = async () => (await json("v1/collections")).collections;
export const collection = (name) => json(inCollection(name));
export const encoders = async () => (await json("v1/encoders")).encoders;
export const item = (name, id, signal) =>
  json(`${inCollection(name)}/items/${encodeURIComponent(id)}`, { signal });

export function searchByPhoto(name, photo, { k, offset, filters, region, findItems }, signal) {
  const form = new FormData();
  form.append("image", photo.blob, photo.name || "photo");
  form.append("k", k);
  form.append("offset", offset);
  for (const [key, value] of filters) form.append("filter", `${key}=${value}`);
  if (region) form.append("region", region.join(","));
  if (findItems) form.append("find_items", true);
  return json(`${inCollection(name)}/search`, { method: "POST", body: form, signal });
}

export function redraw(name, drawing, signal) {
  const form = new FormData();
  form.append("image", drawing.blob, drawing.name || "drawing.svg");
  return json(`${inCollection(name)}/redraw`, { method: "POST", body: form, signal });
}

export function searchByItem(name, id, { k, offset, filters }, signal) {
  const query = new URLSearchParams({ k, offset });
  for (const [key, value] of filters) query.append("filter", `${key}=${value}`);
  return json(`${inCollection(name)}/items/${encodeURIComponent(id)}/similar?${query}`, { signal });
}

// An <img> cannot send an API key; with one, the picture is fetched and shown from memory.
export async function showPicture(img, path) {
  if (!hasKey()) {
    img.src = path;
    return;
  }
  try {
    const blob = await (await request(path)).blob();
    const url = URL.createObjectURL(blob);
    img.addEventListener("load", () => URL.revokeObjectURL(url), { once: true });
    img.src = url;
  } catch {
    img.dispatchEvent(new Event("error"));
  }
}
