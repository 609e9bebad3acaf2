"use strict";
// The page is complete without this: it enlarges images, reads values off curves, and folds the
// parts of a report where they would be many screens.

const narrow = matchMedia("(max-width: 40rem)").matches;
for (const part of document.querySelectorAll(".part")) part.open = !narrow || part.id === "metrics";
for (const link of document.querySelectorAll("nav a"))
  link.addEventListener("click", () => (document.querySelector(link.hash).open = true));

const viewer = document.getElementById("viewer");
let panels = [], place = 0;

function show(next) {
  place = (next + panels.length) % panels.length;
  viewer.querySelector("img").src = panels[place].src;
  viewer.querySelector("img").alt = panels[place].alt;
  viewer.querySelector("span").textContent =
    `${panels[place].dataset.caption} (${place + 1} of ${panels.length})`;
}

function open(image) {
  panels = [...image.closest(".panels").querySelectorAll("img")];
  show(panels.indexOf(image));
  viewer.showModal();
}

for (const image of document.querySelectorAll(".panels img")) {
  image.addEventListener("click", () => open(image));
  image.addEventListener("keydown", (event) => { if (event.key === "Enter") open(image); });
}
viewer.querySelector("img").addEventListener("click", () => show(place + 1));
for (const button of viewer.querySelectorAll("[data-step]"))
  button.addEventListener("click", () => show(place + Number(button.dataset.step)));
viewer.querySelector("[data-close]").addEventListener("click", () => viewer.close());
viewer.addEventListener("keydown", (event) => {
  if (event.key === "ArrowRight") show(place + 1);
  if (event.key === "ArrowLeft") show(place - 1);
});

const nearest = (samples, x) =>
  samples.reduce((a, b) => (Math.abs(b[0] - x) < Math.abs(a[0] - x) ? b : a));

for (const figure of document.querySelectorAll(".chart")) {
  const svg = figure.querySelector("svg"), readout = figure.querySelector(".readout");
  const curves = JSON.parse(figure.dataset.samples);
  svg.addEventListener("pointermove", (event) => {
    const box = svg.getBoundingClientRect();
    const x = ((event.clientX - box.left) / box.width) * svg.viewBox.baseVal.width;
    const found = curves.map(([name, samples]) => [name, nearest(samples, x)]);
    const at = nearest(found.map(([, sample]) => sample), x);
    const values = found.filter(([, sample]) => Math.abs(sample[0] - at[0]) < 8)
      .map(([name, sample]) => (curves.length > 1 ? `${name} ` : "") + sample[2]);
    readout.textContent = `iteration ${at[1]}: ${values.join(" · ")}`;
  });
}
