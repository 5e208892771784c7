// What pages do beyond links and forms: times in the reader's zone, copying, live parts, the theme.
"use strict";
(function () {
  var root = document.documentElement;
  var absolute = new Intl.DateTimeFormat(undefined, { day: "numeric", month: "short", hour: "2-digit", minute: "2-digit", second: "2-digit" });
  var UNITS = [["d", 86400], ["h", 3600], ["m", 60], ["s", 1]];

  function relative(seconds) {
    var size = Math.abs(seconds);
    if (size < 1) return "now";
    var unit = UNITS.find(function (each) { return size >= each[1]; });
    var text = Math.floor(size / unit[1]) + " " + unit[0];
    return seconds < 0 ? "in " + text : text + " ago";
  }

  function tellTimes(within) {
    within.querySelectorAll("time.when").forEach(function (time) {
      var at = new Date(time.dateTime);
      if (isNaN(at)) return;
      if (!time.firstElementChild) {
        time.textContent = "";
        time.append(document.createElement("span"), " ", document.createElement("small"));
        time.firstElementChild.textContent = absolute.format(at);
      }
      var text = relative((Date.now() - at) / 1000);
      if (time.lastElementChild.textContent !== text) time.lastElementChild.textContent = text;
    });
  }

  function say(text) { document.getElementById("told").textContent = text; }

  function copyText(text) {
    if (navigator.clipboard && window.isSecureContext) return navigator.clipboard.writeText(text);
    var area = document.createElement("textarea");  // plain http: there is no other way
    area.value = text;
    area.className = "sr";
    document.body.append(area);
    area.select();
    var done = document.execCommand("copy");
    area.remove();
    return done ? Promise.resolve() : Promise.reject(new Error("copying is not allowed"));
  }

  function copied(button, promise) {
    var said = button.querySelector(".said");
    promise.then(function () { return "Copied"; }, function () { return "Not copied"; }).then(function (text) {
      if (said) said.textContent = text;
      say(text);
      setTimeout(function () { if (said) said.textContent = ""; }, 1500);
    });
  }

  function fetched(url) {
    return fetch(url, { credentials: "same-origin" }).then(function (answer) {
      if (!answer.ok) throw new Error(String(answer.status));
      return answer.text();
    });
  }

  document.addEventListener("click", function (event) {
    var target = event.target.closest("button, a");
    if (!target) return;
    if (target.dataset.copy !== undefined) copied(target, copyText(target.dataset.copy));
    if (target.dataset.copyFrom) copied(target, fetched(target.dataset.copyFrom).then(copyText));
    if (target.dataset.themeToggle !== undefined) toggleTheme();
  });

  function toggleTheme() {
    var system = matchMedia("(prefers-color-scheme: dark)").matches ? "dark" : "light";
    var next = (root.dataset.theme || system) === "dark" ? "light" : "dark";
    root.dataset.theme = next;
    try { localStorage.setItem("hooklog-theme", next); } catch (error) { /* only for this page, then */ }
    say(next === "dark" ? "Dark theme" : "Light theme");
  }

  // Live parts: asked for while somebody can see them and is not at work in them.
  function isUsed(part) {
    var selection = getSelection();
    return part.contains(document.activeElement) || part.querySelector("details[open]") !== null ||
      (selection && !selection.isCollapsed && part.contains(selection.anchorNode));
  }
  function startLive() {
    document.querySelectorAll("[data-live]").forEach(function (part) {
      setInterval(function () {
        if (!document.hidden && !isUsed(part) && !part.querySelector("[data-ended]")) htmx.trigger(part, "tick");
      }, Number(part.dataset.live) * 1000);
    });
  }
  function trouble(text) {
    var place = document.getElementById("trouble");
    if (!place || place.textContent === text) return;
    place.textContent = text;
    place.hidden = !text;
  }
  document.addEventListener("htmx:responseError", function (event) {
    trouble("What you see is no longer live: the dashboard answered " + event.detail.xhr.status + ". It tries again by itself.");
  });
  document.addEventListener("htmx:sendError", function () {
    trouble("What you see is no longer live: the dashboard does not answer. It tries again by itself.");
  });
  document.addEventListener("htmx:afterSwap", function (event) { trouble(""); tellTimes(event.target); sayProgress(event.target); });

  // What a live part has to say aloud, once each time that it says something else.
  function sayProgress(part) {
    var saying = part.querySelector("[data-say]");
    if (saying && document.getElementById("told").textContent !== saying.dataset.say) say(saying.dataset.say);
  }

  // A box that ticks all the others of its form; and forms that are sent once.
  document.addEventListener("change", function (event) {
    var all = event.target;
    if (all.dataset.ticks) all.form.querySelectorAll("[name=" + all.dataset.ticks + "]").forEach(function (each) { each.checked = all.checked; });
  });
  document.addEventListener("submit", function (event) {
    if (event.target.dataset.once === undefined) return;
    if (event.target.dataset.sent) event.preventDefault();
    event.target.dataset.sent = "1";
  });
  window.addEventListener("pageshow", function () {
    document.querySelectorAll("[data-sent]").forEach(function (form) { delete form.dataset.sent; });
  });

  document.addEventListener("DOMContentLoaded", function () {
    root.classList.add("scripted");
    var here = document.querySelector("nav [aria-current]");
    if (here) here.scrollIntoView({ block: "nearest", inline: "center" });  // on phones the links scroll
    tellTimes(document);
    setInterval(function () { tellTimes(document); }, 5000);
    startLive();
  });
})();
