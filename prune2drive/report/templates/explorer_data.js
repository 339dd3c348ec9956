// Reads what the page holds of the questions: grids, kept tokens, photos and objects.
const bytesOf = (text) => Uint8Array.from(atob(text), (letter) => letter.charCodeAt(0));

// Returns the rectangles of a camera's tokens, in units of the photo, with their rows and columns.
function tokensOf([views, cells]) {
  const all = views.flatMap(([rows, columns, x0, y0, x1, y1], view) =>
    Array.from({ length: rows * columns }, (_, cell) => {
      const row = Math.floor(cell / columns), column = cell % columns;
      const width = (x1 - x0) / columns, height = (y1 - y0) / rows;
      return { row, column, view, x: x0 + column * width, y: y0 + row * height, width, height };
    }));
  return cells ? cells.map((cell) => all[cell]) : all;
}

// Returns of each token its place in the order of picks, or 0 where there is no order; -1 where it was dropped.
function picksOf(code, count) {
  const places = new Array(count).fill(code === "a" ? 0 : -1);
  if (code === "a") return { places, kept: count, ordered: false };
  const packed = bytesOf(code.slice(1));
  if (code[0] === "m") for (let at = 0; at < count; at++) if (packed[at >> 3] & (128 >> (at & 7))) places[at] = 0;
  if (code[0] === "o") for (let at = 0; at < packed.length; at += 2) places[packed[at] | (packed[at + 1] << 8)] = at / 2;
  return { places, kept: places.filter((place) => place >= 0).length, ordered: code[0] === "o" };
}

// Returns the explorer's data, with what each question shows of a camera.
function readData(root) {
  const data = JSON.parse(root.querySelector(".x-data").textContent);
  const grids = new Map(), photos = new Map();
  const questions = data.questions.map(([id, frame, grid, kind, text, reference, about, runs]) => ({
    id, frame, grid, kind, text, reference, about, runs: runs.map((run) => run || [null, null, null]),
  }));

  function tokensAt(question, camera) {
    const key = `${question.grid}/${camera}`, grid = data.grids[question.grid][camera];
    if (!grids.has(key)) grids.set(key, grid ? tokensOf(grid) : []);
    return grids.get(key);
  }

  // Returns what a run kept of a camera; null where it did not show the camera.
  function picksAt(question, run, camera) {
    const code = (data.picks[question.runs[run][2]] || [])[camera] ?? null;
    return code === null ? null : picksOf(code, tokensAt(question, camera).length);
  }

  const hasPhoto = (question, camera) => data.frames[question.frame][0][camera] >= 0;

  // Returns a photo; null where there is none, or until it is decoded, when `then` is called with it.
  function photoAt(question, camera, then) {
    const number = data.frames[question.frame][0][camera];
    if (number < 0) return null;
    if (!photos.has(number)) {
      const photo = new Image();
      photo.onload = () => then(photo);
      photo.src = `data:image/jpeg;base64,${data.photos[number]}`;
      photos.set(number, photo);
    }
    const photo = photos.get(number);
    return photo.complete && photo.naturalWidth ? photo : null;
  }

  // Returns the objects of a camera as [x0, y0, x1, y1, label], in units of the photo.
  const objectsAt = (question, camera) =>
    data.frames[question.frame][1].filter(([place]) => place === camera).map(([, ...thing]) => thing);

  return { ...data, questions, tokensAt, picksAt, hasPhoto, photoAt, objectsAt };
}
