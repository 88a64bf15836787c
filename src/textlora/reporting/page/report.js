for (const section of document.querySelectorAll(".mistakes")) {
  const rows = [...section.querySelectorAll("tbody tr")];
  const [wanted, truth, taken] = section.querySelectorAll("input, select");
  const output = section.querySelector("output");
  const has = (cell, label) => !label || [...cell.children].some((name) => name.textContent === label);
  const filter = () => {
    const words = wanted.value.toLowerCase().split(/\s+/).filter(Boolean);
    let shown = 0;
    for (const row of rows) {
      const [label, predicted, , text] = row.cells;
      const fits = has(label, truth.value) && has(predicted, taken.value)
        && words.every((word) => text.textContent.toLowerCase().includes(word));
      row.hidden = !fits;
      shown += fits;
    }
    output.textContent = `${shown} shown`;
  };
  for (const field of [wanted, truth, taken]) field.addEventListener("input", filter);
  section.querySelector(".filters").hidden = false;
  filter();
}
