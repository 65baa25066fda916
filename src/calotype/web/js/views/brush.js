// Paints where a picture may change: strokes on a canvas that lies over it, as large as it.

const SHARE = 0.09; // of the picture's shorter side: how broad a stroke is

export class Brush {
  #canvas;
  #last = null; // where the stroke is, in the picture's pixels

  /** `onPainted()` is called when a stroke ends. */
  constructor(canvas, { onPainted }) {
    this.#canvas = canvas;
    this.isEmpty = true;
    canvas.addEventListener("pointerdown", (event) => this.#begin(event));
    canvas.addEventListener("pointermove", (event) => this.#go(event));
    for (const end of ["pointerup", "pointercancel"]) {
      canvas.addEventListener(end, () => {
        if (this.#last) onPainted();
        this.#last = null;
      });
    }
  }

  /** Begin anew, for a picture of this size. */
  reset({ width, height }) {
    Object.assign(this.#canvas, { width, height }); // which wipes it, too
    this.isEmpty = true;
  }

  /** The mask as a PNG: white where it was painted, black elsewhere. */
  file() {
    const { width, height } = this.#canvas;
    const white = layer(width, height, "white", this.#canvas);
    const mask = layer(width, height, "black");
    mask.getContext("2d").drawImage(white, 0, 0);
    return new Promise((resolve) => mask.toBlob(resolve, "image/png"));
  }

  #begin(event) {
    event.preventDefault();
    this.#canvas.setPointerCapture(event.pointerId);
    this.#last = this.#place(event);
    this.#stroke(this.#last);
  }

  #go(event) {
    if (this.#last) this.#stroke(this.#place(event));
  }

  #stroke(to) {
    const { width, height } = this.#canvas;
    const pen = this.#canvas.getContext("2d");
    pen.strokeStyle = getComputedStyle(this.#canvas).color;
    pen.lineWidth = Math.min(width, height) * SHARE;
    pen.lineCap = pen.lineJoin = "round";
    pen.beginPath();
    pen.moveTo(this.#last.x, this.#last.y);
    pen.lineTo(to.x, to.y);
    pen.stroke();
    this.#last = to;
    this.isEmpty = false;
  }

  #place(event) {
    const box = this.#canvas.getBoundingClientRect();
    return {
      x: ((event.clientX - box.left) / box.width) * this.#canvas.width,
      y: ((event.clientY - box.top) / box.height) * this.#canvas.height,
    };
  }
}

// A canvas filled with a colour, or only where `shape` has been painted.
function layer(width, height, colour, shape = null) {
  const canvas = Object.assign(document.createElement("canvas"), { width, height });
  const pen = canvas.getContext("2d");
  if (shape) {
    pen.drawImage(shape, 0, 0);
    pen.globalCompositeOperation = "source-in";
  }
  pen.fillStyle = colour;
  pen.fillRect(0, 0, width, height);
  return canvas;
}
