"use strict";
/* Sorting, filters, the runs behind each cell, and the sliders. Texts enter the page as text nodes only. */
(() => {
  const data = JSON.parse(document.getElementById("data").textContent);
  const table = document.getElementById("cells");
  const body = table.tBodies[0];
  const columns = table.tHead.rows[0].cells.length;

  const make = (name, text, attributes = {}) => {
    const element = document.createElement(name);
    if (text !== undefined && text !== null) element.textContent = text;
    for (const [key, value] of Object.entries(attributes)) element.setAttribute(key, value);
    return element;
  };

  // Rows once, as the study orders them: what is shown is always derived from this list.
  const rows = [...body.rows].map((row, order) => ({
    row,
    order,
    cell: row.dataset.cell,
    standing: row.dataset.standing,
    texts: [...row.cells].slice(0, -1).map((cell) => cell.textContent),
    numbers: [...row.cells].slice(0, -1).map((cell) => ("number" in cell.dataset ? Number(cell.dataset.number) : null)),
    details: null,
  }));

  /* Sorting: numbers first, then words; what has no value stays last in both directions. */
  let sorting = { column: -1, direction: 1 };
  const rank = (item, column) =>
    item.numbers[column] !== null ? 0 : item.texts[column].trim() === "–" || item.texts[column] === "" ? 2 : 1;
  const compare = (left, right) => {
    const { column, direction } = sorting;
    if (column < 0) return left.order - right.order;
    const [first, second] = [rank(left, column), rank(right, column)];
    if (first !== second) return first - second;
    const found =
      first === 0
        ? left.numbers[column] - right.numbers[column]
        : left.texts[column].localeCompare(right.texts[column], undefined, { numeric: true });
    return direction * found || left.order - right.order;
  };
  const place = () => {
    const fragment = document.createDocumentFragment();
    for (const item of [...rows].sort(compare)) {
      fragment.append(item.row);
      if (item.details) fragment.append(item.details);
    }
    body.append(fragment);
  };
  [...table.tHead.rows[0].cells].slice(0, -1).forEach((head, column) => {
    const button = make("button", head.textContent, { type: "button" });
    head.replaceChildren(button);
    button.addEventListener("click", () => {
      const next = sorting.column !== column ? 1 : sorting.direction === 1 ? -1 : 0;
      sorting = next ? { column, direction: next } : { column: -1, direction: 1 };
      for (const other of table.tHead.rows[0].cells) other.removeAttribute("aria-sort");
      if (next) head.setAttribute("aria-sort", next === 1 ? "ascending" : "descending");
      place();
    });
  });

  /* Filters: every word somewhere in the row, and the chosen value of each axis. */
  const form = document.getElementById("filter");
  const words = document.getElementById("words");
  const standing = document.getElementById("standing");
  const choices = [...form.querySelectorAll("select[data-column]")];
  const count = document.getElementById("count");
  const filter = () => {
    const wanted = words.value.toLowerCase().split(/\s+/).filter(Boolean);
    let shown = 0;
    for (const item of rows) {
      const text = item.texts.join("\n").toLowerCase();
      const kept =
        wanted.every((word) => text.includes(word)) &&
        (!standing.value || item.standing === standing.value) &&
        choices.every(
          (choice) => !choice.value || item.texts[choice.dataset.column] === choice.selectedOptions[0].textContent,
        );
      item.row.hidden = !kept;
      if (item.details) item.details.hidden = !kept;
      shown += kept;
    }
    count.textContent = `${shown} of ${rows.length} cells`;
  };
  const folded = document.getElementById("filters");
  folded.hidden = false;
  // A short table needs no filter, and on a telephone it comes first.
  folded.open = rows.length > 12 && matchMedia("(min-width: 40rem)").matches;
  form.addEventListener("submit", (event) => event.preventDefault());
  form.addEventListener("input", filter);
  form.addEventListener("reset", () => setTimeout(filter));
  filter();

  /* The runs behind a cell. */
  const { runs } = data;
  const list = (header, lines) => {
    const found = make("table");
    const head = found.createTHead().insertRow();
    for (const text of header) head.append(make("th", text, { scope: "col" }));
    const inside = found.createTBody();
    for (const line of lines) {
      const row = inside.insertRow();
      for (const text of line) row.append(make("td", text, String(text).length < 50 ? { class: "short" } : {}));
    }
    const wide = make("div", null, { class: "wide", role: "region", tabindex: "0", "aria-label": header.join(", ") });
    wide.append(found);
    return wide;
  };
  const duration = (seconds) => {
    if (seconds === null) return "";
    if (seconds < 120) return `${seconds} s`;
    return seconds < 7200 ? `${(seconds / 60).toFixed(1)} min` : `${(seconds / 3600).toFixed(1)} h`;
  };
  const origin = (number, label) => {
    const [name, seconds, started, where] = runs.runs[number];
    const provenance = runs.places[where];
    return [label, name, duration(seconds), started, ...provenance];
  };
  const describe = (values) => {
    const found = make("div");
    found.append(
      make("h3", "Values"),
      list(
        ["seed", "evaluation", "state", "value", "reason"],
        values.map(([seed, name, state, value, reason]) => [
          seed, runs.texts[name], runs.texts[state], value === null ? "–" : String(+value.toPrecision(8)), runs.texts[reason],
        ]),
      ),
    );
    const origins = values.flatMap(([seed, name, , , , run, before]) => [
      ...(before < 0 ? [] : [origin(before, `seed ${seed}, pre-training`)]),
      ...(run < 0 ? [] : [origin(run, `seed ${seed}, ${runs.texts[name]}`)]),
    ]);
    if (origins.length)
      found.append(
        make("h3", "Provenance"),
        list(["run", "key", "wall time", "started", ...runs.columns], origins),
      );
    const seen = new Map();
    for (const [seed, name, , , , run, , place] of values) {
      if (run < 0) continue;
      const id = `${name} ${place}`;
      if (!seen.has(id)) seen.set(id, { name, place, seeds: [] });
      seen.get(id).seeds.push(seed);
    }
    for (const { name, place: number, seeds } of seen.values()) {
      const differences = runs.differences[number];
      const of = `${runs.texts[name]}, seed ${seeds.join(", ")}`;
      found.append(make("h3", `Recipe of ${of}, against the reference`));
      if (differences === null) found.append(make("p", "There is no reference to compare it with.", { class: "note" }));
      else if (!differences.length) found.append(make("p", "No difference.", { class: "note" }));
      else found.append(list(["field", "reference", "here"], differences));
    }
    return found;
  };
  for (const item of rows) {
    const values = runs.values[item.cell];
    const button = make("button", "show", {
      type: "button", "aria-expanded": "false", "aria-label": `runs of ${item.texts.join(", ")}`,
    });
    button.addEventListener("click", () => {
      if (item.details) {
        item.details.remove();
        item.details = null;
      } else {
        const row = make("tr", null, { class: "details" });
        const cell = make("td", null, { colspan: columns });
        cell.append(describe(values));
        row.append(cell);
        item.row.after(row);
        item.details = row;
      }
      button.setAttribute("aria-expanded", String(Boolean(item.details)));
      button.textContent = item.details ? "hide" : "show";
    });
    item.row.cells[columns - 1].append(button);
  }

  /* Reconstructions: a line between two pictures of the same image. */
  const arms = document.getElementById("arms");
  if (!arms) return;
  const { images, arms: found } = data.reconstructions;
  const left = document.getElementById("left");
  const every = document.getElementById("every");
  const sliders = found.map(({ label, images: triplets }) => {
    const figure = make("figure");
    const pairs = make("div", null, { class: "pairs" });
    const slider = make("input", null, {
      type: "range", min: "0", max: "100", value: "50", class: "cut",
      "aria-label": `${label || "the only arm"}: share of each image that shows its left picture, in per cent`,
    });
    const cut = () => pairs.style.setProperty("--cut", `${slider.value}%`);
    const lefts = triplets.map((three, number) => {
      const pair = make("div", null, { class: "pair" });
      const predicted = make("img", null, { src: images[three[2]], alt: `image ${number + 1}, predicted` });
      const other = make("img", null, { class: "left" });
      pair.append(predicted, other);
      pair.addEventListener("pointermove", (event) => {
        const box = pair.getBoundingClientRect();
        slider.value = String(Math.round((100 * (event.clientX - box.left)) / box.width));
        cut();
      });
      pairs.append(pair);
      return () => {
        other.src = images[three[Number(left.value)]];
        other.alt = `image ${number + 1}, ${left.selectedOptions[0].textContent}`;
      };
    });
    slider.addEventListener("input", cut);
    figure.append(make("figcaption", label), pairs, slider);
    arms.append(figure);
    cut();
    return { slider, cut, fill: () => lefts.forEach((fill) => fill()) };
  });
  const fill = () => sliders.forEach((item) => item.fill());
  left.addEventListener("change", fill);
  every.addEventListener("input", () => {
    for (const item of sliders) {
      item.slider.value = every.value;
      item.cut();
    }
  });
  document.getElementById("view").hidden = false;
  fill();
})();
