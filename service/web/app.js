// The page shows what its URL describes; each action writes a new URL and shows it.

import * as api from "./api.js";
import { card, skeletons } from "./cards.js";
import { DrawingPanel } from "./drawing.js";
import { showFilters } from "./filters.js";
import { listenForPhotos } from "./inputs.js";
import { askForKey, button, hideNotice, say, sentence, showTypicality, tell } from "./notice.js";
import * as photos from "./photos.js";
import { QueryPanel } from "./query.js";
import { MAX_SHOWN, PAGE_SIZE, rankingKey, read, write } from "./route.js";

const $ = (id) => document.getElementById(id);
const ANSWERS_KEPT = 20;
// `items`: regions of the items in each photo; they do not depend on the region that is searched with.
const cache = { collections: [], facets: new Map(), encoders: new Map(), items: new Map(), limits: null };
const answered = new Map(); // recent rankings, so that going back is immediate
let current = read();
let pending = new AbortController();
let started = Promise.resolve();

const panel = new QueryPanel((region) => {
  // The history has one entry for the whole photo and one for the last frame on it.
  go({ region, k: PAGE_SIZE }, { replace: current.region !== null && region !== null });
});

const sheet = new DrawingPanel(useDrawing);

// ---- Navigation

function go(changes, { replace = false, toTop = false, focus = false } = {}) {
  current = { ...current, ...changes };
  if (replace) {
    history.replaceState(history.state, "", write(current));
  } else {
    markPlace();
    history.pushState(null, "", write(current));
  }
  if (toTop) scrollTo({ top: 0, behavior: "instant" });
  return show(focus);
}

// Results arrive after the browser would restore the scroll position, so the page restores it itself.
history.scrollRestoration = "manual";
const markPlace = () => history.replaceState({ scroll: scrollY }, "");
const returnToPlace = (mark) => scrollTo({ top: mark?.scroll ?? 0, behavior: "instant" });

const NO_QUERY = { photo: null, item: null, region: null, k: PAGE_SIZE };

async function usePhoto(file) {
  await started; // a photo may be chosen before the collections are loaded
  if (cache.collections.length === 0) return;
  const limit = cache.limits.max_upload_bytes;
  if (file.size + 4096 > limit) {
    const inMb = (bytes) => `${(bytes / 2 ** 20).toFixed(bytes < 10 * 2 ** 20 ? 1 : 0)} MB`;
    const text = `“${file.name}” is ${inMb(file.size)}; the limit is ${inMb(limit)}.`;
    tell("The photo is too large", text, [anotherPhoto()]);
    return;
  }
  await go({ ...NO_QUERY, photo: await photos.keep(file), filters: new Map() }, { toTop: true });
}

// The history has one entry for a drawing, however many strokes it has.
async function useDrawing(file, strokes) {
  await started;
  const before = current.item === null ? current.photo : null;
  const photo = file === null ? null : await photos.keep(file, strokes);
  go({ ...NO_QUERY, photo }, { replace: before !== null });
  if (before !== null) await photos.forget(before);
}

function chooseFilter(name, value) {
  const filters = new Map(current.filters);
  if (value === null) filters.delete(name);
  else filters.set(name, value);
  return go({ filters, k: PAGE_SIZE });
}

const moreLike = (result) => go({ ...NO_QUERY, item: result.item_id }, { toTop: true, focus: true });

// ---- Showing the state of the URL

async function show(focus = false) {
  pending.abort();
  pending = new AbortController();
  const { signal } = pending;
  const asked = current;
  const isSearch = Boolean(asked.photo || asked.item);
  const isDrawn = takesDrawings(asked.collection);
  document.body.dataset.input = isDrawn ? "drawings" : "photos";
  document.body.dataset.mode = isSearch || isDrawn ? "search" : "start";
  $("start").hidden = isSearch || isDrawn;
  $("sketch").hidden = !isDrawn || Boolean(asked.item);
  $("panel").hidden = !isSearch || !$("sketch").hidden;
  $("collection").value = asked.collection ?? "";
  if (!isSearch) {
    showStart(isDrawn);
    return;
  }
  try {
    await Promise.all([showFacets(asked), showAnswers(asked, signal, focus)]);
  } catch (error) {
    if (!signal.aborted) fail(error);
  }
}

function showStart(isDrawn) {
  clear();
  $("filters").hidden = true;
  document.title = "Nitamono";
  if (isDrawn) {
    sheet.show(null);
    say("Draw on the sheet to see the items that look most like your drawing.");
  }
  if (cache.collections.length > 0) return;
  const how = "Index a folder of photos with “nitamono index FOLDER”, then try again.";
  tell("There are no items to search yet", how, [tryAgain()]);
}

async function showAnswers(asked, signal, focus) {
  const before = answered.get(rankingKey(asked));
  if (!before) startWaiting({ keep: takesDrawings(asked.collection) && Boolean(asked.photo) });
  const photo = asked.photo ? await photos.find(asked.photo) : null;
  if (signal.aborted) return;
  if (asked.photo && !photo) {
    showPhotoGone();
    return;
  }
  await showQuery(asked, photo, signal);
  const isEnough = before && before.results.length >= Math.min(asked.k, before.total);
  const answer = isEnough ? before : await search(asked, photo, { k: asked.k, offset: 0 }, signal);
  const metric = await metricOf(answer.encoder_id);
  if (signal.aborted) return;
  remember(asked, answer);
  panel.showUsed(answer.used);
  panel.showItems(cache.items.get(asked.photo) ?? [], asked.region);
  hideNotice();
  showTypicality(answer.results.length > 0 ? answer.typicality : null);
  $("grid").removeAttribute("aria-busy");
  $("grid").replaceChildren(...answer.results.slice(0, asked.k).map((result) => card(result, metric, moreLike)));
  showEnd(answer);
  if (focus) $("answers-title").focus({ preventScroll: true });
}

async function showQuery(asked, photo, signal) {
  const isDrawing = takesDrawings(asked.collection);
  const isOnSheet = isDrawing && Boolean(photo?.strokes);
  $("sketch").hidden = !isOnSheet;
  $("panel").hidden = isOnSheet;
  if (isDrawing && photo) {
    // The answers do not wait for it, and stand without it.
    sheet.showRedrawing(asked.collection, photo, signal).catch(() => signal.aborted || sheet.hideRedrawing());
  }
  if (isOnSheet) {
    document.title = "Similar to your drawing – Nitamono";
    sheet.show(photo);
  } else if (photo) {
    await panel.showPhoto(photo, asked.region, { isDrawing });
  } else {
    await panel.showItem(asked.collection, asked.item, signal);
  }
}

async function search(asked, photo, paging, signal) {
  const { collection, filters, region } = asked;
  if (!photo) return api.searchByItem(collection, asked.item, { ...paging, filters }, signal);
  const findItems = !takesDrawings(collection) && !cache.items.has(asked.photo);
  const answer = await api.searchByPhoto(collection, photo, { ...paging, filters, region, findItems }, signal);
  if (findItems) cache.items.set(asked.photo, answer.regions);
  return answer;
}

async function showMore() {
  const asked = current;
  const { signal } = pending;
  const shown = $("grid").childElementCount;
  const before = answered.get(rankingKey(asked))?.results ?? [];
  $("more").disabled = true;
  say("Loading more items…");
  try {
    const photo = asked.photo ? await photos.find(asked.photo) : null;
    const answer = await search(asked, photo, { k: PAGE_SIZE, offset: shown }, signal);
    const metric = await metricOf(answer.encoder_id);
    if (signal.aborted) return;
    const cards = answer.results.map((result) => card(result, metric, moreLike));
    $("grid").append(...cards);
    current = { ...asked, k: shown + cards.length };
    history.replaceState(history.state, "", write(current));
    remember(current, { ...answer, results: [...before.slice(0, shown), ...answer.results] });
    showEnd(answer);
    cards[0]?.querySelector("button").focus({ preventScroll: true });
  } catch (error) {
    if (!signal.aborted) fail(error);
  } finally {
    $("more").disabled = false;
  }
}

function remember(asked, answer) {
  const key = rankingKey(asked);
  answered.delete(key);
  answered.set(key, answer);
  if (answered.size > ANSWERS_KEPT) answered.delete(answered.keys().next().value);
}

function clear() {
  $("grid").replaceChildren();
  if (!current.photo || !takesDrawings(current.collection)) sheet.hideRedrawing();
  $("grid").removeAttribute("aria-busy");
  hideNotice();
  showTypicality(null);
  $("more").hidden = true;
  $("end").hidden = true;
  $("footer").textContent = "";
  say("");
}

// `keep`: the former answers stay until the next ones are there, as while one draws.
function startWaiting({ keep }) {
  const isKept = keep && $("grid").childElementCount > 0;
  if (!isKept) clear();
  say("Searching for similar items…");
  $("grid").setAttribute("aria-busy", "true");
  if (!isKept) $("grid").replaceChildren(...skeletons(12));
}

const count = (number) => `${number.toLocaleString()} ${number === 1 ? "item" : "items"}`;

function showEnd(answer) {
  const [shown, total] = [$("grid").childElementCount, answer.total];
  $("more").hidden = shown >= total || shown >= MAX_SHOWN;
  $("end").hidden = !$("more").hidden || shown <= PAGE_SIZE;
  $("end").textContent = shown >= total ? "No more items." : "Add a filter to see other items.";
  const milliseconds = Math.max(1, Math.round(answer.took_ms));
  const encoder = answer.encoder_id.slice(0, 8);
  $("footer").textContent = `Searched in ${milliseconds} ms with generation ${answer.generation}, encoder ${encoder}`;
  if (total > 0) {
    say(`${shown < total ? `${shown.toLocaleString()} of ` : ""}${count(total)}, most similar first`);
  } else if (current.filters.size > 0) {
    tell("No items match these filters", "Choose another value or clear the filters.", [clearFilters()]);
  } else {
    tell("No similar items", "This collection contains no other items.");
  }
}

function showPhotoGone() {
  clear();
  panel.showNothing();
  const text = "Your browser keeps photos for one day. Choose the photo again.";
  tell("This photo is no longer available", text, [anotherPhoto()], "error");
}

const anotherPhoto = () =>
  takesDrawings(current.collection)
    ? button("Draw anew", () => go({ ...NO_QUERY }))
    : button("Choose another photo", () => $("file").click());
const tryAgain = () => button("Try again", start);
const clearFilters = () => button("Clear filters", () => go({ filters: new Map(), k: PAGE_SIZE }));

function fail(error) {
  clear();
  if (!(error instanceof api.ApiError)) {
    tell("Something went wrong", "Reload the page and try again.", [tryAgain()], "error");
    throw error;
  }
  const isWrongQuery = error.status === 422 || error.status === 413;
  const actions = [isWrongQuery && current.photo ? anotherPhoto() : tryAgain()];
  if (isWrongQuery && current.filters.size > 0) actions.push(clearFilters());
  tell(error.title, sentence(error.message), actions, "error");
}

// ---- Collections

async function showFacets(asked) {
  if (!cache.facets.has(asked.collection)) {
    cache.facets.set(asked.collection, (await api.collection(asked.collection)).facets);
  }
  if (asked === current) showFilters($("filters"), cache.facets.get(asked.collection), asked.filters, chooseFilter);
}

async function metricOf(encoderId) {
  if (!cache.encoders.has(encoderId)) rememberEncoders(await api.encoders());
  return cache.encoders.get(encoderId).metric;
}

function rememberEncoders(encoders) {
  for (const encoder of encoders) cache.encoders.set(encoder.encoder_id, encoder);
}

function takesDrawings(collection) {
  const chosen = cache.collections.find(({ name }) => name === collection);
  return cache.encoders.get(chosen?.encoder_id)?.input === "drawings";
}

function showLead() {
  const chosen = cache.collections.find(({ name }) => name === current.collection);
  if (chosen) $("lead").textContent = `Upload a photo to see which of ${count(chosen.items)} look most like it.`;
  const limit = Math.floor(cache.limits.max_upload_bytes / 2 ** 20);
  $("formats").textContent = `JPEG, PNG, WebP, AVIF, BMP, GIF or TIFF, up to ${limit}\u00a0MB`;
}

// ---- Start

function start() {
  started = load();
}

async function load() {
  clear();
  let listed, encoders;
  try {
    [listed, encoders, cache.limits] = await Promise.all([api.collections(), api.encoders(), api.limits()]);
  } catch (error) {
    fail(error);
    return;
  }
  cache.collections = listed.filter(({ generation, items }) => generation !== null && items > 0);
  cache.facets.clear();
  rememberEncoders(encoders);
  const names = cache.collections.map(({ name }) => name);
  $("collection").replaceChildren(...names.map((name) => new Option(name, name)));
  $("picker").hidden = names.length < 2;
  const isEmpty = names.length === 0;
  $("dropzone").classList.toggle("off", isEmpty);
  for (const picker of document.querySelectorAll("#dropzone button")) picker.disabled = isEmpty;
  current.collection ??= names.includes("default") ? "default" : (names[0] ?? null);
  showLead();
  await show();
  returnToPlace(history.state);
}

$("more").addEventListener("click", showMore);
$("collection").addEventListener("change", () => {
  const { photo, region } = current; // a photo can be searched for in another collection, an item cannot
  go({ ...NO_QUERY, collection: $("collection").value, photo, region, filters: new Map() });
  showLead();
});
$("home-link").addEventListener("click", (event) => {
  if (event.ctrlKey || event.metaKey || event.shiftKey) return;
  event.preventDefault();
  go({ ...NO_QUERY, filters: new Map() }, { toTop: true });
});
addEventListener("popstate", (event) => {
  const { collection } = current;
  current = read();
  current.collection ??= collection;
  showLead();
  show().then(() => returnToPlace(event.state));
});
addEventListener("pagehide", markPlace);
listenForPhotos(usePhoto, () => {
  tell("This is not a photo file", "Pictures cannot be dragged from other web pages. Save the picture, then drop the file.");
});
api.onKeyNeeded(askForKey);
start();
