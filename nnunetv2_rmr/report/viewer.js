"use strict";
// Three planes of several volumes with one cursor. Voxels come as gzipped bytes, x fastest, axes to the patient's left,
// back and head (LPS); planes are drawn in radiological convention, so the patient's right is on the left.
const PLANES = [ // u goes right and v down on the screen, w through it; letters: left, right, top, bottom
  { name: "axial", u: 0, v: 1, w: 2, up: false, letters: "RLAP" },
  { name: "coronal", u: 0, v: 2, w: 1, up: true, letters: "RLSI" },
  { name: "sagittal", u: 1, v: 2, w: 0, up: true, letters: "APSI" },
];

function element(tag, properties = {}, ...children) {
  const made = Object.assign(document.createElement(tag), properties);
  made.append(...children);
  return made;
}

async function unpack(id) {
  const text = atob(document.getElementById(id).textContent);
  const bytes = new Uint8Array(text.length);
  for (let i = 0; i < text.length; i++) bytes[i] = text.charCodeAt(i);
  const stream = new Blob([bytes]).stream().pipeThrough(new DecompressionStream("gzip"));
  return new Uint8Array(await new Response(stream).arrayBuffer());
}

const apply = (matrix, p) => matrix.slice(0, 3).map((row) => row[0] * p[0] + row[1] * p[1] + row[2] * p[2] + row[3]);
const clamp = (value, low, high) => Math.min(high, Math.max(low, value));
const colour = (hex) => [1, 3, 5].map((i) => parseInt(hex.slice(i, i + 2), 16));

// what ImageData holds for each of the 256 bytes, as one number in this machine's byte order
function pixelTable(pixelOf) {
  const pixels = new Uint8ClampedArray(1024);
  for (let byte = 0; byte < 256; byte++) pixels.set(pixelOf(byte), 4 * byte);
  return new Uint32Array(pixels.buffer);
}

class Viewer {
  constructor(root) {
    this.root = root;
    this.facts = JSON.parse(root.querySelector(".facts").textContent);
    this.voxels = new Map(); // volume id -> bytes, of the study that is shown
    this.windows = new Map(); // case and image -> [low, high]
    this.hidden = new Set(); // images that are switched off
    this.colours = Object.fromEntries(Object.entries(this.facts.colours).map(([v, hex]) => [v, colour(hex)]));
    this.build();
    this.open(0);
  }

  build() {
    const redraw = () => this.draw();
    this.chooser = element("select", { className: "study" });
    this.facts.studies.forEach((s, i) => this.chooser.append(element("option", { value: i, textContent: s.title })));
    this.chooser.onchange = () => this.open(Number(this.chooser.value));
    this.fill = element("select", { className: "fill", onchange: redraw });
    this.outline = element("select", { className: "outline", onchange: redraw });
    this.shown = element("input", { type: "checkbox", className: "overlay", checked: true, onchange: redraw });
    this.opacity = element("input", { type: "range", className: "opacity", min: 0, max: 100, value: 45, oninput: redraw });
    this.smooth = element("input", { type: "checkbox", className: "smooth", checked: true, onchange: redraw });
    this.size = element("input", { type: "range", className: "size", min: 100, max: 700, oninput: () => this.layout() });
    this.images = element("span", { className: "images" });
    this.legend = element("span", { className: "legend" });
    for (const [value, name] of Object.entries(this.facts.labels)) {
      const swatch = element("span", { className: "swatch" });
      swatch.style.background = this.facts.colours[value];
      this.legend.append(swatch, name);
    }
    this.sliders = PLANES.map((plane) => element("input", { type: "range", min: 0, className: `slice ${plane.name}`,
      oninput: (event) => { this.cursor[plane.w] = Number(event.target.value); this.draw(); } }));
    this.cells = element("div", { className: "cells" });
    this.status = element("p", { className: "status", ariaLive: "off" });
    this.caption = element("p", { className: "caption" });
    const label = (text, input) => element("label", {}, text + " ", input);
    const slices = element("div", { className: "tools slices" }, ...PLANES.map((p, i) => label(p.name, this.sliders[i])));
    this.root.replaceChildren(
      element("div", { className: "tools" }, label("case", this.chooser), label("filled", this.fill),
        label("outline", this.outline), label("segmentations", this.shown), label("opacity", this.opacity),
        label("smooth", this.smooth), label("size", this.size), this.images),
      this.caption, element("div", { className: "scroll" }, this.cells), slices, this.status, this.legend,
      element("p", {}, element("small", { textContent: "Click or drag: move the cursor. Wheel or Page Up / Down: next slice. " +
        "Arrow keys: one voxel. Right mouse button or Shift and drag: window (left-right) and level (up-down). " +
        "Radiological convention: the patient's right is on the left." })));
  }

  async open(index) {
    const study = this.facts.studies[index];
    const ids = [...study.images, ...study.segmentations].map((v) => v.data);
    this.status.textContent = "loading ...";
    this.root.dataset.ready = "no";
    const voxels = new Map();
    try {
      await Promise.all([...new Set(ids)].map(async (id) => voxels.set(id, this.voxels.get(id) ?? await unpack(id))));
    } catch (error) {
      this.status.textContent = `The volumes can not be unpacked (${error}). The viewer needs a browser of 2023 or later.`;
      return;
    }
    if (Number(this.chooser.value) !== index) return; // another one was chosen meanwhile
    const same = this.study?.case === study.case && String(this.study.size) === String(study.size);
    if (!same) this.cursor = [...study.start];
    this.voxels = voxels;
    this.study = study;
    this.caption.textContent = study.caption;
    this.offer(this.fill, study, 1);
    this.offer(this.outline, study, 0);
    PLANES.forEach((plane, i) => { this.sliders[i].max = study.size[plane.w] - 1; });
    this.images.replaceChildren(...study.images.map(({ name }) => element("label", {}, element("input", { type: "checkbox",
      checked: !this.hidden.has(name), onchange: (event) => {
        this.hidden[event.target.checked ? "delete" : "add"](name);
        this.layout();
      } }), " " + name)));
    if (!this.size.dataset.set) {
      const room = (this.cells.parentElement.clientWidth - 20) / Math.max(1, study.images.length) - 10; // bar, gaps
      this.size.value = clamp(room, 150, 420);
      this.size.dataset.set = "yes";
    }
    this.layout();
    this.root.dataset.ready = "yes";
  }

  offer(select, study, preferred) {
    const before = select.value;
    const names = study.segmentations.map((s) => s.name);
    select.replaceChildren(element("option", { value: "", textContent: "none" }),
      ...names.map((name, i) => element("option", { value: i, textContent: name })));
    const kept = before !== "" && before < names.length;
    select.value = select.dataset.set ? (kept ? before : "") : preferred < names.length ? preferred : "";
    select.dataset.set = "yes";
  }

  // a column for each image, a row for each plane; all on one scale
  layout() {
    const { study } = this;
    const images = study.images.filter(({ name }) => !this.hidden.has(name));
    const extent = study.size.map((n, axis) => n * study.spacing[axis]);
    const scale = Number(this.size.value) / Math.max(extent[0], extent[1]);
    this.cells.style.gridTemplateColumns = `repeat(${Math.max(1, images.length)}, ${this.size.value}px)`;
    this.canvases = [];
    const heads = images.map((image) => this.head(image));
    for (const plane of PLANES) {
      for (const image of images) {
        const canvas = element("canvas", { tabIndex: 0, role: "img", ariaLabel: `${image.name}, ${plane.name} plane` });
        const [width, height] = [extent[plane.u] * scale, extent[plane.v] * scale];
        canvas.style.width = `${width}px`;
        canvas.style.height = `${height}px`;
        canvas.width = Math.round(width * devicePixelRatio);
        canvas.height = Math.round(height * devicePixelRatio);
        canvas.dataset.plane = plane.name;
        canvas.dataset.image = image.name;
        this.listen(canvas, plane, image);
        this.canvases.push({ canvas, plane, image });
      }
    }
    this.cells.replaceChildren(...heads, ...this.canvases.map(({ canvas }) => canvas));
    this.draw();
  }

  window(image) {
    const key = `${this.study.case}\n${image.name}`;
    if (!this.windows.has(key)) this.windows.set(key, [...image.window]);
    return this.windows.get(key);
  }

  head(image) {
    const range = image.window[1] - image.window[0];
    const slider = (name, low, high) => element("input", { type: "range", className: name, step: range / 200,
      min: low, max: high, ariaLabel: `${name} of ${image.name}`, oninput: () => {
        const [level, width] = [head.level, head.width].map((s) => Number(s.value));
        this.window(image).splice(0, 2, level - width / 2, level + width / 2);
        this.draw();
      } });
    const head = element("div", { className: "head" });
    head.value = element("span", { className: "value" });
    head.level = slider("level", image.window[0] - range / 2, image.window[1] + range / 2);
    head.width = slider("width", range / 100, 2 * range);
    head.append(element("b", { textContent: image.name }), head.value, element("label", {}, "level ", head.level),
      element("label", {}, "width ", head.width));
    image.head = head;
    return head;
  }

  listen(canvas, plane, image) {
    const move = (event) => {
      const box = canvas.getBoundingClientRect();
      const { size } = this.study;
      const place = (part, axis) => clamp(Math.floor(part * size[axis]), 0, size[axis] - 1);
      const down = (event.clientY - box.top) / box.height;
      this.cursor[plane.u] = place((event.clientX - box.left) / box.width, plane.u);
      this.cursor[plane.v] = place(plane.up ? 1 - down : down, plane.v);
      this.draw();
    };
    const grey = (event) => {
      const limits = this.window(image);
      const step = (image.window[1] - image.window[0]) / 250;
      const width = Math.max(step, limits[1] - limits[0] + event.movementX * step);
      const level = (limits[0] + limits[1]) / 2 - event.movementY * step;
      limits.splice(0, 2, level - width / 2, level + width / 2);
      this.draw();
    };
    const step = (axis, by) => {
      this.cursor[axis] = clamp(this.cursor[axis] + by, 0, this.study.size[axis] - 1);
      this.draw();
    };
    canvas.oncontextmenu = () => false;
    canvas.onpointerdown = (event) => {
      canvas.setPointerCapture(event.pointerId);
      canvas.focus({ preventScroll: true });
      if (event.button === 0 && !event.shiftKey) move(event);
    };
    canvas.onpointermove = (event) => {
      if (event.buttons & 2 || (event.buttons & 1 && event.shiftKey)) grey(event);
      else if (event.buttons & 1) move(event);
    };
    canvas.addEventListener("wheel", (event) => {
      event.preventDefault();
      step(plane.w, -Math.sign(event.deltaY));
    }, { passive: false });
    const up = plane.up ? 1 : -1;
    const keys = { ArrowLeft: [plane.u, -1], ArrowRight: [plane.u, 1], ArrowUp: [plane.v, up], ArrowDown: [plane.v, -up],
      PageUp: [plane.w, 1], PageDown: [plane.w, -1] };
    canvas.onkeydown = (event) => {
      if (!keys[event.key]) return;
      event.preventDefault();
      step(...keys[event.key]);
    };
  }

  draw() {
    const { study, cursor } = this;
    const [nx, ny] = study.size;
    const chosen = (select) => (this.shown.checked && select.value !== "" ? this.voxels.get(study.segmentations[select.value].data) : null);
    const [filled, outlined] = [chosen(this.fill), chosen(this.outline)];
    for (const cell of this.canvases) this.drawCell(cell, filled, outlined);
    const at = cursor[0] + nx * (cursor[1] + ny * cursor[2]);
    for (const image of study.images) {
      if (!image.head) continue;
      const byte = this.voxels.get(image.data)[at];
      const value = image.low + (byte / 255) * (image.high - image.low);
      const digits = clamp(2 - Math.floor(Math.log10(image.high - image.low)), 0, 6);
      const clipped = byte === 255 ? "≥ " : byte === 0 && image.low < 0 ? "≤ " : "";
      image.head.value.textContent = clipped + value.toFixed(digits);
      const [low, high] = this.window(image);
      image.head.level.value = (low + high) / 2;
      image.head.width.value = high - low;
    }
    PLANES.forEach((plane, i) => { this.sliders[i].value = cursor[plane.w]; });
    const mm = apply(study.to_mm, cursor).map((v) => v.toFixed(1));
    const voxel = apply(study.to_file, cursor).map((v) => Math.round(v));
    const labels = study.segmentations.map((s) => {
      const value = this.voxels.get(s.data)[at];
      return `${s.name}: ${value ? this.facts.labels[value] : "–"}`;
    });
    this.status.textContent = [`mm (right, front, up): ${mm.join(", ")}`, `voxel of the file: ${voxel.join(", ")}`, ...labels].join(" · ");
    this.root.dataset.cursor = voxel.join(",");
    this.root.dataset.mm = mm.join(",");
  }

  drawCell({ canvas, plane, image }, filled, outlined) {
    const { study, cursor } = this;
    const { u, v, w, up } = plane;
    const stride = [1, study.size[0], study.size[0] * study.size[1]];
    const [nu, nv] = [study.size[u], study.size[v]];
    const index = (column, row) => cursor[w] * stride[w] + column * stride[u] + (up ? nv - 1 - row : row) * stride[v];
    const context = canvas.getContext("2d");
    context.clearRect(0, 0, canvas.width, canvas.height);
    const paint = (bytes, table, smooth) => { // table: byte -> pixel
      const pixels = new ImageData(nu, nv);
      const words = new Uint32Array(pixels.data.buffer);
      for (let row = 0, p = 0; row < nv; row++) {
        for (let column = 0, i = index(0, row); column < nu; column++, i += stride[u]) words[p++] = table[bytes[i]];
      }
      const sheet = element("canvas", { width: nu, height: nv });
      sheet.getContext("2d").putImageData(pixels, 0, 0);
      context.imageSmoothingEnabled = smooth;
      context.imageSmoothingQuality = "high";
      context.drawImage(sheet, 0, 0, canvas.width, canvas.height);
    };
    const [low, high] = this.window(image);
    const greys = pixelTable((byte) => {
      const value = image.low + (byte / 255) * (image.high - image.low);
      const grey = clamp(((value - low) / (high - low)) * 255, 0, 255);
      return [grey, grey, grey, 255];
    });
    paint(this.voxels.get(image.data), greys, this.smooth.checked);
    if (filled) {
      const alpha = Number(this.opacity.value) * 2.55;
      paint(filled, pixelTable((label) => (label ? [...this.colours[label] ?? [0, 0, 0], alpha] : [0, 0, 0, 0])), false);
    }
    const [sx, sy] = [canvas.width / nu, canvas.height / nv];
    if (outlined) this.drawOutline(context, outlined, index, nu, nv, sx, sy);
    this.drawCursor(context, canvas, (cursor[u] + 0.5) * sx, ((up ? nv - 1 - cursor[v] : cursor[v]) + 0.5) * sy);
    this.drawLetters(context, canvas, plane.letters);
  }

  // along the edges of voxels, half a line inside the label so that neighbours do not hide each other
  drawOutline(context, labels, index, nu, nv, sx, sy) {
    const thick = 1.6 * devicePixelRatio;
    const value = (column, row) => (column < 0 || row < 0 || column >= nu || row >= nv ? 0 : labels[index(column, row)]);
    for (let row = 0; row < nv; row++) {
      for (let column = 0; column < nu; column++) {
        const own = value(column, row);
        if (!own) continue;
        context.fillStyle = this.facts.colours[own];
        const [x, y] = [column * sx, row * sy];
        if (value(column - 1, row) !== own) context.fillRect(x, y, thick, sy);
        if (value(column + 1, row) !== own) context.fillRect(x + sx - thick, y, thick, sy);
        if (value(column, row - 1) !== own) context.fillRect(x, y, sx, thick);
        if (value(column, row + 1) !== own) context.fillRect(x, y + sy - thick, sx, thick);
      }
    }
  }

  drawCursor(context, canvas, x, y) {
    const gap = 6 * devicePixelRatio;
    context.strokeStyle = "#4cf";
    context.globalAlpha = 0.75;
    context.lineWidth = devicePixelRatio;
    context.beginPath();
    for (const [x1, y1, x2, y2] of [[0, y, x - gap, y], [x + gap, y, canvas.width, y], [x, 0, x, y - gap], [x, y + gap, x, canvas.height]]) {
      context.moveTo(x1, y1);
      context.lineTo(x2, y2);
    }
    context.stroke();
    context.globalAlpha = 1;
  }

  drawLetters(context, canvas, [left, right, top, bottom]) {
    const size = 12 * devicePixelRatio;
    context.font = `600 ${size}px system-ui, sans-serif`;
    context.fillStyle = "#ffd54a";
    context.textAlign = "center";
    context.textBaseline = "middle";
    const [x, y] = [canvas.width / 2, canvas.height / 2];
    context.fillText(left, size * 0.7, y);
    context.fillText(right, canvas.width - size * 0.7, y);
    context.fillText(top, x, size * 0.75);
    context.fillText(bottom, x, canvas.height - size * 0.65);
  }
}

for (const root of document.querySelectorAll(".viewer")) root.viewer = new Viewer(root);
