// Searching by drawing: the sheet beside the answers, and the drawing as the model redraws it.

import * as api from "./api.js";
import { showStrokes, Sketch, toSvg } from "./sketch.js";

const $ = (id) => document.getElementById(id);
const PAUSE_MS = 250; // after a stroke, in which the next one may begin

export class DrawingPanel {
  // Calls onDrawn with an SVG file and its strokes, or with null once the sheet is empty.
  constructor(onDrawn) {
    this.onDrawn = onDrawn;
    this.sketch = new Sketch($("canvas"), () => this.#changed());
    $("undo").addEventListener("click", () => this.sketch.undo());
    $("erase").addEventListener("click", () => this.sketch.clear());
  }

  // Shows a drawing that was made here; null for an empty sheet.
  show(drawing) {
    const strokes = drawing?.strokes ?? [];
    if (this.#isBusy || JSON.stringify(strokes) === JSON.stringify(this.sketch.strokes)) return;
    this.sketch.show(strokes);
    this.#allow();
  }

  async showRedrawing(collection, drawing, signal) {
    const { strokes } = await api.redraw(collection, drawing, signal);
    $("redrawn").hidden = strokes.length === 0;
    if (strokes.length > 0) showStrokes($("redrawn-strokes"), strokes);
  }

  hideRedrawing() {
    $("redrawn").hidden = true;
  }

  get #isBusy() {
    return this.sketch.current !== null || this.timer !== undefined;
  }

  #allow() {
    $("undo").disabled = $("erase").disabled = this.sketch.isEmpty;
  }

  #changed() {
    this.#allow();
    clearTimeout(this.timer);
    this.timer = setTimeout(() => this.#tell(), PAUSE_MS);
  }

  #tell() {
    if (this.sketch.current) {
      this.#changed(); // the next stroke has begun
      return;
    }
    this.timer = undefined;
    const strokes = [...this.sketch.strokes];
    const file = strokes.length > 0 ? new File([toSvg(strokes)], "drawing.svg", { type: "image/svg+xml" }) : null;
    this.onDrawn(file, strokes);
  }
}
