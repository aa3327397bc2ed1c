// Improves pages that work without it: regions that stay up to date, forms that are sent once and lose nothing, buttons
// that copy, values that disappear.
"use strict";

const LIVE_MS = 3000;
const SENT_MS = 5000;  // for so long, a form that was sent is not sent again
const main = document.getElementById("main");
let isEdited = false;  // whether somebody typed something on this page

// <section data-live id="..."> is replaced by the same region of the page as it is now, unless somebody works in it.
const sources = new Map();  // the HTML of each region as the vault sent it
for (const region of document.querySelectorAll("[data-live]")) sources.set(region.id, region.innerHTML);

async function refresh() {
  if (document.hidden) return;
  const answer = await fetch(location.href, { headers: { "X-Requested-By": "live-update" } });
  // The session has ended, or the vault is sealed: show nothing any more, but keep what somebody has typed.
  if ((answer.status === 401 || answer.redirected) && !isEdited) location.assign(location.href);
  if (!answer.ok) return;
  const page = new DOMParser().parseFromString(await answer.text(), "text/html");
  for (const region of document.querySelectorAll("[data-live]")) {
    const now = page.getElementById(region.id);
    if (now && !isUsed(region) && now.innerHTML !== sources.get(region.id)) replace(region, document.adoptNode(now));
  }
  letTablesScroll();
}

function isUsed(region) {
  const selection = getSelection();
  return region.contains(document.activeElement) || region.querySelector("details[open], [data-sent]") !== null
    || (!selection.isCollapsed && region.contains(selection.anchorNode));
}

function replace(region, now) {
  const scrolled = [...region.querySelectorAll(".table")].map((table) => table.scrollLeft);
  sources.set(region.id, now.innerHTML);
  region.replaceWith(now);
  now.querySelectorAll(".table").forEach((table, place) => { table.scrollLeft = scrolled[place] || 0; });
}

// A table that is wider than the screen can be scrolled with the keyboard. Some browsers do that by themselves.
function letTablesScroll() {
  for (const table of document.querySelectorAll(".table")) {
    if (table.scrollWidth > table.clientWidth) table.tabIndex = 0;
  }
}
letTablesScroll();

if (sources.size) setInterval(() => refresh().catch(() => {}), LIVE_MS);

// A double click sends a form once. If the session has ended, the page stays, with what was typed: after a new sign-in in
// another tab, its forms belong to that session.
main.addEventListener("input", () => { isEdited = true; });
main.addEventListener("submit", async (event) => {
  const form = event.target;
  if (form.method !== "post" || form.dataset.sent === "checked") return;
  event.preventDefault();
  if (form.dataset.sent) return;
  form.dataset.sent = "checking";
  const problem = await findProblem(form);
  form.querySelector("[data-unsent]")?.remove();
  if (problem) {
    form.prepend(Object.assign(document.createElement("p"), { className: "problem", role: "alert", textContent: problem }));
    form.firstChild.dataset.unsent = "";
    form.firstChild.scrollIntoView({ block: "nearest" });
    delete form.dataset.sent;
    return;
  }
  form.dataset.sent = "checked";
  form.requestSubmit(event.submitter);
  form.dataset.sent = "yes";
  setTimeout(() => { delete form.dataset.sent; }, SENT_MS);
});

async function findProblem(form) {
  const answer = await fetch("/dashboard/session").catch(() => null);
  if (answer === null) return "The vault does not answer. Nothing was sent.";
  if (answer.status === 401) {
    return "The session has ended, and nothing was sent. Sign in again in another tab: open a terminal and type "
      + document.body.dataset.signIn + ". Then press the button here once more.";
  }
  if (answer.ok) form.elements.csrf.value = (await answer.json()).csrf;
  return "";
}

// <button type="button" data-copy="id" hidden> copies the text of an element.
for (const button of document.querySelectorAll("[data-copy]")) {
  button.hidden = !navigator.clipboard;  // other computers have it only with HTTPS
  button.addEventListener("click", async () => {
    await navigator.clipboard.writeText(document.getElementById(button.dataset.copy).textContent);
    button.textContent = "Copied";
  });
}

// <p data-hide-after-s="30" data-instead="..."> shows a value for a while only.
for (const shown of document.querySelectorAll("[data-hide-after-s]")) {
  setTimeout(() => { shown.textContent = shown.dataset.instead; }, Number(shown.dataset.hideAfterS) * 1000);
}

// <input type="file" data-into="id" hidden> reads a text file into a field. The file itself is not sent.
for (const chooser of document.querySelectorAll("[data-into]")) {
  chooser.closest("[hidden]").hidden = false;
  chooser.addEventListener("change", async () => {
    if (chooser.files.length) document.getElementById(chooser.dataset.into).value = await chooser.files[0].text();
  });
}
