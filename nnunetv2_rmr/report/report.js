"use strict";
// Selectors (data-selects="label") show the parts of the page that were made for their value (data-when-label="...").
// A part inside a part of another selector is seen when both agree.
for (const select of document.querySelectorAll("select[data-selects]")) {
  const name = select.dataset.selects;
  const follow = () => {
    for (const part of document.querySelectorAll(`[data-when-${name}]`)) {
      part.hidden = part.getAttribute(`data-when-${name}`) !== select.value;
    }
  };
  select.addEventListener("change", follow);
  follow(); // a browser that goes back keeps what was chosen
}
