// Pictures in a row, each with its words, to be clicked.
const list = element.querySelector("ul");

function draw() {
  const value = props.value || [];
  element.querySelector(".strip").hidden = !value.length;
  list.replaceChildren(
    ...value.map((one, index) => {
      const entry = document.createElement("li");
      const button = document.createElement("button");
      const image = document.createElement("img");
      const words = document.createElement("span");
      button.type = "button";
      image.src = one.image.url;
      image.alt = "";
      words.textContent = one.words;
      button.title = one.words;
      button.append(image, words);
      button.addEventListener("click", () => trigger("select", { index }));
      entry.append(button);
      return entry;
    }),
  );
}

watch("value", draw);
draw();
