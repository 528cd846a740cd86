/** Where a row stands, for messages: a line of a text file, or a row (from 1) of a file without lines. */
export interface Place {
  file: string;
  line?: number;
  row?: number;
}

export type Row = Record<string, unknown>;

/** A row that has been found but not looked at: `parse` throws ERR_DATA_LINE where it holds no object. */
export interface RawRow {
  place: Place;
  /** Rows of the file up to this one, itself and bad ones included; blank lines are none. */
  number: number;
  parse: () => Row;
  /** Bytes of the file up to the end of the row, where they are known: of JSON Lines (unpacked ones). */
  read?: number;
}

/** "questions.jsonl:12", or "questions.parquet, row 12". */
export function at({ file, line, row }: Place): string {
  return line === undefined ? `${file}, row ${row}` : `${file}:${line}`;
}

/** "on line 12", or "in row 12". */
export function within({ line, row }: Place): string {
  return line === undefined ? `in row ${row}` : `on line ${line}`;
}

/** A value in a message: its JSON, cut. */
export function excerpt(value: unknown): string {
  const text = JSON.stringify(value) ?? "nothing";
  return text.length > 60 ? `${text.slice(0, 57)}...` : text;
}
