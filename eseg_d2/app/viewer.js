// The body of a function that Gradio calls with element, trigger, props, upload and watch.
// props.value is a json message from the server; every request is answered by one with its serial.
// Names of files and classes only ever become textContent.
const find = (selector) => element.querySelector(selector);
const make = (tag, className, text) => {
  const node = document.createElement(tag);
  node.className = className;
  if (text !== undefined) node.textContent = text;
  return node;
};
const percent = (share) => (100 * share).toFixed(share < 0.1 ? 1 : 0) + " %";
const image = find(".eseg-image"), canvas = find(".eseg-overlay"), stage = find(".eseg-stage");
const status = find(".eseg-status"), tip = find(".eseg-tip"), cross = find(".eseg-cross");
const PATIENCE = 600000; // ms
let start = {}, result = null, current = "semantic", ids = {}, picked = null;
let busy = false, waiting = null, serial = 0, timer = null;

// requests: one at a time; of those that come meanwhile the newest is kept. Another image does not
// wait: answers to what was asked before are no longer of interest, and may never come.

function say(text, kind) {
  status.textContent = text;
  status.hidden = !text;
  status.className = "eseg-status" + (kind ? " eseg-" + kind : "");
}

function ask(event, data, text) {
  waiting = null;
  if (busy && event !== "predict") {
    waiting = [event, data, text];
    return;
  }
  clearTimeout(timer);
  busy = true;
  serial += 1;
  say(text, "busy");
  timer = setTimeout(() => receive({ kind: "error", serial, text: "The server does not answer." }), PATIENCE);
  trigger(event, { ...data, serial });
}

async function receive(message) {
  if (message.kind === "start") return begin(message);
  if (message.serial !== serial) return;
  clearTimeout(timer);
  busy = false;
  say("");
  if (message.kind === "error") say(message.text, "bad");
  if (message.kind === "result") await showResult(message);
  if (message.kind === "context") showContext(message);
  if (message.kind === "file") save(message);
  if (waiting) {
    const next = waiting;
    waiting = null;
    ask(...next);
  }
}

function begin(message) {
  start = message;
  find(".eseg-about").textContent = message.about;
  find(".eseg-hint").textContent = message.hint;
  find(".eseg-examples").replaceChildren(
    ...message.examples.map((example, index) => {
      const button = make("button", ""), picture = make("img", "");
      button.type = "button";
      picture.src = example.picture;
      picture.alt = "Example " + example.name;
      button.append(picture);
      button.onclick = () => ask("predict", { example: index }, "Looking at " + example.name + " ...");
      return button;
    })
  );
}

async function send(file) {
  if (!file) return;
  if (file.size > start.max_bytes) {
    say(file.name + " has " + (file.size / 1e6).toFixed(1) + " MB; the limit is " + start.max_bytes / 1e6 + " MB.", "bad");
    return;
  }
  say("Uploading " + file.name + " ...", "busy");
  try {
    // a name of its own: nobody else's upload of the same image is the same file
    const name = Array.from(crypto.getRandomValues(new Uint8Array(16)), (x) => x.toString(16)).join("");
    const { path } = await upload(new File([file], name));
    ask("predict", { upload: path, name: file.name }, "Looking at " + file.name + " ...");
  } catch (error) {
    say("The upload failed: " + (error.message || error), "bad");
  }
}

// results

async function inflate(text) {
  const bytes = Uint8Array.from(atob(text), (c) => c.charCodeAt(0));
  const stream = new Blob([bytes]).stream().pipeThrough(new DecompressionStream("deflate"));
  const words = new DataView(await new Response(stream).arrayBuffer());
  return Uint16Array.from({ length: words.byteLength / 2 }, (_, i) => words.getUint16(2 * i, true));
}

async function showResult(message) {
  result = message;
  ids = {};
  for (const [name, view] of Object.entries(result.views)) ids[name] = await inflate(view.ids);
  image.src = result.image;
  image.alt = result.name;
  canvas.width = result.width;
  canvas.height = result.height;
  stage.style.aspectRatio = result.width + " / " + result.height;
  stage.style.maxWidth = "calc(80vh * " + result.width / result.height + ")";
  cross.hidden = tip.hidden = true;
  find(".eseg-pixel").textContent = "\u00a0";
  find(".eseg-levels").replaceChildren();
  find(".eseg-downloads").replaceChildren(
    ...result.downloads.map(([what, label]) => {
      const button = make("button", "eseg-button", label);
      button.type = "button";
      button.onclick = () => ask("download", { token: result.token, what }, "Writing " + label + " ...");
      return button;
    })
  );
  find(".eseg-result").hidden = false;
  show(result.views[current] || current === "context" ? current : Object.keys(result.views)[0]);
}

function show(name) {
  current = name;
  picked = null;
  for (const button of element.querySelectorAll(".eseg-tabs button"))
    button.setAttribute("aria-pressed", button.dataset.view === name);
  const view = result.views[name];
  find(".eseg-note").textContent = result.notes[name];
  find(".eseg-right").hidden = !view;
  find(".eseg-levels").hidden = name !== "context";
  find(".eseg-result").classList.toggle("eseg-relation", name === "context");
  canvas.hidden = !view;
  tip.hidden = true;
  find(".eseg-legend").replaceChildren(...(view ? legend(view) : []));
  if (view) draw();
}

function legend(view) {
  return view.legend.map((row) => {
    const item = make("li", ""), button = make("button", "");
    const swatch = make("span", "eseg-swatch");
    swatch.style.background = "rgb(" + row.color + ")";
    const count = row.count === null ? "" : " \u00d7 " + row.count;
    button.append(swatch, make("span", "", row.name + count), make("span", "eseg-share", percent(row.share)));
    button.type = "button";
    button.setAttribute("aria-pressed", "false");
    button.title = "Show this class alone";
    button.onclick = () => {
      picked = picked === row.class_id ? null : row.class_id;
      for (const other of element.querySelectorAll(".eseg-legend button"))
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
  const colors = [0, ...view.segments.map(({ color, class_id }) =>
    picked === null || picked === class_id
      ? (255 << 24) | (color[2] << 16) | (color[1] << 8) | color[0] : 0)];
  const edge = 0xffffffff | 0;
  for (let i = 0; i < map.length; i++) {
    const border = view.outlines && ((i + 1) % width && map[i] !== map[i + 1] || i + width < map.length && map[i] !== map[i + width]);
    out[i] = border && colors[map[i]] ? edge : colors[map[i]];
  }
  context.putImageData(pixels, 0, 0);
}

function showContext(message) {
  find(".eseg-levels").replaceChildren(
    ...message.levels.map((level) => {
      const figure = make("figure", ""), picture = make("img", "");
      picture.src = level.picture;
      picture.alt = level.text;
      figure.append(make("figcaption", "", level.text), picture);
      return figure;
    })
  );
}

function save(message) {
  const bytes = Uint8Array.from(atob(message.content), (c) => c.charCodeAt(0));
  const link = make("a", "");
  link.href = URL.createObjectURL(new Blob([bytes], { type: message.type }));
  link.download = message.name;
  document.body.append(link);
  link.click();
  link.remove();
  setTimeout(() => URL.revokeObjectURL(link.href), 60000);
}

// pixels

function locate(event) {
  const box = stage.getBoundingClientRect();
  const x = (event.clientX - box.left) / box.width, y = (event.clientY - box.top) / box.height;
  const column = Math.min(Math.max(Math.floor(x * result.width), 0), result.width - 1);
  const row = Math.min(Math.max(Math.floor(y * result.height), 0), result.height - 1);
  return { x, y, row, column };
}

function describe({ row, column }) {
  const view = result.views[current];
  if (!view) return "";
  const index = ids[current][row * result.width + column];
  return index ? view.segments[index - 1].text : "no class";
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
  find(".eseg-pixel").textContent = "Row " + place.row + ", column " + place.column + (text ? ": " + text : "");
  if (current === "context" && result.has_context)
    ask("context", { token: result.token, row: place.row, column: place.column }, "Following the pixel's relations ...");
});

// controls

for (const button of element.querySelectorAll(".eseg-tabs button"))
  button.onclick = () => show(button.dataset.view);
find(".eseg-slider input").oninput = (event) => {
  canvas.style.opacity = event.target.value / 100;
  find(".eseg-slider output").textContent = event.target.value + " %";
};
canvas.style.opacity = 0.6;
find(".eseg-file").onchange = (event) => {
  send(event.target.files[0]);
  event.target.value = "";
};
const drop = find(".eseg-drop");
for (const name of ["dragover", "dragleave", "drop"])
  element.addEventListener(name, (event) => {
    event.preventDefault();
    drop.classList.toggle("eseg-over", name === "dragover");
    if (name === "drop") send(event.dataTransfer.files[0]);
  });
document.addEventListener("paste", (event) => {
  if (event.clipboardData.files.length) send(event.clipboardData.files[0]);
});

watch("value", () => receive(JSON.parse(props.value)));
receive(JSON.parse(props.value));
