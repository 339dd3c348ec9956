// Keeps what is shown in the page's address, behind the #, so that a link shows the same again.

const FIELDS = ["sample", "first", "second", "view", "answers", "type", "camera"];
const CALM = 200; // milliseconds without a change before the address changes, which browsers allow only so often
let waiting = null;

// Returns what an address asks for; null where it asks for nothing.
function readAddress(hash) {
  const asked = new URLSearchParams(hash.slice(1));
  return FIELDS.some((name) => asked.has(name)) ? Object.fromEntries(asked) : null;
}

// Writes into the address what is shown: `FIELDS` -> text, without those that say nothing.
function writeAddress(shown) {
  clearTimeout(waiting);
  waiting = setTimeout(() => {
    const fields = FIELDS.filter((name) => shown[name]).map((name) => [name, shown[name]]);
    try {
      history.replaceState(null, "", `#${new URLSearchParams(fields)}`);
    } catch {} // a page inside another one may have no address of its own
  }, CALM);
}
