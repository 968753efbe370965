// A brush over a picture: green strokes add, red ones remove; they are kept apart from the picture, at its own size.

const GREEN = "rgb(0, 200, 60)";
const RED = "rgb(230, 0, 40)";
const at = (id) => document.getElementById(id);

async function load(url) {
  const image = new Image();
  image.src = url;
  await image.decode();
  return image;
}

// Show the dialog; gives a PNG of the strokes, null where there are none, or undefined where nothing is to change.
// title; picture: URL of what is dimly seen; cut: URL of what is taken of it, or null; strokes: URL of earlier ones, or
// null; erases: whether `Remove` takes strokes away instead of drawing red ones.
export async function brush({ title, picture, cut, strokes, erases = false }) {
  const [below, above, earlier] = await Promise.all([picture, cut, strokes].map((url) => url && load(url)));
  const canvas = at("brush-canvas");
  const size = [below.naturalWidth, below.naturalHeight];
  [canvas.width, canvas.height] = size;
  canvas.style.setProperty("--aspect", size[0] / size[1]);
  const layer = new OffscreenCanvas(...size);
  const paint = layer.getContext("2d", { willReadFrequently: true });
  if (earlier) paint.drawImage(earlier, 0, 0);
  const shown = canvas.getContext("2d");
  const history = [];
  let adds = true;
  let last;

  const draw = () => {
    shown.clearRect(0, 0, ...size);
    shown.globalAlpha = above ? 0.35 : 1;
    shown.drawImage(below, 0, 0);
    shown.globalAlpha = 1;
    if (above) shown.drawImage(above, 0, 0, ...size);
    shown.globalAlpha = 0.5;
    shown.drawImage(layer, 0, 0);
    shown.globalAlpha = 1;
  };
  const place = (event) => {
    const area = canvas.getBoundingClientRect();
    return [((event.clientX - area.left) / area.width) * size[0], ((event.clientY - area.top) / area.height) * size[1]];
  };
  const stroke = (to) => {
    paint.globalCompositeOperation = erases && !adds ? "destination-out" : "source-over";
    paint.strokeStyle = adds ? GREEN : RED;
    paint.lineCap = paint.lineJoin = "round";
    paint.lineWidth = (Math.max(...size) * Number(at("brush-size").value)) / 400;
    paint.beginPath();
    paint.moveTo(...last);
    paint.lineTo(...to);
    paint.stroke();
    last = to;
    draw();
  };
  const remember = () => {
    history.push(paint.getImageData(0, 0, ...size));
    if (history.length > 10) history.shift();
  };
  const tool = (value) => {
    adds = value;
    at("brush-add").setAttribute("aria-pressed", String(adds));
    at("brush-remove").setAttribute("aria-pressed", String(!adds));
  };

  const dialog = at("brush");
  at("brush-title").textContent = title;
  tool(true);
  draw();
  const listening = new AbortController();
  const on = (element, name, act) => element.addEventListener(name, act, { signal: listening.signal });
  on(canvas, "pointerdown", (event) => {
    if (event.button !== 0) return;
    canvas.setPointerCapture(event.pointerId);
    remember();
    last = place(event);
    stroke([last[0] + 0.01, last[1]]);
  });
  on(canvas, "pointermove", (event) => last && stroke(place(event)));
  for (const name of ["pointerup", "pointercancel"]) on(canvas, name, () => (last = undefined));
  on(at("brush-add"), "click", () => tool(true));
  on(at("brush-remove"), "click", () => tool(false));
  on(at("brush-undo"), "click", () => {
    const before = history.pop();
    if (before) paint.putImageData(before, 0, 0);
    draw();
  });
  on(at("brush-clear"), "click", () => {
    remember();
    paint.clearRect(0, 0, ...size);
    draw();
  });
  dialog.showModal();
  const done = await new Promise((resolve) => {
    on(at("brush-done"), "click", () => resolve(true));
    on(at("brush-leave"), "click", () => resolve(false));
    on(dialog, "cancel", () => resolve(false));
  });
  listening.abort();
  dialog.close();
  if (!done) return undefined;
  const values = paint.getImageData(0, 0, ...size).data;
  for (let k = 3; k < values.length; k += 4) if (values[k]) return layer.convertToBlob({ type: "image/png" });
  return null;
}
