// The plan as a list that a person changes: a table on a desk, cards on a phone. Texts come from models and people, so
// they are only ever set as values and text, never as HTML.
const COLUMNS = [
  ["action", "Action"],
  ["subject", "Subject"],
  ["goal", "Goal"],
  ["request", "Sub-request"],
];
const list = element.querySelector("ol");
const note = element.querySelector(".note");
const said = element.querySelector(".said");
const head = element.querySelector(".head");

function make(tag, attributes = {}, ...children) {
  const node = document.createElement(tag);
  for (const [name, value] of Object.entries(attributes)) node.setAttribute(name, value);
  node.append(...children);
  return node;
}

function rows() {
  return (props.value && props.value.rows) || [];
}

// Tell the server. It answers with the same rows, in which sub-requests follow what was changed beside them. An answer to
// what has been changed again meanwhile must not undo that: changes are counted, and the server sends the count back.
let latest = props.value;

function put(changed, announcement = "") {
  latest = { ...props.value, rows: changed, changes: (latest.changes || 0) + 1 };
  props.value = latest;
  draw();
  said.textContent = announcement;
  trigger("input");
}

function change(place, field, value) {
  if (rows()[place][field] !== value) put(rows().map((row, at) => (at === place ? { ...row, [field]: value } : row)));
}

function move(place, to, button) {
  if (to < 0 || to >= rows().length) return;
  const moved = [...rows()];
  moved.splice(to, 0, ...moved.splice(place, 1));
  put(moved, `Moved to place ${to + 1} of ${moved.length}.`);
  const buttons = list.children[to].querySelectorAll(".moves button");
  const wanted = [...buttons].find((one) => one.dataset.move === button && !one.disabled);
  (wanted || [...buttons].find((one) => !one.disabled)).focus();
}

function remove(place) {
  put(rows().filter((_, at) => at !== place), `Sub-request ${place + 1} deleted.`);
  (list.children[Math.min(place, rows().length - 1)]?.querySelector("textarea") || add).focus();
}

function cell(place, [field, label]) {
  const id = `plan-${place}-${field}`;
  const area = make("textarea", { id, rows: 1, maxlength: 2000, "data-field": field, spellcheck: "false" });
  area.addEventListener("change", () => change(place, field, area.value));
  area.addEventListener("keydown", (event) => {
    if (event.key === "Enter" && !event.shiftKey) {
      event.preventDefault();
      area.blur();
    }
  });
  const name = make("label", { for: id }, label, make("span", { class: "hidden-words" }, ` of row ${place + 1}`));
  return make("div", { class: `cell ${field}` }, name, area);
}

function item(place, count) {
  const check = make("input", { type: "checkbox", id: `plan-${place}-on`, "aria-label": `Carry out row ${place + 1}` });
  check.addEventListener("change", () => change(place, "on", check.checked));
  const grip = make("span", { class: "grip", draggable: "true", title: "Drag to another place", "aria-hidden": "true" }, "⠿");
  const button = (words, sign, act, off = false, direction = "") => {
    const id = `plan-${place}-${direction}`;
    const node = make("button", { type: "button", id, "aria-label": words, title: words, "data-move": direction }, sign);
    node.disabled = off;
    node.addEventListener("click", act);
    return node;
  };
  const moves = make(
    "div",
    { class: "moves" },
    button(`Move row ${place + 1} up`, "↑", () => move(place, place - 1, "up"), place === 0, "up"),
    button(`Move row ${place + 1} down`, "↓", () => move(place, place + 1, "down"), place === count - 1, "down"),
    button(`Delete row ${place + 1}`, "✕", () => remove(place), false, "delete"),
  );
  const which = make("div", { class: "which" }, grip, check, make("span", { class: "number" }, `${place + 1}`));
  const node = make("li", {}, which, ...COLUMNS.map((column) => cell(place, column)), moves);
  grip.addEventListener("dragstart", (event) => {
    event.dataTransfer.setData("text/plain", `${place}`);
    event.dataTransfer.setDragImage(node, 12, 12);
  });
  node.addEventListener("dragover", (event) => {
    event.preventDefault();
    node.classList.add("over");
  });
  node.addEventListener("dragleave", () => node.classList.remove("over"));
  node.addEventListener("drop", (event) => {
    event.preventDefault();
    node.classList.remove("over");
    const from = Number(event.dataTransfer.getData("text/plain"));
    if (Number.isInteger(from) && from !== place) move(from, place, "up");
  });
  return node;
}

// What somebody is typing while the server answers stays.
function fill(node, row) {
  node.classList.toggle("off", !row.on);
  node.querySelector("[type=checkbox]").checked = row.on;
  for (const area of node.querySelectorAll("textarea")) {
    const typing = area === document.activeElement && area.value !== area.drawn;
    area.drawn = row[area.dataset.field];
    if (!typing) area.value = area.drawn;
  }
}

// A change is told in the middle of the click, or Tab, that leaves a cell: what is clicked must still be there then.
function draw() {
  const count = rows().length;
  if (list.children.length !== count) list.replaceChildren(...rows().map((_, place) => item(place, count)));
  rows().forEach((row, place) => fill(list.children[place], row));
  head.hidden = !rows().length;
  note.textContent = (props.value && props.value.note) || "";
  note.classList.toggle("warning", Boolean(props.value && props.value.warning));
}

const add = element.querySelector(".add");
add.addEventListener("click", () => {
  put([...rows(), { on: true, request: "", action: "", subject: "", goal: "", place: null }]);
  list.lastElementChild.querySelector("[data-field=request]").focus();
});
watch("value", () => {
  const answer = props.value;
  if (answer.changes < latest.changes) {
    props.value = latest;
    trigger("input");
    return;
  }
  latest = answer;
  draw();
});
draw();
