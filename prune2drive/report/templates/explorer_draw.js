// Draws what was kept of a question on a camera's photo.

const RAMP = [[253, 231, 37], [94, 201, 98], [33, 145, 140], [59, 82, 139], [110, 40, 130]]; // early to late picks

function rampColour(share) {
  const at = Math.min(share, 0.9999) * (RAMP.length - 1), from = Math.floor(at);
  return `rgb(${RAMP[from].map((low, part) => Math.round(low + (at - from) * (RAMP[from + 1][part] - low)))})`;
}

const COLOURS = { kept: "#ffbe3c", both: "#ffffff", first: "#4da3ff", second: "#ff8a3d", object: "#7dffb2" };

// Draws one camera.
//   canvas: where to; its size on the page says how many pixels it gets.
//   photo: an image, or null.
//   tokens: what `tokensOf` returned.
//   colourOf: token's index -> colour of its outline, or null for a dropped token.
//   how: dim from 0 to 1; tint from 0 to 1, of the outline's colour inside; objects as [x0, y0, x1, y1]; marked token.
function drawCamera(canvas, photo, tokens, colourOf, how) {
  const shape = photo ? photo.naturalHeight / photo.naturalWidth : 9 / 16;
  const width = Math.max(1, Math.round((canvas.clientWidth || 300) * Math.min(window.devicePixelRatio || 1, 2)));
  const height = Math.max(1, Math.round(width * shape));
  if (canvas.width !== width || canvas.height !== height) Object.assign(canvas, { width, height });
  const pen = canvas.getContext("2d"), line = Math.max(1, width / 300);
  const box = (token) => [token.x * width, token.y * height, token.width * width, token.height * height];
  const ground = () => {
    if (photo) return pen.drawImage(photo, 0, 0, width, height);
    pen.fillStyle = "#8b95a3";
    pen.fillRect(0, 0, width, height);
  };
  ground();
  pen.fillStyle = `rgba(12, 14, 18, ${how.dim})`;
  pen.fillRect(0, 0, width, height);
  const kept = tokens.map((token, at) => [token, colourOf(at)]).filter(([, colour]) => colour);
  pen.save();
  pen.beginPath();
  for (const [token] of kept) pen.rect(...box(token));
  pen.clip();
  ground();
  pen.restore();
  pen.strokeStyle = "rgba(255, 255, 255, .13)";
  pen.lineWidth = 1;
  pen.beginPath();
  for (const token of tokens) pen.rect(...box(token));
  pen.stroke();
  pen.lineWidth = 1.5 * line;
  for (const [token, colour] of kept) {
    const [x, y, wide, high] = box(token);
    pen.globalAlpha = how.tint;
    pen.fillStyle = pen.strokeStyle = colour;
    pen.fillRect(x, y, wide, high);
    pen.globalAlpha = 1;
    pen.strokeRect(x + line, y + line, Math.max(1, wide - 2 * line), Math.max(1, high - 2 * line));
  }
  pen.lineWidth = 2 * line;
  pen.setLineDash([4 * line, 3 * line]);
  pen.strokeStyle = COLOURS.object;
  for (const [x0, y0, x1, y1] of how.objects)
    pen.strokeRect(x0 * width, y0 * height, (x1 - x0) * width, (y1 - y0) * height);
  pen.setLineDash([]);
  if (how.marked === null) return;
  pen.strokeStyle = "#ffffff";
  pen.lineWidth = 3 * line;
  pen.strokeRect(...box(tokens[how.marked]));
}
