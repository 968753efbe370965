// A finished composite: candidates, before and after, zoom to native pixels, maps, downloads.

const at = (id) => document.getElementById(id);

export class Result {
  constructor(api) {
    this.api = api;
    this.zoom = "fit";
    at("divide").addEventListener("input", () => this.divide(Number(at("divide").value)));
    for (const button of document.querySelectorAll("[data-zoom]")) {
      button.addEventListener("click", () => this.setZoom(button.dataset.zoom));
    }
    const divider = at("divider");
    divider.addEventListener("pointerdown", (event) => {
      divider.setPointerCapture(event.pointerId);
      event.preventDefault();
    });
    divider.addEventListener("pointermove", (event) => {
      if (!divider.hasPointerCapture(event.pointerId)) return;
      const area = at("compare-area").getBoundingClientRect();
      this.divide(Math.min(Math.max(((event.clientX - area.left) / area.width) * 100, 0), 100));
    });
    this.divide(50);
    new ResizeObserver(() => this.setZoom(this.zoom)).observe(at("compare"));
  }

  divide(share) {
    at("divide").value = share;
    at("compare-area").style.setProperty("--divide", `${share}%`);
  }

  setZoom(zoom) {
    this.zoom = zoom;
    for (const button of document.querySelectorAll("[data-zoom]")) {
      button.setAttribute("aria-pressed", String(button.dataset.zoom === zoom));
    }
    if (!this.size) return;
    const [width, height] = this.size;
    const area = at("compare-area");
    area.style.setProperty("--aspect", width / height);
    const room = [at("compare").clientWidth, innerHeight * 0.7];
    const fit = Math.min(room[0] / width, room[1] / height);
    // One pixel of the picture is one of the screen's, whose scale may be another than 1.
    const scale = zoom === "fit" ? fit : Number(zoom) / devicePixelRatio;
    area.style.setProperty("--width", `${width * scale}px`);
    area.classList.toggle("pixels", zoom !== "fit");
  }

  url(path) {
    return this.api.url(`/jobs/${this.job.number}${path}`);
  }

  async show(job, before, size, stem) {
    this.job = job;
    this.size = size;
    this.stem = stem;
    at("before").src = before;
    at("candidates").replaceChildren();
    for (let k = 0; k < job.num && job.num > 1; k++) {
      const button = document.createElement("button");
      button.ariaLabel = `Candidate ${k}`;
      button.append(Object.assign(new Image(), { src: this.url(`/results/${k}`), alt: "" }));
      button.addEventListener("click", () => this.choose(k));
      at("candidates").append(button);
    }
    at("made").textContent =
      `${job.seconds.toFixed(2)} s, seed ${job.seed}; changed outside the boxes: ${job.changed} pixels` +
      (job.layers ? `; layers recombine: ${job.differing} values differ` : "");
    at("notes").replaceChildren(
      ...job.notes.map((text) => Object.assign(document.createElement("li"), { textContent: text })),
    );
    at("explained").hidden = !job.explained.length;
    at("maps").replaceChildren(
      ...job.explained.map((name) => Object.assign(new Image(), { src: this.url(`/explained/${name}`), alt: name })),
    );
    Object.assign(at("download-sample"), { href: this.url("/sample.zip"), download: `${stem}.zip` });
    at("download-layers").hidden = !job.layers;
    Object.assign(at("download-layers"), { href: this.url("/layers.zip"), download: `${stem}_layers.zip` });
    this.choose(0);
    this.setZoom(this.zoom);
    await at("after").decode().catch(() => {});
  }

  choose(candidate) {
    const url = this.url(`/results/${candidate}`);
    at("after").src = url;
    const suffix = candidate ? `_${candidate}` : "";
    Object.assign(at("download-png"), { href: url, download: `composed_${this.stem}${suffix}.png` });
    [...at("candidates").children].forEach((each, k) => each.setAttribute("aria-pressed", String(k === candidate)));
  }
}
