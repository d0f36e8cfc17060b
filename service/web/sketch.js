// A sheet to draw on, with a mouse, a pen or a finger. Strokes are lists of points [x, y] in units of the sheet.

export const SIDE = 255; // units of the sheet
const WIDTH = 4; // of the pen, in units
const LEAST_STEP = 1; // units between two points of a stroke
const SVG = "http://www.w3.org/2000/svg";
const between = (value, low, high) => Math.min(Math.max(value, low), high);

export class Sketch {
  // Calls onChange after each finished stroke, and when strokes are taken back.
  constructor(canvas, onChange) {
    this.canvas = canvas;
    this.onChange = onChange;
    this.strokes = [];
    this.undone = [];
    this.current = null;
    canvas.addEventListener("pointerdown", (event) => this.#begin(event));
    canvas.addEventListener("pointermove", (event) => this.#follow(event));
    for (const name of ["pointerup", "pointercancel"]) canvas.addEventListener(name, (event) => this.#end(event));
    canvas.addEventListener("keydown", (event) => this.#onKey(event));
    new ResizeObserver(() => this.#draw()).observe(canvas);
  }

  get isEmpty() {
    return this.strokes.length === 0;
  }

  show(strokes) {
    this.strokes = [...strokes];
    this.undone = [];
    this.current = null;
    this.#draw();
  }

  undo() {
    if (this.isEmpty) return;
    this.undone.push(this.strokes.pop());
    this.#draw();
    this.onChange();
  }

  redo() {
    if (this.undone.length === 0) return;
    this.strokes.push(this.undone.pop());
    this.#draw();
    this.onChange();
  }

  clear() {
    this.show([]);
    this.onChange();
  }

  #at(event) {
    const area = this.canvas.getBoundingClientRect();
    const along = (position, start, length) => {
      const units = between(((position - start) / length) * SIDE, 0, SIDE);
      return Math.round(units * 10) / 10;
    };
    return [along(event.clientX, area.left, area.width), along(event.clientY, area.top, area.height)];
  }

  #begin(event) {
    if (event.button !== 0 || this.current) return;
    event.preventDefault();
    this.canvas.focus({ preventScroll: true });
    this.canvas.setPointerCapture(event.pointerId);
    this.pointer = event.pointerId;
    this.current = [this.#at(event)];
    this.#draw();
  }

  #follow(event) {
    if (!this.current || event.pointerId !== this.pointer) return;
    // A browser reports several positions of a fast pointer at once.
    const reported = event.getCoalescedEvents?.() ?? [];
    for (const each of reported.length > 0 ? reported : [event]) {
      const [x, y] = this.#at(each);
      const [lastX, lastY] = this.current.at(-1);
      if (Math.hypot(x - lastX, y - lastY) >= LEAST_STEP) this.current.push([x, y]);
    }
    this.#draw();
  }

  #end(event) {
    if (!this.current || event.pointerId !== this.pointer) return;
    const stroke = this.current;
    this.current = null;
    if (event.type === "pointerup") {
      this.strokes.push(stroke);
      this.undone = [];
      this.onChange();
    }
    this.#draw();
  }

  #onKey(event) {
    if (!(event.ctrlKey || event.metaKey) || event.key.toLowerCase() !== "z") return;
    event.preventDefault();
    if (event.shiftKey) this.redo();
    else this.undo();
  }

  #draw() {
    const { canvas } = this;
    const pixels = Math.max(1, Math.round(canvas.clientWidth * devicePixelRatio));
    if (canvas.width !== pixels) canvas.width = canvas.height = pixels;
    const pen = canvas.getContext("2d");
    pen.setTransform(pixels / SIDE, 0, 0, pixels / SIDE, 0, 0);
    pen.clearRect(0, 0, SIDE, SIDE);
    Object.assign(pen, { lineWidth: WIDTH, lineCap: "round", lineJoin: "round", strokeStyle: "#1b1c20" });
    for (const stroke of this.current ? [...this.strokes, this.current] : this.strokes) {
      pen.beginPath();
      for (const [x, y] of closed(stroke)) pen.lineTo(x, y);
      pen.stroke();
    }
  }
}

// A single point is drawn as a line of no length, which round caps make a dot.
const closed = (stroke) => (stroke.length === 1 ? [stroke[0], stroke[0]] : stroke);
const pointsOf = (stroke) => closed(stroke).map((point) => point.join(",")).join(" ");

export function toSvg(strokes) {
  const lines = strokes.map((stroke) => `<polyline points="${pointsOf(stroke)}"/>`).join("");
  const pen = `fill="none" stroke="#1b1c20" stroke-width="${WIDTH}" stroke-linecap="round" stroke-linejoin="round"`;
  return `<svg xmlns="${SVG}" viewBox="0 0 ${SIDE} ${SIDE}"><g ${pen}>${lines}</g></svg>`;
}

// Draws strokes into an <svg> of the page, scaled to fit.
export function showStrokes(svg, strokes) {
  const all = strokes.flat();
  const [xs, ys] = [all.map(([x]) => x), all.map(([, y]) => y)];
  const [left, top] = [Math.min(...xs, 0), Math.min(...ys, 0)];
  const side = Math.max(Math.max(...xs, 1) - left, Math.max(...ys, 1) - top);
  const margin = 0.06 * side;
  svg.setAttribute("viewBox", [left - margin, top - margin, side + 2 * margin, side + 2 * margin].join(" "));
  svg.setAttribute("stroke-width", String(side * (WIDTH / SIDE)));
  svg.replaceChildren(...strokes.map((stroke) => {
    const line = document.createElementNS(SVG, "polyline");
    line.setAttribute("points", pointsOf(stroke));
    return line;
  }));
}
