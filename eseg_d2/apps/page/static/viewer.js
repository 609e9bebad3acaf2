"use strict";
// Names of files and classes only ever become textContent.
const find = (id) => document.getElementById(id);
const make = (tag, className, text) => {
  const node = document.createElement(tag);
  node.className = className;
  if (text !== undefined) node.textContent = text;
  return node;
};
const percent = (share) => (100 * share).toFixed(share < 0.1 ? 1 : 0) + " %";
const image = find("image"), canvas = find("overlay"), stage = find("stage");
const tip = find("tip"), cross = find("cross"), tabs = document.querySelectorAll("#tabs button");
let start = {}, result = null, current = "", ids = {}, picked = null, asking = null;

// Requests. A new one takes the place of the one under way: its answer is no longer of interest.

function say(text, kind = "") {
  find("status").textContent = text;
  find("status").hidden = !text;
  find("status").className = kind;
}

async function ask(path, body, text, use) {
  asking?.abort();
  const own = (asking = new AbortController());
  say(text, "busy");
  try {
    const options = { method: "POST", body: body instanceof Blob ? body : JSON.stringify(body), signal: own.signal };
    const response = await fetch(path, options);
    if (!response.ok) throw new Error((await response.json()).error);
    await use(response);
    if (asking === own) say("");
  } catch (error) {
    if (asking === own) say(error instanceof TypeError ? "The server does not answer." : error.message, "bad");
  }
}

const threshold = () => Number(find("threshold").value);
const showNew = async (response) => showResult(await response.json());

function send(file) {
  if (!file) return;
  if (file.size > start.max_bytes) {
    asking?.abort();
    asking = null;
    say(file.name + " has " + (file.size / 1e6).toFixed(1) + " MB; the limit is " + start.max_bytes / 1e6 + " MB.", "bad");
    return;
  }
  const query = new URLSearchParams({ name: file.name, threshold: threshold() });
  ask("upload?" + query, file, "Looking at " + file.name + " ...", showNew);
}

async function begin() {
  start = await (await fetch("start")).json();
  find("about").textContent = start.about;
  find("hint").textContent = start.hint;
  find("score").hidden = start.threshold === null;
  find("threshold").value = start.threshold ?? 0;
  find("threshold-text").textContent = threshold().toFixed(2);
  find("examples").replaceChildren(
    ...start.examples.map(({ name, picture }, example) => {
      const button = make("button", ""), thumbnail = make("img", "");
      button.type = "button";
      thumbnail.src = picture;
      thumbnail.alt = "Example " + name;
      button.append(thumbnail);
      button.onclick = () => ask("example", { example, threshold: threshold() }, "Looking at " + name + " ...", showNew);
      return button;
    })
  );
}

// Results

async function inflate(text) {
  const bytes = Uint8Array.from(atob(text), (c) => c.charCodeAt(0));
  const stream = new Blob([bytes]).stream().pipeThrough(new DecompressionStream("deflate"));
  const words = new DataView(await new Response(stream).arrayBuffer());
  return Uint16Array.from({ length: words.byteLength / 2 }, (_, i) => words.getUint16(2 * i, true));
}

async function showResult(answer) {
  const maps = {};
  for (const [name, view] of Object.entries(answer.views)) maps[name] = await inflate(view.ids);
  const isNew = answer.token !== undefined;
  ids = maps;
  result = { ...(isNew ? {} : result), ...answer };
  if (isNew) prepare();
  show(result.views[current] || current === "context" ? current : Object.keys(result.views)[0]);
}

function prepare() {
  image.src = result.image;
  image.alt = result.name;
  canvas.width = result.width;
  canvas.height = result.height;
  stage.style.aspectRatio = result.width + " / " + result.height;
  stage.style.maxWidth = "calc(80vh * " + result.width / result.height + ")";
  cross.hidden = true;
  find("facts").textContent = result.facts;
  find("pixel").textContent = "\u00a0";
  find("scale").hidden = true;
  find("levels").replaceChildren();
  find("downloads").replaceChildren(
    ...result.downloads.map(([what, label]) => {
      const button = make("button", "button", label);
      button.type = "button";
      button.onclick = () => ask("download", { token: result.token, what, threshold: threshold() }, "Writing " + label + " ...", save);
      return button;
    })
  );
  find("result").hidden = false;
}

function show(name) {
  current = name;
  picked = null;
  for (const button of tabs) button.setAttribute("aria-pressed", button.dataset.view === name);
  const view = result.views[name];
  find("note").textContent = result.notes[name];
  find("right").hidden = !view;
  find("context").hidden = name !== "context";
  find("result").className = name === "context" ? "relation" : "";
  canvas.hidden = !view;
  tip.hidden = true;
  find("legend").replaceChildren(...(view ? legend(view) : []));
  if (view) draw();
}

function legend(view) {
  return view.legend.map((row) => {
    const item = make("li", ""), button = make("button", "");
    const swatch = make("span", "swatch");
    if (row.color) swatch.style.background = "rgb(" + row.color + ")";
    const count = row.count === null ? "" : " \u00d7 " + row.count;
    button.append(swatch, make("span", "", row.name + count), make("span", "share", percent(row.share)));
    button.type = "button";
    button.setAttribute("aria-pressed", "false");
    button.title = "Show this alone";
    button.onclick = () => {
      picked = picked === row.class_id ? null : row.class_id;
      for (const other of document.querySelectorAll("#legend button"))
        other.setAttribute("aria-pressed", other === button && picked !== null);
      draw();
    };
    item.append(button);
    return item;
  });
}

function draw() {
  const view = result.views[current], map = ids[current], width = canvas.width;
  const context = canvas.getContext("2d"), pixels = context.createImageData(width, canvas.height);
  const out = new Uint32Array(pixels.data.buffer);
  const colors = view.segments.map(({ color, class_id }) =>
    color && (picked === null || picked === class_id)
      ? (255 << 24) | (color[2] << 16) | (color[1] << 8) | color[0] : 0);
  const edge = 0xffffffff | 0;
  for (let i = 0; i < map.length; i++) {
    const border = view.outlines && ((i + 1) % width && map[i] !== map[i + 1] || i + width < map.length && map[i] !== map[i + width]);
    out[i] = border && colors[map[i]] ? edge : colors[map[i]];
  }
  context.putImageData(pixels, 0, 0);
}

async function save(response) {
  const link = make("a", "");
  link.href = URL.createObjectURL(await response.blob());
  link.download = decodeURIComponent(response.headers.get("content-disposition").split("''")[1]);
  link.click();
  setTimeout(() => URL.revokeObjectURL(link.href), 60000);
}

// Context: of each level the surroundings in grey, and over them the cells that contribute

const HEAT = [[0, 0, 4], [87, 16, 110], [188, 55, 84], [249, 142, 9], [252, 255, 164]]; // inferno

function heat(share) {
  const place = Math.min(share, 0.999) * (HEAT.length - 1), low = Math.floor(place);
  const color = HEAT[low].map((value, i) => value + (place - low) * (HEAT[low + 1][i] - value));
  return "rgb(" + color.join(" ") + " / " + 0.85 * Math.sqrt(share) + ")";
}

function drawLevel({ cells, cell, window: [top, bottom, left, right] }, [row, column]) {
  const picture = make("canvas", ""), scale = 640 / (right - left);
  picture.width = 640;
  picture.height = Math.max(Math.round((bottom - top) * scale), 1);
  const context = picture.getContext("2d");
  context.drawImage(image, left, top, right - left, bottom - top, 0, 0, picture.width, picture.height);
  context.globalCompositeOperation = "saturation";
  context.fillStyle = "grey";
  context.fillRect(0, 0, picture.width, picture.height);
  context.globalCompositeOperation = "source-over";
  const largest = Math.max(...cells.map((one) => one[2]));
  for (const [i, j, share] of cells) {
    context.fillStyle = heat(share / largest);
    context.fillRect((j * cell[1] - left) * scale, (i * cell[0] - top) * scale, cell[1] * scale, cell[0] * scale);
  }
  const x = (column + 0.5 - left) * scale, y = (row + 0.5 - top) * scale;
  for (const [color, width] of [["black", 6], ["cyan", 3]]) {
    context.beginPath();
    context.arc(x, y, 8, 0, 7);
    context.strokeStyle = color;
    context.lineWidth = width;
    context.stroke();
  }
  return [picture, largest];
}

async function showContext(response) {
  const { levels, pixel } = await response.json();
  find("scale").hidden = false;
  find("levels").replaceChildren(
    ...levels.map((level) => {
      const [picture, largest] = drawLevel(level, pixel), figure = make("figure", "");
      figure.append(make("figcaption", "", level.text + ", the largest share " + percent(largest)), picture);
      return figure;
    })
  );
}

// Pixels

function locate(event) {
  const box = stage.getBoundingClientRect();
  const x = (event.clientX - box.left) / box.width, y = (event.clientY - box.top) / box.height;
  const column = Math.min(Math.max(Math.floor(x * result.width), 0), result.width - 1);
  const row = Math.min(Math.max(Math.floor(y * result.height), 0), result.height - 1);
  return { x, y, row, column };
}

function describe({ row, column }) {
  const view = result.views[current];
  return view ? view.segments[ids[current][row * result.width + column]].text : "";
}

function point(event) {
  const place = locate(event), text = describe(place);
  tip.textContent = text;
  tip.hidden = !text;
  tip.style.left = place.x * 100 + "%";
  tip.style.top = place.y * 100 + "%";
  tip.style.transform = "translate(" + (place.x > 0.5 ? "calc(-100% - 10px)" : "12px") + ", " + (place.y > 0.5 ? "calc(-100% - 10px)" : "12px") + ")";
  return place;
}

stage.addEventListener("pointermove", (event) => event.pointerType === "mouse" && point(event));
stage.addEventListener("pointerleave", (event) => event.pointerType === "mouse" && (tip.hidden = true));
stage.addEventListener("click", (event) => {
  const place = point(event), text = describe(place);
  cross.hidden = false;
  cross.style.left = place.x * 100 + "%";
  cross.style.top = place.y * 100 + "%";
  find("pixel").textContent = "Row " + place.row + ", column " + place.column + (text ? ": " + text : "");
  if (current === "context" && start.has_context)
    ask("context", { token: result.token, row: place.row, column: place.column }, "Following the pixel's relations ...", showContext);
});

// Controls

for (const button of tabs) button.onclick = () => show(button.dataset.view);
find("opacity").oninput = (event) => {
  canvas.style.opacity = event.target.value / 100;
  find("opacity-text").textContent = event.target.value + " %";
};
canvas.style.opacity = 0.6;
find("threshold").oninput = () => (find("threshold-text").textContent = threshold().toFixed(2));
find("threshold").onchange = () =>
  ask("views", { token: result.token, threshold: threshold() }, "Merging again ...", showNew);
find("file").onchange = (event) => {
  send(event.target.files[0]);
  event.target.value = "";
};
for (const name of ["dragover", "dragleave", "drop"])
  document.addEventListener(name, (event) => {
    event.preventDefault();
    find("drop").classList.toggle("over", name === "dragover");
    if (name === "drop") send(event.dataTransfer.files[0]);
  });
document.addEventListener("paste", (event) => send(event.clipboardData.files[0]));

begin().catch(() => say("The server does not answer.", "bad"));
