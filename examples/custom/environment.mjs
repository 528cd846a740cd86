import { readPassages } from "rolegrad";

/** A tool of one's own: entries of a reference book, by their exact name. */
export async function referenceBook(file) {
  const entries = new Map();
  for (const { title, text } of await readPassages(file)) entries.set(nameOf(title), `${title}. ${text}`);
  return {
    /** Gets the text between a role's tags; what it returns is what the model reads. It is called for many answers at once. */
    async act({ text }) {
      const name = nameOf(text);
      const found = entries.get(name);
      if (found !== undefined) return { text: found };
      const alike = [...entries.keys()].filter((other) => other.startsWith(name.split(" ")[0])).slice(0, 3);
      return { text: `No entry ${text.trim()}.${alike.length > 0 ? ` See: ${alike.join(", ")}.` : ""}` };
    },
  };
}

/** "Kamsel (town)" and " Kamsel town" are the same; what a person's or a firm's name has in brackets is left out of calls. */
function nameOf(title) {
  return title
    .replace(/ \((person|firm)\)$/, "")
    .replace(/[()]/g, "")
    .trim()
    .toLowerCase();
}
