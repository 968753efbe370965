// The page: what is uploaded lies with the server, what is drawn goes there after each change, so that a reload has it.

import { Api } from "./api.js";
import { brush } from "./brush.js";
import { ObjectList } from "./objects.js";
import { Result } from "./result.js";
import { setColours, Stage } from "./stage.js";

const at = (id) => document.getElementById(id);
const SAVE_AFTER = 250; // ms without a change
const NUMBERS = ["num", "seed", "steps", "guidance"];
const CHECKS = ["explain", "layers"];
const CHOICES = ["cutout", "fit"];

class App {
  objects = [];
  boxes = {};
  order = null; // as pics infer --order, by object numbers, back to front
  chosen;
  fill = 1;

  async start() {
    this.api = await Api.open();
    this.fill = this.api.page.fill;
    setColours(this.api.page.colours);
    at("model").textContent = this.api.page.model;
    at("steps").placeholder = this.api.page.steps;
    at("guidance").placeholder = this.api.page.guidance;
    this.stage = new Stage(at("stage"), this);
    this.list = new ObjectList(at("objects"), this);
    this.result = new Result(this.api);
    this.bind();
    this.showExamples();
    this.take(this.api.state, true);
    this.own = this.objects.length > 0; // something that an example would replace
    const job = this.api.state.job;
    if (job && ["queued", "running"].includes(job.state)) this.attempt(() => this.follow());
    else if (job?.state === "done") await this.showResult(job, false);
    document.body.dataset.ready = "yes";
  }

  bind() {
    const files = (input, act) =>
      at(input).addEventListener("change", async () => {
        const chosen = [...at(input).files];
        at(input).value = "";
        for (const file of chosen) await act(file);
      });
    files("background-file", (file) => this.setBackground(file));
    files("object-files", (file) => this.addObject(file));
    this.dropZone(at("object-drop"), (file) => this.addObject(file));
    this.dropZone(at("stage"), (file) => (this.background ? this.addObject(file) : this.setBackground(file)));
    for (const name of ["dragover", "drop"]) addEventListener(name, (event) => event.preventDefault());
    for (const id of [...NUMBERS, ...CHECKS, ...CHOICES]) at(id).addEventListener("change", () => this.changed());
    at("order").addEventListener("change", () => {
      const value = at("order").value;
      this.order = value === "none" ? null : value === "auto" ? "auto" : this.backToFront();
      this.orderChanged();
    });
    at("relate").addEventListener("click", () => this.relate());
    at("composite").addEventListener("click", () => this.attempt(() => this.composite()));
    at("keep").addEventListener("click", () => this.keep());
    at("cancel").addEventListener("click", () => this.attempt(() => this.api.delete("/job")));
    at("show-draw").addEventListener("click", () => this.view("draw"));
    at("show-result").addEventListener("click", () => this.view("result"));
    addEventListener("keydown", (event) => this.key(event));
  }

  dropZone(zone, act) {
    zone.addEventListener("dragover", () => zone.classList.add("over"));
    for (const name of ["dragleave", "drop"]) zone.addEventListener(name, () => zone.classList.remove("over"));
    zone.addEventListener("drop", async (event) => {
      for (const file of event.dataTransfer.files) await act(file);
    });
  }

  showExamples() {
    for (const name of this.api.page.examples) {
      const button = document.createElement("button");
      button.append(Object.assign(new Image(), { src: `/api/examples/${name}`, alt: "", loading: "lazy" }));
      button.append(name.replaceAll("_", " "));
      button.addEventListener("click", () =>
        this.attempt(async () => {
          if (this.own && !confirm("Replace what is drawn here by the example?")) return;
          this.chosen = undefined;
          this.take(await this.busy("reading the example", this.api.post(`/examples/${name}`)), true);
          this.own = false;
          this.view("draw");
        }),
      );
      at("example-list").append(button);
    }
  }

  // Take what the server has; drawn: boxes, order and settings as well, else they are as the page has them.
  take(state, drawn = false) {
    this.background = state.background;
    this.kept = state.kept;
    this.objects = state.objects;
    if (drawn) {
      const { boxes, order, ...settings } = state.drawing;
      this.boxes = boxes;
      this.order = order;
      for (const name of NUMBERS) at(name).value = settings[name] ?? "";
      for (const name of CHOICES) at(name).value = settings[name];
      for (const name of CHECKS) at(name).checked = settings[name];
    }
    const numbers = this.objects.map((each) => each.number);
    for (const number of Object.keys(this.boxes)) if (!numbers.includes(Number(number))) delete this.boxes[number];
    if (!numbers.includes(this.chosen)) this.chosen = numbers.find((number) => !this.boxes[number]) ?? numbers[0];
    this.redraw();
  }

  redraw() {
    const back = this.background;
    this.stage.show(back && this.api.url(`/background?version=${back.version}`), back?.size);
    this.stage.draw();
    this.list.draw();
    this.list.update();
    at("keep").disabled = !back;
    at("ordering").hidden = this.objects.length < 2;
    at("order").value = this.order === null ? "none" : this.order === "auto" ? "auto" : "listed";
    for (const [id, k] of [["relation-a", 0], ["relation-b", 1]]) {
      const options = this.objects.map((each) => new Option(`${each.number} ${each.label}`, each.number));
      at(id).replaceChildren(...options);
      at(id).selectedIndex = Math.min(k, options.length - 1);
    }
    this.tip();
  }

  tip() {
    const without = this.objects.find((each) => !this.boxes[each.number]);
    let text = "";
    if (!this.background) text = "";
    else if (!this.objects.length) text = "Now drop objects: pictures of one thing each, with alpha, on a plain ground, or photographs.";
    else if (without) text = `Draw a box for object ${without.number}, ${without.label}: drag over the picture.`;
    else text = "Drag boxes to move them, handles to resize; arrow keys move the chosen one.";
    if (this.background && this.fill < 1 && this.objects.length) text += ` This model's objects take the middle ${Math.round(this.fill * 100)} % of their boxes; the rest is for shadows.`;
    at("tip").textContent = text;
  }

  // What a composite lacks, in the words of the page: the command's speak of its options.
  missing() {
    const without = this.objects.find((each) => !this.boxes[each.number]);
    if (!this.background) return "error: there is no background\n\nhint: drop one, or take an example";
    if (!this.objects.length) return "error: there is no object\n\nhint: drop a picture of one";
    if (without) return `error: object ${without.number}, ${without.label}, has no box\n\nhint: drag one over the picture, or write its numbers`;
    return "";
  }

  backToFront() {
    const numbers = this.objects.map((each) => each.number);
    if (!Array.isArray(this.order)) return numbers.reverse();
    const listed = this.order.filter((number) => numbers.includes(number));
    return [...listed, ...numbers.filter((number) => !listed.includes(number))];
  }

  choose(number) {
    if (this.chosen === number) return;
    this.chosen = number;
    this.list.update();
    this.stage.draw();
  }

  cutUrl(object) {
    return this.api.url(`/objects/${object.number}/cut?version=${object.version}`);
  }

  boxChanged(number, finished) {
    this.list.update();
    if (!finished) return;
    this.stage.draw();
    const next = this.objects.find((each) => !this.boxes[each.number]);
    if (next) this.choose(next.number);
    this.tip();
    this.changed();
  }

  reorder(frontFirst) {
    this.order = frontFirst.reverse();
    this.orderChanged();
  }

  orderChanged() {
    this.redraw();
    this.changed();
  }

  // a in b: b's front hides a. a on b, a before b: a hides b.
  relate() {
    const [a, b] = [Number(at("relation-a").value), Number(at("relation-b").value)];
    if (a === b) return this.fail(new Error("error: an object is in no relation to itself\n\nhint: choose another one"));
    const order = this.backToFront().filter((number) => number !== a);
    order.splice(order.indexOf(b) + (at("relation").value === "in" ? 0 : 1), 0, a);
    this.order = order;
    this.orderChanged();
  }

  key(event) {
    const steps = { ArrowLeft: [-1, 0], ArrowRight: [1, 0], ArrowUp: [0, -1], ArrowDown: [0, 1] };
    const step = steps[event.key];
    const box = this.boxes[this.chosen];
    if (!step || !box || event.target !== document.body || at("draw").hidden) return;
    event.preventDefault();
    const far = event.shiftKey ? 10 : 1;
    for (const k of [0, 1]) {
      box[k] = Math.min(Math.max(box[k] + step[k] * far, 0), Math.max(this.background.size[k] - box[k + 2], 0));
    }
    this.boxChanged(this.chosen, true);
  }

  drawing() {
    const number = (id) => (at(id).value === "" ? null : Number(at(id).value));
    return JSON.stringify({
      boxes: this.boxes,
      order: this.order,
      num: number("num") ?? 1,
      seed: number("seed") ?? 0,
      steps: number("steps"),
      guidance: number("guidance"),
      ...Object.fromEntries(CHOICES.map((name) => [name, at(name).value])),
      ...Object.fromEntries(CHECKS.map((name) => [name, at(name).checked])),
    });
  }

  changed() {
    this.own = true;
    clearTimeout(this.saving);
    this.saving = setTimeout(() => this.attempt(() => this.save()), SAVE_AFTER);
  }

  // One at a time, so that the last is what the server has.
  async save() {
    clearTimeout(this.saving);
    const before = this.objects.map((each) => each.version).join();
    const state = await this.api.put("/drawing", this.drawing());
    if (state.objects.map((each) => each.version).join() !== before) this.take(state);
  }

  setBackground(file) {
    return this.attempt(async () => {
      this.take(await this.busy(`reading ${file.name}`, this.api.upload("PUT", "/background", file)));
      this.view("draw");
    });
  }

  addObject(file) {
    return this.attempt(async () => {
      const state = await this.busy(`cutting out ${file.name}`, this.api.upload("POST", "/objects", file));
      this.own = true;
      this.chosen = this.objects.some((each) => !this.boxes[each.number]) ? this.chosen : undefined;
      this.take(state);
      this.view("draw");
    });
  }

  remove(number) {
    return this.attempt(async () => this.take(await this.api.delete(`/objects/${number}`)));
  }

  correct(number) {
    return this.attempt(async () => {
      const object = this.objects.find((each) => each.number === number);
      const path = (what) => this.api.url(`/objects/${number}/${what}?version=${object.version}`);
      const strokes = await brush({
        title: `Cut-out of ${object.label}`,
        picture: path("picture"),
        cut: path("cut"),
        strokes: object.corrected ? path("strokes") : null,
      });
      if (strokes === undefined) return;
      const place = `/objects/${number}/strokes`;
      const sent = strokes ? this.api.put(place, strokes) : this.api.delete(place);
      this.take(await this.busy("correcting the cut-out", sent));
    });
  }

  keep() {
    return this.attempt(async () => {
      const strokes = await brush({
        title: "What stays in front of the objects",
        picture: this.api.url(`/background?version=${this.background.version}`),
        cut: null,
        strokes: this.keptUrl(),
        erases: true,
      });
      if (strokes === undefined) return;
      this.take(await (strokes ? this.api.put("/kept", strokes) : this.api.delete("/kept")));
    });
  }

  keptUrl() {
    return this.kept ? this.api.url(`/kept?version=${this.kept}`) : null;
  }

  async composite() {
    const missing = this.missing();
    if (missing) throw new Error(missing);
    clearTimeout(this.saving);
    this.take(await this.api.post("/composite", this.drawing()));
    await this.follow();
  }

  async follow() {
    this.running(true);
    try {
      for (;;) {
        const job = await this.api.get("/job");
        at("progress").value = job.share;
        if (job.state === "queued" && job.ahead) this.say(`waiting: ${job.ahead} before you in the queue`);
        else this.say(job.detail || "starting");
        if (job.state === "done") return await this.showResult(job, true);
        if (job.state === "cancelled") return this.say("cancelled");
        if (job.state === "failed") {
          this.say("");
          throw new Error(job.error);
        }
      }
    } finally {
      this.running(false);
    }
  }

  running(is) {
    at("composite").disabled = is;
    at("cancel").hidden = !is;
    at("progress").hidden = !is;
  }

  async showResult(job, look) {
    at("show-result").disabled = false;
    const back = this.background;
    const stem = back.label.replace(/\.[^.]*$/, "") || "picture";
    if (look) {
      this.view("result");
      document.querySelector(".picture").scrollIntoView({ block: "start" });
    }
    await this.result.show(job, this.api.url(`/background?version=${back.version}`), back.size, stem);
    if (look) this.say("done");
    document.body.dataset.shown = job.number;
  }

  view(which) {
    for (const name of ["draw", "result"]) {
      at(name).hidden = name !== which;
      at(`show-${name}`).setAttribute("aria-pressed", String(name === which));
    }
    if (which === "result") this.result.setZoom(this.result.zoom);
  }

  async attempt(act) {
    at("error").hidden = true;
    try {
      return await act();
    } catch (error) {
      this.fail(error);
    }
  }

  async busy(words, promise) {
    this.say(`${words} …`);
    try {
      return await promise;
    } finally {
      this.say("");
    }
  }

  say(text) {
    if (at("status").textContent !== text) at("status").textContent = text;
  }

  fail(error) {
    at("error").textContent = error.message;
    at("error").hidden = false;
    at("error").scrollIntoView({ block: "nearest" });
  }
}

const app = new App();
app.start().catch((error) => app.fail(error));
