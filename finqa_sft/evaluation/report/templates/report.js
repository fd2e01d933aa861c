"use strict";

(() => {
  const byId = (id) => document.getElementById(id);
  const questions = [...document.querySelectorAll("details.question")];
  const search = byId("search");
  const filters = [...document.querySelectorAll('input[name="filter"]')];

  // The texts that are searched, in lower case, each made when it is first needed.
  const texts = new Map();
  const text = (key, read) => {
    if (!texts.has(key)) texts.set(key, read().toLowerCase().replace(/\s+/g, " "));
    return texts.get(key);
  };
  const ownText = (question) =>
    [...question.querySelectorAll("[data-text]")].map((part) => part.textContent).join(" ");
  const grouped = (number) => number.toLocaleString("en");
  const template = (question) => byId(question.dataset.document);

  const holds = (question, words) => {
    const own = text(question, () => ownText(question));
    const page = template(question);
    const shown = text(page, () => page.content.textContent);
    return words.every((word) => own.includes(word) || shown.includes(word));
  };

  const show = () => {
    const [key, value] = filters.find((filter) => filter.checked).value.split("=");
    const words = search.value.toLowerCase().split(/\s+/).filter(Boolean);
    let count = 0;
    for (const question of questions) {
      const shown = (!key || question.dataset[key] === value) && holds(question, words);
      question.hidden = !shown;
      count += shown;
    }
    byId("count").textContent = `${grouped(count)} of ${grouped(questions.length)} questions`;
    byId("nothing").hidden = count > 0;
  };

  const choose = (value) => {
    filters.find((filter) => filter.value === value).checked = true;
    search.value = "";
    show();
  };

  const tag = (part, name) => {
    part.classList.add(name);
    const label = document.createElement("span");
    label.className = `tag ${name}`;
    label.textContent = name;
    const place =
      part instanceof HTMLTableElement ? part.createCaption() :
      part instanceof HTMLTableRowElement ? part.cells[0] : part;
    place.prepend(label, " ");
  };

  // A place is the index of a block, or of a block and a row: "4" or "4.2".
  const find = (page, place) => {
    const [block, row] = place.split(".");
    const part = page.querySelector(`[data-b="${block}"]`);
    return row === undefined || !part ? part : part.querySelector(`[data-r="${row}"]`);
  };

  const openDocument = (question) => {
    const side = question.querySelector(".side");
    if (!side || side.childElementCount) return;
    side.append(byId("side").content.cloneNode(true));
    const page = side.querySelector(".page");
    page.append(template(question).content.cloneNode(true));
    for (const name of ["used", "gold"]) {
      for (const place of question.dataset[name].split(" ").filter(Boolean)) {
        const part = find(page, place);
        if (part) tag(part, name);
      }
    }
    // What scrolls is reached by the keyboard.
    for (const box of question.querySelectorAll(".wide, pre")) box.tabIndex = 0;
    const first = page.querySelector(".gold") || page.querySelector(".used");
    if (first) {
      const distance = first.getBoundingClientRect().top - page.getBoundingClientRect().top;
      page.scrollTop = distance - page.clientHeight / 3;
    }
  };

  const goToHash = () => {
    const question = byId(location.hash.slice(1));
    if (!questions.includes(question)) return;
    if (question.hidden) choose("");
    question.open = true;
    question.scrollIntoView();
    question.querySelector("summary").focus({ preventScroll: true });
  };

  // Up and down go from one question that is shown to the next.
  const step = (event) => {
    const question = event.target.closest("details.question");
    if (!event.target.matches(".question > summary") || !/^Arrow(Up|Down)$/.test(event.key)) return;
    const shown = questions.filter((other) => !other.hidden);
    const next = shown[shown.indexOf(question) + (event.key === "ArrowDown" ? 1 : -1)];
    if (next) next.querySelector("summary").focus();
    event.preventDefault();
  };

  let waiting = 0;
  search.addEventListener("input", () => {
    clearTimeout(waiting);
    waiting = setTimeout(show, 120);
  });
  for (const filter of filters) filter.addEventListener("change", show);
  for (const button of document.querySelectorAll("button[data-filter]")) {
    button.addEventListener("click", () => {
      choose(button.dataset.filter);
      byId("questions").scrollIntoView();
      filters.find((filter) => filter.checked).focus({ preventScroll: true });
    });
  }
  const list = byId("list");
  // The event does not bubble.
  list.addEventListener("toggle", (event) => event.target.open && openDocument(event.target), true);
  list.addEventListener("keydown", step);
  window.addEventListener("hashchange", goToHash);
  document.documentElement.classList.add("scripted");
  // A browser that goes back to the page fills in what was searched for.
  show();
  goToHash();
})();
