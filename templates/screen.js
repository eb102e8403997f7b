"use strict";
(() => {
  // the contents list follows the reader
  const links = new Map([...document.querySelectorAll(".toc a")].map((a) => [a.getAttribute("href").slice(1), a]));
  const seen = new IntersectionObserver((entries) => {
    for (const entry of entries) {
      if (!entry.isIntersecting) continue;
      for (const link of links.values()) link.removeAttribute("aria-current");
      const link = links.get(entry.target.id);
      if (link) { link.setAttribute("aria-current", "true"); link.scrollIntoView({ block: "nearest" }); }
    }
  }, { rootMargin: "0px 0px -75% 0px" });
  for (const id of links.keys()) { const part = document.getElementById(id); if (part) seen.observe(part); }

  // a link into a folded section opens it
  const open = () => { const target = document.getElementById(decodeURIComponent(location.hash.slice(1))); const fold = target && (target.querySelector("details") || target.closest("details")); if (fold) { fold.open = true; target.scrollIntoView(); } };
  addEventListener("hashchange", open); open();
  addEventListener("beforeprint", () => { for (const fold of document.querySelectorAll("details")) fold.open = true; });

  // a picture enlarges, and arrow keys step through its figure
  const dialog = document.getElementById("enlarged"), stage = dialog.querySelector(".stage"), words = dialog.querySelector(".words");
  let row = [], place = 0;
  const show = () => {
    const picture = row[place], copy = picture.cloneNode(true), label = picture.nextElementSibling;
    copy.removeAttribute("tabindex"); copy.removeAttribute("loading");
    stage.replaceChildren(copy);
    words.textContent = (picture.getAttribute("alt") || picture.getAttribute("aria-label") || "") + (label ? " · " + label.textContent : "");
  };
  const enlarge = (picture) => { row = [...picture.closest("figure").querySelectorAll(".cell .picture")]; place = row.indexOf(picture); show(); dialog.showModal(); };
  for (const picture of document.querySelectorAll("figure .cell .picture")) {
    picture.tabIndex = 0;
    picture.addEventListener("click", () => enlarge(picture));
    picture.addEventListener("keydown", (event) => { if (event.key === "Enter" || event.key === " ") { event.preventDefault(); enlarge(picture); } });
  }
  dialog.addEventListener("keydown", (event) => {
    const step = { ArrowRight: 1, ArrowLeft: -1 }[event.key];
    if (step && place + step >= 0 && place + step < row.length) { place += step; show(); event.preventDefault(); }
  });
  dialog.addEventListener("click", (event) => { if (event.target === dialog) dialog.close(); });
})();
