// Photos that are chosen, taken, pasted or dropped.

const $ = (id) => document.getElementById(id);

export function listenForPhotos(usePhoto, onNoFile) {
  for (const picker of document.querySelectorAll("[data-pick]")) {
    picker.addEventListener("click", () => $(picker.dataset.pick).click());
  }
  for (const id of ["file", "camera", "svg"]) {
    $(id).addEventListener("change", () => {
      const [file] = $(id).files;
      $(id).value = ""; // allows choosing the same file again
      if (file) usePhoto(file);
    });
  }
  document.addEventListener("paste", (event) => {
    const [file] = event.clipboardData?.files ?? [];
    if (!file || event.target instanceof HTMLInputElement) return;
    event.preventDefault();
    usePhoto(file);
  });
  listenForDrops(usePhoto, onNoFile);
}

function listenForDrops(usePhoto, onNoFile) {
  let depth = 0; // dragenter and dragleave fire for each element on the way
  const carriesFiles = (event) => event.dataTransfer?.types.includes("Files") ?? false;
  const cover = (entered) => {
    depth = entered;
    $("drop-cover").hidden = depth <= 0;
  };
  addEventListener("dragenter", (event) => carriesFiles(event) && cover(depth + 1));
  addEventListener("dragleave", (event) => carriesFiles(event) && cover(Math.max(0, depth - 1)));
  addEventListener("dragover", (event) => event.preventDefault());
  addEventListener("drop", (event) => {
    event.preventDefault();
    cover(0);
    const [file] = event.dataTransfer?.files ?? [];
    if (file) usePhoto(file);
    else onNoFile();
  });
}
