// Uploaded photos and drawings, stored in the browser under a short key, so that they survive a reload and the back button.

const STORE = "photos";
const KEEP = 20;
const KEEP_MS = 24 * 60 * 60 * 1000;
const inMemory = new Map();

function open() {
  return new Promise((resolve, reject) => {
    const opening = indexedDB.open("nitamono", 1);
    opening.onupgradeneeded = () => opening.result.createObjectStore(STORE, { keyPath: "key" });
    opening.onsuccess = () => resolve(opening.result);
    opening.onerror = () => reject(opening.error);
  });
}

async function inStore(mode, act) {
  const database = await open();
  try {
    return await new Promise((resolve, reject) => {
      const transaction = database.transaction(STORE, mode);
      const request = act(transaction.objectStore(STORE));
      transaction.oncomplete = () => resolve(request.result);
      transaction.onabort = transaction.onerror = () => reject(transaction.error);
    });
  } finally {
    database.close();
  }
}

// `strokes` are those of a drawing made on the page, which can be drawn on later.
export async function keep(file, strokes = null) {
  const key = Array.from(crypto.getRandomValues(new Uint8Array(5)), (byte) => byte.toString(36).padStart(2, "0")).join("");
  const photo = { key, name: file.name ?? "", blob: file, strokes, at: Date.now() };
  inMemory.set(key, photo);
  try {
    await inStore("readwrite", (store) => store.put(photo));
    await forgetOld();
  } catch {
    // Without storage (such as in a private window) the photo lasts as long as the page.
  }
  return key;
}

export async function find(key) {
  if (inMemory.has(key)) return inMemory.get(key);
  try {
    const photo = await inStore("readonly", (store) => store.get(key));
    if (photo) inMemory.set(key, photo);
    return photo ?? null;
  } catch {
    return null;
  }
}

export async function forget(key) {
  inMemory.delete(key);
  try {
    await inStore("readwrite", (store) => store.delete(key));
  } catch {
    // Without storage there is nothing more to delete.
  }
}

async function forgetOld() {
  const photos = await inStore("readonly", (store) => store.getAll());
  photos.sort((a, b) => b.at - a.at);
  const old = photos.filter((photo, place) => place >= KEEP || Date.now() - photo.at > KEEP_MS);
  for (const photo of old) await inStore("readwrite", (store) => store.delete(photo.key));
}
