// The list of objects, in front first where it is in order: names, boxes in numbers, tools, dragging.

import { colour } from "./stage.js";

function make(name, properties, ...children) {
  const element = Object.assign(document.createElement(name), properties);
  element.append(...children);
  return element;
}

export class ObjectList {
  // app: as for the stage, and correct(number), remove(number), reorder(numbers, front first)
  constructor(root, app) {
    this.root = root;
    this.app = app;
  }

  numbers() {
    return [...this.root.children].map((item) => Number(item.dataset.number));
  }

  draw() {
    const frontFirst = this.app.backToFront().reverse();
    this.root.replaceChildren(...frontFirst.map((number) => this.item(number)));
  }

  // Boxes and choice alone, so that a field in use keeps its cursor.
  update() {
    for (const item of this.root.children) {
      const number = Number(item.dataset.number);
      item.classList.toggle("chosen", number === this.app.chosen);
      const box = this.app.boxes[number];
      item.querySelectorAll(".place input").forEach((field, k) => {
        if (document.activeElement !== field) field.value = box ? box[k] : "";
      });
    }
  }

  item(number) {
    const app = this.app;
    const object = app.objects.find((each) => each.number === number);
    const item = make("li", {});
    item.dataset.number = number;
    item.style.setProperty("--colour", colour(number));
    const grip = make("button", { className: "grip", textContent: "⠿", title: "Drag to the front or back", tabIndex: -1 });
    grip.setAttribute("aria-hidden", "true");
    grip.addEventListener("pointerdown", (event) => this.drag(event, item));
    const thumb = make("img", { className: "thumb", src: app.cutUrl(object), alt: `Cut-out of ${object.label}` });
    const name = make("div", { className: "name", textContent: `${number}  ${object.label}` });
    name.append(make("div", { className: "quiet", textContent: `${object.size.join("×")} ${object.method}` }));
    item.append(grip, thumb, name, this.place(number));
    const button = (text, label, act) => {
      const made = make("button", { textContent: text, ariaLabel: `${label} ${number}`, title: label });
      made.addEventListener("click", act);
      return made;
    };
    item.append(
      make(
        "div",
        { className: "tools" },
        button("Brush", "Correct the cut-out of object", () => app.correct(number)),
        button("↑", "To the front: object", () => this.shift(number, -1)),
        button("↓", "To the back: object", () => this.shift(number, 1)),
        button("Remove", "Remove object", () => app.remove(number)),
      ),
    );
    if (object.note) item.append(make("p", { className: "note", textContent: object.note }));
    if (object.error) item.append(make("p", { className: "note bad", textContent: object.error }));
    item.addEventListener("pointerdown", () => app.choose(number));
    item.addEventListener("focusin", () => app.choose(number));
    return item;
  }

  place(number) {
    const app = this.app;
    const fields = ["x", "y", "width", "height"].map((name, k) => {
      const field = make("input", { type: "number", step: 1, ariaLabel: `${name} of the box of object ${number}` });
      field.value = app.boxes[number]?.[k] ?? "";
      field.addEventListener("change", () => {
        const values = fields.map((each) => Math.round(Number(each.value)));
        if (fields.some((each) => each.value === "")) return;
        app.boxes[number] = values;
        app.boxChanged(number, true);
      });
      return field;
    });
    const labels = ["x", "y", "w", "h"].map((name, k) => make("label", {}, name, fields[k]));
    return make("div", { className: "place" }, ...labels);
  }

  shift(number, by) {
    const numbers = this.numbers();
    const from = numbers.indexOf(number);
    const to = Math.min(Math.max(from + by, 0), numbers.length - 1);
    numbers.splice(to, 0, ...numbers.splice(from, 1));
    this.app.reorder(numbers);
  }

  drag(event, item) {
    if (event.button !== 0) return;
    event.preventDefault();
    item.classList.add("dragged");
    const move = ({ clientY }) => {
      for (const other of this.root.children) {
        const area = other.getBoundingClientRect();
        if (other === item || clientY < area.top || clientY > area.bottom) continue;
        const upper = clientY < area.top + area.height / 2;
        if (upper && other.previousElementSibling !== item) other.before(item);
        if (!upper && other.nextElementSibling !== item) other.after(item);
        return;
      }
    };
    // Not by capturing the pointer: an element that is put elsewhere loses it.
    const listening = new AbortController();
    const end = () => {
      listening.abort();
      item.classList.remove("dragged");
      this.app.reorder(this.numbers());
    };
    addEventListener("pointermove", move, { signal: listening.signal });
    for (const name of ["pointerup", "pointercancel"]) addEventListener(name, end, { signal: listening.signal });
  }
}
