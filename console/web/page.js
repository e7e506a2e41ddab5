// What the terminal in the page lacks of a console's. Loaded before Textual's script.
(() => {
  "use strict";
  const PIECE = 32768; // characters of a message; the server takes 256 KiB

  // Keys go to the terminal from the beginning, not from the first click.
  const focus = () => document.querySelector(".xterm-helper-textarea")?.focus();
  window.addEventListener("load", () => setTimeout(focus));
  window.addEventListener("focus", focus);

  // A line of a log may name an address: a click on it leads nowhere.
  window.open = () => null;

  // Ctrl+V pastes what was copied elsewhere, as in every page, and is no key.
  window.addEventListener(
    "keydown",
    (event) => {
      const alone = !event.shiftKey && !event.altKey && !event.metaKey;
      if (event.ctrlKey && alone && event.key === "v") event.stopImmediatePropagation();
    },
    true,
  );

  // A long paste goes in pieces; no sign is cut in two.
  const send = WebSocket.prototype.send;
  WebSocket.prototype.send = function (message) {
    const long = typeof message === "string" && message.length > PIECE;
    const [word, text] = long ? JSON.parse(message) : [];
    if (word !== "stdin") return send.call(this, message);
    for (let at = 0; at < text.length; ) {
      let end = Math.min(at + PIECE, text.length);
      if (end < text.length && /[\uD800-\uDBFF]/.test(text[end - 1])) end -= 1;
      send.call(this, JSON.stringify([word, text.slice(at, end)]));
      at = end;
    }
  };
})();
