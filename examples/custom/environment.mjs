import { readPassages } from "rolegrad";

/** A tool of one's own: a reference book that opens at the first entry whose name holds what it is asked for. */
export async function referenceBook(file) {
  const entries = (await readPassages(file)).map(({ title, text }) => ({
    name: plain(title),
    text: `${title}. ${text}`,
  }));
  return {
    /** Gets the text between a role's tags; the model reads what it returns. Many answers call it at once. */
    async act({ text }) {
      const name = plain(text);
      const found = entries.find((entry) => entry.name === name) ?? entries.find((entry) => entry.name.includes(name));
      return { text: found?.text ?? `No entry ${text.trim()}.` };
    },
  };
}

/** "Kamsel (town)" is asked for as "Kamsel town". */
function plain(title) {
  return title.replace(/[()]/g, "").trim().toLowerCase();
}
