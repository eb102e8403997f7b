"use strict";
(() => {
  const root = document.documentElement;
  const all = (selector, within = document) => [...within.querySelectorAll(selector)];
  const byId = (id) => document.getElementById(id);

  // the contents list follows the reader
  const nav = document.querySelector("nav");
  const entries = new Map(all(".toc li").map((entry) => [entry.querySelector("a").getAttribute("href").slice(1), entry]));
  const follow = (id) => {
    const entry = entries.get(id);
    if (!entry) return;
    for (const other of entries.values()) {
      other.classList.toggle("here", other === entry);
      const link = other.querySelector("a");
      if (other === entry) link.setAttribute("aria-current", "true"); else link.removeAttribute("aria-current");
    }
    // the list alone moves, never the page
    const over = entry.offsetTop - nav.scrollTop;
    if (over < 0 || over > nav.clientHeight - 60) nav.scrollTop = entry.offsetTop - nav.clientHeight / 2;
  };
  const parts = [...entries.keys()].map(byId).filter(Boolean);
  const seen = new IntersectionObserver((changes) => {
    for (const change of changes) if (change.isIntersecting) follow(change.target.id);
  }, { rootMargin: "0px 0px -75% 0px" });
  for (const part of parts) seen.observe(part);

  // a link into a folded section opens it
  const folds = all(".chapter > details");
  const open = () => {
    const target = byId(decodeURIComponent(location.hash.slice(1)));
    const fold = target && (target.querySelector(":scope > details") || target.closest(".chapter > details"));
    if (fold && !fold.open) { fold.open = true; target.scrollIntoView(); }
  };
  addEventListener("hashchange", open);
  open();
  // paper shows everything, and gives the screen back as it was
  let folded = [];
  addEventListener("beforeprint", () => { folded = folds.filter((fold) => !fold.open); for (const fold of folded) fold.open = true; });
  addEventListener("afterprint", () => { for (const fold of folded) fold.open = false; });
  // on a narrow screen the contents begin folded
  if (!matchMedia("(min-width: 70rem)").matches) nav.querySelector("details").open = false;

  // view: what is shown, and how
  byId("view").hidden = false;
  const told = byId("told"), layer = byId("by-layer"), verdict = byId("by-verdict"), heat = byId("heat");
  const hide = (element, hidden) => { element.hidden = hidden; return !hidden; };
  const filter = () => {
    const exhibits = all("[data-verdict].chapter").filter((one) => {
      const shown = hide(one, verdict.value !== "" && one.dataset.verdict !== verdict.value);
      hide(entries.get(one.id), !shown);
      return shown;
    });
    for (const row of all("tr[data-verdict]")) hide(row, verdict.value !== "" && row.dataset.verdict !== verdict.value);
    const figures = all("figure[data-layers]").filter((figure) => {
      const layers = figure.dataset.layers.split("\n");
      for (const part of all("[data-layer]", figure)) hide(part, layer.value !== "" && part.dataset.layer !== layer.value);
      return hide(figure, layer.value !== "" && !layers.includes(layer.value)) && !figure.closest(".chapter").hidden;
    });
    told.textContent = layer.value || verdict.value
      ? told.dataset.told.replace("{exhibits}", exhibits.length).replace("{figures}", figures.length) : "";
  };
  layer.addEventListener("change", filter);
  verdict.addEventListener("change", filter);
  heat.addEventListener("input", () => root.style.setProperty("--heat", heat.value / 100));
  byId("fold").addEventListener("click", () => { for (const fold of folds) fold.open = false; });
  byId("unfold").addEventListener("click", () => { for (const fold of folds) fold.open = true; });
  const dark = matchMedia("(prefers-color-scheme: dark)");
  byId("theme").addEventListener("click", () => {
    const now = root.dataset.theme || (dark.matches ? "dark" : "light");
    root.dataset.theme = now === "dark" ? "light" : "dark";
  });

  // a picture enlarges, and arrow keys step through its figure; one picture of each figure is in the order of tabs
  const dialog = byId("enlarged"), stage = dialog.querySelector(".stage");
  const which = dialog.querySelector(".which"), words = dialog.querySelector(".words");
  const pictures = (figure) => all(".cell .picture", figure).filter((one) => one.getClientRects().length);
  let row = [], place = 0;
  const show = () => {
    const picture = row[place], copy = picture.cloneNode(true), label = picture.parentElement.querySelector("small");
    for (const name of ["tabindex", "loading", "aria-haspopup"]) copy.removeAttribute(name);
    if (copy.tagName === "IMG") copy.removeAttribute("role"); else copy.setAttribute("role", "img");
    copy.classList.remove("zooms");
    stage.replaceChildren(copy);
    const number = picture.closest("figure").querySelector("figcaption b").textContent;
    which.textContent = `${number} ${place + 1} / ${row.length}`;
    const alt = picture.getAttribute("alt") || picture.getAttribute("aria-label") || "";
    words.textContent = label && !alt.includes(label.textContent) ? `${alt} · ${label.textContent}` : alt;
    byId("back").disabled = place === 0;
    byId("on").disabled = place === row.length - 1;
  };
  const step = (by) => { if (row[place + by]) { place += by; show(); return true; } return false; };
  const enlarge = (picture) => { row = pictures(picture.closest("figure")); place = row.indexOf(picture); show(); dialog.showModal(); };
  const steps = { ArrowRight: 1, ArrowDown: 1, ArrowLeft: -1, ArrowUp: -1 };
  for (const figure of all("figure")) {
    all(".cell .picture", figure).forEach((picture, number) => {
      picture.classList.add("zooms");
      picture.tabIndex = number ? -1 : 0;
      picture.setAttribute("role", "button");
      picture.setAttribute("aria-haspopup", "dialog");
      picture.addEventListener("click", () => enlarge(picture));
      picture.addEventListener("keydown", (event) => {
        if (event.key === "Enter" || event.key === " ") { event.preventDefault(); enlarge(picture); return; }
        const others = pictures(figure), next = others[others.indexOf(picture) + (steps[event.key] || 0)];
        if (!(event.key in steps) || !next) return;
        event.preventDefault();
        picture.tabIndex = -1; next.tabIndex = 0; next.focus();
      });
    });
  }
  dialog.addEventListener("keydown", (event) => { if (event.key in steps && step(steps[event.key])) event.preventDefault(); });
  dialog.addEventListener("click", (event) => { if (event.target === dialog) dialog.close(); });
  dialog.addEventListener("close", () => { if (row[place]) row[place].focus(); });
  byId("back").addEventListener("click", () => step(-1));
  byId("on").addEventListener("click", () => step(1));
  byId("close").addEventListener("click", () => dialog.close());
})();
