// The grid of similar items.

import { relative, showPicture } from "./api.js";

const ATTRIBUTES_SHOWN = 5;
const PICTURE_WIDTH = 480;

function element(tag, className, text) {
  const made = document.createElement(tag);
  if (className) made.className = className;
  if (text !== undefined) made.textContent = text;
  return made;
}

const capital = (text) => text.charAt(0).toUpperCase() + text.slice(1);

// Heading and sub-heading of an item. Without a title, the heading is the last part of the item_id or, if that is a long
// number, the category.
export function namesOf(item) {
  const { category } = item.attributes;
  if (item.title) return [item.title, category ?? ""];
  const name = item.item_id.split("/").pop().replace(/\.(jpe?g|png|webp|bmp|gif|tiff?)$/i, "");
  if (!/^[0-9a-f-]{16,}$/i.test(name)) return [name, category ?? ""];
  return category ? [capital(category), name.slice(0, 8)] : [name.slice(0, 8), ""];
}

export function picture(path, className) {
  const frame = element("div", className);
  const img = element("img");
  img.alt = "";
  img.loading = "lazy";
  img.decoding = "async";
  img.addEventListener("load", () => {
    // Pictures with about the shape of the frame fill it; others are shown completely.
    const ratio = img.naturalWidth / img.naturalHeight;
    frame.classList.add(ratio > 0.55 && ratio < 1.15 ? "fills" : "fits");
  });
  img.addEventListener("error", () => frame.classList.add("missing"));
  frame.append(img);
  showPicture(img, `${relative(path)}?width=${PICTURE_WIDTH}`);
  return frame;
}

// Never 0 or 100 %: a learnt probability is never certain.
function percent(probability) {
  if (probability < 0.01) return "under 1 %";
  return probability > 0.99 ? "over 99 %" : `${Math.round(probability * 100)} %`;
}

function similarity(result, metric) {
  const isDistance = metric === "l2";
  const share = isDistance ? 1 / (1 + Math.abs(result.score)) : Math.min(Math.max(result.score, 0), 1);
  const shown = Math.abs(result.score).toFixed(2);
  const box = element("div", "score");
  const label = isDistance ? "Distance" : "Similarity";
  box.append(element("span", "score-label", label));
  box.title = isDistance ? `Distance ${shown}: 0 is identical` : `Similarity ${shown}: 1 is identical`;
  const bar = element("span", "bar-track");
  bar.setAttribute("aria-hidden", "true");
  const fill = element("span", "bar-fill");
  fill.style.width = `${(share * 100).toFixed(1)}%`;
  bar.append(fill);
  box.append(bar, element("span", "score-number", shown));
  if (result.probability !== null) {
    box.append(element("span", "probability", `${percent(result.probability)} likely the same product`));
  }
  return box;
}

function attributes(result) {
  const entries = Object.entries(result.attributes).filter(([name]) => name !== "category");
  if (entries.length === 0) return null;
  const list = element("ul", "attributes");
  list.setAttribute("aria-label", "Attributes");
  for (const [name, value] of entries.slice(0, ATTRIBUTES_SHOWN)) {
    const entry = element("li");
    entry.append(element("span", "attribute-name", `${name.replaceAll("_", " ")} `), value);
    list.append(entry);
  }
  if (entries.length > ATTRIBUTES_SHOWN) {
    const rest = entries.slice(ATTRIBUTES_SHOWN);
    const more = element("li", "attribute-more", `+${rest.length}`);
    more.title = rest.map(([name, value]) => `${name}: ${value}`).join("\n");
    list.append(more);
  }
  return list;
}

export function card(result, metric, onMore) {
  const [name, note] = namesOf(result);
  const item = element("li", "card");
  item.dataset.itemId = result.item_id;
  const text = element("div", "card-text");
  const title = element("h3", "", name);
  title.title = result.item_id;
  text.append(title);
  if (note) text.append(element("p", "category", note));
  text.append(similarity(result, metric));
  const list = attributes(result);
  if (list) text.append(list);
  const more = element("button", "more-like", "More like this");
  more.type = "button";
  more.setAttribute("aria-label", `More like this: ${name}`);
  more.addEventListener("click", () => onMore(result));
  text.append(more);
  item.append(picture(result.image_url, "picture"), text);
  return item;
}

export function skeletons(count) {
  return Array.from({ length: count }, () => {
    const item = element("li", "card skeleton");
    item.setAttribute("aria-hidden", "true");
    const text = element("div", "card-text");
    text.append(element("span", "line wide"), element("span", "line"), element("span", "line thin"));
    item.append(element("div", "picture"), text);
    return item;
  });
}
