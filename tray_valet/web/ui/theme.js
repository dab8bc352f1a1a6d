// The theme, before the first paint. A chosen one was written into the page by the server; for “system”
// the system is asked, now and whenever it changes its mind.
(function () {
  "use strict";
  const root = document.documentElement;
  if (root.dataset.appearance !== "system") return;
  const dark = matchMedia("(prefers-color-scheme: dark)");
  const follow = () => { root.dataset.theme = dark.matches ? "dark" : "light"; };
  follow();
  dark.addEventListener("change", follow);
})();
