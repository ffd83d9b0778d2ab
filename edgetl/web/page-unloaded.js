/**
 * What the page says where its modules can't be loaded, and so can't say it themselves. Not a module.
 */

addEventListener("error", ({ target }) => {
  if (!(target instanceof HTMLScriptElement)) return;
  const [what, next] =
    location.protocol === "file:"
      ? ["It was opened as a file.", "Run in its folder: python -m http.server"]
      : [
          `${target.src}, or a script that it needs, can't be read.`,
          "The server must have every file of the folder, and send .js as text/javascript.",
        ];
  const show = () => {
    const status = "The page can't be loaded.";
    const texts = { status, error: `${status}\n${what}\n${next}` };
    for (const [id, text] of Object.entries(texts)) {
      const place = /** @type {HTMLElement} */ (document.getElementById(id));
      place.textContent = text;
      place.hidden = false;
    }
  };
  if (document.readyState === "loading") addEventListener("DOMContentLoaded", show);
  else show();
}, true); // such an event does not rise from the script to the window
