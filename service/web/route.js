// The state of the page in its URL.

export const PAGE_SIZE = 24;
export const MAX_SHOWN = 960;

export function read(search = location.search) {
  const query = new URLSearchParams(search);
  const filters = query.getAll("filter").filter((text) => text.indexOf("=") > 0);
  return {
    collection: query.get("collection"),
    photo: query.get("photo"),
    item: query.get("item_id"),
    filters: new Map(filters.map((text) => [text.slice(0, text.indexOf("=")), text.slice(text.indexOf("=") + 1)])),
    region: readRegion(query.get("region")),
    k: readCount(query.get("k")),
  };
}

function readRegion(text) {
  const region = (text ?? "").split(",").map(Number);
  const [x, y, width, height] = region;
  const valid = region.length === 4 && region.every(Number.isFinite) && x >= 0 && y >= 0 && width > 0 && height > 0;
  return valid && x + width <= 1.0001 && y + height <= 1.0001 ? region : null;
}

function readCount(text) {
  const count = Number.parseInt(text ?? "", 10);
  return Number.isFinite(count) ? Math.min(Math.max(count, 1), MAX_SHOWN) : PAGE_SIZE;
}

export function write(state) {
  const query = new URLSearchParams();
  if (state.collection) query.set("collection", state.collection);
  if (state.photo) query.set("photo", state.photo);
  if (state.item) query.set("item_id", state.item);
  for (const [key, value] of state.filters) query.append("filter", `${key}=${value}`);
  if (state.region) query.set("region", state.region.map((number) => number.toFixed(3)).join(","));
  if (state.k !== PAGE_SIZE) query.set("k", state.k);
  const text = query.toString();
  return text ? `?${text}` : "./";
}

// States with the same key show the same ranking, possibly with different lengths.
export function rankingKey(state) {
  return write({ ...state, k: PAGE_SIZE });
}
