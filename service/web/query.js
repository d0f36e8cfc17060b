// The panel with the query: a photo that can be cropped, or an item.

import * as api from "./api.js";
import { namesOf } from "./cards.js";
import { Crop, rounded } from "./crop.js";

const $ = (id) => document.getElementById(id);
let shownPicture = null; // object URL of the displayed photo

export class QueryPanel {
  // Calls onRegion with the region to search with, or null for the whole photo.
  constructor(onRegion) {
    this.onRegion = onRegion;
    this.crop = new Crop($("stage"), $("crop"), onRegion);
    $("whole").addEventListener("click", () => {
      this.crop.reset();
      $("crop").focus();
    });
  }

  async showPhoto(photo, region, { isDrawing = false } = {}) {
    const title = isDrawing ? "Your drawing" : "Your photo";
    this.#describe(title, photo.name, region);
    document.title = `Similar to ${title.toLowerCase()} – Nitamono`;
    if ($("stage").dataset.query !== photo.key) {
      await this.#showStage(photo.key, URL.createObjectURL(photo.blob), true);
    }
    if (isDrawing) this.#allowCrop(false);
    else this.crop.show(region);
  }

  // Draws the region that the encoder chose; the shopper's own frame overrides it.
  showUsed(used) {
    const isFound = used?.chosen_by === "encoder" && used.region.some((value, place) => value !== [0, 0, 1, 1][place]);
    $("found").hidden = !isFound || $("crop").hidden;
    $("found-note").hidden = !isFound;
    if (!isFound) return;
    const [x, y, width, height] = used.region.map((value) => `${value * 100}%`);
    Object.assign($("found").style, { left: x, top: y, width, height });
    const sure = Math.round(used.confidence * 100);
    $("found-note").textContent = `The item was found in the dashed frame (confidence ${sure} %).`;
  }

  // Draws a button on each item of the photo if there are several.
  showItems(regions, chosen) {
    const items = regions.length > 1 ? regions.map(({ region }) => rounded(region)) : [];
    const isChosen = (region) => chosen?.every((value, place) => Math.abs(value - region[place]) < 0.001) ?? false;
    const focused = [...$("items").children].indexOf(document.activeElement);
    const frames = items.map((region, place) => itemFrame(region, `Item ${place + 1} of ${items.length}`, isChosen(region)));
    for (const [place, frame] of frames.entries()) {
      frame.addEventListener("click", () => this.onRegion(isChosen(items[place]) ? null : items[place]));
    }
    $("items").replaceChildren(...frames);
    $("items").children[focused]?.focus({ preventScroll: true });
    $("items").hidden = $("items-note").hidden = $("crop").hidden || items.length === 0;
    $("items-note").textContent = `${items.length} items were found; choose one to search with it only.`;
  }

  async showItem(collection, id, signal) {
    const item = await api.item(collection, id, signal);
    const [name, note] = namesOf(item);
    const others = Object.entries(item.attributes).filter(([attribute]) => attribute !== "category");
    this.#describe(name, [note, ...others.map(([, value]) => value)].filter(Boolean).join(" · "), null);
    document.title = `Similar to ${name} – Nitamono`;
    const image = item.images.find(({ status }) => status === "ok") ?? item.images[0];
    const key = `${collection}/${id}`;
    if ($("stage").dataset.query !== key) {
      await this.#showStage(key, image ? `${api.relative(image.image_url)}?width=800` : null, false);
    }
  }

  showNothing() {
    this.#describe("Your photo", "", null);
    $("stage").dataset.query = "";
    $("query-image").removeAttribute("src");
    $("stage").classList.add("blank");
    $("no-preview").hidden = true;
    this.#allowCrop(false);
  }

  #describe(title, note, region) {
    $("query-title").textContent = title;
    $("query-note").textContent = note;
    $("whole").hidden = region === null;
    this.showUsed(null);
  }

  #allowCrop(allowed) {
    $("crop").hidden = !allowed;
    $("crop-help").hidden = !allowed;
    if (allowed) return;
    this.crop.show(null);
    $("items").replaceChildren();
    $("items").hidden = $("items-note").hidden = true;
  }

  async #showStage(key, url, isPhoto) {
    const [stage, img] = [$("stage"), $("query-image")];
    stage.dataset.query = key;
    if (shownPicture) URL.revokeObjectURL(shownPicture);
    shownPicture = isPhoto ? url : null;
    this.#allowCrop(false);
    const loaded = new Promise((resolve) => {
      img.onload = () => resolve(true);
      img.onerror = () => resolve(false);
    });
    if (isPhoto) img.src = url;
    else if (url) api.showPicture(img, url);
    else img.removeAttribute("src");
    img.alt = isPhoto ? "Photo used for the search" : "Item used for the search";
    const isShown = url !== null && (await loaded);
    if (stage.dataset.query !== key) return;
    stage.classList.toggle("blank", !isShown);
    $("no-preview").hidden = isShown;
    if (isShown) stage.style.setProperty("--ratio", String(img.naturalWidth / img.naturalHeight));
    this.#allowCrop(isPhoto && isShown);
  }
}

function itemFrame([x, y, width, height], label, isChosen) {
  const frame = document.createElement("button");
  frame.type = "button";
  frame.className = "item-frame";
  frame.setAttribute("aria-label", label);
  frame.setAttribute("aria-pressed", String(isChosen));
  const [left, top, across, down] = [x, y, width, height].map((value) => `${value * 100}%`);
  Object.assign(frame.style, { left, top, width: across, height: down });
  const number = document.createElement("span");
  number.textContent = label.split(" ")[1];
  frame.append(number);
  return frame;
}
