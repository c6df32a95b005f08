// What is being done, how far it is, and what went wrong: above the plan, never over it.
const box = element.querySelector(".status");
const words = element.querySelector(".words");
const alarm = element.querySelector(".alarm");
const bar = element.querySelector("progress");
const stop = element.querySelector("button");
let before = "idle";

function draw() {
  const value = props.value || { kind: "idle", words: "" };
  const working = value.kind === "working";
  box.dataset.kind = value.kind;
  words.textContent = value.kind === "error" ? "" : value.words;
  alarm.textContent = value.kind === "error" ? value.words : "";
  stop.hidden = bar.hidden = !working;
  if (typeof value.share === "number") bar.value = value.share;
  else bar.removeAttribute("value");
  if (value.kind !== before && ["working", "error"].includes(value.kind)) box.scrollIntoView({ block: "nearest" });
  before = value.kind;
}

stop.addEventListener("click", () => trigger("stop"));
watch("value", draw);
draw();
