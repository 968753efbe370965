// The background with a box for each object: drawn, moved and resized with mouse, finger or keys.

const SVG = "http://www.w3.org/2000/svg";
const COLOURS = ["black"];
const SIDES = ["nw", "n", "ne", "e", "se", "s", "sw", "w"];

export const colour = (number) => COLOURS[number % COLOURS.length];
export const setColours = (colours) => COLOURS.splice(0, Infinity, ...colours.map((each) => `rgb(${each})`));

function make(name, attributes, parent) {
  const element = document.createElementNS(SVG, name);
  for (const [key, value] of Object.entries(attributes)) element.setAttribute(key, value);
  parent.append(element);
  return element;
}

export class Stage {
  // app: objects, boxes {number: [x, y, w, h]}, chosen, choose(number), boxChanged(number, finished), cutUrl(object)
  constructor(root, app) {
    this.root = root;
    this.app = app;
    this.image = root.querySelector("img");
    this.svg = root.querySelector("svg");
    this.size = [1, 1];
    this.svg.addEventListener("pointerdown", (event) => this.start(event));
    this.svg.addEventListener("pointermove", (event) => this.drag && this.move(event));
    for (const name of ["pointerup", "pointercancel"]) this.svg.addEventListener(name, () => this.end());
    new ResizeObserver(() => this.draw()).observe(root);
  }

  show(url, size) {
    this.root.classList.toggle("empty", !url);
    this.root.querySelector("p").hidden = Boolean(url);
    this.image.hidden = !url;
    if (!url) return;
    if (this.image.getAttribute("src") !== url) this.image.src = url;
    this.size = size;
    this.root.style.setProperty("--aspect", size[0] / size[1]);
    this.svg.setAttribute("viewBox", `0 0 ${size[0]} ${size[1]}`);
    this.draw();
  }

  at(event) {
    const area = this.svg.getBoundingClientRect();
    return [
      ((event.clientX - area.left) / area.width) * this.size[0],
      ((event.clientY - area.top) / area.height) * this.size[1],
    ];
  }

  start(event) {
    if (event.button !== 0) return;
    const [x, y] = this.at(event);
    const side = event.target.dataset.side;
    let number = event.target.dataset.number;
    if (number !== undefined) {
      number = Number(number);
      this.app.choose(number);
      this.drag = { kind: side ? "resize" : "move", side, number, from: [x, y], box: [...this.app.boxes[number]] };
    } else {
      const target = this.app.objects.find((each) => each.number === this.app.chosen) ?? this.app.objects[0];
      if (!target) return this.app.say("Add an object first: then draw its box.");
      this.app.choose(target.number);
      this.drag = { kind: "new", number: target.number, from: [x, y] };
    }
    this.svg.setPointerCapture(event.pointerId);
    event.preventDefault();
  }

  move(event) {
    const { kind, side, number, from, box } = this.drag;
    const [width, height] = this.size;
    const x = Math.min(Math.max(this.at(event)[0], 0), width);
    const y = Math.min(Math.max(this.at(event)[1], 0), height);
    let x0, y0, x1, y1;
    if (kind === "new") {
      if (Math.hypot(x - from[0], y - from[1]) < this.pixel * 4) return;
      [x0, x1] = [from[0], x].sort((a, b) => a - b);
      [y0, y1] = [from[1], y].sort((a, b) => a - b);
    } else if (kind === "move") {
      x0 = Math.min(Math.max(box[0] + x - from[0], 0), Math.max(width - box[2], 0));
      y0 = Math.min(Math.max(box[1] + y - from[1], 0), Math.max(height - box[3], 0));
      [x1, y1] = [x0 + box[2], y0 + box[3]];
    } else {
      [x0, y0, x1, y1] = [box[0], box[1], box[0] + box[2], box[1] + box[3]];
      if (side.includes("w")) x0 = Math.min(x, x1 - 1);
      if (side.includes("e")) x1 = Math.max(x, x0 + 1);
      if (side.includes("n")) y0 = Math.min(y, y1 - 1);
      if (side.includes("s")) y1 = Math.max(y, y0 + 1);
    }
    [x0, y0] = [Math.round(x0), Math.round(y0)];
    this.app.boxes[number] = [x0, y0, Math.max(Math.round(x1) - x0, 1), Math.max(Math.round(y1) - y0, 1)];
    this.drag.changed = true;
    this.app.boxChanged(number, false);
    this.draw();
  }

  end() {
    if (this.drag?.changed) this.app.boxChanged(this.drag.number, true);
    this.drag = undefined;
  }

  // Pixels of the background that one of the screen takes.
  get pixel() {
    return this.size[0] / Math.max(this.svg.clientWidth, 1);
  }

  draw() {
    this.svg.replaceChildren();
    const pixel = this.pixel;
    const back = this.app.backToFront().filter((number) => this.app.boxes[number]);
    for (const number of back) this.drawGhost(number);
    const kept = this.app.keptUrl();
    if (kept) make("image", { href: kept, width: this.size[0], height: this.size[1], class: "kept" }, this.svg);
    const chosen = this.app.chosen;
    for (const number of [...back.filter((each) => each !== chosen), ...back.filter((each) => each === chosen)]) {
      const [x, y, width, height] = this.app.boxes[number];
      const shown = { x, y, width, height, stroke: colour(number), "data-number": number };
      make("rect", { ...shown, class: number === chosen ? "box chosen" : "box" }, this.svg);
      const tag = { x: x + 5 * pixel, y: y + 17 * pixel, "font-size": 14 * pixel, "stroke-width": 3 * pixel, class: "tag" };
      make("text", tag, this.svg).textContent = number;
      if (number === chosen) for (const side of SIDES) this.drawHandle(number, side);
    }
  }

  drawGhost(number) {
    const object = this.app.objects.find((each) => each.number === number);
    const [x, y, width, height] = this.app.boxes[number];
    const [x0, y0, x1, y1] = object.bounds;
    const margin = (1 - this.app.fill) / 2;
    const place = {
      x: x + width * margin, y: y + height * margin, width: width * this.app.fill, height: height * this.app.fill,
      viewBox: `${x0} ${y0} ${x1 - x0} ${y1 - y0}`, class: "ghost",
    };
    const inner = make("svg", place, this.svg);
    make("image", { href: this.app.cutUrl(object), width: object.size[0], height: object.size[1] }, inner);
  }

  drawHandle(number, side) {
    const [x, y, width, height] = this.app.boxes[number];
    const size = (matchMedia("(pointer: coarse)").matches ? 18 : 11) * this.pixel;
    const across = side.includes("w") ? 0 : side.includes("e") ? 1 : 0.5;
    const down = side.includes("n") ? 0 : side.includes("s") ? 1 : 0.5;
    const place = { x: x + width * across - size / 2, y: y + height * down - size / 2, width: size, height: size };
    const handle = make("rect", { ...place, class: "handle", stroke: colour(number) }, this.svg);
    handle.dataset.number = number;
    handle.dataset.side = side;
    handle.style.cursor = `${side}-resize`;
  }
}
