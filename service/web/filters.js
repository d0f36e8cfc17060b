// Filters: the category as buttons, other attributes as menus.

const MOST_BUTTONS = 16;
const MOST_VALUES = 100;
const MOST_MENUS = 6;

// An attribute whose values all differ, such as an article number, is useless as a filter.
function isUseful(values) {
  return values.length > 1 && values.length <= MOST_VALUES && values.some(({ count }) => count > 1);
}

const label = (name) => name.charAt(0).toUpperCase() + name.slice(1).replaceAll("_", " ");

function buttons(name, values, chosen, onChoose) {
  const group = document.createElement("div");
  group.className = "chips";
  group.setAttribute("role", "group");
  group.setAttribute("aria-label", label(name));
  const add = (text, value, count) => {
    const button = document.createElement("button");
    button.type = "button";
    button.className = "chip";
    button.dataset.filter = value === null ? name : `${name}=${value}`;
    button.textContent = text;
    button.setAttribute("aria-pressed", String((chosen ?? null) === value));
    if (count !== undefined) {
      const number = document.createElement("span");
      number.className = "count";
      number.textContent = count.toLocaleString();
      button.append(" ", number);
    }
    button.addEventListener("click", () => onChoose(name, value));
    group.append(button);
  };
  add("All", null);
  for (const { value, count } of values) add(value, value, count);
  return group;
}

function menu(name, values, chosen, onChoose) {
  const box = document.createElement("label");
  box.className = "menu";
  const title = document.createElement("span");
  title.textContent = label(name);
  const select = document.createElement("select");
  select.dataset.filter = name;
  select.append(new Option("Any", ""));
  for (const { value, count } of values) select.append(new Option(`${value} (${count.toLocaleString()})`, value));
  if (chosen !== undefined && !values.some(({ value }) => value === chosen)) select.append(new Option(chosen, chosen));
  select.value = chosen ?? "";
  select.addEventListener("change", () => onChoose(name, select.value || null));
  box.append(title, select);
  return box;
}

// Rebuilds the filters in place and keeps the focus.
export function showFilters(holder, facets, chosen, onChoose) {
  const focused = holder.contains(document.activeElement) ? document.activeElement.dataset.filter : undefined;
  const names = Object.keys(facets).filter((name) => isUseful(facets[name]) || chosen.has(name));
  names.sort((a, b) => (b === "category") - (a === "category") || a.localeCompare(b));
  const parts = [];
  const menus = document.createElement("div");
  menus.className = "menus";
  for (const name of names) {
    if (name === "category" && facets[name].length <= MOST_BUTTONS) {
      parts.push(buttons(name, facets[name], chosen.get(name), onChoose));
    } else if (menus.childElementCount < MOST_MENUS || chosen.has(name)) {
      menus.append(menu(name, facets[name], chosen.get(name), onChoose));
    }
  }
  if (menus.childElementCount) parts.push(menus);
  holder.replaceChildren(...parts);
  holder.hidden = parts.length === 0;
  const pressed = holder.querySelector(".chip[aria-pressed=true]");
  // On a phone the buttons are a single row that scrolls separately.
  if (pressed) pressed.parentElement.scrollLeft = pressed.offsetLeft - pressed.parentElement.offsetLeft - 16;
  if (focused !== undefined) holder.querySelector(`[data-filter="${CSS.escape(focused)}"]`)?.focus();
}
