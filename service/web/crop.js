// A frame on the query photo, moved and resized by dragging or by keys. Regions are [x, y, width, height] as fractions of
// the photo; null is the whole photo.

const SMALLEST = 0.06;
const STEP = 0.02;
const CLICK_PIXELS = 4; // beyond this distance, a press on an item's button is a drag
const HANDLES = ["nw", "n", "ne", "e", "se", "s", "sw", "w"];
const WHOLE = [0, 0, 1, 1];
const between = (value, low, high) => Math.min(Math.max(value, low), high);

export class Crop {
  // Calls onChange with the region when a drag ends or after the last key.
  constructor(stage, frame, onChange) {
    this.stage = stage;
    this.frame = frame;
    this.onChange = onChange;
    this.box = WHOLE;
    this.told = null;
    this.dragged = false;
    this.shade = document.createElement("div");
    this.shade.className = "shade";
    frame.before(this.shade);
    for (const name of HANDLES) {
      const handle = document.createElement("span");
      handle.className = `handle ${name}`;
      handle.dataset.edges = name;
      frame.append(handle);
    }
    stage.addEventListener("pointerdown", (event) => this.#begin(event));
    stage.addEventListener("click", (event) => this.#onClick(event), true);
    frame.addEventListener("keydown", (event) => this.#onKey(event));
  }

  show(region) {
    this.box = region ?? WHOLE;
    this.told = region;
    this.#draw();
  }

  reset() {
    this.box = WHOLE;
    this.#draw();
    this.#tell();
  }

  get region() {
    const region = rounded(this.box);
    return region.every((value, place) => Math.abs(value - WHOLE[place]) < 0.004) ? null : region;
  }

  #draw() {
    const [x, y, width, height] = this.box;
    const style = this.frame.style;
    style.left = `${x * 100}%`;
    style.top = `${y * 100}%`;
    style.width = `${width * 100}%`;
    style.height = `${height * 100}%`;
    this.frame.classList.toggle("whole", this.region === null);
    this.shade.hidden = this.region === null;
    const [left, top, right, bottom] = [x, y, x + width, y + height].map((edge) => `${edge * 100}%`);
    const hole = `${left} ${top}, ${left} ${bottom}, ${right} ${bottom}, ${right} ${top}, ${left} ${top}`;
    this.shade.style.clipPath = `polygon(evenodd, 0 0, 100% 0, 100% 100%, 0 100%, 0 0, ${hole})`;
    const percent = (value) => `${Math.round(value * 100)} %`;
    const text = this.region
      ? `from ${percent(x)} left and ${percent(y)} top, ${percent(width)} wide, ${percent(height)} high`
      : "the whole photo";
    this.frame.setAttribute("aria-label", `Part of the photo to search with: ${text}`);
  }

  #tell() {
    clearTimeout(this.timer);
    const region = this.region;
    if (String(region) === String(this.told)) return;
    this.told = region;
    this.onChange(region);
  }

  #begin(event) {
    this.dragged = false;
    if (event.button !== 0 || this.frame.hidden) return;
    const edges = event.target.dataset?.edges;
    const isItem = event.target.closest("button") !== null;
    const area = this.stage.getBoundingClientRect();
    const at = (e) => [
      between((e.clientX - area.left) / area.width, 0, 1),
      between((e.clientY - area.top) / area.height, 0, 1),
    ];
    const before = this.box;
    const start = at(event);
    const inside = this.region !== null && (event.target === this.frame || (isItem && holds(before, start)));
    // Outside the frame, a finger scrolls the page and a mouse draws a new frame.
    if (!edges && !inside && event.pointerType === "touch") return;
    const drag = edges ? resize(before, edges) : inside ? move(before, start) : draw(start);
    let dragging = false;
    // Capturing the pointer immediately would take the click from the item's button.
    const take = () => {
      dragging = true;
      this.frame.focus({ preventScroll: true });
      this.stage.setPointerCapture(event.pointerId);
    };
    const follow = (e) => {
      if (e.pointerId !== event.pointerId) return;
      if (!dragging && Math.hypot(e.clientX - event.clientX, e.clientY - event.clientY) <= CLICK_PIXELS) return;
      if (!dragging) take();
      this.box = drag(at(e)) ?? before;
      this.#draw();
    };
    const end = (e) => {
      if (e.pointerId !== event.pointerId) return;
      for (const name of Object.keys(handlers)) document.removeEventListener(name, handlers[name]);
      if (!dragging) return;
      this.dragged = true;
      if (e.type === "pointercancel") {
        this.box = before;
        this.#draw();
      }
      this.#tell();
    };
    const handlers = { pointermove: follow, pointerup: end, pointercancel: end };
    if (!isItem) {
      event.preventDefault();
      take();
    }
    for (const name of Object.keys(handlers)) document.addEventListener(name, handlers[name]);
  }

  // The click that ends a drag selects no item; a click by key (its detail is 0) always does.
  #onClick(event) {
    if (this.dragged && event.detail > 0) event.stopPropagation();
    this.dragged = false;
  }

  #onKey(event) {
    if (event.key === "Escape") {
      event.preventDefault();
      this.reset();
      return;
    }
    const direction = { ArrowLeft: [-1, 0], ArrowRight: [1, 0], ArrowUp: [0, -1], ArrowDown: [0, 1] }[event.key];
    if (!direction || event.ctrlKey || event.metaKey || event.altKey) return;
    event.preventDefault();
    const [x, y, width, height] = this.box;
    const [dx, dy] = direction.map((sign) => sign * STEP);
    this.box = event.shiftKey
      ? [x, y, between(width + dx, SMALLEST, 1 - x), between(height + dy, SMALLEST, 1 - y)]
      : [between(x + dx, 0, 1 - width), between(y + dy, 0, 1 - height), width, height];
    this.#draw();
    clearTimeout(this.timer);
    this.timer = setTimeout(() => this.#tell(), 400);
  }
}

// Edges are rounded instead of sizes: a rounded position plus a rounded size might lie outside the photo.
export function rounded([x, y, width, height]) {
  const [left, top, right, bottom] = [x, y, x + width, y + height].map((edge) => Math.round(edge * 1000) / 1000);
  return [left, top, right - left, bottom - top].map((value) => Number(value.toFixed(3)));
}

const holds = ([x, y, width, height], [atX, atY]) => atX >= x && atX <= x + width && atY >= y && atY <= y + height;

function move([x, y, width, height], [startX, startY]) {
  return ([toX, toY]) => [
    between(x + toX - startX, 0, 1 - width),
    between(y + toY - startY, 0, 1 - height),
    width,
    height,
  ];
}

function resize([x, y, width, height], edges) {
  const [right, bottom] = [x + width, y + height];
  return ([toX, toY]) => {
    const left = edges.includes("w") ? between(toX, 0, right - SMALLEST) : x;
    const top = edges.includes("n") ? between(toY, 0, bottom - SMALLEST) : y;
    const newRight = edges.includes("e") ? between(toX, left + SMALLEST, 1) : right;
    const newBottom = edges.includes("s") ? between(toY, top + SMALLEST, 1) : bottom;
    return [left, top, newRight - left, newBottom - top];
  };
}

// A drag that is too short draws nothing.
function draw([startX, startY]) {
  return ([toX, toY]) => {
    const [left, top] = [Math.min(startX, toX), Math.min(startY, toY)];
    const [width, height] = [Math.abs(toX - startX), Math.abs(toY - startY)];
    return width < SMALLEST || height < SMALLEST ? null : [left, top, width, height];
  };
}
