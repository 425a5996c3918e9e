// Keeps the picture of an embedded plot up to date, and as large as its frame.
"use strict";
const plot = document.getElementById("plot");
const address = new URL(plot.src);
function draw() {
  if (document.hidden) return;
  address.searchParams.set("width", Math.max(240, Math.round(window.innerWidth)));
  address.searchParams.set("height", Math.max(120, Math.round(window.innerHeight)));
  address.searchParams.set("at", Math.floor(Date.now() / 10000));
  const next = new Image();
  // Shown once it is there: a picture that fails leaves the last one.
  next.onload = () => { plot.src = next.src; };
  next.src = address.href;
}
let resized;
window.addEventListener("resize", () => { clearTimeout(resized); resized = setTimeout(draw, 200); });
document.addEventListener("visibilitychange", draw);
setInterval(draw, 10000);
draw();
