// Messages on the page, which screen readers announce: the status line, and the notice in place of results.

const $ = (id) => document.getElementById(id);

export function say(text) {
  $("status").textContent = text;
}

export function tell(title, text, actions = [], kind = "hint") {
  say("");
  $("notice").dataset.kind = kind;
  $("notice-title").textContent = title;
  $("notice-text").textContent = text;
  $("notice-actions").replaceChildren(...actions);
  $("notice").hidden = false;
}

export function hideNotice() {
  $("notice").hidden = true;
}

// Says above the results that they are the nearest, but not near.
export function showTypicality(typicality) {
  const isUnlike = typicality?.like_catalogue === false;
  $("unlike").hidden = !isUnlike;
  if (!isUnlike) return;
  const share = 100 - typicality.percentile;
  const text = `${share >= 99.9 ? "More than 99.9" : share.toFixed(1)} % of this collection's items are more typical of it`;
  const query = document.body.dataset.input === "drawings" ? "drawing" : "photo";
  $("unlike-text").textContent = `${text} than your ${query}. These are the nearest.`;
}

export function button(text, act, className = "primary") {
  const made = document.createElement("button");
  made.type = "button";
  made.className = className;
  made.textContent = text;
  made.addEventListener("click", act);
  return made;
}

export function sentence(text) {
  const begun = text.charAt(0).toUpperCase() + text.slice(1);
  return /[.!?]$/.test(begun) ? begun : `${begun}.`;
}

// Asks for an API key; resolves to null if the dialog is cancelled.
export function askForKey(refused) {
  return new Promise((resolve) => {
    const dialog = $("key-dialog");
    let key = null;
    if (refused) $("key-text").textContent = `${sentence(refused)} Try another key.`;
    $("key").value = "";
    $("key-form").onsubmit = (event) => {
      event.preventDefault();
      key = $("key").value.trim() || null;
      dialog.close();
    };
    $("key-cancel").onclick = () => dialog.close();
    dialog.onclose = () => resolve(key);
    dialog.showModal();
  });
}
