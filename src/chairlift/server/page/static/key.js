// Asks for the API key.

import { byId } from "./dom.js";

/** @returns {Promise<string>} What was typed; the page can't do anything without it. */
export function askForKey(refused) {
  const dialog = byId("key-dialog");
  const input = byId("key");
  const error = byId("key-error");
  error.textContent = refused ? "The server doesn’t take this key." : "";
  input.setAttribute("aria-invalid", String(refused));
  if (!dialog.open) dialog.showModal();
  input.select();
  return new Promise((resolve) => {
    dialog.onclose = () => dialog.showModal();
    dialog.querySelector("form").onsubmit = (event) => {
      event.preventDefault();
      const key = input.value.trim();
      if (!key) {
        error.textContent = "Type the key.";
        return;
      }
      dialog.onclose = null;
      dialog.close();
      input.value = "";
      resolve(key);
    };
  });
}
