// Dark, light, or as the system has it. It is no module, so that it runs before anything is drawn.
"use strict";

{
  const themes = ["system", "light", "dark"];
  const words = { system: "as the system", light: "light", dark: "dark" };
  const attempt = (use) => {
    try {
      return use();
    } catch {
      return null; // This browser keeps nothing.
    }
  };
  const stored = attempt(() => localStorage.getItem("chairlift.theme"));
  let theme = themes.includes(stored) ? stored : "system";

  const show = () => {
    document.documentElement.dataset.theme = theme;
    const button = document.getElementById("theme-button");
    if (!button) return;
    button.querySelector(".unseen").textContent = `Theme: ${words[theme]}`;
    button.title = `Theme: ${words[theme]}`;
  };

  show();
  document.addEventListener("DOMContentLoaded", () => {
    show();
    document.getElementById("theme-button").addEventListener("click", () => {
      theme = themes[(themes.indexOf(theme) + 1) % themes.length];
      attempt(() => localStorage.setItem("chairlift.theme", theme));
      show();
    });
  });
}
