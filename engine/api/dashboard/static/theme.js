// Before anything is drawn: the theme that was chosen here, if one was.
"use strict";
(function () {
  try {
    var chosen = localStorage.getItem("hooklog-theme");
    if (chosen === "dark" || chosen === "light") document.documentElement.dataset.theme = chosen;
  } catch (error) { /* no storage: the system's theme */ }
})();
