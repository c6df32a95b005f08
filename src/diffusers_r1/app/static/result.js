// The picture before and after: drag, or use the arrow keys, to compare. Nothing is cut off.
const box = element.querySelector(".result");
const before = element.querySelector(".before");
const after = element.querySelector(".after");
const slider = element.querySelector("input[type=range]");
const caption = element.querySelector(".caption");
const strip = element.querySelector(".turns");
const [picture, plan] = element.querySelectorAll("a");

function compare() {
  after.style.clipPath = `inset(0 0 0 ${100 - slider.value}%)`;
}

function look(image, words, chosen) {
  after.src = image.url;
  caption.textContent = words;
  for (const button of strip.children) button.setAttribute("aria-pressed", String(button === chosen));
}

function turnButton(image, words, label) {
  const button = document.createElement("button");
  const small = document.createElement("img");
  const name = document.createElement("span");
  button.type = "button";
  small.src = image.url;
  small.alt = "";
  name.textContent = label;
  button.title = words;
  button.append(small, name);
  button.addEventListener("click", () => look(image, words, button));
  return button;
}

function draw() {
  const value = props.value;
  box.hidden = !value;
  if (!value) return;
  before.src = value.before.url;
  before.alt = "The picture before the edit";
  after.alt = "The picture after the edit";
  before.onload = () => box.classList.toggle("pixels", before.naturalWidth < 256);
  const several = value.turns.length > 1;
  strip.hidden = !several;
  strip.replaceChildren(
    ...(several ? value.turns.map((turn, at) => turnButton(turn.image, turn.prompt, `After turn ${at + 1}`)) : []),
  );
  look(value.after, value.words, strip.lastElementChild);
  slider.value = 100;
  compare();
  picture.href = value.picture.url;
  plan.href = value.plan.url;
  // Where the page is taller than the window, as on a phone, the result comes into view by itself.
  requestAnimationFrame(() => box.scrollIntoView({ block: "nearest" }));
}

slider.addEventListener("input", compare);
element.querySelector(".again").addEventListener("click", () => trigger("again"));
watch("value", draw);
draw();
