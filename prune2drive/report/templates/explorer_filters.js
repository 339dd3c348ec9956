// Narrows the questions down: by how the answers fared, by type and by the camera that a question is about.

// Returns the filters, which are the selects `outcome`, `kind` and `about`.
function filtersOf(part, data, outcome) {
  const tests = {
    outcome: (question, value) => outcome(question) === value,
    kind: (question, value) => question.kind === value,
    about: (question, value) => question.about.includes(Number(value)),
  };
  const names = Object.keys(tests);
  const passes = (question, but = "") =>
    names.every((name) => name === but || !part[name].value || tests[name](question, part[name].value));

  // Offers the choices that occur at all.
  function offer(name, all, choices) {
    const occurs = ([value]) => data.questions.some((question) => tests[name](question, value));
    fill(part[name], [["", all], ...choices.filter(occurs)], part[name].value);
    part[name].parentElement.hidden = part[name].length < 2;
  }

  // Offers what there is to choose from, which the runs decide.
  function offerAll(outcomes) {
    offer("outcome", "all", RANK.map((key) => [key, outcomes[key] || ""]));
    offer("kind", "all", [...new Set(data.questions.map(({ kind }) => kind))].filter(Boolean).sort().map((kind) => [kind, kind]));
    offer("about", "any camera", data.cameras.map((name, camera) => [String(camera), name]));
  }

  // Writes beside each choice how many questions it leaves, given the other filters.
  function count() {
    for (const name of names) {
      const others = data.questions.filter((question) => passes(question, name));
      for (const option of [...part[name].options].slice(1)) {
        const left = others.filter((question) => tests[name](question, option.value)).length;
        option.textContent = `${option.dataset.text} (${left.toLocaleString("en")})`;
      }
    }
  }

  return { offerAll, count, passes };
}
